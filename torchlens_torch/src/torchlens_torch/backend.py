"""The PyTorch backend: the contract's jobs, each in its module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

from torchlens_core.backend import Call, Discovery
from torchlens_core.program import Row
from torchlens_core.session import Session
from torchlens_core.vocabulary import canonical_type, is_reflected

from . import run
from .arrays import TorchArrays
from .capture import rng_state
from .containers import leaves
from .reflected import in_order
from .settings import settings
from .state import discover

arrays = TorchArrays()
_PREFIXES = (
    "torch.Tensor.",
    "torch.nn.functional.",
    "torch._C._nn.",
    "torch.linalg.",
    "torch.fft.",
    "torch.special.",
    "torch.",
)


def capture(call: Call, session: Session) -> Any:
    return run.capture(call, session)


def call(row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run one recorded operation on other arrays, without a gradient tape, in the autocast state in which it ran."""
    func = row.func.func
    assert func is not None
    autocast = (row.ambient or {}).get("autocast", {})
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device, dtype in autocast.items():
            stack.enter_context(torch.autocast(device, dtype=getattr(torch, dtype), cache_enabled=False))
        return func(*args, **kwargs)


@contextmanager
def preserve(call: Call, discovery: Discovery) -> Iterator[None]:
    """The model's state, the arguments and the generators are put back."""
    state = [(item.array, item.array.detach().clone()) for item in discovery.state if item.is_buffer]
    given = [(array, array.detach().clone(), array._version) for array in _arguments(call) if not array.is_inference()]
    bindings = [
        (module, dict(module._buffers)) for _, module in discovery.modules if module is not None and module._buffers
    ]
    generators = rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for array, before in state:
                if not torch.equal(array, before) and array.shape == before.shape:
                    array.copy_(before)
            for array, before, version in given:
                if array._version != version:
                    array.copy_(before)
        for module, buffers in bindings:
            module._buffers.update(buffers)
        set_rng(generators)


def _arguments(call: Call) -> Iterator[Tensor]:
    for value in (*call.args, *call.kwargs.values()):
        yield from (array for _, array in leaves(value))


@contextmanager
def with_state(discovery: Discovery, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Parameters and buffers at these addresses hold other values, in their own memory."""
    changed = [item for item in discovery.state if item.address in values]
    before = [item.array.detach().clone() for item in changed]
    try:
        with torch.no_grad():
            for item in changed:
                item.array.detach().copy_(values[item.address])
        yield
    finally:
        with torch.no_grad():
            for item, old in zip(changed, before, strict=True):
                item.array.detach().copy_(old)


def set_rng(state: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(list(state[1:]))


@functools.cache
def _callables() -> frozenset[Any]:
    """Every function that torch lets a mode see: what a file may name."""
    overridable = torch.overrides.get_overridable_functions()
    return frozenset(func for group in overridable.values() for func in group)


# What torch lets a mode see and no trace file may ask for: it touches files, or sets the state of an object.
_NOT_FROM_FILES = frozenset({"from_file", "__reduce_ex__", "__setstate__", "module_load"})


def resolve(path: str) -> Callable[..., Any] | None:
    """The function of a path written by ``functions.path_of``, or None where it is not one of torch's operations."""
    if path.startswith("torch.ops.aten."):
        return _aten(path.removeprefix("torch.ops.aten."))
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            names = path.removeprefix(prefix).split(".")
            owner = _owner(prefix.rstrip("."))
            break
    else:
        return None
    if names[-1] == "__get__" and len(names) == 2 and owner is torch.Tensor:
        getter = getattr(getattr(torch.Tensor, names[0], None), "__get__", None)
        return getter if getter in _callables() else None
    found = getattr(owner, names[0], None) if len(names) == 1 and names[0] not in _NOT_FROM_FILES else None
    if found not in _callables() and not isinstance(found, OpOverload):
        return None
    return in_order(found) if is_reflected(names[0]) else found


def _owner(prefix: str) -> Any:
    owner: Any = torch
    for name in prefix.split(".")[1:]:
        owner = getattr(owner, name)
    return owner


def _aten(name: str) -> Callable[..., Any] | None:
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None) if base.isidentifier() and base not in _NOT_FROM_FILES else None
    found = getattr(packet, overload or "default", None) if isinstance(packet, OpOverloadPacket) else None
    return found if isinstance(found, OpOverload) else None


@functools.cache
def function_names() -> frozenset[str]:
    """Names and types of all functions that torch knows, custom operators that have been registered among them."""
    names = {getattr(func, "__name__", "") for func in _callables()}
    names |= {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    names |= {"identity", "source", "input", "buffer", "output", "T", "mT", "H", "mH", "real", "imag", "data", "grad"}
    return frozenset(names | {canonical_type(name) for name in names if name})


def argument_leaves(value: Any) -> Iterator[tuple[str, Any]]:
    return leaves(value)


__all__: Sequence[str] = ("arrays", "call", "capture", "discover", "preserve", "resolve", "settings", "with_state")
