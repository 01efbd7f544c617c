"""Arrays whose verbs numpy carries out: for frameworks on numpy, and for the first version of a plugin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from ..backend import Arrays
from ..dtypes import numpy_dtype
from ..program import Meta


class NumpyArrays(Arrays):
    """Everything that core does with arrays, by way of numpy: a backend says what its arrays are, and how to get there.

    Verbs are off any gradient tape, and take place on the host. A framework with either overrides them one by one.
    """

    @abstractmethod
    def is_array(self, value: Any) -> bool:
        """Whether a value is an array of the framework."""

    @abstractmethod
    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        """What an array holds."""

    @abstractmethod
    def from_numpy(self, array: Any) -> Any:
        """An array of the framework in memory of its own."""

    def meta(self, array: Any) -> Meta:
        return Meta(tuple(array.shape), array.dtype, "cpu")

    def dtype_name(self, dtype: Any) -> str:
        return str(np.dtype(dtype).name)

    def copy(self, array: Any, *, attached: bool = False) -> Any:
        return self.from_numpy(self.to_numpy(array))

    def memory(self, array: Any) -> Hashable | None:
        return None  # a kept value is a copy, which nobody writes

    def hold(self, array: Any) -> Any:
        return self.copy(array)

    def release(self, held: Any) -> Any:
        return held

    def detach(self, array: Any) -> Any:
        return self.copy(array)

    def cast(self, array: Any, dtype: Any, device: Any) -> Any:
        if dtype is None:
            return array
        return self.from_numpy(
            self.to_numpy(array).astype(numpy_dtype(dtype if isinstance(dtype, str) else str(dtype)))
        )

    def equal(self, left: Any, right: Any, *, rtol: float, atol: float) -> bool:
        a, b = self.to_numpy(left), self.to_numpy(right)
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.allclose(a, b, rtol, atol, equal_nan=True))

    def max_difference(self, left: Any, right: Any) -> float:
        a, b = self.to_numpy(left).astype(float), self.to_numpy(right).astype(float)
        differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        return float(np.nan_to_num(np.abs(a[differ] - b[differ]), nan=np.inf).max(initial=0.0))

    def nbytes_held(self, arrays: Iterable[Any]) -> int:
        return sum({id(array): self.to_numpy(array).nbytes for array in arrays}.values())

    def perturb(self, array: Any, seed: int) -> Any:
        value = self.to_numpy(array)
        if value.dtype.kind != "f":
            return self.copy(array)
        noise = np.random.default_rng(seed).normal(size=value.shape)
        return self.from_numpy((value + 0.1 * noise * (value.std() or 0.1)).astype(value.dtype))

    def as_like(self, value: Any, array: Any) -> Any:
        plain = self.to_numpy(value) if self.is_array(value) else value
        return self.from_numpy(np.asarray(plain, self.to_numpy(array).dtype))

    def full_like(self, array: Any, number: float) -> Any:
        return self.from_numpy(np.full_like(self.to_numpy(array), number))

    def expand(self, array: Any, shape: Sequence[int]) -> Any:
        return self.from_numpy(np.broadcast_to(self.to_numpy(array), tuple(shape)))

    def reshape(self, array: Any, shape: Sequence[int]) -> Any:
        return self.from_numpy(self.to_numpy(array).reshape(tuple(shape)))

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        return self.from_numpy(self.to_numpy(array).transpose(tuple(axes)))

    def clip(self, array: Any, low: Any, high: Any) -> Any:
        value = self.to_numpy(array)
        ends = (self.to_numpy(end) if self.is_array(end) else end for end in (low, high))
        return self.from_numpy(np.clip(value, *ends).astype(value.dtype))

    def sum(self, array: Any, axes: Sequence[int]) -> Any:
        return self.from_numpy(self.to_numpy(array).sum(tuple(axes), keepdims=True))

    def mean(self, array: Any, axes: Sequence[int]) -> Any:
        value = self.to_numpy(array)
        return self.from_numpy(value.mean(tuple(axes), keepdims=True).astype(value.dtype))

    def norm(self, array: Any, order: float) -> Any:
        value = self.to_numpy(array)
        return self.from_numpy(np.asarray(np.linalg.norm(value.ravel(), order), value.dtype))

    def normal(self, array: Any, seed: int) -> Any:
        value = self.to_numpy(array)
        return self.from_numpy(np.random.default_rng(seed).normal(size=value.shape).astype(value.dtype))

    def get_at(self, array: Any, index: tuple[Any, ...]) -> Any:
        return self.from_numpy(self.to_numpy(array)[index])

    def set_at(self, array: Any, index: tuple[Any, ...], part: Any) -> Any:
        made = np.array(self.to_numpy(array))
        made[index] = self.to_numpy(part)
        return self.from_numpy(made)
