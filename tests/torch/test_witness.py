"""The instruments that the tables rely on find what they are there to find."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Model, Setup, assert_same_state, setup, state_of, traced, x
from tests.torch.oracle import Oracle, assert_same_values, recorded_values, same
from tests.torch.witness import Witness
from torchlens_core.errors import CaptureWarning


def sets_the_imaginary_part(x: Tensor) -> Tensor:
    """A write that reaches no function mode."""
    y = torch.complex(x, x)
    y.imag = torch.ones(2, 4)
    return y.abs()


def test_the_witness_finds_a_kernel_that_was_not_recorded() -> None:
    with Witness() as witness, pytest.warns(CaptureWarning):
        trace = tl.trace(sets_the_imaginary_part, x())
    missed = witness.unrecorded(trace)
    assert any(kernel.startswith("aten::copy_ at test_witness.py:") for kernel in missed), missed
    assert trace.num_ops == 3 - 1  # `ones` is an orphan: nothing shows that it was copied
    with pytest.raises(AssertionError, match="aten::copy_"), pytest.warns(CaptureWarning):
        traced(lambda: (sets_the_imaginary_part, x()))


def test_the_witness_passes_over_what_the_recorder_does_itself_and_what_runs_outside() -> None:
    with Witness() as witness:
        torch.ones(3)
        trace = tl.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout().eval()), x())
        torch.ones(3)
    names = [kernel.name for kernel in witness.kernels]
    assert "aten::clone" in names  # of the value that relu_ was about to overwrite
    assert names.count("aten::ones") == 2
    assert witness.unrecorded(trace) == []


def test_the_oracle_copies_at_once() -> None:
    y = torch.ones(2)
    with Oracle() as oracle:
        z = y * 2
        z.add_(1)
    assert [(name, values[0].tolist()) for name, values in oracle.values] == [("mul", [2, 2]), ("add_", [3, 3])]


@pytest.mark.parametrize("fault", ["value", "name", "missing"])
def test_the_comparison_with_the_oracle_finds_differences(fault: str) -> None:
    given = x()
    with Oracle() as oracle:
        (given * 2).relu()
    found = recorded_values(tl.trace(lambda x: (x * 2).relu(), given))
    assert_same_values(found, oracle.values)
    if fault == "value":
        oracle.values[1][1][0].add_(1)
    elif fault == "name":
        oracle.values[1] = ("gelu", oracle.values[1][1])
    else:
        del oracle.values[1]
    with pytest.raises(AssertionError):
        assert_same_values(found, oracle.values)


def test_equal_values() -> None:
    nan = torch.tensor([1.0, float("nan")])
    assert same(nan, nan.clone())
    assert not same(nan, torch.tensor([float("nan"), 1.0]))
    assert not same(torch.ones(2), torch.ones(2, dtype=torch.float64))
    assert not same(torch.ones(2), torch.ones(1, 2))


@pytest.mark.parametrize("fault", ["state", "argument", "generator"])
def test_what_a_call_leaves_is_compared(fault: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.shift

    made = setup(lambda: Setup(Model(forward, shift=torch.ones(4)), (x(),), {}))
    before = state_of(made)
    assert_same_state(before, state_of(made))
    if fault == "state":
        made.model.shift.add_(1)
    elif fault == "argument":
        made.args[0].add_(1)
    else:
        torch.rand(1)
    with pytest.raises(AssertionError):
        assert_same_state(before, state_of(made))
