"""The array adapter: what core needs to do with JAX's arrays, which never change."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from torchlens_core.backend import Arrays
from torchlens_core.errors import NotSupported
from torchlens_core.program import Meta

from .calls.structure import is_array


class Kept(NamedTuple):
    """A value that was kept: one array, or one iteration's of an array that stacks those of a loop."""

    array: Any
    at: tuple[int, ...] = ()


def device_of(array: Any) -> Any:
    """The device of an array, or its sharding where it lies on several; None for what is being staged."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        return None
    sharding = array.sharding
    devices = sharding.device_set
    return next(iter(devices)) if len(devices) == 1 else sharding


def is_abstract(arrays: Iterable[Any]) -> bool:
    """Whether arrays have no elements, so that nothing can be run."""
    return any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays)


def is_key(array: Any) -> bool:
    """Whether an array holds keys of random generators."""
    return bool(jnp.issubdtype(array.dtype, jax.dtypes.prng_key))


class JaxArrays(Arrays):
    """Verbs on ``jax.Array``.

    Args:
        counters: of the loops around, where it is used inside the body of one: draws differ between iterations.
    """

    def __init__(self, counters: Sequence[Any] = ()) -> None:
        self._counters = tuple(counters)

    def at(self, counters: Sequence[Any]) -> JaxArrays:
        """The same verbs, for the body of loops."""
        return JaxArrays(counters) if counters else self

    def is_array(self, value: Any) -> bool:
        return is_array(value)

    def meta(self, array: Any) -> Meta:
        return Meta(tuple(array.shape), array.dtype, device_of(array))

    def dtype_name(self, dtype: Any) -> str:
        return str(dtype)

    def copy(self, array: Any, *, attached: bool = False) -> Any:
        if isinstance(array, jax.core.Tracer | jax.ShapeDtypeStruct):
            return array
        return array.copy() if is_key(array) else jnp.array(array, copy=True)

    def overwrite(self, array: Any, value: Any) -> None:
        raise NotSupported("Arrays of JAX never change: nothing can be written into one.")

    def memory(self, array: Any) -> None:
        return None

    def hold(self, array: Any) -> Kept:
        return Kept(array)

    def release(self, held: Kept) -> Any:
        array = held.array
        if isinstance(array, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(array.shape[len(held.at) :], array.dtype)
        if not isinstance(array, jax.Array):
            array = jnp.asarray(array)  # a numpy array that the model was given
        return array[held.at] if held.at else array

    def detach(self, array: Any) -> Any:
        return array if is_array(array) else jnp.asarray(array)

    def detach_held(self, held: Kept) -> Kept:
        return held  # arrays are on no tape

    def cast(self, array: Any, dtype: Any, device: Any) -> Any:
        array = array if dtype is None else jnp.asarray(array, jnp.dtype(dtype))
        if device in (None, "same"):
            return array
        return jax.device_put(array, jax.devices(device)[0] if isinstance(device, str) else device)

    def to_numpy(self, array: Any) -> Any:
        if isinstance(array, jax.core.Tracer | jax.ShapeDtypeStruct):
            raise NotSupported("An array that is being staged has no elements.")
        if not is_key(array):
            return np.asarray(array)
        words = np.asarray(jax.random.key_data(array))
        if words.shape[-1] != 2:
            raise NotSupported(
                f"A key of {array.dtype} has {words.shape[-1]} words; only keys of two words have a number."
            )
        return words.view(np.uint64).reshape(array.shape)  # one number for each key

    def from_numpy(self, array: Any) -> Any:
        if array.dtype.itemsize > 4 and not jax.config.jax_enable_x64:
            with wide_types():  # else JAX would make 32 bits of 64
                return jnp.asarray(array)
        return jnp.asarray(array)

    def constant_name(self, value: Any) -> tuple[str, str] | None:
        if isinstance(value, np.dtype):
            return "dtype", str(value)
        if isinstance(value, type) and issubclass(value, np.generic):
            return "dtype", str(np.dtype(value))
        return ("device", f"{value.platform}:{value.id}") if isinstance(value, jax.Device) else None

    def constant(self, kind: str, name: str) -> Any:
        with contextlib.suppress(TypeError, RuntimeError):  # how JAX says that it knows no such type, or platform
            if kind == "dtype":
                return jnp.dtype(name)
            if kind == "device":
                devices = jax.devices(name.partition(":")[0])
                found = [each for each in devices if f"{each.platform}:{each.id}" == name]
                if found:
                    return found[0]
        raise ValueError(f"no {kind} is called {name!r}")

    def equal(self, left: Any, right: Any, *, rtol: float, atol: float) -> bool:
        a, b = self.to_numpy(left), self.to_numpy(right)
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.dtype.kind not in "fcV":
            return bool(np.array_equal(a, b))
        return bool(np.allclose(_wide(a), _wide(b), rtol=rtol, atol=atol, equal_nan=True))

    def max_difference(self, left: Any, right: Any) -> float:
        a, b = _wide(self.to_numpy(left)), _wide(self.to_numpy(right))
        differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        return float(np.nan_to_num(np.abs(a[differ] - b[differ]), nan=np.inf).max(initial=0.0))

    def nbytes_held(self, arrays: Iterable[Any]) -> int:
        return sum({id(array): array.size * array.dtype.itemsize for array in arrays}.values())

    def perturb(self, array: Any, seed: int) -> Any:
        if not jnp.issubdtype(array.dtype, jnp.floating) or not array.size:
            return self.copy(array)
        noise = np.random.default_rng(seed).normal(size=array.shape)
        values = _wide(np.asarray(array))
        return jnp.asarray(values + 0.1 * noise * (values.std() or 0.1), array.dtype)

    # -- what actions are made of ----------------------------------------------------------------------------------

    def as_like(self, value: Any, array: Any) -> Any:
        return jnp.asarray(value, array.dtype)

    def full_like(self, array: Any, number: float) -> Any:
        return jnp.full_like(array, number)

    def expand(self, array: Any, shape: Sequence[int]) -> Any:
        return jnp.broadcast_to(array, tuple(shape))

    def reshape(self, array: Any, shape: Sequence[int]) -> Any:
        return jnp.reshape(array, tuple(shape))

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        return jnp.transpose(array, tuple(axes))

    def clip(self, array: Any, low: Any, high: Any) -> Any:
        return jnp.clip(array, low, high).astype(array.dtype)

    def sum(self, array: Any, axes: Sequence[int]) -> Any:
        return jnp.sum(array, tuple(axes), keepdims=True).astype(array.dtype)

    def mean(self, array: Any, axes: Sequence[int]) -> Any:
        return jnp.mean(array, tuple(axes), keepdims=True).astype(array.dtype)

    def norm(self, array: Any, order: float) -> Any:
        return jnp.linalg.norm(jnp.ravel(array), order).astype(array.dtype)

    def normal(self, array: Any, seed: int) -> Any:
        key = jax.random.fold_in(jax.random.key(seed & 0x7FFFFFFF), seed >> 31 & 0xFFFFFFFF)
        for counter in self._counters:
            key = jax.random.fold_in(key, counter)
        return jax.random.normal(key, array.shape, array.dtype)

    def get_at(self, array: Any, index: tuple[Any, ...]) -> Any:
        return array[_index(index)]

    def set_at(self, array: Any, index: tuple[Any, ...], part: Any) -> Any:
        return array.at[_index(index)].set(part)

    def attention_weights(
        self, query: Any, key: Any, *, mask: Any = None, scale: float | None = None, is_causal: bool = False
    ) -> Any:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        if key.ndim > 2 and key.shape[-3] != query.shape[-3]:
            key = jnp.repeat(key, query.shape[-3] // key.shape[-3], axis=-3)
        scores = jnp.einsum("...qd,...kd->...qk", query, key) * scale
        allowed = jnp.ones(scores.shape, bool)
        if is_causal:
            allowed = allowed & jnp.tril(jnp.ones(scores.shape[-2:], bool))
        if mask is not None and mask.dtype == bool:
            allowed = allowed & mask
        elif mask is not None:
            scores = scores + mask
        scores = jnp.where(allowed, scores, -math.inf)
        return jnp.where(allowed.any(-1, keepdims=True), jax.nn.softmax(scores, -1), 0).astype(query.dtype)


def wide_types(allowed: bool = True) -> Any:
    """A context in which arrays may have elements of 64 bits, or may not."""
    return jax.enable_x64(allowed) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(allowed)


def _index(index: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(np.asarray(entry) if isinstance(entry, list) else entry for entry in index)


def _wide(array: Any) -> Any:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
