"""What ``save_grads=`` costs beside tensor hooks written by hand, and what gradients from a replay cost."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import torchlens as tl

from . import models
from .report import Row
from .timing import interleaved, slope

COUNTS = [200, 400, 800, 1600]


class Chain(nn.Module):
    """Tiny operations one after another, each handed to ``see`` as a hook written by hand would need it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor, see: Callable[[Tensor], Any] | None = None) -> Tensor:
        x = x * self.weight
        for _ in range(self.count):
            x = x + 1.0
            if see is not None:
                see(x)
        return x


def _by_hand(model: Chain, x: Tensor) -> None:
    """All gradients in a list, by hooks at the tensors."""
    gradients: list[Tensor] = []
    kept: list[Tensor] = []  # as a trace keeps the values

    def see(array: Tensor) -> None:
        kept.append(array)
        array.register_hook(gradients.append)

    model(x, see).sum().backward()
    assert len(gradients) == model.count


def _traced(model: nn.Module, x: Tensor, **options: Any) -> None:
    trace = tl.trace(model, x, **options)
    trace[-1].out.sum().backward()


def _logged(model: nn.Module, x: Tensor, **options: Any) -> None:
    trace = tl.trace(model, x, save_grads=True)
    trace.log_backward(trace[-1].out.sum(), **options)


def costs() -> Iterator[Row]:
    """Microseconds for each further operation, forward and backward together, over chains of growing length.

    Without the collector of reference cycles, whose time depends on all else that the process holds.
    """
    gc.collect()
    gc.disable()
    try:
        yield from _costs()
    finally:
        gc.enable()


def _costs() -> Iterator[Row]:
    x = torch.randn(4, 8)
    times: dict[str, list[float]] = {}
    for count in COUNTS:
        model = Chain(count)
        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda m=model: m(x).sum().backward(),
            "hooks": lambda m=model: _by_hand(m, x),
            "traced": lambda m=model: _traced(m, x),
            "save_grads": lambda m=model: _traced(m, x, save_grads=True),
            "log_backward": lambda m=model: _logged(m, x),
            "calls": lambda m=model: _logged(m, x, calls=True),
        }
        for name, seconds in interleaved(ways, rounds=9).items():
            times.setdefault(name, []).append(seconds)
    each = {name: slope(COUNTS, seconds) * 1e6 for name, seconds in times.items()}
    hooks = each["hooks"] - each["plain"]
    yield Row("an operation, hooks at tensors by hand", f"{hooks:.1f} µs", "", None)
    for what, name in (
        ("save_grads, the user's own backward", "save_grads"),
        ("save_grads, log_backward", "log_backward"),
    ):
        extra = each[name] - each["traced"] - hooks
        whole = each[name] - each["hooks"]
        shown = f"{extra:.1f} µs ({whole:.1f} µs with the trace)"
        yield Row(f"an operation, {what}, beyond hooks by hand", shown, "10 µs", extra <= 10)
    calls = each["calls"] - each["log_backward"]
    yield Row("an operation, each call of its node noted", f"{calls:.1f} µs", "", None)


def replayed() -> Iterator[Row]:
    """Gradients at all Ops of ResNet-50: hooks by hand, ``log_backward``, and a replay."""
    model, args = models.resnet50()
    with_hooks = tl.trace(model, args, save_grads=True)
    ready = tl.trace(model, args, replay_ready=True)
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: model(*args).sum().backward(),
        "log_backward": lambda: _logged(model, args),
        "replay": lambda: ready.gradients(of=lambda out: out.sum()),
    }
    times = interleaved(ways, rounds=5)
    for name in ("plain", "log_backward", "replay"):
        yield Row(
            f"ResNet-50, {len(with_hooks)} ops, forward and backward, {name}", f"{times[name] * 1e3:.0f} ms", "", None
        )
