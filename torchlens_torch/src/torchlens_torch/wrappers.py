"""Modules of torch that wrap one other and add nothing of their own: no part of addresses or of the module tree."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from torchlens_core.errors import CaptureWarning

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


@contextmanager
def on_one_device(model: Any, modules: Iterable[nn.Module]) -> Iterator[None]:
    """A context in which ``DataParallel`` runs on its first device alone: its replicas run in threads, unseen.

    Gives a warning for each that would have used several.
    """
    found = [part for module in modules for part in module._modules.values()] if _has_several_devices() else []
    parts = [part for part in (model, *found) if isinstance(part, nn.DataParallel) and len(part.device_ids or ()) > 1]
    before = [part.device_ids for part in parts]
    if parts:
        warnings.warn(
            "DataParallel runs its replicas in threads, which a trace does not see: the traced run puts the whole "
            f"batch on its first device, {before[0][0]}. Trace model.module to choose another.",
            CaptureWarning,
            stacklevel=2,
        )
    try:
        for part in parts:
            part.device_ids = part.device_ids[:1]
        yield
    finally:
        for part, devices in zip(parts, before, strict=True):
            part.device_ids = devices


def _has_several_devices() -> bool:
    return bool(torch.accelerator.is_available()) and torch.accelerator.device_count() > 1


def compiled_parts(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """What ``torch.compile`` put around parts of a model: to call it is to call the part, but not by its class."""
    if "torch._dynamo" not in sys.modules:
        return []
    parts = (part for module in modules for part in module._modules.values())
    return [part for part in parts if type(part).__name__ == "OptimizedModule" and unwrap(part) is not part]
