"""The array adapter: what core needs to do with tensors."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from torchlens_core.backend import Arrays
from torchlens_core.diagnosis.extent import Extent
from torchlens_core.errors import ValueOverwritten
from torchlens_core.program import Meta

from .extents import extent_of_dense, joined
from .kinds import dense, is_freed, is_wrapper, kind_of, refuse, rewrapped, shape_of, storage_sizes, stored, unseen
from .memory import meta_of, stamp, storage_of

# dtypes that numpy has not, by the integer dtype of the same width: bits cross the border, not values
_BY_BITS: dict[torch.dtype, tuple[torch.dtype, Any]] = {
    torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    torch.float8_e4m3fnuz: (torch.uint8, ml_dtypes.float8_e4m3fnuz),
    torch.float8_e5m2fnuz: (torch.uint8, ml_dtypes.float8_e5m2fnuz),
}
_BY_NUMPY = {np.dtype(there): (bits, here) for here, (bits, there) in _BY_BITS.items()}

_KINDS: dict[type, str] = {
    torch.device: "device", torch.layout: "layout", torch.memory_format: "memory_format", torch.qscheme: "qscheme",
}  # fmt: skip


@functools.cache
def _constants() -> dict[tuple[str, str], Any]:
    """Dtypes, layouts ... of torch by kind and name. A table: no name from a file is ever asked of torch itself."""
    named = ((TorchArrays().constant_name(value), value) for value in vars(torch).values())
    return {name: value for name, value in named if name is not None}


_functorch = torch._C._functorch


class TorchArrays(Arrays):
    """Verbs on ``torch.Tensor``."""

    def is_array(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def meta(self, array: Tensor) -> Meta:
        return meta_of(array)

    def dtype_name(self, dtype: Any) -> str:
        name = str(dtype).removeprefix("torch.")
        return {"complex32": "complex32", "cfloat": "complex64"}.get(name, name)

    def copy(self, array: Tensor, *, attached: bool = False) -> Tensor:
        if attached:
            return array.clone()
        while _functorch.is_functorch_wrapped_tensor(array):  # of no use outside its transform
            array = _functorch.get_unwrapped(array)
        return array.detach().clone()

    def copy_of_argument(self, array: Tensor) -> Tensor:
        copied = array.detach().clone()
        return copied.requires_grad_() if array.requires_grad and array.is_leaf else copied

    def overwrite(self, array: Tensor, value: Tensor) -> None:
        array.copy_(value)

    def memory(self, array: Tensor) -> int:
        return storage_of(array)

    def hold(self, array: Tensor) -> tuple[Tensor, int | None]:
        return array, stamp(array)

    def release(self, held: tuple[Tensor, int | None]) -> Tensor:
        array, version = held
        if is_freed(array):
            raise ValueOverwritten(
                "The array was kept by reference and its memory has been freed since (storage.resize_), as sharded "
                "parameters are after use. Keep a copy: save=tl.keep(selector, transform=lambda t: t.clone())."
            )
        if version is not None and array._version != version:
            raise ValueOverwritten(
                "The array was kept by reference and has been overwritten since the run, by code that the trace does "
                "not see (an in-place operation after it, an optimizer step, a cache). Read values before that, or "
                "keep copies: save=tl.keep(selector, transform=lambda t: t.clone())."
            )
        return array

    def detach(self, array: Tensor) -> Tensor:
        return array.detach() if array.requires_grad else array

    def cast(self, array: Tensor, dtype: Any, device: Any) -> Tensor:
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype.removeprefix("torch."))
        if dtype is None and device in (None, "same"):
            return array
        return array.to(dtype=dtype or array.dtype, device=array.device if device in (None, "same") else device)

    def to_numpy(self, array: Tensor) -> np.ndarray[Any, Any]:
        if array.is_nested:
            refuse("nested", "A nested array has parts of unequal shapes")
        array = dense(array).cpu()
        bits = _BY_BITS.get(array.dtype)
        if bits is not None:
            return array.contiguous().view(bits[0]).numpy().view(bits[1])
        return array.numpy()

    def from_numpy(self, array: np.ndarray[Any, Any]) -> Tensor:
        bits = _BY_NUMPY.get(array.dtype)
        if bits is not None:
            raw = np.array(array, copy=True).view(np.int16 if bits[0] == torch.int16 else np.uint8)
            return torch.from_numpy(raw).view(bits[1])
        return torch.from_numpy(np.array(array, copy=True))

    def constant_name(self, value: Any) -> tuple[str, str] | None:
        if isinstance(value, torch.dtype):
            return "dtype", self.dtype_name(value)
        kind = _KINDS.get(type(value))
        return None if kind is None else (kind, str(value).removeprefix("torch."))

    def constant(self, kind: str, name: str) -> Any:
        if kind == "device":
            try:
                return torch.device(name)
            except RuntimeError as error:
                raise ValueError(str(error).split("\n")[0]) from None
        found = _constants().get((kind, name))
        return super().constant(kind, name) if found is None else found

    def equal(self, left: Tensor, right: Tensor, *, rtol: float, atol: float) -> bool:
        if shape_of(left) != shape_of(right) or left.dtype != right.dtype:
            return False
        with unseen():
            ours, others = list(stored(_whole(left))), list(stored(_whole(right)))
            return len(ours) == len(others) and all(map(self._equal_parts, ours, others, repeat(rtol), repeat(atol)))

    def _equal_parts(self, left: Tensor, right: Tensor, rtol: float, atol: float) -> bool:
        if left.shape != right.shape:
            return False
        if rtol == 0 and atol == 0 and torch.equal(left, right):
            return True
        if left.itemsize == 1 and left.is_floating_point():  # there is no arithmetic on float8
            left, right = left.float(), right.float()
        return bool(torch.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True))

    def max_difference(self, left: Tensor, right: Tensor) -> float:
        with unseen():
            ours, others = list(stored(_whole(left))), list(stored(_whole(right)))
            same = len(ours) == len(others)
            return max(map(self._difference, ours, others), default=0.0) if same else float("inf")

    def _difference(self, left: Tensor, right: Tensor) -> float:
        if left.numel() == 0:
            return 0.0
        if left.shape != right.shape:
            return float("inf")
        left, right = _wide(left), _wide(right)
        same = (left == right) | (left.isnan() & right.isnan())  # infinities that agree differ by nothing
        difference = torch.where(same, 0.0, (left - right).abs())
        return float(difference.nan_to_num(nan=float("inf")).max())

    def extent(self, array: Tensor) -> Extent | None:
        if not (array.is_floating_point() or array.is_complex()):
            return None
        with unseen():
            return joined(extent_of_dense(part) for part in stored(array))

    def nbytes_held(self, arrays: Iterable[Tensor]) -> int:
        return sum(storage_sizes(arrays).values())

    def perturb(self, array: Tensor, seed: int) -> Tensor:
        if is_wrapper(array):
            return rewrapped(array.detach(), lambda part: self.perturb(part, seed))
        generator = torch.Generator().manual_seed(seed)
        array = array.detach()
        if not array.is_floating_point() or not array.numel():
            return array.clone()
        noise = torch.randn(array.shape, generator=generator, dtype=torch.float32).to(array.device)
        scale = array.float().std() if array.numel() > 1 else array.float().abs().max()
        return (array.float() + 0.1 * noise * (scale if scale > 0 else 0.1)).to(array.dtype)

    def as_like(self, value: Any, array: Tensor) -> Tensor:
        if isinstance(value, np.ndarray | np.generic):
            value = self.from_numpy(np.asarray(value))
        try:
            value = torch.as_tensor(value)
        except RuntimeError as error:
            raise TypeError(str(error)) from None
        return value.to(device=array.device, dtype=array.dtype)

    def full_like(self, array: Tensor, number: float) -> Tensor:
        return torch.full_like(array, number, requires_grad=False)

    def expand(self, array: Tensor, shape: Sequence[int]) -> Tensor:
        return array.expand(tuple(shape)).clone(memory_format=torch.contiguous_format)

    def reshape(self, array: Tensor, shape: Sequence[int]) -> Tensor:
        return array.reshape(tuple(shape))

    def permute(self, array: Tensor, axes: Sequence[int]) -> Tensor:
        return array.permute(tuple(axes))

    def clip(self, array: Tensor, low: Any, high: Any) -> Tensor:
        return array.clamp(low, high)

    def sum(self, array: Tensor, axes: Sequence[int]) -> Tensor:
        return array.sum(tuple(axes), keepdim=True, dtype=array.dtype) if axes else array

    def mean(self, array: Tensor, axes: Sequence[int]) -> Tensor:
        return array.mean(tuple(axes), keepdim=True, dtype=array.dtype) if axes else array

    def norm(self, array: Tensor, order: float) -> Tensor:
        return torch.linalg.vector_norm(array, order, dtype=array.dtype)

    def normal(self, array: Tensor, seed: int) -> Tensor:
        if _functorch.peek_interpreter_stack() is not None:  # vmap lets nobody draw, or each example the same
            drawn = np.random.default_rng(seed).standard_normal(tuple(array.shape))
            return self.as_like(drawn, array)
        if array.is_meta:
            return torch.empty_like(array, requires_grad=False)
        generator = torch.Generator(array.device).manual_seed(seed)
        return torch.empty_like(array, requires_grad=False).normal_(generator=generator)

    def get_at(self, array: Tensor, index: tuple[Any, ...]) -> Tensor:
        return array[index]

    def set_at(self, array: Tensor, index: tuple[Any, ...], part: Tensor) -> Tensor:
        made = array.clone()
        made[index] = part
        return made

    def attention_weights(
        self,
        query: Tensor,
        key: Tensor,
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        # What attention gives for the rows of the identity matrix as values is its weights.
        keys = key.shape[-2]
        identity = torch.eye(keys, dtype=key.dtype, device=key.device).expand(*key.shape[:-2], keys, keys)
        grouped = query.dim() > 3 and query.shape[-3] != key.shape[-3]
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, identity, attn_mask=mask, scale=scale, is_causal=is_causal, enable_gqa=grouped
        )


def _whole(array: Tensor) -> Tensor:
    """A sparse array with its zeros: the same elements can be stored in several ways."""
    return array.detach().to_dense() if kind_of(array) == "sparse" else array


def _wide(array: Tensor) -> Tensor:
    return array if array.is_complex() else array.double()
