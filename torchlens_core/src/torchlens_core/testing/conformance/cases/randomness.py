"""Operations that draw."""

from __future__ import annotations

from typing import Any

from ..case import Table, linear, x
from ..fixtures import Fixtures

RANDOMNESS = Table("randomness", needs="modules randomness")


@RANDOMNESS(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in fc:1 -> fc:1
    dropout_1_2 <- linear_1_1 in drop:1 -> drop:1
    linear_2_3 <- dropout_1_2 in head:1 -> head:1 self:1
    output_1 = output <- linear_2_3
    """
)
def dropout(fw: Fixtures) -> Any:
    """One Op, whatever the framework computes inside. With the generator set back, a trace draws what a call draws."""

    def forward(self: Any, x: Any) -> Any:
        return self.head(self.drop(self.fc(x)))

    return fw.module(forward, fc=linear(fw, 4, 8), drop=fw.dropout(0.5), head=linear(fw, 8, 2, 2)), x(fw)


@RANDOMNESS(
    """
    input_1 = input.x
    dropout_1_1 <- input_1 in drop:1 -> drop:1
    dropout_2_2 <- dropout_1_1 in drop:2 -> drop:2 self:1
    output_1 = output <- dropout_2_2
    """
)
def dropout_twice(fw: Fixtures) -> Any:
    """Two calls of one module draw differently."""
    return fw.module(lambda self, x: self.drop(self.drop(x)), drop=fw.dropout(0.3)), x(fw)
