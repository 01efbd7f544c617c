"""Gradients into actions, values that are written in place, and actions that go wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.conftest import assert_nothing_left
from tests.torch.hooked_models import WIDTH, net, x
from torchlens_core.errors import InterventionError

RELU = tl.func("relu")


# -- gradients into actions --------------------------------------------------------------------------------------------


def test_a_part_is_changed_for_gradients_too() -> None:
    model, given = net(), x().requires_grad_()
    made = tl.trace(model, given, intervene=tl.when(RELU.at[:, 1], lambda v: v.sin() * 2))
    value = model[0](given).relu()
    value = torch.cat([value[:, :1], value[:, 1:2].sin() * 2, value[:, 2:]], 1)
    ours, theirs = (torch.autograd.grad(out.sum(), given)[0] for out in (made["output_1"].out, model[2](value)))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("make", [tl.steer, tl.add, tl.scale, tl.project_off, tl.replace_with])
def test_a_setting_can_be_trained(make: Any) -> None:
    vector = torch.ones(WIDTH, requires_grad=True)
    made = tl.trace(net(), x(), intervene=tl.when(RELU, make(vector)))
    made["output_1"].out.sum().backward()
    assert vector.grad is not None


def test_a_module_that_is_spliced_in_can_be_trained_and_is_no_part_of_the_trace() -> None:
    model, given = net(), x()
    coder = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))
    made = tl.trace(model, given, intervene=tl.when(tl.module("1"), tl.splice_module(coder)))
    made["output_1"].out.sum().backward()
    assert all(parameter.grad is not None for parameter in coder.parameters())
    assert [op.type for op in made.compute_ops] == ["linear", "relu", "linear"]
    assert [call.address for call in made.module_calls] == ["self", "0", "1", "2"]


def test_a_part_of_the_model_itself_can_be_spliced_in() -> None:
    model, given = net(), x()
    made = tl.trace(model, given, intervene=tl.when(tl.module("1"), tl.splice_module(model[0])))
    assert torch.equal(made["output_1"].out, model[2](model[0](model[0](given).relu())))
    assert made.num_ops == 3


def test_gradients_flow_to_where_a_value_was_swapped_from() -> None:
    model, given = net(nn.ReLU(), nn.Tanh()), x().requires_grad_()
    made = tl.trace(model, given, intervene=tl.when(tl.func("tanh"), tl.swap_with(tl.func("linear"))))
    ours = torch.autograd.grad(made["output_1"].out.sum(), given)[0]
    assert torch.allclose(ours, torch.autograd.grad(model[0](given).sum(), given)[0])


def test_what_is_swapped_in_is_the_value_at_its_site() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.sin()
        z = y.cos()
        y.mul_(0.0)  # after it was read
        return z + y

    given = x()
    made = tl.trace(model, given, intervene=tl.when(tl.func("cos"), tl.swap_with(tl.func("sin"))))
    assert torch.equal(made["output_1"].out, given.sin())


def test_noise_on_gradients() -> None:
    model, given = net(), x().requires_grad_()
    (clean,) = torch.autograd.grad(model(given).sum(), given)
    made = tl.trace(model, given, intervene=tl.when(tl.func("linear").nth(1), tl.grad_noise(0.5, seed=1)))
    out = made["output_1"].out.sum()
    one, other = (torch.autograd.grad(out, given, retain_graph=True)[0] for _ in range(2))
    assert not torch.allclose(one, clean)
    assert not torch.allclose(one, other)  # another pass, another draw
    again = tl.trace(model, given, intervene=tl.when(tl.func("linear").nth(1), tl.grad_noise(0.5, seed=1)))
    assert torch.equal(torch.autograd.grad(again["output_1"].out.sum(), given)[0], one)


def test_a_gradient_of_a_part() -> None:
    model, given = net(), x().requires_grad_()
    made = tl.trace(model, given, intervene=tl.when(tl.func("linear").nth(1).at[0], tl.grad_zero()))
    (grad,) = torch.autograd.grad(made["output_1"].out.sum(), given)
    assert not grad[0].any()
    assert grad[1:].any()


def test_several_interventions_on_one_gradient_act_in_order() -> None:
    model, given = net(), x().requires_grad_()
    whens = [
        tl.when(tl.func("linear").nth(2), tl.bwd_hook(lambda g: g + 1)),
        tl.when(tl.module("2"), tl.grad_scale(3.0)),
    ]
    made = tl.trace(model, given, intervene=whens)
    (grad,) = torch.autograd.grad(made["output_1"].out.sum(), given)
    (clean,) = torch.autograd.grad(model(given).sum(), given)
    assert torch.allclose(grad, clean * 6)
    assert len(made["linear_2"].interventions) == 2


def test_second_derivatives_go_through_an_action() -> None:
    given = x().double().requires_grad_()

    def run(given: Tensor) -> Tensor:
        return tl.trace(
            lambda v: v.sin().exp(), given, intervene=tl.when(tl.func("sin"), tl.project_off([1, 2, 3, 4]))
        )["output_1"].out

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


# -- in place ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda y: y.add_(1), lambda y: y + 1),
        (lambda y: y.__iadd__(1), lambda y: y + 1),
        (lambda y: torch.add(y, 1, out=y), lambda y: y + 1),
        (lambda y: y.__setitem__(slice(None), y.detach() + 1), lambda y: y + 1),
        (lambda y: y.copy_(y.detach() + 1), lambda y: y + 1),
        (lambda y: F.threshold(y, 0.0, 1.0, inplace=True), lambda y: F.threshold(y, 0.0, 1.0)),
        (lambda y: y.masked_fill_(y > 0, 1.0), lambda y: y.masked_fill(y > 0, 1.0)),
        (lambda y: y[:1].add_(1), lambda y: y[:1] + 1),
    ],
)
def test_the_changed_value_is_written_into_the_array(write: Any, expected: Any) -> None:
    given = x()
    kinds: list[str] = []

    def model(given: Tensor) -> Tensor:
        y = given * 1
        view = y[:1]
        write(y)
        return torch.stack([view * 1, y[:1]])

    for op in tl.trace(model, given).compute_ops:
        kinds += [op.func_name] if op.is_inplace else []
    (kind,) = kinds
    made = tl.trace(model, given, intervene=tl.when(tl.func(kind), tl.scale(10.0), keep_clean=True))
    assert torch.allclose(made["output_1"].out, torch.stack([expected(given)[:1] * 10] * 2))
    (op,) = made.find_sites(tl.func(kind))
    assert torch.allclose(op.out, op.clean_out * 10)
    assert torch.allclose(op.out[:1], expected(given)[:1] * 10)


def test_running_statistics_are_written_as_without_an_intervention() -> None:
    given = x(8, WIDTH)
    plain, traced = nn.BatchNorm1d(WIDTH), nn.BatchNorm1d(WIDTH)
    out = plain(given)
    made = tl.trace(traced, given, intervene=tl.when(tl.func("batch_norm"), tl.scale(2.0)))
    assert torch.equal(made["output_1"].out, out * 2)
    for ours, theirs in zip(traced.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_input_of_the_user_is_written_as_the_model_writes_it() -> None:
    given = x()
    expected = given.relu() * 2
    tl.trace(lambda v: v.relu_() + 1, given, intervene=tl.when(RELU, tl.scale(2.0)))
    assert torch.equal(given, expected)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [RELU, tl.module("1"), tl.func("linear").nth(2)])
def test_an_action_that_raises_leaves_everything_as_it_was(selector: Any) -> None:
    def fails(value: Tensor) -> Tensor:
        raise RuntimeError("in the action")

    model, given = net(), x()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="in the action") as raised:
        tl.trace(model, given, intervene=tl.when(selector, fails))
    assert_nothing_left()
    assert raised.value.partial_trace["linear_1"].has_saved_value  # type: ignore[attr-defined]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert tl.trace(model, given).num_ops == 3


def test_an_action_on_a_gradient_that_raises() -> None:
    made = tl.trace(net(), x(), intervene=tl.when(RELU, tl.bwd_hook(lambda g: g[0])))
    with pytest.raises(InterventionError, match=r"at relu.*changes shape \(3, 4\) of float32 to shape \(4,\)"):
        made["output_1"].out.sum().backward()


def test_a_module_that_gives_another_type_is_named() -> None:
    model = net().bfloat16()
    with pytest.raises(InterventionError, match=r"of bfloat16 to shape .* of float32"):
        tl.trace(model, x().bfloat16(), intervene=tl.when(RELU, lambda v: v.float()))


def test_an_action_that_writes_in_place_changes_only_what_it_may() -> None:
    def model(given: Tensor) -> Tensor:
        return given.sin().cos()

    given = x()
    made = tl.trace(model, given, intervene=tl.when(tl.func("sin"), lambda v: v.mul_(2.0)))
    assert torch.allclose(made["output_1"].out, (given.sin() * 2).cos())
    assert torch.equal(made["sin_1"].out, given.sin() * 2)


def test_an_action_may_give_back_a_parameter_or_its_argument() -> None:
    model, given = net(), x()
    stored = nn.Parameter(torch.ones(3, WIDTH))
    made = tl.trace(model, given, intervene=tl.when(RELU, lambda v: stored))
    assert torch.equal(made["output_1"].out, model[2](stored))
    made["output_1"].out.sum().backward()
    assert stored.grad is not None
    made = tl.trace(model, given, intervene=tl.when(tl.module("1"), lambda v: v))
    assert torch.equal(made["output_1"].out, model(given))


def test_an_array_of_another_framework_is_refused() -> None:
    class Strange:
        shape, dtype = (WIDTH,), "float32"

    with pytest.raises(InterventionError, match="Strange is no array of this framework"):
        tl.trace(net(), x(), intervene=tl.when(RELU, tl.add(Strange())))
