"""Replaying PyTorch models: exactly as they ran, and with changes against the same changes made by hand."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import torchlens as tl
from tests.torch.test_memory import Step, forward, steps
from torchlens_core.errors import InterventionError, ReplayDiverged, ReplayError, ReplayWarning
from torchlens_core.records.trace import Trace


def same(a: Trace, b: Trace) -> list[str]:
    """Labels of the Ops whose values differ in a bit; both traces keep the same ones."""
    assert [op.label for op in a] == [op.label for op in b]
    assert [op.has_saved_value for op in a] == [op.has_saved_value for op in b]
    return [x.label for x, y in zip(a, b, strict=True) if x.has_saved_value and not torch.equal(x.out, y.out)]


# -- as it ran ---------------------------------------------------------------------------------------------------------


class Everything(nn.Module):
    """Random operations, writes in place, views, buffers that are written, reads as Python values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))
        self.table = torch.arange(8.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.fc(x)))
        left, right = y[:, :4], y[:, 4:]
        left.mul_(2)
        y[:, 0] = 1
        if y.sum() > 0:
            y = self.drop(y) + torch.randn(8) * self.table
        self.seen += y.mean().detach()
        return y * self.seen + right.sum().item()


def everything() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Everything(), torch.randn(3, 4)


def plain() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)


def test_an_unchanged_replay_is_the_same_to_the_last_bit() -> None:
    model, x = everything()
    trace = tl.trace(model, x, replay_ready=True)
    before = torch.get_rng_state()
    values = {op.label: op.out.clone() for op in trace}
    state = {name: array.clone() for name, array in model.state_dict().items()}
    for _ in range(2):
        replayed = trace.replay()
        assert same(trace, replayed) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(values[op.label], op.out) for op in trace)
    assert all(torch.equal(array, state[name]) for name, array in model.state_dict().items())
    assert (
        str(replayed.last_run)
        == f"replayed from 'Everything', {len(trace.program.rows)} of {len(trace.program.rows)} calls run"
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps)
def test_random_programs_of_views_and_writes(program: list[Step]) -> None:
    trace = tl.trace(forward(program), torch.randn(4, 4), replay_ready=True, keep_orphans=True)
    assert same(trace, trace.replay()) == []
    for site in trace.compute_ops:
        part = trace.replay_from(site)
        assert same(trace, part) == []


# -- with changes, against the same by hand ----------------------------------------------------------------------------

WRITING = {"add_", "mul_", "fill_", "__setitem__", "relu_"}


class ByHand(TorchFunctionMode):
    """Changes the result of the n-th call that makes or writes a tensor."""

    def __init__(self, number: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.number, self.change, self.calls = number, change, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        written = args[0] if func.__name__ in WRITING else None
        if not isinstance(out, Tensor) and written is None:
            return out
        self.calls += 1
        if self.calls != self.number:
            return out
        if written is not None:
            written.copy_(self.change(written))
            return out
        return self.change(out)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps)
def test_changes_in_random_programs(program: list[Step]) -> None:
    x = torch.randn(4, 4)
    model = forward(program)
    trace = tl.trace(model, x, replay_ready=True, keep_orphans=True)
    values = [op.out.clone() for op in trace]
    with ByHand(0, lambda value: value) as counter:
        model(x)
    for number, op in enumerate(trace.compute_ops[: counter.calls], start=1):
        with ByHand(number, lambda value: value * 3 + 1):
            expected = model(x)
        for only_downstream in (True, False):
            replayed = trace.replay(hooks={op: lambda value: value * 3 + 1}, only_downstream=only_downstream)
            outputs = [each.out for each in replayed if each.is_output]
            assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True)), (op, only_downstream)
    assert all(torch.equal(a, op.out) for a, op in zip(values, trace, strict=True))


def test_kernels_that_choose_by_whether_a_gradient_is_wanted() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 6))
    trace = tl.trace(lambda x: torch.matmul(x[:, 6:10], weight.T), torch.randn(3, 16, 6), replay_ready=True)
    assert same(trace, trace.replay()) == []


class Casts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.fc(x)
        return torch.vmap(lambda row: row.float().softmax(0))(y)


