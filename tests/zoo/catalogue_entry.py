"""What the catalogue says about one architecture, and the inputs that many of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional, keyword


@dataclass(frozen=True)
class Entry:
    """One architecture with random weights.

    ``recurrent`` says whether a layer of the model is passed again with what an earlier pass of it computed: a loop,
    or weights shared along the depth. Weights shared side by side (two towers, one head on several scales) don't
    count. ``note`` gives the reason where it is True, or where one might wrongly think so.
    """

    name: str
    family: str
    kind: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Arguments]
    recurrent: bool = False
    note: str = ""

    def model(self) -> nn.Module:
        """Build the model in evaluation mode, with the same weights every time."""
        torch.manual_seed(0)
        model = self.build().eval()
        _waken(model)
        _calibrate(model, self.arguments())
        return model

    def arguments(self, seed: int = 1) -> Arguments:
        """Make the arguments of one call, the same ones for the same ``seed``."""
        torch.manual_seed(seed)
        return self.inputs()


def _waken(model: nn.Module) -> None:
    """Give small random values to parameters that start at zero or nearly so (biases, layer scales, zeroed gates).

    As they start, they would cut whole branches off from the output, and no test could tell.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() < 0.01:
                parameter.normal_(0, 0.02)


def _calibrate(model: nn.Module, arguments: Arguments) -> None:
    """Set the running statistics of every batch norm to those of what it sees in one forward.

    With the statistics of a fresh batch norm, deep networks in evaluation mode shrink their signal to nothing.
    """

    def measure(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        values = inputs[0]
        norm.running_mean.fill_(values.mean())
        norm.running_var.fill_(values.var(correction=0).clamp(min=1e-4))

    norms = [module for module in model.modules() if getattr(module, "running_var", None) is not None]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    if norms:
        args, kwargs = arguments
        with torch.no_grad():
            model(*args, **kwargs)
    for handle in handles:
        handle.remove()


def image(size: int, channels: int = 3, batch: int = 1) -> Callable[[], Arguments]:
    """One positional argument: images of shape (batch, channels, size, size)."""
    return lambda: ((torch.randn(batch, channels, size, size),), {})


def clip(frames: int, size: int) -> Callable[[], Arguments]:
    """One positional argument: a video of shape (1, 3, frames, size, size)."""
    return lambda: ((torch.randn(1, 3, frames, size, size),), {})


def floats(*shapes: tuple[int, ...]) -> Callable[[], Arguments]:
    """One positional argument of normal numbers for each shape."""
    return lambda: (tuple(torch.randn(shape) for shape in shapes), {})


def tokens(vocabulary: int, *shapes: tuple[int, ...]) -> Callable[[], Arguments]:
    """One positional argument of token numbers below ``vocabulary`` for each shape."""
    return lambda: (tuple(torch.randint(vocabulary, shape) for shape in shapes), {})
