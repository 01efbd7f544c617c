"""The PyTorch backend: the contract's jobs, each in its module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

from torchlens_core.backend import Call
from torchlens_core.errors import ReplayError
from torchlens_core.program import Row
from torchlens_core.session import Session
from torchlens_core.vocabulary import canonical_type

from . import run
from .arrays import TorchArrays
from .autodiff import grad, gradients_at
from .backward import backward, recording_backward
from .capture import rng_state
from .containers import leaves, replaced
from .loaders import loader
from .recording import recording
from .repeating import conditions, own_state
from .resolving import resolve
from .restoring import preserve, set_rng, with_state
from .settings import settings
from .sharding import is_mixed, whole
from .state import discover, find_modules, root_modules

arrays = TorchArrays()


def capture(call: Call, session: Session) -> Any:
    """Run the model, write down in the session what it does, and return what it returns."""
    return run.capture(call, session)


def call(row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False) -> Any:
    """Run one recorded operation on other arrays, in the autocast state in which it ran."""
    func = row.func.func
    assert func is not None
    if func is torch.autograd.grad or row.func.name in ("_make_dual", "_unpack_dual"):
        raise ReplayError(
            f"{row.func.name} differentiates what ran before it, and a replay has no gradient tape: a model that "
            "differentiates in its forward cannot be replayed."
        )
    if is_mixed((*args, *kwargs.values())):  # a sharded parameter, which the model read when it was gathered
        args, kwargs = tuple(map(whole, args)), {name: whole(value) for name, value in kwargs.items()}
    with torch.set_grad_enabled(is_differentiable):
        out = func(*args, **kwargs) if row.ambient is None else _call_in(row.ambient, func, args, kwargs)
    if (row.func.path or "").startswith("torch.ops._c10d_functional."):  # a collective returns before it is done
        out = torch.utils._pytree.tree_map_only(torch.Tensor, torch.ops._c10d_functional.wait_tensor, out)
    return out


def _call_in(
    ambient: Mapping[str, Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Call a function in the state of the framework in which it was recorded."""
    with ExitStack() as stack:
        for device, dtype in ambient.get("autocast", {}).items():
            stack.enter_context(torch.autocast(device, dtype=arrays.constant("dtype", dtype), cache_enabled=False))
        if "vmap" in ambient:
            from .transforms import call_batched  # what it imports takes time, and few models need it

            return call_batched(func, ambient["vmap"], args, kwargs)
        return func(*args, **kwargs)


@functools.cache
def _callables() -> frozenset[Any]:
    """Every function that torch lets a mode see."""
    overridable = torch.overrides.get_overridable_functions()
    return frozenset(func for group in overridable.values() for func in group)


def function_names() -> frozenset[str]:
    """Names and types of all functions that torch knows, custom operators that have been registered among them."""
    return _function_names(len(torch.library._defs))


@functools.lru_cache(1)
def _function_names(registered: int) -> frozenset[str]:
    """The same, worked out anew when further operators have been registered."""
    names = {getattr(func, "__name__", "") for func in _callables()}
    names |= {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    names |= {"identity", "source", "input", "buffer", "output", "T", "mT", "H", "mH", "real", "imag", "data", "grad"}
    return frozenset(names | {canonical_type(name) for name in names if name})


def is_ours(model: Any, args: Sequence[Any]) -> bool:
    """Whether a model is, or can reach, a module of torch, or one of its arguments holds a tensor."""
    return any(root_modules(model)) or any(True for value in args for _ in leaves(value))


def no_gradients() -> AbstractContextManager[Any]:
    """Not ``inference_mode``: what it makes can never be trained on, and a probe is trained on activations."""
    return torch.no_grad()


def seed(number: int) -> None:
    """Start the generators of all devices from a number."""
    torch.manual_seed(number)


def argument_leaves(value: Any) -> Iterator[tuple[str, Any]]:
    return leaves(value)


__all__: Sequence[str] = (
    "arrays", "backward", "call", "capture", "conditions", "discover", "find_modules", "grad", "gradients_at",
    "loader", "own_state", "preserve", "recording", "recording_backward", "replaced", "resolve", "rng_state",
    "seed", "set_rng", "settings", "with_state",
)  # fmt: skip
