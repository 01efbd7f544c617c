"""Straight networks and branches: labels, edges, inputs and outputs."""

from __future__ import annotations

from typing import Any

from ..case import Setup, Table, linear, numbers, x
from ..fixtures import Fixtures

NETWORKS = Table("capture")


@NETWORKS(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    sub_1_2 <- mul_1_1
    tanh_1_3 <- sub_1_2
    div_1_4 <- tanh_1_3 -> self:1
    output_1 = output <- div_1_4
    """
)
def a_function(fw: Fixtures) -> Any:
    """A function without modules: arithmetic with numbers on either side."""
    return lambda x: fw.tanh(1 - x * 2) / 4, x(fw)


@NETWORKS(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in fc:1 -> fc:1
    relu_1_2 <- linear_1_1
    linear_2_3 <- relu_1_2 in head:1 -> head:1 self:1
    output_1 = output <- linear_2_3
    """,
    needs="modules",
)
def mlp(fw: Fixtures) -> Any:
    """Layers one after another."""

    def forward(self: Any, x: Any) -> Any:
        return self.head(fw.relu(self.fc(x)))

    return fw.module(forward, fc=linear(fw, 4, 8), head=linear(fw, 8, 3, 2)), x(fw)


@NETWORKS(
    """
    input_1 = input.x
    conv2d_1_1 <- input_1 in first:1 -> first:1
    relu_1_2 <- conv2d_1_1
    conv2d_2_3 <- relu_1_2 in second:1 -> second:1 self:1
    output_1 = output <- conv2d_2_3
    """,
    needs="modules convolutions",
)
def cnn(fw: Fixtures) -> Any:
    """Convolutions, of different sizes, one after another."""

    def forward(self: Any, x: Any) -> Any:
        return self.second(fw.relu(self.first(x)))

    first = fw.conv2d(numbers(2, 3, 3, 3) / 4, numbers(2, seed=3))
    second = fw.conv2d(numbers(4, 2, 1, 1, seed=4), numbers(4, seed=5))
    return fw.module(forward, first=first, second=second), fw.image(numbers(2, 3, 6, 5, seed=1))


@NETWORKS(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in first:1 -> first:1
    relu_1_2 <- linear_1_1
    linear_2_3 <- relu_1_2 in second:1 -> second:1
    add_1_4 <- linear_2_3, linear_1_1 -> self:1
    output_1 = output <- add_1_4
    """,
    needs="modules",
)
def branches(fw: Fixtures) -> Any:
    """A residual: two paths from one array, and an operation with two parents."""

    def forward(self: Any, x: Any) -> Any:
        hidden = self.first(x)
        return self.second(fw.relu(hidden)) + hidden

    return fw.module(forward, first=linear(fw, 4, 4), second=linear(fw, 4, 4, 2)), x(fw)


@NETWORKS(
    """
    input_1 = input.x
    input_2 = input.pair.0
    input_3 = input.pair.1
    input_4 = input.scale
    add_1_1 <- input_1, input_2
    mul_1_2 <- add_1_1, input_4
    sub_1_3 <- mul_1_2, input_3 -> self:1
    output_1 = output <- sub_1_3
    """,
)
def several_inputs(fw: Fixtures) -> Any:
    """Inputs by position, by keyword and in a container, named after the signature."""

    def forward(x: Any, pair: Any, *, scale: Any) -> Any:
        return (x + pair[0]) * scale - pair[1]

    inputs = (x(fw, seed=1), (x(fw, seed=2), x(fw, seed=3)))
    return Setup(forward, inputs, {"scale": x(fw, seed=4)})


@NETWORKS(
    """
    input_1 = input.x
    input_2 = input.y
    mul_1_1 <- input_1
    add_1_2 <- mul_1_1, input_1 -> self:1
    output_1 = output <- add_1_2
    """
)
def one_array_given_twice(fw: Fixtures) -> Any:
    """The same array as two arguments is two inputs; an operation that takes an array twice has one edge."""
    given = x(fw)
    return lambda x, y: x * x + x, given, given


@NETWORKS(
    """
    input_1 = input.x
    reshape_1_1 <- input_1
    matmul_1_2 <- input_1, reshape_1_1 -> self:1
    output_1 = output <- matmul_1_2
    """,
)
def another_shape(fw: Fixtures) -> Any:
    """An array in another shape is a child of the first."""
    return lambda x: x @ fw.reshape(x, (4, 2)), x(fw)


@NETWORKS(
    """
    input_1 = input.x
    relu_1_1 <- input_1
    mul_1_2 <- input_1
    cat_1_3 <- input_1, relu_1_1, mul_1_2 -> self:1
    output_1 = output <- cat_1_3
    """
)
def a_list_of_arrays(fw: Fixtures) -> Any:
    """An operation that takes arrays in a list: each is a parent."""
    return lambda x: fw.concat([x, fw.relu(x), x * 2], 1), x(fw)


@NETWORKS(
    """
    input_1 = input.x
    zeros_2_3
    add_1_4 <- input_1, zeros_2_3 -> self:1
    output_1 = output <- add_1_4
    """
)
def arrays_made_inside(fw: Fixtures) -> Any:
    """Arrays that come from no input; one that is connected to nothing is an orphan, numbered and hidden."""

    def forward(x: Any) -> Any:
        fw.tanh(fw.zeros((3,)))
        return x + fw.zeros((4,))

    return forward, x(fw)


@NETWORKS(
    """
    input_1 = input.x
    sin_1_1 <- input_1
    relu_1_2 <- input_1 -> self:1
    output_1 = output <- relu_1_2
    """
)
def what_reaches_no_output(fw: Fixtures) -> Any:
    """An operation on an input whose array nobody takes is there all the same."""

    def forward(x: Any) -> Any:
        fw.sin(x)
        return fw.relu(x)

    return forward, x(fw)


@NETWORKS(
    """
    input_1 = input.x
    mul_1_1 <- input_1 -> self:1
    output_1 = output <- mul_1_1
    """,
    needs="constants",
)
def a_closed_over_array(fw: Fixtures) -> Any:
    """An array that the code closes over is an argument of its operation, and no Op."""
    table = x(fw, 4, seed=5)
    return lambda x: x * table, x(fw)
