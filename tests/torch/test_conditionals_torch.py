"""Semantics, section 6: an array read as a Python bool, and the arm of the conditional that ran."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.torch.cases import Model, traced

LOW, HIGH = torch.full((2, 4), -1.0), torch.full((2, 4), 1.0)


def if_else(x: Tensor) -> Tensor:
    y = x * 2
    if y.sum() > 0:
        z = torch.relu(y)
    else:
        z = torch.tanh(y) + 1
    return z - 1


def elif_chain(x: Tensor) -> Tensor:
    total = x.sum()
    if total > 100:
        y = x * 1
    elif total > 0:
        y = x * 2
    elif total > -100:
        y = x * 3
    else:
        y = x * 4
    return y + 1


def ternary(x: Tensor) -> Tensor:
    return torch.sin(x) if x.mean() > 0 else torch.cos(x)


def while_loop(x: Tensor) -> Tensor:
    while x.norm() < 10:
        x = x * 2
    return x


def assertion(x: Tensor) -> Tensor:
    assert x.isfinite().all()
    return x + 1


def nested(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x + 1
        if y.max() > 5:
            y = y / 2
        else:
            y = y * 3
        return y
    return x


def no_array(x: Tensor) -> Tensor:
    if x.shape[0] == 2:
        x = x + 1
    return x


def arms(trace: Any) -> dict[str, list[tuple[int, str]]]:
    """Short label -> the arms that an Op ran in."""
    return {
        op.label_short if op.num_passes > 1 else op.layer_label_short: op.conditional_branch_stack
        for op in trace.compute_ops
        if op.is_in_conditional_body
    }


ARMS: dict[str, tuple[Any, Tensor, dict[str, list[tuple[int, str]]]]] = {
    "then": (if_else, HIGH, {"relu_1": [(0, "then")]}),
    "else": (if_else, LOW, {"tanh_1": [(0, "else")], "add_1": [(0, "else")]}),
    "elif 1": (elif_chain, HIGH, {"mul_1": [(0, "elif_1")]}),
    "elif 2": (elif_chain, LOW, {"mul_1": [(0, "elif_2")]}),
    "ternary then": (ternary, HIGH, {"sin_1": [(0, "then")]}),
    "ternary else": (ternary, LOW, {"cos_1": [(0, "else")]}),
    "nested": (nested, HIGH, {"add_1": [(0, "then")], "max_1": [(0, "then")], "gt_2": [(0, "then")],
                              "mul_1": [(0, "then"), (1, "else")]}),
    "no array": (no_array, HIGH, {}),
    "assert": (assertion, HIGH, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ARMS)
def test_the_arm_that_ran(name: str) -> None:
    function, given, expected = ARMS[name]
    assert arms(traced(lambda: (function, given.clone()))) == expected


def test_edges_of_a_conditional() -> None:
    trace = traced(lambda: (if_else, HIGH.clone()))
    assert trace.conditional_branch_edges == [("mul_1_1", "sum_1_2")]
    assert trace.conditional_arm_entry_edges == {(0, "then"): [("mul_1_1", "relu_1_4")]}
    other = traced(lambda: (if_else, LOW.clone()))
    assert other.conditional_arm_entry_edges == {(0, "else"): [("mul_1_1", "tanh_1_4")]}


def test_predicates() -> None:
    trace = traced(lambda: (if_else, HIGH.clone()))
    gt = trace["gt_1"]
    assert gt.is_terminal_bool and gt.bool_value is True
    assert not trace["sum_1"].is_terminal_bool
    assert gt.is_internal_sink
    assert not gt.is_orphan
    assert traced(lambda: (if_else, LOW.clone()))["gt_1"].bool_value is False


def test_a_while_loop_asks_again_and_again() -> None:
    trace = traced(lambda: (while_loop, torch.full((4,), 0.75)))
    assert [op.bool_value for op in trace["lt_1"].ops] == [True, True, True, False]
    (loop,) = trace.conditionals.conditionals
    assert loop.kind == "while"
    assert [len(execution.predicates) for execution in loop.executions] == [1, 1, 1, 1]


def test_a_conditional_in_a_module_called_twice() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x - 100
            return x * 5

    trace = traced(lambda: (Model(lambda self, x: self.gate(self.gate(x)), gate=Gate()), HIGH.clone()))
    assert [op.type for op in trace.compute_ops] == ["sum", "gt", "sub", "sum", "gt", "mul"]
    assert trace["sub_1"].conditional_branch_stack == [(0, "then")]
    assert [trace[name].bool_value for name in ("gt_1", "gt_2")] == [True, False]


def test_where_there_is_no_source_the_event_stays_and_the_arms_are_unknown() -> None:
    namespace: dict[str, Any] = {"torch": torch}
    exec("def forward(x):\n    if x.sum() > 0:\n        return torch.sin(x)\n    return x\n", namespace)
    trace = traced(lambda: (namespace["forward"], HIGH.clone()))
    assert trace["gt_1"].bool_value is True
    assert arms(trace) == {}
