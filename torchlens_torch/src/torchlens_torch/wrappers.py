"""Modules of torch that wrap one other and add nothing of their own: no part of addresses or of the module tree."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from torch import nn

_PARTS = {  # class -> name under which it holds the module that it wraps
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}


def unwrap(module: nn.Module) -> nn.Module:
    """The user's module inside torch's wrappers."""
    while (name := _PARTS.get(type(module).__name__)) is not None:
        inner = module._modules.get(name)
        if inner is None or not type(module).__module__.startswith("torch."):
            break
        module = inner
    return module


def compiled_parts(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """What ``torch.compile`` put around parts of a model: to call it is to call the part, but not by its class."""
    if "torch._dynamo" not in sys.modules:
        return []
    parts = (part for module in modules for part in module._modules.values())
    return [part for part in parts if type(part).__name__ == "OptimizedModule" and unwrap(part) is not part]
