"""Models in the toy framework that several tests trace."""

from __future__ import annotations

from typing import Any

from torchlens_core.testing.toy_framework import Array, Module, add, relu, sort, split, tanh, zeros
from torchlens_core.testing.toy_layers import Linear, ReLU, RunningMean, Sequential


class Block(Module):
    """Two linear layers around a ReLU, with a residual."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.first = Linear(4, 4, seed=seed)
        self.act = ReLU()
        self.second = Linear(4, 4, seed=seed + 1)

    def forward(self, x: Array) -> Any:
        return x + self.second(self.act(self.first(x)))


class Everything(Module):
    """Nested and shared modules, buffers, a loop, a write in place, several outputs, an orphan, a read, two results."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = RunningMean(4)
        self.mid = Sequential(Block(1), Block(3))
        self.cell = Linear(4, 4, seed=7)
        self.act = ReLU()

    def forward(self, x: Array, scale: float = 2.0) -> Any:
        x = self.norm(x)
        x = self.mid(x) * scale
        zeros((3,)) * 2.0  # an orphan
        for _ in range(3):
            x = self.act(self.cell(x))
        x += 1.0
        left, right = split(x, 2)
        if left.sum() > -1e9:
            left = tanh(left)
        values, indices = sort(right)
        return {"sum": add(left, self.act(values)), "order": indices}


class Plain(Module):
    """Three layers one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.act = ReLU()
        self.head = Linear(4, 2, seed=1)

    def forward(self, x: Array) -> Any:
        return self.head(self.act(self.fc(x)))


def twice_relu(x: Array) -> Any:
    """A function whose only operations are two ReLUs."""
    return relu(relu(x))
