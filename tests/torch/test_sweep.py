"""Sweeps of PyTorch models over heads and positions, one by one and batched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from torchlens_core.errors import SweepError


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attn(x, x, x)[0])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Attends().eval()


@pytest.mark.parametrize("batched", [False, True])
def test_heads(model: nn.Module, batched: bool) -> None:
    x = torch.randn(3, 4, 8)
    heads = {number: tl.module("attn").facet("z").head(number) for number in (0, 1)}
    sweep = tl.sweep(model, x, at=heads, values=[tl.zero_ablate()], metric=lambda out: out.clone(), batched=batched)
    for head, found in zip(heads.values(), sweep.table()["metric"], strict=True):
        expected = tl.trace(model, x, intervene=tl.when(head, tl.zero_ablate()))[-1].out
        assert torch.allclose(found, expected, atol=1e-6)
        assert not found.requires_grad


def test_memory_does_not_grow_with_the_runs() -> None:
    model, x = nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))), torch.randn(8, 64)
    kept = tl.sweep(model, x, at="18", values=[tl.scale(float(n)) for n in range(10)])
    shared = [kept[name]["5"].out.data_ptr() for name in kept]
    assert len(set(shared)) == 1
    measured = tl.sweep(model, x, at="18", values=[1.0, 2.0], metric=lambda out: out.sum())
    assert list(measured) == ["baseline"]


def test_a_batch_norm_in_training_mode() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(6, 4)
    before = {name: array.clone() for name, array in model.state_dict().items()}
    with pytest.raises(SweepError, match="BatchNorm1d"):
        tl.sweep(model, x, at="0", values=[tl.scale(0.5), tl.scale(2.0)], metric=lambda out: out[0, 0], batched=True)
    assert all(torch.equal(array, before[name]) for name, array in model.state_dict().items())
    model.eval()
    one_by_one, batched = (
        tl.sweep(model, x, at="0", values=[0.5, 2.0], action=tl.scale, metric=lambda out: out[0, 0], batched=batched)
        for batched in (False, True)
    )
    assert one_by_one.table()["metric"] == pytest.approx(batched.table()["metric"])


def test_a_model_that_cannot_be_replayed_runs_again() -> None:
    def model(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad((x.tanh() * 2).sum(), x)[0] + x.detach().exp()

    with torch.enable_grad():
        sweep = tl.sweep(model, torch.ones(3), at="exp", values=[0.0, 1.0], metric=lambda out: out.sum())
    assert sweep.table()["metric"][1] - sweep.table()["metric"][0] == pytest.approx(3.0)
