"""Parameters sharded by ``fully_shard``: gathered before a module runs and let go after it, by hooks of torch's own.

What these hooks do is no operation of the model. While they run nothing is recorded, and the gathered array that the
model reads is the parameter itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_HOOKS = ("lazy_init", "pre_forward", "post_forward")


def is_sharded(module: Any) -> bool:
    """Whether a module was given to ``fully_shard``."""
    cls = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return cls is not None and isinstance(module, cls)


def _groups(modules: Iterable[Any]) -> Iterator[Any]:
    """The groups of parameters that are gathered together."""
    sharded = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    if sharded is not None:
        for module in modules:
            if isinstance(module, sharded):
                state = module._get_fsdp_state()  # type: ignore[attr-defined]
                one = getattr(state, "_fsdp_param_group", None)  # before torch 2.12 a module had one group at most
                yield from getattr(state, "_fsdp_param_groups", None) or ([one] if one is not None else [])


def sharded(array: Tensor, modules: Iterable[Any]) -> Tensor | None:
    """The sharded parameter that an array is, gathered; None for other arrays."""
    for group in _groups(modules):
        for param in group.fsdp_params:
            if getattr(param, "_unsharded_param", None) is array:
                found: Tensor = param.sharded_param
                return found
    return None


def reshard(modules: Iterable[Any]) -> None:
    """Let go of all gathered parameters: the state between two calls of the model."""
    for group in _groups(modules):
        group.reshard()


@contextmanager
def hidden_gathering(modules: Iterable[Any]) -> Iterator[None]:
    """A context in which the gathering of parameters is no part of what is seen."""
    groups = list({id(group): group for group in _groups(modules)}.values())
    for group in groups:
        for name in _HOOKS:
            setattr(group, name, _hidden(getattr(group, name)))
    try:
        yield
    finally:
        for group in groups:
            for name in _HOOKS:
                vars(group).pop(name, None)


def _hidden(hook: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return hook(*args, **kwargs)

    return call


def whole(value: Any) -> Any:
    """A distributed array, gathered; anything else as it is."""
    cls = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return value.full_tensor() if cls is not None and isinstance(value, cls) else value


def is_mixed(values: Iterable[Any]) -> bool:
    """Whether distributed arrays stand beside plain ones, which no operation takes."""
    cls = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    if cls is None:
        return False
    kinds = {isinstance(value, cls) for value in values if isinstance(value, Tensor) and value.dim()}
    return len(kinds) == 2
