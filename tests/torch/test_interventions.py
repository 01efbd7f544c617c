"""Each action against the same change made by hand: values, and gradients of the input and of all parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.edited_models import SITES, WIDTH, Site, close, inputs, results

DIRECTION = np.linspace(-1.0, 2.0, WIDTH)
OTHERS = np.linspace(-2.0, 2.0, 7 * WIDTH).reshape(7, WIDTH)
SPLICED = nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh(), nn.Linear(3, WIDTH))


def _like(values: Any, value: Tensor) -> Tensor:
    return torch.as_tensor(values).to(value.dtype)


def _projected(value: Tensor) -> Tensor:
    along = _like(DIRECTION, value)
    return (value * along).sum(-1, keepdim=True) / (along * along).sum() * along


# name -> the action, and what a forward hook written by hand would return
FORWARD: dict[str, tuple[Callable[[], Any], Callable[[Tensor], Tensor]]] = {
    "zero_ablate": (tl.zero_ablate, torch.zeros_like),
    "mean_ablate": (tl.mean_ablate, lambda v: v.mean().expand_as(v)),
    "mean_ablate of the batch": (lambda: tl.mean_ablate(over="batch"), lambda v: v.mean(0, keepdim=True).expand_as(v)),
    "mean_ablate of others": (
        lambda: tl.mean_ablate(OTHERS, over="batch"),
        lambda v: _like(OTHERS, v).mean(0).expand_as(v),
    ),
    "replace_with a number": (lambda: tl.replace_with(0.5), lambda v: torch.full_like(v, 0.5)),
    "replace_with an array": (lambda: tl.replace_with(DIRECTION), lambda v: _like(DIRECTION, v).expand_as(v)),
    "scale": (lambda: tl.scale(0.3), lambda v: v * 0.3),
    "scale by an array": (lambda: tl.scale(DIRECTION), lambda v: v * _like(DIRECTION, v)),
    "add": (lambda: tl.add(-0.25), lambda v: v - 0.25),
    "clamp": (lambda: tl.clamp(min=0.1, max=0.4), lambda v: v.clamp(0.1, 0.4)),
    "clamp at one end": (lambda: tl.clamp(max=0.2), lambda v: v.clamp(max=0.2)),
    "clamp by an array": (lambda: tl.clamp(0.0, DIRECTION), lambda v: v.clamp(_like(0.0, v), _like(DIRECTION, v))),
    "steer": (lambda: tl.steer(DIRECTION, 1.5), lambda v: v + 1.5 * _like(DIRECTION, v)),
    "project_onto": (lambda: tl.project_onto(DIRECTION), _projected),
    "project_off": (lambda: tl.project_off(DIRECTION), lambda v: v - _projected(v)),
    "splice_module": (lambda: tl.splice_module(SPLICED), lambda v: SPLICED(v)),
    "a function": (lambda: lambda v: v.tanh() + 0.1, lambda v: v.tanh() + 0.1),
}


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
@pytest.mark.parametrize("name", FORWARD)
def test_an_action_is_the_change_by_hand(name: str, site: Site) -> None:
    make, by_hand = FORWARD[name]
    model, reference, x = site.traced(), site.by_hand(by_hand), inputs()
    trace = tl.trace(model, x, intervene=tl.when(site.selector, make()))
    close(results(model, x, trace["output_1"].out), results(reference, x, reference(x)), site.tolerance)


# name -> the action, and what a tensor hook written by hand would return
BACKWARD: dict[str, tuple[Callable[[], Any], Callable[[Tensor], Tensor]]] = {
    "grad_zero": (tl.grad_zero, torch.zeros_like),
    "grad_scale": (lambda: tl.grad_scale(-0.3), lambda g: g * -0.3),
    "grad_clip": (lambda: tl.grad_clip(0.01), lambda g: g * min(1.0, 0.01 / (float(g.norm()) + 1e-6))),
    "grad_clip, largest": (
        lambda: tl.grad_clip(0.01, float("inf")),
        lambda g: g * min(1.0, 0.01 / (float(g.abs().max()) + 1e-6)),
    ),
    "grad_clip, short enough": (lambda: tl.grad_clip(1e6), lambda g: g),
    "grad_clamp": (lambda: tl.grad_clamp(-0.01, 0.02), lambda g: g.clamp(-0.01, 0.02)),
    "bwd_hook": (lambda: tl.bwd_hook(lambda g: g.sin()), lambda g: g.sin()),
}


def _hooked(hook: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def edit(value: Tensor) -> Tensor:
        value = value * 1
        value.register_hook(hook)
        return value

    return edit


@pytest.mark.parametrize("site", [SITES[name] for name in SITES if name != "Vmapped"], ids=lambda s: s.model.__name__)
@pytest.mark.parametrize("name", BACKWARD)
def test_an_action_on_gradients_is_the_hook_by_hand(name: str, site: Site) -> None:
    make, by_hand = BACKWARD[name]
    model, reference, x = site.traced(), site.by_hand(_hooked(by_hand)), inputs()
    trace = tl.trace(model, x, intervene=tl.when(site.selector, make()))
    close(results(model, x, trace["output_1"].out), results(reference, x, reference(x)), site.tolerance)
    (changed, *_) = site.selector.sites(trace)
    assert changed.interventions
    assert not changed.is_changed
