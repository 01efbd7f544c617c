"""What a later repetition of a run takes, noted when the run begins: settings, and state that the run writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from .state import root_modules
from .wrappers import unwrap


def conditions() -> Callable[[], AbstractContextManager[Any]]:
    """Notes autocast and the default dtype; gives a context with the same."""
    devices = {device: torch.get_autocast_dtype(device) for device in _devices() if torch.is_autocast_enabled(device)}
    default = torch.get_default_dtype()

    @contextmanager
    def same() -> Iterator[None]:
        before = torch.get_default_dtype()
        with ExitStack() as stack:
            for device in _devices():
                dtype = devices.get(device)
                stack.enter_context(torch.autocast(device, dtype=dtype, enabled=dtype is not None))
            torch.set_default_dtype(default)
            try:
                yield
            finally:
                torch.set_default_dtype(before)

    return same


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def own_state(model: Any) -> Mapping[str, Tensor]:
    """Copies of the buffers, where the model is in training mode."""
    return {
        f"{prefix}.{name}" if prefix else name: array.detach().clone()
        for prefix, root in root_modules(model)
        if root.training
        for name, array in unwrap(root).named_buffers()
    }
