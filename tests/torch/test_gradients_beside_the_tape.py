"""`trace.gradients(of=...)` where the model computes with arrays that depend on no parameter and no input."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import torchlens as tl


def masked(x: Tensor) -> Tensor:
    """A mask is made by writing to parts of an array."""
    mask = torch.zeros(3, 4)
    mask[:2, :2] = 1.0  # in place, on a part
    return (torch.sin(x) * mask).sum()


def written_through_a_view(x: Tensor) -> Tensor:
    """A view was taken before the array was written."""
    bias = torch.ones(4)
    part = bias[1:3]
    bias.mul_(3.0)
    return (torch.sin(x)[:, 1:3] * part).sum()


def counted(x: Tensor) -> Tensor:
    """Numbers of elements, counted in floating point, become positions."""
    counts = torch.histc(x.detach(), 4)
    return torch.sin(x)[:, torch.cumsum(counts, 0, dtype=torch.int32) % 4].sum()


@pytest.mark.parametrize("model", [masked, written_through_a_view, counted], ids=lambda model: model.__name__)
def test_the_gradient_is_autograds(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-1.0, 1.0, 12).reshape(3, 4).requires_grad_()
    trace = tl.trace(model, x, replay_ready=True)
    found = trace.gradients(of="output")
    expected = torch.autograd.grad(model(x), x)[0]
    assert torch.equal(found[trace.ops[0].label], expected)


def test_there_is_one_at_what_was_made_inside_too() -> None:
    x = torch.linspace(-1.0, 1.0, 12).reshape(3, 4).requires_grad_()
    trace = tl.trace(masked, x, replay_ready=True)
    assert torch.equal(trace.gradients(of="output")["setitem_1_2"], torch.sin(x))
