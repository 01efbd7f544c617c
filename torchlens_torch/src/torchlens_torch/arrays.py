"""The array adapter: what core needs to do with tensors."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from torchlens_core.backend import Arrays
from torchlens_core.errors import NotSupported, ValueOverwritten
from torchlens_core.program import Meta

from .memory import meta_of, stamp

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


class TorchArrays(Arrays):
    """Verbs on ``torch.Tensor``."""

    def is_array(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def meta(self, array: Tensor) -> Meta:
        return meta_of(array)

    def dtype_name(self, dtype: Any) -> str:
        name = str(dtype).removeprefix("torch.")
        return {"complex32": "complex32", "cfloat": "complex64"}.get(name, name)

    def copy(self, array: Tensor) -> Tensor:
        return array.detach().clone()

    def hold(self, array: Tensor) -> tuple[Tensor, int | None]:
        return array, stamp(array)

    def release(self, held: tuple[Tensor, int | None]) -> Tensor:
        array, version = held
        if version is not None and array._version != version:
            raise ValueOverwritten(
                "The array was kept by reference and has been overwritten since the run, by code that the trace does "
                "not see (an in-place operation after it, an optimizer step, a cache). Read values before that, or "
                "keep copies: save=tl.keep(selector, transform=lambda t: t.clone())."
            )
        return array

    def detach(self, array: Tensor) -> Tensor:
        return array.detach()

    def cast(self, array: Tensor, dtype: Any, device: Any) -> Tensor:
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype.removeprefix("torch."))
        if dtype is None and device in (None, "same"):
            return array
        return array.to(dtype=dtype or array.dtype, device=array.device if device in (None, "same") else device)

    def to_numpy(self, array: Tensor) -> np.ndarray[Any, Any]:
        if array.device.type == "meta" or type(array).__name__ == "FakeTensor":
            raise NotSupported(
                "This array has a shape and no data: the model ran on the meta device or on fake tensors."
            )
        if array.layout != torch.strided:
            array = array.to_dense()
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if array.is_quantized:
            array = array.dequantize()
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
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        left, right = _plain(left), _plain(right)
        if rtol == 0 and atol == 0 and torch.equal(left, right):
            return True
        if left.itemsize == 1 and left.is_floating_point():  # there is no arithmetic on float8
            left, right = left.float(), right.float()
        return bool(torch.allclose(left, right, rtol=rtol, atol=atol, equal_nan=True))

    def max_difference(self, left: Tensor, right: Tensor) -> float:
        if left.numel() == 0:
            return 0.0
        left, right = _wide(_plain(left)), _wide(_plain(right))
        same = (left == right) | (left.isnan() & right.isnan())  # infinities that agree differ by nothing
        difference = torch.where(same, 0.0, (left - right).abs())
        return float(difference.nan_to_num(nan=float("inf")).max())

    def perturb(self, array: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        array = array.detach()
        if not array.is_floating_point() or not array.numel():
            return array.clone()
        noise = torch.randn(array.shape, generator=generator, dtype=torch.float32).to(array.device)
        scale = array.float().std() if array.numel() > 1 else array.float().abs().max()
        return (array.float() + 0.1 * noise * (scale if scale > 0 else 0.1)).to(array.dtype)


def _plain(array: Tensor) -> Tensor:
    array = array.detach()
    if array.is_quantized:
        array = array.dequantize()
    if array.layout != torch.strided:
        array = array.to_dense()
    return array.resolve_conj()


def _wide(array: Tensor) -> Tensor:
    return array if array.is_complex() else array.double()
