"""Models of the toy framework, for tests of what records show."""

from typing import Any

import numpy as np

from torchlens_core.backend import Call
from torchlens_core.plan import Plan
from torchlens_core.records.trace import Trace
from torchlens_core.testing.toy import ToyBackend
from torchlens_core.testing.toy_framework import Array, Module
from torchlens_core.testing.toy_layers import Linear, ReLU, RunningMean, Sequential
from torchlens_core.tracing import run


class Net(Module):
    """Two layers and a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Sequential(Linear(4, 8), ReLU())
        self.norm = RunningMean(8)
        self.head = Linear(8, 2, bias=False)

    def forward(self, x: Array) -> Any:
        """Scores of each class."""
        hidden = self.norm(self.body(x))
        return self.head(hidden)


class Loop(Module):
    """One layer, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)

    def forward(self, x: Array) -> Any:
        for _ in range(3):
            x = self.fc(x) + 1
        return x


def x(*shape: int) -> Array:
    return Array(np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))


def traced(model: Any, *args: Any, save: Any = True, halt: Any = None) -> Trace:
    return run(ToyBackend(), Call(model, args, {}), Plan(save, halt), {"sites"})[0]
