"""Several outputs: of operations, and of models."""

from __future__ import annotations

from typing import Any

from ..case import Table, linear, numbers, x
from ..fixtures import Fixtures

OUTPUTS = Table("several outputs")


@OUTPUTS(
    """
    input_1 = input.x
    split_1_1 <- input_1
    split_2_2 <- input_1
    mul_1_3 <- split_1_1, split_2_2 -> self:1
    output_1 = output <- mul_1_3
    """
)
def an_operation_with_several_outputs(fw: Fixtures) -> Any:
    """Each array of one call is an Op."""

    def forward(x: Any) -> Any:
        left, right = fw.split(x, 2)
        return left * right

    return forward, x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    sort_1_1 <- input_1
    sort_2_2 <- input_1
    mul_1_3 <- sort_1_1 -> self:1
    output_1 = output <- mul_1_3
    """,
    needs="sorting",
)
def outputs_of_different_types(fw: Fixtures) -> Any:
    """Values and integers from one call; only one of them is taken."""

    def forward(x: Any) -> Any:
        values, _ = fw.sort(x)
        return values * 2

    return forward, x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    relu_1_1 <- input_1 -> self:1
    tanh_1_2 <- input_1 -> self:1
    output_1 = output.0 <- relu_1_1
    output_2 = output.1 <- tanh_1_2
    """
)
def a_tuple(fw: Fixtures) -> Any:
    """What the model returns in a tuple is an output each, by position."""
    return lambda x: (fw.relu(x), fw.tanh(x)), x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    mul_1_1 <- input_1 -> self:1
    relu_1_2 <- input_1 -> self:1
    tanh_1_3 <- input_1 -> self:1
    output_1 = output.first <- mul_1_1
    output_2 = output.second.0 <- relu_1_2
    output_3 = output.second.1 <- tanh_1_3
    """
)
def a_dict(fw: Fixtures) -> Any:
    """Containers in containers: outputs by path."""
    return lambda x: {"first": x * 2, "second": [fw.relu(x), fw.tanh(x)]}, x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    relu_1_1 <- input_1 -> self:1
    output_1 = output.0 <- relu_1_1
    output_2 = output.1 <- relu_1_1
    """
)
def one_array_returned_twice(fw: Fixtures) -> Any:
    """The same array in two places of what is returned is two outputs."""

    def forward(x: Any) -> Any:
        y = fw.relu(x)
        return y, y

    return forward, x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in fc:1 -> fc:1 self:1
    relu_1_2 <- linear_1_1
    linear_2_3 <- relu_1_2 in head:1 -> head:1 self:1
    output_1 = output.0 <- linear_2_3
    output_2 = output.1 <- linear_1_1
    """,
    needs="modules",
)
def an_output_from_the_middle(fw: Fixtures) -> Any:
    """An array that is returned, and is taken by others too."""

    def forward(self: Any, x: Any) -> Any:
        hidden = self.fc(x)
        return self.head(fw.relu(hidden)), hidden

    return fw.module(forward, fc=linear(fw, 4, 4), head=linear(fw, 4, 2, 2)), x(fw)


@OUTPUTS(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    sum_1_2 <- mul_1_1 -> self:1
    output_1 = output <- sum_1_2
    """
)
def no_dimensions(fw: Fixtures) -> Any:
    """An array without dimensions is an array."""
    return lambda x: fw.sum(x * 2), fw.array(numbers(2, 4))
