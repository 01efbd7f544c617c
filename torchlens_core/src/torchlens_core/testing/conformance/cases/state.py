"""Parameters and buffers."""

from __future__ import annotations

from typing import Any

from ..case import Table, linear, numbers, x
from ..fixtures import Fixtures

STATE = Table("params and buffers", needs="modules")


@STATE(
    """
    input_1 = input.x
    mul_1_1 <- input_1 -> self:1
    output_1 = output <- mul_1_1
    """,
    params={"scale": ["mul_1_1"]},
)
def a_parameter_of_the_model(fw: Fixtures) -> Any:
    """A parameter that the model holds itself, and uses in arithmetic."""
    return fw.module(lambda self, x: x * self.scale, scale=fw.parameter(numbers(4))), x(fw)


@STATE(
    """
    input_1 = input.x
    matmul_1_1 <- input_1 in a:1 -> a:1
    relu_1_2 <- matmul_1_1 in b:1
    matmul_2_3 <- relu_1_2 in b:1 -> b:1 self:1
    output_1 = output <- matmul_2_3
    """,
    params={"a.weight": ["matmul_1_1", "matmul_2_3"]},
)
def tied_parameters(fw: Fixtures) -> Any:
    """One array under two addresses is one parameter; its name is the first."""
    weight = fw.parameter(numbers(4, 4) / 2)
    first = fw.module(lambda self, x: x @ self.weight, weight=weight)
    second = fw.module(lambda self, x: fw.relu(x) @ self.weight, weight=weight)
    return fw.module(lambda self, x: self.b(self.a(x)), a=first, b=second), x(fw)


@STATE(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in fc:1 -> fc:1 self:1
    output_1 = output <- linear_1_1
    """,
    params={"spare": []},
)
def a_parameter_without_use(fw: Fixtures) -> Any:
    """It is known, and no Op takes it."""

    def forward(self: Any, x: Any) -> Any:
        return self.fc(x)

    return fw.module(forward, fc=linear(fw, 4, 4), spare=fw.parameter(numbers(4))), x(fw)


@STATE(
    """
    input_1 = input.x
    add_1_1 <- input_1, buffer_1
    mul_1_2 <- add_1_1, buffer_1 -> self:1
    output_1 = output <- mul_1_2
    buffer_1 = shift v1
    """,
    needs="buffers",
)
def a_buffer_that_is_read(fw: Fixtures) -> Any:
    """Its one version is a parent of those who read it."""
    return fw.module(lambda self, x: (x + self.shift) * self.shift, shift=fw.buffer(numbers(4))), x(fw)


@STATE(
    """
    input_1 = input.x
    add_1_1 <- input_1 -> self:1
    output_1 = output <- add_1_1
    """,
    needs="buffers",
)
def a_buffer_never_touched(fw: Fixtures) -> Any:
    """It is known, and no Op."""
    return fw.module(lambda self, x: x + 1, shift=fw.buffer(numbers(4))), x(fw)


@STATE(
    """
    input_1 = input.x
    mul_1_1 <- buffer_1 in norm:1
    mean_1_2 <- input_1 in norm:1
    mul_2_3 <- mean_1_2 in norm:1
    add_1_4 <- mul_1_1, mul_2_3 in norm:1
    sub_1_5 <- input_1, buffer_2 in norm:1 -> norm:1
    relu_1_6 <- sub_1_5
    mul_3_7 <- buffer_2 in norm:2
    mean_2_8 <- relu_1_6 in norm:2
    mul_4_9 <- mean_2_8 in norm:2
    add_2_10 <- mul_3_7, mul_4_9 in norm:2
    sub_2_11 <- relu_1_6, buffer_3 in norm:2 -> norm:2 self:1
    output_1 = output <- sub_2_11
    buffer_1 = norm.center v1
    buffer_2 = norm.center v2 <- add_1_4
    buffer_3 = norm.center v3 <- add_2_10
    """,
    needs="buffers",
)
def a_buffer_that_is_written(fw: Fixtures) -> Any:
    """A running mean: each write makes a version, whose parent is the operation that made it; readers see the last."""

    def running(self: Any, x: Any) -> Any:
        fw.set_buffer(self, "center", self.center * 0.9 + fw.mean(x, 0) * 0.1)
        return x - self.center

    norm = fw.module(running, center=fw.buffer(numbers(4)))
    return fw.module(lambda self, x: self.norm(fw.relu(self.norm(x))), norm=norm), x(fw)


@STATE(
    """
    input_1 = input.x
    add_1_1 <- buffer_1
    mul_1_2 <- input_1, buffer_2 -> self:1
    output_1 = output <- mul_1_2
    buffer_1 = count v1
    buffer_2 = count v2 <- add_1_1
    """,
    needs="buffers in_place",
)
def a_buffer_written_in_place(fw: Fixtures) -> Any:
    """The operation that writes is the parent of the next version."""

    def forward(self: Any, x: Any) -> Any:
        fw.add_(self.count, 1)
        return x * self.count

    return fw.module(forward, count=fw.buffer(numbers(4))), x(fw)
