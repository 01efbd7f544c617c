"""In-place operations, aliases, and what hands back its argument."""

from __future__ import annotations

from typing import Any

from ..case import Table, x
from ..fixtures import Fixtures

WRITES = Table("in place", needs="in_place")


@WRITES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    relu_1_2 <- mul_1_1
    add_1_3 <- mul_1_1, relu_1_2
    sub_1_4 <- add_1_3, relu_1_2 -> self:1
    output_1 = output <- sub_1_4
    """
)
def a_write(fw: Fixtures) -> Any:
    """An Op like any other; who reads the array later takes its result."""

    def forward(x: Any) -> Any:
        y = x * 2
        z = fw.relu(y)
        fw.add_(y, z)
        return y - z

    return forward, x(fw)


@WRITES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    add_1_2:1 <- mul_1_1, input_1
    add_1_2:2 <- add_1_2:1, input_1
    add_1_2:3 <- add_1_2:2, input_1 -> self:1
    output_1 = output <- add_1_2:3
    """
)
def writes_one_after_another(fw: Fixtures) -> Any:
    """Each is a child of the one before; the values that were, are kept."""

    def forward(x: Any) -> Any:
        y = x * 2
        for _ in range(3):
            fw.add_(y, x)
        return y

    return forward, x(fw)


@WRITES(
    """
    input_1 = input.x
    add_1_1 <- input_1
    mul_1_2 <- add_1_1 -> self:1
    output_1 = output <- mul_1_2
    """
)
def a_write_into_an_input(fw: Fixtures) -> Any:
    """The input's value is the one that was given."""

    def forward(x: Any) -> Any:
        fw.add_(x, 1)
        return x * 2

    return forward, x(fw)


@WRITES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    relu_1_2 <- input_1
    getitem_1_3 <- relu_1_2
    setitem_1_4 <- mul_1_1, getitem_1_3
    add_1_5 <- setitem_1_4 -> self:1
    output_1 = output <- add_1_5
    """
)
def a_write_to_a_part(fw: Fixtures) -> Any:
    """Assignment to a part of an array is a write to the array."""

    def forward(x: Any) -> Any:
        y = x * 2
        y[0] = fw.relu(x)[1]
        return y + 1

    return forward, x(fw)


@WRITES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    add_1_3 <- getitem_1_2
    mul_2_4 <- mul_1_1 | add_1_3 -> self:1
    output_1 = output <- mul_2_4
    """,
    needs="views",
)
def a_write_seen_through_a_view(fw: Fixtures) -> Any:
    """Who reads the base of a view that was written has two parents: what made the base, and the write."""

    def forward(x: Any) -> Any:
        y = x * 2
        part = y[0]
        fw.add_(part, 1)
        return y * 3

    return forward, x(fw)


@WRITES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    getitem_2_3 <- mul_1_1
    add_1_4 <- getitem_1_2
    mul_2_5 <- getitem_2_3 -> self:1
    output_1 = output <- mul_2_5
    """,
    needs="views",
)
def views_that_do_not_overlap(fw: Fixtures) -> Any:
    """A write to one half makes no edge to who reads the other half."""

    def forward(x: Any) -> Any:
        y = x * 2
        left, right = y[0], y[1]
        fw.add_(left, 1)
        return right * 3

    return forward, x(fw)
