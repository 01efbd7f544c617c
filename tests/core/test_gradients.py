"""Gradients in the form that all frameworks have: the recorded operations run again and differentiated."""

import numpy as np
import pytest

import torchlens_core.testing.toy_framework as toy
from torchlens_core.errors import GradientError, GradientNotSaved, NotSupported, ReplayError
from torchlens_core.interventions.when import when
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func
from torchlens_core.testing.toy_autodiff import DERIVATIVES, grad
from torchlens_core.testing.toy_framework import Array, Module, Parameter
from torchlens_core.testing.toy_layers import Dropout, Linear, RunningMean, Sequential, Tanh
from torchlens_core.tracing import trace
from torchlens_core.validate import validate

X = Array(np.random.default_rng(3).normal(size=(3, 4)))


class Writes(Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = Parameter(np.arange(1.0, 5.0))

    def forward(self, x: Array) -> Array:
        h = x * self.scale
        h *= 2.0
        h += toy.sin(h)
        h[0] = h[1] * h[2]
        parts = toy.split(h, 2)
        values, _ = toy.sort(parts[0] - parts[1])
        return toy.concat([values, toy.exp(parts[1] / 9.0)], 1).mean(0)


class Loop(Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Linear(4, 4, seed=2)

    def forward(self, x: Array) -> Array:
        for _ in range(3):
            x = toy.tanh(self.cell(x) + x)
        return toy.matmul(x, self.cell.weight[:, :2]) * x[:, 1:3]


def made(model: Module, **options: object) -> Trace:
    return trace(model, X, replay_ready=True, **options)  # type: ignore[arg-type]


MODELS = {
    "layers": lambda: Sequential(Linear(4, 5), Tanh(), Dropout(), RunningMean(5), Linear(5, 2, bias=False, seed=1)),
    "writes": Writes,
    "loop": Loop,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_is_that_of_finite_differences(name: str) -> None:
    report = validate(MODELS[name](), X, scope="backward")
    assert report, str(report)
    assert report.num_finite_differences >= 5
    assert report.finite_difference < 1e-6


def test_gradients_by_label_at_all_ops_or_at_some() -> None:
    found = made(Sequential(Linear(4, 5), Tanh())).gradients(of=lambda out: out.sum())
    assert list(found) == ["input_1", "linear_1_1", "tanh_1_2", "output_1"]
    assert "tanh_1" not in found and (found["tanh_1"].data == 1).all()
    some = made(Sequential(Linear(4, 5), Tanh())).gradients(of=lambda out: out.sum(), at=func("tanh"))
    assert list(some) == ["tanh_1_2"] and repr(some) == "<1 gradient: tanh_1_2>"


def test_an_op_that_the_loss_does_not_depend_on_has_none() -> None:
    class Two(Module):
        def forward(self, x: Array) -> dict[str, Array]:
            return {"a": toy.tanh(x), "b": toy.sin(x).sum()}

    found = made(Two()).gradients(of="output.b")
    assert found["tanh_1"] is None
    assert found["sin_1"].data.tolist() == np.ones((3, 4)).tolist()
    np.testing.assert_allclose(found["input_1"].data, np.cos(X.data))


def test_gradients_at_the_parameters_too() -> None:
    model = Sequential(Linear(4, 5), Tanh())
    found = made(model).gradients(of=lambda out: out.sum(), params=True)
    slope = 1 - model(X).data ** 2
    np.testing.assert_allclose(found.params["layers.0.weight"].data, slope.T @ X.data)
    np.testing.assert_allclose(found.params["layers.0.bias"].data, slope.sum(0))
    with pytest.raises(GradientNotSaved, match="params=True"):
        _ = made(model).gradients(of=lambda out: out.sum()).params


def test_why_there_is_no_gradient() -> None:
    class Two(Module):
        def forward(self, x: Array) -> dict[str, Array]:
            return {"a": toy.tanh(x), "b": toy.sin(x).sum(), "c": x > 0.0}

    found = made(Two()).gradients(of="b", at=func("sin"))
    assert found.why_none("sin_1") is None and "at= means other Ops" in found.why_none("tanh_1")
    every = made(Two()).gradients(of="b")
    assert every.why_none("tanh_1") == "what was differentiated does not depend on it"
    assert every["gt_1"] is None and "bool" in every.why_none("gt_1") and "gt_1_4" not in every


def test_interventions_of_the_run_are_in_it() -> None:
    steered = made(Sequential(Linear(4, 5), Tanh()), intervene=when(func("linear"), lambda value: value * 3.0))
    found = steered.gradients(of=lambda out: out.sum())
    np.testing.assert_allclose(found["linear_1"].data, 1 - steered["tanh_1"].out.data ** 2)


def test_a_derivative_for_each_operation_that_has_one() -> None:
    own = {name for name, made in toy.OPERATIONS.items() if made.compute.__module__ == toy.__name__}  # not of tests
    assert own - set(DERIVATIVES) == {"gt", "lt", "zeros", "rand"}


def test_grad_of_a_function() -> None:
    value, (first, second, third) = grad(lambda x, y, z: (x * x * y).sum(), [Array([1.0, 2.0]), Array([3.0, 4.0]), X])
    assert value.data == 19 and first.data.tolist() == [6, 16] and second.data.tolist() == [1, 4] and third is None


def test_what_cannot_be_done_says_what_can() -> None:
    model = Sequential(Linear(4, 5), Tanh())
    with pytest.raises(NotSupported, match=r"toy has none.*replay_ready=True.*trace\.gradients\(of=\.\.\.\)"):
        trace(model, X, save_grads=True)
    plain = trace(model, X)
    with pytest.raises(ReplayError, match="replay_ready=True"):
        plain.gradients(of=lambda out: out.sum())
    with pytest.raises(GradientNotSaved, match=r"no gradient tape.*gradients\(of=\.\.\.\)\['tanh_1_2:1'\]"):
        _ = plain["tanh_1"].grad
    with pytest.raises(GradientNotSaved, match=r"gradients\(of=\.\.\., params=True\)\.params\['layers.0.weight'\]"):
        _ = plain.params["layers.0.weight"].grad
    with pytest.raises(NotSupported, match=r"no gradient tape.*trace\.gradients\(of=\.\.\.\)"):
        plain.log_backward(X)
    ready = made(model)
    with pytest.raises(GradientError, match=r"shape \(3, 5\).*Reduce it"):
        ready.gradients(of="output")
    with pytest.raises(GradientError, match="depends on none"):
        ready.gradients(of=lambda out: toy.zeros((1,)).sum())
    assert len(plain.gradients) == len(plain.backward_passes) == len(plain.grad_fns) == 0
    assert plain["tanh_1"].has_grad is False and plain["tanh_1"].grad_nbytes == 0
