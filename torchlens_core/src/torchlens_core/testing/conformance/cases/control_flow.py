"""Python that branches on values: which arm ran, and what the branch depends on."""

from __future__ import annotations

from typing import Any

from ..case import Table, numbers, x
from ..fixtures import Fixtures

CONTROL_FLOW = Table("control flow", needs="branches_on_values")


def _if_else(fw: Fixtures, sign: float) -> Any:
    def forward(x: Any) -> Any:
        y = x * 2
        if fw.sum(y) > 0:
            z = fw.relu(y)
        else:
            z = fw.tanh(y) + 1
        return z - 1

    return forward, fw.array(abs(numbers(2, 4)) * sign)


@CONTROL_FLOW(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    sum_1_2 <- mul_1_1
    gt_1_3 <- sum_1_2
    relu_1_4 <- mul_1_1
    sub_1_5 <- relu_1_4 -> self:1
    output_1 = output <- sub_1_5
    """,
    tests=("mul_1_1 -> sum_1_2",),
    arms={"then": ["mul_1_1 -> relu_1_4"]},
)
def if_true(fw: Fixtures) -> Any:
    """The first arm of an `if`."""
    return _if_else(fw, 1)


@CONTROL_FLOW(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    sum_1_2 <- mul_1_1
    gt_1_3 <- sum_1_2
    tanh_1_4 <- mul_1_1
    add_1_5 <- tanh_1_4
    sub_1_6 <- add_1_5 -> self:1
    output_1 = output <- sub_1_6
    """,
    tests=("mul_1_1 -> sum_1_2",),
    arms={"else": ["mul_1_1 -> tanh_1_4"]},
)
def if_false(fw: Fixtures) -> Any:
    """Its `else`."""
    return _if_else(fw, -1)


@CONTROL_FLOW(
    """
    input_1 = input.x
    sum_1_1 <- input_1
    gt_1_2 <- sum_1_1
    gt_2_3 <- sum_1_1
    mul_1_4 <- input_1
    add_1_5 <- mul_1_4 -> self:1
    output_1 = output <- add_1_5
    """,
    tests=("input_1 -> sum_1_1",),
    arms={"elif_1": ["input_1 -> mul_1_4"]},
)
def elif_(fw: Fixtures) -> Any:
    """The second of three arms: two predicates were read."""

    def forward(x: Any) -> Any:
        total = fw.sum(x)
        if total > 100:
            y = x * 1
        elif total > 0:
            y = x * 2
        else:
            y = x * 3
        return y + 1

    return forward, fw.array(abs(numbers(2, 4)))


@CONTROL_FLOW(
    """
    input_1 = input.x
    sum_1_1:1 <- input_1
    lt_1_2:1 <- sum_1_1:1
    mul_1_3:1 <- input_1
    sum_1_1:2 <- mul_1_3:1
    lt_1_2:2 <- sum_1_1:2
    mul_1_3:2 <- mul_1_3:1
    sum_1_1:3 <- mul_1_3:2
    lt_1_2:3 <- sum_1_1:3
    mul_1_3:3 <- mul_1_3:2 -> self:1
    sum_1_1:4 <- mul_1_3:3
    lt_1_2:4 <- sum_1_1:4
    output_1 = output <- mul_1_3:3
    """,
    tests=(
        "input_1 -> sum_1_1:1",
        "mul_1_3:1 -> sum_1_1:2",
        "mul_1_3:2 -> sum_1_1:3",
        "mul_1_3:3 -> sum_1_1:4",
    ),
    arms={"body": ["input_1 -> mul_1_3:1", "mul_1_3:1 -> mul_1_3:2", "mul_1_3:2 -> mul_1_3:3"]},
)
def a_while_on_a_value(fw: Fixtures) -> Any:
    """The condition has one pass more than the body."""

    def forward(x: Any) -> Any:
        while fw.sum(x) < 20:
            x = x * 2
        return x

    return forward, fw.array(numbers(4) * 0 + 1)


@CONTROL_FLOW(
    """
    input_1 = input.x
    sum_1_1 <- input_1
    mul_1_2 <- input_1 -> self:1
    output_1 = output <- mul_1_2
    """,
    no_gradient="to autodiff a Python number is a constant",
)
def a_number_read_from_an_array(fw: Fixtures) -> Any:
    """A Python number made of an array is noted where it was read; what it is used for is no edge."""
    return lambda x: x * float(fw.sum(x)), x(fw)
