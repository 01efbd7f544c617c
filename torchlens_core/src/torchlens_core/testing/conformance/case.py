"""The table of small models: each with what is to be seen in its trace."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .fixtures import Fixtures


class Setup(NamedTuple):
    """A model and what it is called with."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One small model.

    Attributes:
        name: in words.
        suite: the suite that it belongs to.
        make: builds the model in a framework: ``make(fixtures)`` returns (model, input, ...).
        shows: what it shows, in a sentence.
        expected: its Ops, a line each; see :mod:`.lines`.
        needs: features that a framework has to have (:data:`~.fixtures.FEATURES`).
        arms: conditional and arm -> edges with which the arm begins, ``'sum_1_1 -> relu_1_2'``.
        tests: edges with which the flow turns off towards a predicate.
        params: address -> labels of the Ops that take it.
        no_gradient: why finite differences say nothing of it; empty where they do.
    """

    name: str
    suite: str
    make: Callable[[Fixtures], Any]
    shows: str
    expected: str
    needs: frozenset[str] = frozenset()
    arms: Mapping[str, list[str]] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    params: Mapping[str, list[str]] = field(default_factory=dict)
    no_gradient: str = ""

    @property
    def is_random(self) -> bool:
        """Whether each framework computes other values."""
        return "randomness" in self.needs

    @property
    def has_parameters(self) -> bool:
        """Whether any operation takes a parameter."""
        return any(self.params.values()) or any(f"{layer}_1" in self.expected for layer in ("linear", "conv2d"))

    def build(self, fixtures: Fixtures) -> Setup:
        """A fresh model and its arguments; the same at every call."""
        if "randomness" not in fixtures.cannot:
            fixtures.seed(0)
        made = self.make(fixtures)
        return made if isinstance(made, Setup) else Setup(made[0], tuple(made[1:]), {})

    def __repr__(self) -> str:
        return self.name


class Table:
    """The cases of one suite. A decorator: it adds the decorated function, whose docstring says what it shows."""

    def __init__(self, suite: str, needs: str = "") -> None:
        self._suite = suite
        self._needs = needs
        self.cases: list[Case] = []

    def __call__(self, expected: str, needs: str = "", **facts: Any) -> Callable[[Callable[[Fixtures], Any]], Any]:
        """Add a model with its lines, and the features that it needs, separated by spaces."""

        def add(make: Callable[[Fixtures], Any]) -> Callable[[Fixtures], Any]:
            shows = " ".join((make.__doc__ or "").split())
            text = textwrap.dedent(expected).strip()
            name = make.__name__.replace("_", " ").strip()
            needed = frozenset(f"{self._needs} {needs}".split())
            self.cases.append(Case(name, self._suite, make, shows, text, needed, **facts))
            return make

        return add

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)


# -- parts of models ---------------------------------------------------------------------------------------------------


def numbers(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Normal numbers of 32 bits, the same everywhere."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def x(fw: Fixtures, *shape: int, seed: int = 1) -> Any:
    """An input: 2 x 4 unless said otherwise."""
    return fw.array(numbers(*(shape or (2, 4)), seed=seed))


def linear(fw: Fixtures, inputs: int, outputs: int, seed: int = 0) -> Any:
    """A linear layer with weights drawn by a seed."""
    return fw.linear(numbers(outputs, inputs, seed=seed) / 2, numbers(outputs, seed=seed + 1) / 2)


def block(fw: Fixtures, seed: int = 0) -> Any:
    """A linear layer and a ReLU."""
    return fw.module(lambda self, x: self.act(self.fc(x)), fc=linear(fw, 4, 4, seed), act=fw.relu_layer())
