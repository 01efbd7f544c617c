"""Toy models that are nearly the same, for tests of bundles."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchlens_core.records.trace import Trace
from torchlens_core.testing.toy_framework import Array, Module, relu, tanh
from torchlens_core.testing.toy_layers import Linear, ReLU, RunningMean, Sequential
from torchlens_core.tracing import trace

X = Array(np.linspace(-1.0, 1.0, 12).reshape(3, 4))


class Net(Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Linear(4, 6, seed=1)
        self.act = ReLU()
        self.second = Linear(6, 6, seed=2)
        self.head = Linear(6, 2, seed=3)

    def forward(self, x: Array) -> Any:
        hidden = self.act(self.first(x))
        hidden = self.act(self.second(hidden))
        return self.head(hidden)


class WithoutSecondRelu(Net):
    """The same without the second ReLU."""

    def forward(self, x: Array) -> Any:
        hidden = self.act(self.first(x))
        return self.head(self.second(hidden))


class WithFunctions(Net):
    """The same with functions in place of the module of the ReLUs, and something more at the end."""

    def forward(self, x: Array) -> Any:
        hidden = relu(self.second(relu(self.first(x))))
        return tanh(self.head(hidden))


class Port(Module):
    """The same as Net under other names, within a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Net()

    def forward(self, x: Array) -> Any:
        return self.body(x)


class Normalised(Module):
    """A buffer that training writes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = RunningMean(4)
        self.fc = Linear(4, 2)

    def forward(self, x: Array) -> Any:
        return self.fc(self.norm(x))


class Loop(Module):
    """One layer, run several times."""

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.times = times

    def forward(self, x: Array) -> Any:
        for _ in range(self.times):
            x = relu(self.fc(x))
        return x


def net(save: Any = True, **changed: float) -> Trace:
    """A trace of Net; ``second=0.5`` adds 0.5 to the weights of one output of that layer."""
    model = Net()
    for name, change in changed.items():
        add_to(getattr(model, name).weight, change)
    return trace(model, X, save=save)


def add_to(parameter: Array, change: float) -> None:
    """Change the first row of a parameter."""
    data = parameter.data.copy()
    data[0] += change
    parameter.data = data


def chain(number: int, extra: int = -1) -> Sequential:
    """``number`` layers one after another, with a ReLU more before one of them."""
    layers = [Linear(4, 4, seed=n) for n in range(number)]
    if extra >= 0:
        layers.insert(extra, ReLU())  # type: ignore[arg-type]
    return Sequential(*layers)
