"""Random models of the toy framework, each with a way to change the result of one operation by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from torchlens_core.testing.toy_framework import (
    Array,
    Module,
    Parameter,
    add_,
    concat,
    dropout,
    linear,
    mul_,
    rand,
    relu,
    sin,
    split,
    tanh,
)

Change = Callable[[Array], Array]


class Step(NamedTuple):
    """One operation: its kind, and which arrays it takes, of those so far."""

    kind: str
    first: int
    second: int


KINDS = ("relu", "tanh", "sin", "add", "mul", "linear", "add_", "mul_", "dropout", "rand", "split", "assign", "read")
steps = st.lists(st.builds(Step, st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=10)


class RandomModel(Module):
    """Runs steps on arrays of one shape, and returns the last array and the sum of all.

    Attributes:
        change: (number of an operation from 1, what to do with its result): done by hand, with no tracing.
    """

    def __init__(self, program: list[Step]) -> None:
        super().__init__()
        self.program = program
        self.weight = Parameter(np.random.default_rng(0).normal(size=(4, 4)) / 2)
        self.register_buffer("memory", Array(np.zeros((2, 4))))
        self.change: tuple[int, Change] | None = None
        self.count = 0

    def done(self, result: Any, *, is_write: bool = False) -> Any:
        """One operation has run; here its result is changed by hand."""
        self.count += 1
        if self.change is None or self.change[0] != self.count:
            return result
        changed = self.change[1](result)
        if not is_write:
            return changed
        result.data = changed.data
        return result

    def forward(self, x: Array) -> Any:
        """The steps."""
        self.count = 0
        arrays = [self.done(x * 2)]
        for kind, first, second in self.program:
            a, b = arrays[first % len(arrays)], arrays[second % len(arrays)]
            if kind in ("relu", "tanh", "sin"):
                arrays.append(self.done({"relu": relu, "tanh": tanh, "sin": sin}[kind](a)))
            elif kind == "add":
                arrays.append(self.done(a + b))
            elif kind == "mul":
                arrays.append(self.done(a * 0.5))
            elif kind == "linear":
                arrays.append(self.done(linear(a, self.weight)))
            elif kind == "add_":
                self.done(add_(a, b), is_write=True)
            elif kind == "mul_":
                self.done(mul_(a, 0.5), is_write=True)
            elif kind == "dropout":
                arrays.append(self.done(dropout(a)))
            elif kind == "rand":
                arrays.append(self.done(rand((2, 4))))
            elif kind == "split":
                halves = split(a, 2)
                self.count += 2
                if self.change is not None and self.count - 2 < self.change[0] <= self.count:
                    which = self.change[0] - self.count + 1
                    halves = tuple(self.change[1](h) if i == which else h for i, h in enumerate(halves))
                arrays.append(self.done(concat(list(halves), 1)))
            elif kind == "assign":
                self.memory = self.done(self.memory + a)
                arrays.append(self.done(self.memory * 1.5))
            else:
                float(self.done(a.sum()))
        total = arrays[0]
        for array in arrays[1:]:
            total = self.done(total + array)
        return arrays[-1], total
