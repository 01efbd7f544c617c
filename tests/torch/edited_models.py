"""Models with a place where a value can be changed by hand, and the same change as an intervention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import torchlens as tl

WIDTH = 6
Edit = Callable[[Tensor], Tensor]


class Edited(nn.Module):
    """Two layers; what stands between them is passed through ``edit``, which the traced model leaves out."""

    writes = reentrant = False

    def __init__(self, edit: Edit = lambda value: value) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.edit = edit

    def forward(self, x: Tensor) -> Any:
        return self.second(self.middle(self.first(x)))

    def middle(self, h: Tensor) -> Any:
        raise NotImplementedError


class Plain(Edited):
    def middle(self, h: Tensor) -> Any:
        return self.edit(h.relu())


class Residual(Edited):
    """The changed value is read twice, and its parent once more."""

    def middle(self, h: Tensor) -> Any:
        value = self.edit(h.relu())
        return h + value * value.sin()


class Loop(Edited):
    def middle(self, h: Tensor) -> Any:
        for _ in range(3):
            h = self.edit(self.first(h).relu())
        return h


class InPlace(Edited):
    """Written in place where it is traced, and not where it is changed by hand."""

    writes = True

    def middle(self, h: Tensor) -> Any:
        if self.writes:
            h = h * 1
            h.relu_()
            return h
        return self.edit((h * 1).relu())


class InPlaceSeenThroughAView(Edited):
    """A view made before the write sees the changed value."""

    writes = True

    def middle(self, h: Tensor) -> Any:
        h = h * 1
        flat = h.view(-1)
        if self.writes:
            h.relu_()
        else:
            h = self.edit(h.relu())
            flat = h.reshape(-1)
        return h + flat.view_as(h).sin()


class WrittenPart(Edited):
    """A view is written in place; the whole sees the changed value."""

    writes = True

    def middle(self, h: Tensor) -> Any:
        h = h * 1
        if self.writes:
            h[1:].relu_()
            return h.sin()
        return torch.cat([h[:1], self.edit(h[1:].relu())]).sin()


class InPlaceReLU(Edited):
    def __init__(self, edit: Edit = lambda value: value) -> None:
        super().__init__(edit)
        self.act = nn.ReLU(inplace=True)

    writes = True

    def middle(self, h: Tensor) -> Any:
        return self.act(h) if self.writes else self.edit(h.relu())


class Chunks(Edited):
    """The second of three outputs."""

    def middle(self, h: Tensor) -> Any:
        a, b, c = torch.cat([h, h.sin(), h.cos()], -1).chunk(3, -1)
        return a * self.edit(b) + c


class TopK(Edited):
    def middle(self, h: Tensor) -> Any:
        values, order = h.topk(WIDTH)
        return self.edit(values) * order


class Lstm(Edited):
    """The sequence that an LSTM returns, beside its state."""

    def __init__(self, edit: Edit = lambda value: value) -> None:
        super().__init__(edit)
        self.lstm = nn.LSTM(WIDTH, WIDTH)

    def middle(self, h: Tensor) -> Any:
        out, (_, cell) = self.lstm(h)
        return self.edit(out) + cell


class Autocast(Edited):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            h = self.edit(self.first(x).relu())
            return self.second(h).float()


class Compiled(Plain):
    """Wrapped by torch.compile where it is traced."""


class Vmapped(Edited):
    """An action sees one row, as the mapped function does."""

    def middle(self, h: Tensor) -> Any:
        return torch.vmap(lambda row: self.edit(row.relu()) * 2)(h)


class Checkpointed(Edited):
    def middle(self, h: Tensor) -> Any:
        return checkpoint(lambda h: self.edit(h.relu()).sin() * h, h, use_reentrant=self.reentrant)


class CheckpointedReentrant(Checkpointed):
    reentrant = True


@dataclass(frozen=True)
class Site:
    """A model, and the selector of the value that its ``edit`` is given."""

    model: type[Edited]
    selector: Any
    rows: int = 4
    tolerance: float = 1e-6

    def traced(self) -> nn.Module:
        model = self.model()
        return torch.compile(model) if self.model is Compiled else model

    def by_hand(self, edit: Edit) -> nn.Module:
        model = self.model(edit)
        model.writes = model.reentrant = False
        return model


RELU = tl.func("relu")
SITES = {
    site.model.__name__: site
    for site in (
        Site(Plain, RELU),
        Site(Residual, RELU),
        Site(Loop, RELU),
        Site(InPlace, RELU),
        Site(InPlaceSeenThroughAView, RELU),
        Site(WrittenPart, RELU),
        Site(InPlaceReLU, tl.module("act")),
        Site(Chunks, tl.func("chunk", output=1)),
        Site(TopK, tl.func("topk") & tl.output("values")),
        Site(Lstm, tl.func("lstm", output=0)),
        Site(Autocast, RELU, tolerance=0.05),
        Site(Compiled, RELU),
        Site(Vmapped, RELU),
        Site(Checkpointed, RELU),
        Site(CheckpointedReentrant, RELU),
    )
}


def inputs() -> Tensor:
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)


def results(model: nn.Module, x: Tensor, out: Tensor) -> list[Tensor]:
    """What came out, and the gradients of a loss on it: of the input and of the parameters that it reaches."""
    wanted = [x, *model.parameters()]
    for each in wanted:
        each.grad = None
    ((out.float() ** 3).mean() + out.float().sum()).backward()
    return [out.detach(), *(torch.zeros_like(each) if each.grad is None else each.grad for each in wanted)]


def close(left: list[Tensor], right: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


__all__ = ["SITES", "WIDTH", "Edited", "Site", "close", "inputs", "results"]
