"""Kinds of arrays beside plain dense ones: sparse, nested, quantised, without data, subclasses of ``torch.Tensor``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

from torchlens_core.errors import NotSupported

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_OWN_DISPATCH = Tensor.__torch_dispatch__

# What to read in place of the array, by the name of its class or kind.
_INSTEAD = {
    "DTensor": "op.out.to_local() is this process's part, op.out.full_tensor() the whole",
    "MaskedTensor": "op.out.to_tensor(value) fills what is masked out, op.out.get_mask() is the mask",
    "nested": "op.out.unbind() gives its parts",
}


def is_without_data(array: Tensor) -> bool:
    """Whether an array has a shape and no elements: on the meta device, or fake."""
    return array.device.type == "meta" or type(array).__name__ in ("FakeTensor", "FunctionalTensor")


def is_freed(array: Tensor) -> bool:
    """Whether its memory has been given back under it (``storage.resize_``): to read it would end the process."""
    if array.layout != torch.strided or array.is_nested or is_wrapper(array) or not array.numel():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(array):
        return False
    return array.untyped_storage().nbytes() == 0 and not is_without_data(array)


def kind_of(array: Tensor) -> str:
    """The kind of an array, in a word: ``dense`` for most; ``sparse``, ``nested`` ..., or the class of a subclass."""
    if type(array).__name__ == "FakeTensor":
        return "fake"
    if array.device.type == "meta":
        return "meta"
    if array.is_nested:
        return "nested"
    if torch._C._functorch.is_functorch_wrapped_tensor(array):
        return "transformed"
    if has_own_dispatch(array):
        return type(array).__name__
    if array.is_quantized:
        return "quantised"
    return "dense" if array.layout in (torch.strided, torch._mkldnn) else "sparse"  # type: ignore[attr-defined]


def has_own_dispatch(array: Tensor) -> bool:
    """Whether its class decides by itself what an operation on it does, so that its elements need not lie in memory."""
    cls = type(array)
    return cls is not Tensor and cls.__torch_dispatch__ is not _OWN_DISPATCH


def dense(array: Tensor) -> Tensor:
    """The elements of an array as a plain dense one, cut from the gradient tape; of a nested one, its parts in a row.

    Raises:
        NotSupported: it has no data, or its class keeps the elements to itself.
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(array):
        array = torch._C._functorch.get_unwrapped(array)
    if is_without_data(array):
        raise NotSupported("This array has a shape and no data: the model ran on the meta device or on fake tensors.")
    array = array.detach()
    if array.is_nested:
        return dense(array.values())
    if has_own_dispatch(array):
        refuse(type(array).__name__, f"{type(array).__name__} is a class of arrays with elements of its own making")
    if array.is_quantized:
        array = array.dequantize()
    if array.layout != torch.strided:
        array = array.to_dense()
    return array.as_subclass(Tensor).resolve_conj().resolve_neg()


def is_wrapper(array: Tensor) -> bool:
    """Whether its elements are those of other arrays, which its class tells of (``__tensor_flatten__``)."""
    return is_traceable_wrapper_subclass(array) and not array.is_nested and not is_without_data(array)


def parts_of(array: Tensor) -> dict[str, Any]:
    """What a wrapper is made of, by attribute: tensors, and with some classes other objects (a mesh of devices)."""
    return {name: getattr(array, name) for name in array.__tensor_flatten__()[0]}  # type: ignore[attr-defined]


def tensors_in(array: Tensor) -> list[Tensor]:
    """The tensors that a wrapper is made of."""
    return [part for part in parts_of(array).values() if isinstance(part, Tensor)]


def rewrapped(array: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A wrapper of the same class and settings around changed parts."""
    context = array.__tensor_flatten__()[1]  # type: ignore[attr-defined]
    parts = {name: change(part) if isinstance(part, Tensor) else part for name, part in parts_of(array).items()}
    made: Tensor = type(array).__tensor_unflatten__(parts, context, array.shape, array.stride())  # type: ignore[attr-defined]
    return made


def refuse(kind: str, why: str) -> None:
    """Raise NotSupported, with what to read in place of the array."""
    instead = _INSTEAD.get(kind, "op.out is the array itself")
    raise NotSupported(f"{why}, and there is no such array in numpy: {instead}.")


def stored(array: Tensor) -> Iterator[Tensor]:
    """Plain dense arrays that hold all elements of an array which can be NaN.

    Those that are stored of a sparse one, the local part of a distributed one, the parts of a wrapper.

    Raises:
        NotSupported: it has no data, or its class keeps the elements to itself.
    """
    name = type(array).__name__
    if is_wrapper(array):
        for part in tensors_in(array):
            yield from stored(part)
    elif name == "MaskedTensor":
        yield dense(array.get_data())[array.get_mask()]  # type: ignore[attr-defined]
    elif array.layout == torch.sparse_coo:
        yield from stored(array.detach()._values())
    elif array.layout in _COMPRESSED:
        yield from stored(array.detach().values())
    else:
        yield dense(array)


def storage_sizes(arrays: Iterable[Tensor]) -> dict[int, int]:
    """The memory of arrays: identifier of each storage -> its bytes. Arrays that share memory share a storage."""
    sizes: dict[int, int] = {}
    for array in arrays:
        if is_wrapper(array):
            sizes |= storage_sizes(tensors_in(array))
        elif array.layout == torch.sparse_coo:
            sizes |= storage_sizes((array._indices(), array._values()))
        elif array.layout in _COMPRESSED:
            sizes |= storage_sizes((*_indices_of(array), array.values()))
        elif array.layout != torch.strided and not array.is_nested:
            sizes[id(array)] = array.numel() * array.element_size()  # of MKL-DNN: it shares nothing
        else:
            inner = array.values() if array.is_nested else array
            storage = inner.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
    return sizes


def _indices_of(array: Tensor) -> tuple[Tensor, Tensor]:
    if array.layout in (torch.sparse_csr, torch.sparse_bsr):
        return array.crow_indices(), array.col_indices()
    return array.ccol_indices(), array.row_indices()


@contextmanager
def unseen() -> Iterator[None]:
    """No mode sees what is computed here: neither the recorder's nor others'."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        if torch._C._len_torch_dispatch_stack():
            with _disable_current_modes():
                yield
        else:
            yield


def shape_of(array: Tensor) -> tuple[int, ...]:
    """The shape; of a nested array, whose parts differ, the number of its elements."""
    try:
        if array.is_nested:
            return (array.values().numel(),)
        return tuple(array.shape)
    except RuntimeError:  # a parameter that is yet to be initialised
        return (array.numel(),)
