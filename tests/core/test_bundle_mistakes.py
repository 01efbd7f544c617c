"""What the classical mistakes of a port look like, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.core.test_bundle_axes import numbers, of
from torchlens_core.bundle import Divergence, bundle
from torchlens_core.bundle.settings_compared import differing_settings
from torchlens_core.records.op import Op
from torchlens_core.testing.toy_framework import Array, Module, tanh
from torchlens_core.testing.toy_framework import operation as toy_operation
from torchlens_core.testing.toy_layers import Linear
from torchlens_core.tracing import trace


def operation(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    return toy_operation(name, run)


def divergence(left: Callable[..., Any], right: Callable[..., Any], *arrays: np.ndarray) -> Divergence:
    made = bundle({"a": of(left, *arrays), "b": of(right, *arrays, framework="other")})
    found = made.first_divergence()
    assert found is not None
    return found


def padded(before: int, after: int, mode: str = "constant") -> Callable[..., Any]:
    """A sum over windows of three, of images."""

    def run(x: Any) -> Any:
        x = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)), mode=mode)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        return windows.sum((-1, -2))

    return operation("conv2d", run)


def test_a_border() -> None:
    found = divergence(padded(1, 1), padded(1, 1, "reflect"), numbers(2, 3, 8, 8))
    assert found.hints == ("only the border differs, the 1 outermost of each spatial axis: another padding",)


def test_no_padding() -> None:
    found = divergence(padded(1, 1), padded(0, 0), numbers(2, 3, 8, 8))
    assert found.hints == ("shapes (2, 3, 8, 8) and (2, 3, 6, 6): another padding or stride",)


def test_a_factor() -> None:
    found = divergence(lambda x: tanh(x) / 4.0, lambda x: tanh(x) / 2.0, numbers(3, 4))
    assert found.hints == ("the values of 'b' are those of 'a' times 2",)


def test_a_log_softmax_over_another_axis() -> None:
    def over(axis: int) -> Callable[..., Any]:
        return operation("log_softmax", lambda x: x - np.log(np.exp(x).sum(axis, keepdims=True)))

    found = divergence(over(-1), over(0), numbers(3, 4))
    assert found.hints == ("it sums to 1 along axis 1 in 'a' and along axis 0 in 'b'",)


def test_channels_in_another_order() -> None:
    found = divergence(operation("pick", lambda x: x), operation("pick", lambda x: x[:, [2, 0, 1]]), numbers(2, 3, 4))
    assert found.hints == (
        "the slices along axis 1 are the same in another order (1, 2, 0): heads or channels swapped",
    )


@pytest.mark.parametrize(("rows", "words"), [(9, "are loaded transposed"), (3, "they may be loaded transposed")])
def test_weights_transposed(rows: int, words: str) -> None:
    layer, other = Linear(6, 6, seed=1), Linear(6, 6, seed=1)
    other.weight.data = layer.weight.data.T.copy()
    found = divergence(layer, other, numbers(rows, 6))
    assert len(found.hints) == 1 and words in found.hints[0]


def test_other_weights_are_not_called_transposed() -> None:
    found = divergence(Linear(6, 6, seed=1), Linear(6, 6, seed=2), numbers(9, 6))
    assert found.hints == ()


def test_an_intervention_explains_itself() -> None:
    from torchlens_core.interventions.when import when
    from torchlens_core.selectors import func

    x = Array(numbers(3, 4))
    changed = trace(lambda x: tanh(x), x, intervene=when(func("tanh"), lambda value: value * 2.0))
    found = bundle({"a": trace(lambda x: tanh(x), x), "b": changed}).first_divergence()
    assert found is not None and found.hints == ()


class Set(Module):
    """A module with settings of a framework."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        vars(self).update(settings)

    def forward(self, x: Array) -> Any:
        return tanh(x)


@pytest.mark.parametrize(
    ("left", "right", "name"),
    [
        ({"eps": 1e-5}, {"epsilon": 1e-6}, "eps"),
        ({"padding": 1}, {"padding": "VALID"}, "padding"),
        ({"stride": (2, 2)}, {"strides": 1}, "stride"),
        ({"groups": 2}, {"feature_group_count": 4}, "groups"),
    ],
)
def test_settings_by_other_names(left: dict[str, Any], right: dict[str, Any], name: str) -> None:
    assert settings_of(left, right) == {name: (next(iter(left.values())), next(iter(right.values())))}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"eps": 1e-5}, {"epsilon": 1e-5}),
        ({"padding": (1, 1)}, {"padding": ((1, 1), (1, 1))}),
        ({"padding": 1}, {"padding": "SAME"}),  # not known
        ({"padding": 0}, {"padding": "VALID"}),
        ({"stride": (2, 2)}, {"strides": (1, 2, 2, 1)}),
        ({"momentum": 0.1}, {"momentum": 0.9}),  # conventions differ
        ({"eps": 1e-5}, {"units": 3}),
    ],
)
def test_settings_that_are_the_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert settings_of(left, right) == {}


def settings_of(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    class Model(Module):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__()
            self.layer = Set(**settings)

        def forward(self, x: Array) -> Any:
            return self.layer(x)

    x = numbers(2, 3)
    logs = of(Model(left), x), of(Model(right), x, framework="other")
    first, second = (next(op for op in log if op.is_compute) for log in logs)
    assert isinstance(first, Op)
    return differing_settings(first, second)


def test_the_report_says_it_all() -> None:
    found = divergence(lambda x: tanh(x) / 4.0, lambda x: tanh(x) / 2.0, numbers(3, 4))
    assert str(found).splitlines()[-2:] == [
        "  took tanh_1_1 (agrees)",
        "  likely: the values of 'b' are those of 'a' times 2",
    ]
