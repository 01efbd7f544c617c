"""Recurrence: which operations are passes of one layer."""

from __future__ import annotations

from typing import Any

from ..case import Table, block, linear, numbers, x
from ..fixtures import Fixtures

LOOPS = Table("recurrence")


@LOOPS(
    """
    input_1 = input.x
    linear_1_1:1 <- input_1 in fc:1 -> fc:1
    add_1_2:1 <- linear_1_1:1
    linear_1_1:2 <- add_1_2:1 in fc:2 -> fc:2
    add_1_2:2 <- linear_1_1:2
    linear_1_1:3 <- add_1_2:2 in fc:3 -> fc:3
    add_1_2:3 <- linear_1_1:3
    linear_1_1:4 <- add_1_2:3 in fc:4 -> fc:4
    add_1_2:4 <- linear_1_1:4 -> self:1
    output_1 = output <- add_1_2:4
    """,
    needs="modules",
)
def a_loop_with_parameters(fw: Fixtures) -> Any:
    """One layer of parameters in a loop: it and what follows it have a pass each time."""

    def forward(self: Any, x: Any) -> Any:
        for _ in range(4):
            x = self.fc(x) + 1
        return x

    return fw.module(forward, fc=linear(fw, 4, 4)), x(fw)


@LOOPS(
    """
    input_1 = input.x
    sin_1_1:1 <- input_1
    sin_1_1:2 <- sin_1_1:1
    sin_1_1:3 <- sin_1_1:2 -> self:1
    output_1 = output <- sin_1_1:3
    """
)
def a_loop_without_parameters(fw: Fixtures) -> Any:
    """The same place in the program, run again."""

    def forward(x: Any) -> Any:
        for _ in range(3):
            x = fw.sin(x)
        return x

    return forward, x(fw)


@LOOPS(
    """
    input_1 = input.x
    tanh_1_1 <- input_1
    tanh_2_2 <- tanh_1_1
    tanh_3_3 <- input_1
    add_1_4 <- tanh_2_2, tanh_3_3 -> self:1
    output_1 = output <- add_1_4
    """
)
def one_function_at_two_places(fw: Fixtures) -> Any:
    """Two places in the program are two layers, also in one line."""
    return lambda x: fw.tanh(fw.tanh(x)) + fw.tanh(x), x(fw)


