"""Gradients at Ops against finite differences, and those of a replay against those of the run, in float64."""

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.retained import scalar
from tests.torch.test_gradients import (
    MODELS,
    Attention,
    Checkpointed,
    Custom,
    InPlace,
    ManyOutputs,
    Shared,
    outputs,
)  # fmt: skip

STEP = 1e-5


def loss_with(model: nn.Module, x: Tensor, op: tl.Trace, step: float, direction: Tensor) -> float:
    """The loss of a run in which the value at one Op is moved along a direction."""
    moved = tl.when(op.live_selector, lambda value: value + step * direction.to(value.dtype))
    return scalar(outputs(tl.trace(model, x, intervene=moved))).item()


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 2)), InPlace, ManyOutputs,
             Shared, Attention],
    ids=["mlp", "in-place", "many outputs", "shared", "attention"],
)  # fmt: skip
def test_every_gradient_is_that_of_finite_differences(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().double().eval()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    trace = tl.trace(model, x, save_grads=True)
    trace.log_backward(scalar(outputs(trace)))
    checked = 0
    for op in trace.compute_ops:
        # `nth` counts calls, and each of several outputs is a call's own; a pass-through has no call to count
        if op.grad is None or op.func_name == "identity" or op.in_multi_output:
            continue
        direction = torch.randn(op.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(checked))
        there, back = (loss_with(model, x, op, step, direction) for step in (STEP, -STEP))
        torch.testing.assert_close(
            torch.tensor((there - back) / (2 * STEP), dtype=torch.float64),
            (op.grad * direction).sum(),
            rtol=1e-5,
            atol=1e-6,
        )
        checked += 1
    assert checked >= 4


REPLAYED = {name: make for name, make in MODELS.items() if make not in (Custom,) and "reentrant" not in name}


@pytest.mark.parametrize("name", REPLAYED)
def test_gradients_of_a_replay_are_those_of_the_run(name: str) -> None:
    torch.manual_seed(0)
    model = REPLAYED[name]()
    x = torch.randn(3, 4, requires_grad=True)
    trace = tl.trace(model, x, save_grads=True, replay_ready=True)
    state = torch.get_rng_state()
    derived = trace.gradients(of=lambda out: scalar(out if isinstance(out, Tensor) else list(out.values())))
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None and all(parameter.grad is None for parameter in model.parameters())
    trace.log_backward(scalar(outputs(trace)))
    compared = 0
    for label, gradient in trace.gradients.items():
        torch.testing.assert_close(derived[label], gradient, rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared == len(trace.gradients) > 0
    assert list(derived) == [
        trace.labels.neighbour(op.raw_index) for op in trace if op.dtype.is_floating_point or op.dtype.is_complex
    ]


def test_a_replay_has_gradients_where_autograd_keeps_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    x = torch.randn(3, 4)
    trace = tl.trace(model, x, save=False, replay_ready=True)
    found = trace.gradients(of=lambda out: out.sum())
    torch.testing.assert_close(found["tanh_1"], model[1].weight.sum(0).expand(3, 4))
    torch.testing.assert_close(found["input_1"], found["tanh_1"] * (1 - torch.tanh(x) ** 2))
    assert list(trace.gradients(of=lambda out: out.sum(), at=tl.func("tanh"))) == ["tanh_1_1"]


def test_outputs_by_path_and_what_cannot_be_differentiated() -> None:
    model = ManyOutputs()
    x = torch.randn(3, 4)
    trace = tl.trace(model, x, replay_ready=True)
    assert trace.gradients(of=lambda out: out["sum"].sum())["add_1"].unique().tolist() == [1]
    with pytest.raises(tl.errors.GradientError, match=r"shape \(3, 2\).*Reduce it"):
        trace.gradients(of="output.sum")
    with pytest.raises(tl.errors.GradientError, match=r"no 'output\.some'.*Did you mean 'sum'"):
        trace.gradients(of="output.some")
    with pytest.raises(tl.errors.GradientError, match="say of=path"):
        trace.gradients(of=None)
    with pytest.raises(tl.errors.GradientError, match="not an array of one element"):
        trace.gradients(of=lambda out: 3.0)
    with pytest.raises(tl.errors.GradientError, match="does not depend"):
        trace.gradients(of=lambda out: out["sum"].detach().sum())
    with pytest.raises(tl.errors.GradientError, match="no Op of floating-point"):
        trace.gradients(of=lambda out: out["sum"].sum(), at=tl.where(lambda op: "int" in op.dtype_name))
    with pytest.raises(tl.errors.ReplayError, match="replay_ready=True"):
        tl.trace(model, x).gradients(of=lambda out: out["sum"].sum())


@pytest.mark.parametrize("make", [Custom, lambda: Checkpointed(True)], ids=["custom function", "reentrant checkpoint"])
def test_derivatives_that_a_replay_does_not_know_are_refused(make: type[nn.Module]) -> None:
    trace = tl.trace(make(), torch.randn(3, 4, requires_grad=True), replay_ready=True)
    with pytest.raises(tl.errors.ReplayError, match="derivative of its own"):
        trace.gradients(of=lambda out: out.sum())


def test_parameters_that_changed_since_are_refused() -> None:
    model = nn.Linear(4, 2)
    trace = tl.trace(model, torch.randn(3, 4), replay_ready=True)
    with torch.no_grad():
        model.weight.add_(1)
    with pytest.raises(tl.errors.ReplayError, match="'weight' was changed"):
        trace.gradients(of=lambda out: out.sum())


def test_a_replay_gives_the_gradients_of_parameters_too() -> None:
    torch.manual_seed(0)
    model = Shared().double().eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    found = tl.trace(model, x, replay_ready=True).gradients(of=lambda out: (out**2).sum(), params=True)
    (model(x) ** 2).sum().backward()
    assert sorted(found.params) == sorted(name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.params[name], parameter.grad)
