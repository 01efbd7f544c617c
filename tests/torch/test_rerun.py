"""Running PyTorch models again, with changes: the same chance, the same state, nothing left behind."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.test_replay import Everything, everything, same
from torchlens_core.errors import InterventionError


def test_dropout_repeats_its_mask() -> None:
    model, x = everything()
    trace = tl.trace(model, x)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    state = {name: array.clone() for name, array in model.state_dict().items()}
    again = trace.rerun(model, x)
    assert torch.equal(again["dropout"].out == 0, trace["dropout"].out == 0)
    assert torch.equal(again["randn"].out, trace["randn"].out)
    assert torch.equal(torch.get_rng_state(), generators[0]) and random.getstate() == generators[2]
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert all(torch.equal(array, state[name]) for name, array in model.state_dict().items())
    assert not torch.equal(trace.rerun(model, x, seed=7)["randn"].out, trace["randn"].out)
    assert torch.equal(trace.rerun(model, x, seed=7)["randn"].out, trace.rerun(model, x, seed=7)["randn"].out)


def test_with_the_recorded_inputs() -> None:
    model = Everything().eval()
    x = torch.randn(3, 4)
    trace = tl.trace(model, x, replay_ready=True)
    before = x.clone()
    x.zero_()
    again = trace.rerun(model)
    assert torch.equal(again["input_1"].out, before)
    assert same(again, trace.rerun(model, before)) == []
    with pytest.raises(InterventionError, match="holds no inputs"):
        tl.trace(model, before).rerun(model)


class Named(nn.Module):
    def forward(self, pair: dict[str, Any], *, scale: float = 1.0, shift: Tensor | None = None) -> Tensor:
        out = (pair["a"] + pair["more"][0]) * scale
        return out if shift is None else out + shift


def test_arguments_of_all_kinds_are_recorded() -> None:
    model = Named()
    a, b, shift = torch.randn(3, 2).unbind(0)
    trace = tl.trace(model, {"a": a, "more": [b]}, {"scale": 2.0, "shift": shift}, replay_ready=True)
    again = trace.rerun(model)
    assert torch.equal(again[-1].out, (a + b) * 2 + shift)
    other = trace.rerun(model, {"a": b, "more": [b]}, {"scale": 3.0})
    assert torch.equal(other[-1].out, (b + b) * 3)


def test_an_input_that_wants_a_gradient_still_does() -> None:
    model = nn.Linear(4, 2).requires_grad_(False)
    trace = tl.trace(model, torch.randn(3, 4, requires_grad=True), replay_ready=True)
    again = trace.rerun(model)
    again[-1].out.sum().backward()
    assert again["input_1"].out.grad is not None


def test_forks_against_forward_hooks() -> None:
    torch.manual_seed(0)
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2)
    model, x = nn.Sequential(*layers).eval(), torch.randn(3, 4)
    trace = tl.trace(model, x, replay_ready=True)
    for number in range(5):
        fork = trace.fork()
        fork.attach_hooks(str(number), tl.scale(0.5), lambda value: value + 1)
        handle = model[number].register_forward_hook(lambda _, __, out: out * 0.5 + 1)
        expected = model(x)
        handle.remove()
        assert torch.equal(fork.rerun(model, x)[-1].out, expected)
        assert torch.equal(fork.replay()[-1].out, expected)


def test_options_and_interventions_stay() -> None:
    model, x = everything()
    trace = tl.trace(model, x, save=tl.func("linear"), intervene=tl.when(tl.module("fc"), tl.scale(0.5)), detach=True)
    again = trace.fork().set("norm", 1.0).rerun(model, x)
    assert [op.label for op in again if op.has_saved_value] == ["linear_1_1:1"]
    assert torch.equal(again["fc"].out, trace["fc"].out) and not again["fc"].out.requires_grad
    assert again["norm"].is_changed and again["fc"].is_changed


def test_new_weights_are_used() -> None:
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    trace = tl.trace(model, x, replay_ready=True)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(trace.rerun(model)[-1].out, model.bias.expand(3, 2))
