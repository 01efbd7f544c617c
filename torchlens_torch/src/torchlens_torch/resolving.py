"""Functions by their paths in trace files: a table of what torch calls an operation, so that no file can ask for more.

A path is only ever looked up, in the table or among torch's registered operators; it is never taken apart and followed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from torchlens_core.vocabulary import is_reflected

from .functions import describe
from .reflected import in_order

# They touch files, or set the state of an object.
_NOT_FROM_FILES = frozenset({"from_file", "__reduce_ex__", "__setstate__", "module_load"})

# Functions that make arrays take none, so that torch does not list them among those that can be overridden.
_FACTORIES = (
    "arange", "as_tensor", "asarray", "bartlett_window", "blackman_window", "complex", "empty", "empty_permuted",
    "empty_quantized", "empty_strided", "eye", "full", "hamming_window", "hann_window", "kaiser_window", "linspace",
    "logspace", "normal", "ones", "polar", "rand", "randint", "randn", "randperm", "range", "scalar_tensor",
    "sparse_bsc_tensor", "sparse_bsr_tensor", "sparse_compressed_tensor", "sparse_coo_tensor", "sparse_csc_tensor",
    "sparse_csr_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
_LIBRARIES = ("aten", "torchvision")  # whose registered operators compute, and do nothing else


def resolve(path: str) -> Callable[..., Any] | None:
    """The function of a path written by ``functions.path_of``, or None where it is not one of torch's operations."""
    if path.startswith("torch.ops."):
        return _operator(*path.removeprefix("torch.ops.").split("."))
    found = _by_path().get(path)
    name = path.rpartition(".")[2]
    return in_order(found) if found is not None and is_reflected(name) else found


@functools.cache
def _by_path() -> dict[str, Callable[..., Any]]:
    table: dict[str, Callable[..., Any]] = {}
    for func in _operations():
        path = describe(func).path
        if path is not None and getattr(func, "__name__", "") not in _NOT_FROM_FILES:
            table.setdefault(path, func)
    return table


def _operations() -> Iterator[Callable[..., Any]]:
    for group in torch.overrides.get_overridable_functions().values():
        yield from group
    yield from (getattr(torch, name) for name in _FACTORIES)
    yield from (torch.fft.fftfreq, torch.fft.rfftfreq, torch.Tensor.data.__set__)
    builtins = torch._C._VariableFunctions
    yield from (getattr(builtins, name) for name in dir(builtins) if not name.startswith("__"))
    methods = (getattr(torch.Tensor, name) for name in dir(torch.Tensor) if not name.startswith("_"))
    yield from filter(callable, methods)


def _operator(library: str, name: str = "", overload: str = "", *more: str) -> Callable[..., Any] | None:
    if library not in _LIBRARIES or name in _NOT_FROM_FILES or not name.isidentifier() or more:
        return None
    packet = getattr(getattr(torch.ops, library), name, None)
    if not isinstance(packet, OpOverloadPacket) or not overload:
        return packet if isinstance(packet, OpOverloadPacket) else None
    found = getattr(packet, overload, None)
    return found if isinstance(found, OpOverload) else None