class Clamps(nn.Module):
    """Writes its own parameter, unseen by the gradient tape."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.scale
        self.scale.data.clamp_(max=1.0)
        return y + self.scale


@pytest.mark.parametrize(
    "model", [Casts(), Clamps(), nn.LSTM(4, 3), nn.MultiheadAttention(4, 2)], ids=lambda model: type(model).__name__
)
def test_models_of_several_kinds(model: nn.Module) -> None:
    x = torch.randn(3, 4)
    arguments = [x, x, x] if isinstance(model, nn.MultiheadAttention) else [x]
    for _ in range(2):
        trace = tl.trace(model, arguments, replay_ready=True)
        assert same(trace, trace.replay()) == []


def test_what_is_not_reached_is_not_copied() -> None:
    model, x = plain()
    trace = tl.trace(model, x, replay_ready=True)
    replayed = trace.replay_from("1", 0.0)
    assert replayed["0"].out.data_ptr() == trace["0"].out.data_ptr()
    assert replayed.last_run is not None and replayed.last_run.rows_run == 1


def test_a_halted_run_replays_as_far_as_it_went() -> None:
    model, x = everything()
    with pytest.warns(ReplayWarning, match="bool"):
        tl.trace(model, x, replay_ready=True).replay_from("act", -1.0)
    trace = tl.trace(model, x, replay_ready=True, halt=tl.module("act"))
    assert same(trace, trace.replay()) == []


def test_another_path_is_noticed() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.relu()
        return y[y > 0].sum() * y.sum().item()

    trace = tl.trace(model, torch.ones(4), replay_ready=True)
    with pytest.warns(ReplayWarning, match="getitem_1_3:1, whose shape depends on the data"):
        replayed = trace.replay_from("relu", torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert replayed["getitem"].shape == (2,) and trace["getitem"].shape == (4,)
    with pytest.warns(ReplayWarning, match=r"item\(\) of sum_\d_\d:1 at .*test_replay.py:\d+, which was 4.0"):
        trace.replay_from("relu", 2.0)
    with pytest.raises(ReplayDiverged, match="sum_"):
        trace.replay_from("relu", 2.0, strict=True)


# -- with a gradient tape ----------------------------------------------------------------------------------------------


class Inplace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        with torch.no_grad():
            level = y.mean() * 2
        return self.head(y.sigmoid_() + level)


@pytest.mark.parametrize(
    "site", [tl.module("body.0"), tl.module("body.1"), tl.func("sigmoid"), tl.module("head")], ids=str
)
def test_gradients_through_a_replay(site: Any) -> None:
    torch.manual_seed(0)
    model, x = Inplace(), torch.randn(3, 4)
    with torch.no_grad():
        frozen = tl.trace(model, x, replay_ready=True)
    trace = tl.trace(model, x, replay_ready=True)
    live = tl.trace(model, x, intervene=tl.when(site, tl.scale(0.5)))
    expected = torch.autograd.grad(live[-1].out.square().sum(), list(model.parameters()), allow_unused=True)
    replayed = trace.replay(hooks={site: tl.scale(0.5)}, differentiable=True)
    found = torch.autograd.grad(replayed[-1].out.square().sum(), list(model.parameters()), allow_unused=True)
    assert torch.equal(replayed[-1].out, live[-1].out)
    for a, b in zip(expected, found, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, atol=1e-6)
    assert not trace.replay(hooks={site: tl.scale(0.5)})[-1].out.requires_grad
    assert frozen.replay(differentiable=True)[-1].out.requires_grad


def test_gradients_at_a_value_that_was_set() -> None:
    torch.manual_seed(0)
    model, x = Inplace(), torch.randn(3, 4)
    trace = tl.trace(model, x, replay_ready=True)
    value = torch.randn(3, 8, requires_grad=True)
    replayed = trace.replay_from("body.2", value, differentiable=True)
    (found,) = torch.autograd.grad(replayed[-1].out.sum(), value)
    by_hand = value.detach().clone().requires_grad_()
    level = (by_hand.mean() * 2).detach()
    (expected,) = torch.autograd.grad(model.head(by_hand.sigmoid() + level).sum(), by_hand)
    assert torch.allclose(found, expected, atol=1e-6)


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_parameters_that_were_changed_since() -> None:
    model, x = plain()
    trace = tl.trace(model, x, replay_ready=True)
    trace[-1].out.sum().backward()
    torch.optim.SGD(model[0].parameters(), 0.1).step()
    with pytest.raises(ReplayError, match=r"The parameter '0.weight' was changed after the trace was made"):
        trace.replay()
    assert trace.replay_from("1", 0.0)["2"].out.shape == (3, 2)  # which takes none that was
    assert torch.equal(trace.rerun(model)[-1].out, model(x))


def test_a_model_that_differentiates_inside() -> None:
    def model(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad((x.tanh() ** 2).sum(), x)[0] * 2

    trace = tl.trace(model, torch.ones(3), replay_ready=True)
    with pytest.raises(ReplayError, match="differentiates what ran before it"):
        trace.replay()
    done = trace.do("tanh", tl.scale(0.5), model)
    assert done.last_run is not None and done.last_run.engine == "rerun"


def test_a_value_of_another_kind() -> None:
    model, x = everything()
    fork = tl.trace(model, x, replay_ready=True).fork()
    with pytest.raises(
        InterventionError, match=r"linear_1_1:1 is an array of shape \(3, 8\), float32, on cpu; .* float64"
    ):
        fork.set("fc", torch.zeros(3, 8, dtype=torch.float64))
    with pytest.raises(InterventionError, match=r"float32, on cpu; the value to put there is .* float32, on meta"):
        fork.set("fc", torch.zeros(3, 8, device="meta"))


def test_what_it_keeps_alive() -> None:
    def left(**options: Any) -> tuple[bool, bool]:
        model = nn.Linear(4, 4)
        module, weight = weakref.ref(model), weakref.ref(model.weight)
        trace = tl.trace(model, torch.randn(2, 4), detach=True, **options)
        del model
        gc.collect()
        assert len(trace)
        return module() is not None, weight() is not None

    assert left() == (False, False)
    assert left(replay_ready=True) == (False, True)


def test_training_with_replays_leaks_nothing() -> None:
    model, x = plain()
    trace = tl.trace(model, x, replay_ready=True)
    for number in range(12):
        trace.replay_from("1", 0.5 * number, differentiable=True)[-1].out.sum().backward()
        gc.collect()
        count = len([each for each in gc.get_objects() if isinstance(each, Trace)])
        if number == 1:
            before = count
    assert count <= before
