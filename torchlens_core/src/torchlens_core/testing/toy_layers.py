"""Modules of the toy framework, written as a user of it would."""

from __future__ import annotations

from typing import Any

import numpy as np

from .toy_framework import Array, Module, Parameter, conv2d, dropout, linear, relu, tanh


class Linear(Module):
    """``x @ weight.T + bias``, with weights drawn by ``seed``. Maps (..., inputs) to (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> None:
        super().__init__()
        draw = np.random.default_rng(seed)
        self.weight = Parameter(draw.normal(size=(outputs, inputs)) / np.sqrt(inputs))
        self.bias = Parameter(np.zeros(outputs)) if bias else 0.0

    def forward(self, x: Array) -> Any:
        return linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Convolution with weights drawn by ``seed``: stride 1, no padding. Maps (batch, inputs, height, width)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, seed: int = 0) -> None:
        super().__init__()
        draw = np.random.default_rng(seed)
        self.weight = Parameter(draw.normal(size=(outputs, inputs, size, size)) / np.sqrt(inputs * size * size))
        self.bias = Parameter(np.zeros(outputs))

    def forward(self, x: Array) -> Any:
        return conv2d(x, self.weight, self.bias)


class ReLU(Module):
    """``max(x, 0)``."""

    def forward(self, x: Array) -> Any:
        return relu(x)


class Tanh(Module):
    """``tanh(x)``."""

    def forward(self, x: Array) -> Any:
        return tanh(x)


class Identity(Module):
    """Returns what it is given."""

    def forward(self, x: Array) -> Any:
        return x


class Dropout(Module):
    """Zeroes elements at random while training."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Array) -> Any:
        return dropout(x, self.p, self.training)


class RunningMean(Module):
    """Subtracts the mean that it has seen so far: a buffer, written while training."""

    def __init__(self, size: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.center: Array
        self.steps: Array
        self.momentum = momentum
        self.register_buffer("center", Array(np.zeros(size)))
        self.register_buffer("steps", Array(0))

    def forward(self, x: Array) -> Any:
        if self.training:
            self.center = self.center * (1 - self.momentum) + x.mean(axis=0) * self.momentum
            self.steps += 1
        return x - self.center


class Sequential(Module):
    """Calls modules one after another."""

    def __init__(self, *layers: Module) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, x: Array) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x
