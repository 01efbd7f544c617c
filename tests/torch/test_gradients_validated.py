"""``tl.validate(..., scope="backward")``: true of true gradients, and false of wrong ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.test_gradients import MODELS, Cut, Shared
from torchlens_core.gradients import validation


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("custom function", "reentrant checkpoint")])
def test_gradients_are_valid(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    report = tl.validate(model, torch.randn(3, 4), scope="backward")
    assert report, str(report)
    assert report.num_gradients > 1 and report.finite_difference is None
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["mlp", "in-place", "many outputs", "shared", "cut", "attention", "recurrent"])
def test_finite_differences_in_float64(name: str) -> None:
    torch.manual_seed(0)
    report = tl.validate(MODELS[name]().double(), torch.randn(3, 4, dtype=torch.float64), scope="backward")
    assert report, str(report)
    assert (
        report.num_finite_differences >= (2 if name in ("cut", "in-place") else 4) and report.finite_difference < 1e-6
    )
    assert "finite differences at" in str(report)


def test_a_wrong_derivative_is_found() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.sin()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient

    fc = nn.Linear(4, 4)
    report = tl.validate(lambda x: Wrong.apply(fc(x)), torch.randn(3, 4), scope="backward")
    assert not report and "derivative of its own" in str(report)


def test_gradients_that_differ_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    derive = validation.derive
    monkeypatch.setattr(
        validation, "derive", lambda *args: {key: None if g is None else 2 * g for key, g in derive(*args).items()}
    )
    report = tl.validate(Shared().double(), torch.randn(3, 4, dtype=torch.float64), scope="backward")
    assert not report and report.finite_difference > 0.4
    assert any("another gradient" in problem for problem in report.problems)
    assert any("the loss changes by" in problem for problem in report.problems)


def test_a_model_without_gradients_says_so() -> None:
    report = tl.validate(lambda x: x.argmax(-1), torch.randn(3, 4), scope="backward")
    assert not report and "no floating-point array" in str(report)
    with pytest.raises(tl.errors.OptionError, match="Did you mean 'backward'"):
        tl.validate(Cut(), torch.randn(3, 4), scope="backwards")