@LOOPS(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in blocks.0:1 blocks.0.fc:1 -> blocks.0.fc:1
    relu_1_2 <- linear_1_1 in blocks.0:1 blocks.0.act:1 -> blocks.0.act:1 blocks.0:1
    add_1_3 <- input_1, relu_1_2
    linear_2_4 <- add_1_3 in blocks.1:1 blocks.1.fc:1 -> blocks.1.fc:1
    relu_2_5 <- linear_2_4 in blocks.1:1 blocks.1.act:1 -> blocks.1.act:1 blocks.1:1
    add_2_6 <- add_1_3, relu_2_5 -> self:1
    output_1 = output <- add_2_6
    """,
    needs="modules",
)
def different_blocks_in_one_loop(fw: Fixtures) -> Any:
    """A loop over blocks with parameters of their own is no repetition; the residual belongs to its block."""

    def forward(self: Any, x: Any) -> Any:
        for layer in self.blocks:
            x = x + layer(x)
        return x

    return fw.module(forward, blocks=[block(fw), block(fw, 4)]), x(fw)


@LOOPS(
    """
    input_1 = input.x
    linear_1_1:1 <- input_1 in blk:1 blk.fc:1 -> blk.fc:1
    relu_1_2:1 <- linear_1_1:1 in blk:1 blk.act:1 -> blk.act:1 blk:1
    add_1_3:1 <- input_1, relu_1_2:1
    linear_1_1:2 <- add_1_3:1 in blk:2 blk.fc:2 -> blk.fc:2
    relu_1_2:2 <- linear_1_1:2 in blk:2 blk.act:2 -> blk.act:2 blk:2
    add_1_3:2 <- add_1_3:1, relu_1_2:2
    linear_1_1:3 <- add_1_3:2 in blk:3 blk.fc:3 -> blk.fc:3
    relu_1_2:3 <- linear_1_1:3 in blk:3 blk.act:3 -> blk.act:3 blk:3
    add_1_3:3 <- add_1_3:2, relu_1_2:3 -> self:1
    output_1 = output <- add_1_3:3
    """,
    needs="modules",
)
def one_block_in_a_loop(fw: Fixtures) -> Any:
    """A block called again: all its operations have a pass each time, in a call each time."""

    def forward(self: Any, x: Any) -> Any:
        for _ in range(3):
            x = x + self.blk(x)
        return x

    return fw.module(forward, blk=block(fw)), x(fw)


@LOOPS(
    """
    input_1 = input.x
    input_2 = input.state
    getitem_1_1:1 <- input_1
    linear_1_2:1 <- getitem_1_1:1 in cell:1 cell.inside:1 -> cell.inside:1
    linear_2_3:1 <- input_2 in cell:1 cell.across:1 -> cell.across:1
    add_1_4:1 <- linear_1_2:1, linear_2_3:1 in cell:1
    tanh_1_5:1 <- add_1_4:1 in cell:1 -> cell:1
    getitem_1_1:2 <- input_1
    linear_1_2:2 <- getitem_1_1:2 in cell:2 cell.inside:2 -> cell.inside:2
    linear_2_3:2 <- tanh_1_5:1 in cell:2 cell.across:2 -> cell.across:2
    add_1_4:2 <- linear_1_2:2, linear_2_3:2 in cell:2
    tanh_1_5:2 <- add_1_4:2 in cell:2 -> cell:2
    getitem_1_1:3 <- input_1
    linear_1_2:3 <- getitem_1_1:3 in cell:3 cell.inside:3 -> cell.inside:3
    linear_2_3:3 <- tanh_1_5:2 in cell:3 cell.across:3 -> cell.across:3
    add_1_4:3 <- linear_1_2:3, linear_2_3:3 in cell:3
    tanh_1_5:3 <- add_1_4:3 in cell:3 -> cell:3
    linear_3_6 <- tanh_1_5:3 in head:1 -> head:1 self:1
    output_1 = output <- linear_3_6
    """,
    needs="modules",
)
def a_recurrent_cell(fw: Fixtures) -> Any:
    """A recurrent network written out: the state goes from pass to pass."""

    def cell(self: Any, x: Any, state: Any) -> Any:
        return fw.tanh(self.inside(x) + self.across(state))

    def forward(self: Any, x: Any, state: Any) -> Any:
        for step in range(3):
            state = self.cell(x[step], state)
        return self.head(state)

    made = fw.module(cell, inside=linear(fw, 4, 3), across=linear(fw, 3, 3, 2))
    return fw.module(forward, cell=made, head=linear(fw, 3, 2, 4)), x(fw, 3, 2, 4), x(fw, 2, 3, seed=2)


@LOOPS(
    """
    input_1 = input.x
    div_1_1:1 <- input_1
    div_1_1:2 <- div_1_1:1
    div_1_1:3 <- div_1_1:2 -> self:1
    output_1 = output <- div_1_1:3
    """
)
def a_function_that_calls_itself(fw: Fixtures) -> Any:
    """Recursion is repetition, as a loop is."""

    def halve(x: Any, depth: int) -> Any:
        return halve(x / 2, depth - 1) if depth else x

    return lambda x: halve(x, 3), x(fw)


@LOOPS(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    add_1_2 <- mul_1_1 -> self:1
    output_1 = output <- add_1_2
    """,
    needs="modules",
    params={"scale": ["mul_1_1", "add_1_2"]},
)
def one_parameter_in_two_operations(fw: Fixtures) -> Any:
    """The same parameter in two functions, and at two places, makes no pass of one another."""

    def forward(self: Any, x: Any) -> Any:
        return (x * self.scale) + self.scale

    return fw.module(forward, scale=fw.parameter(numbers(4))), x(fw)
