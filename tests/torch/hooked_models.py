"""A small network, and what it returns with a forward hook written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 4


def x(*shape: int) -> Tensor:
    return torch.randn(*(shape or (3, WIDTH)), generator=torch.Generator().manual_seed(0))


def net(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *(layers or (nn.ReLU(), nn.Linear(WIDTH, WIDTH))))


def hooked(model: nn.Module, address: str, change: Callable[[Any], Any], given: Tensor) -> Any:
    """What the model returns with a forward hook by hand."""
    handle = model.get_submodule(address).register_forward_hook(lambda module, args, out: change(out))
    try:
        return model(given)
    finally:
        handle.remove()
