"""What the conformance kit is given for the toy framework: the example for the author of a plugin."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import toy_framework as toy
from .conformance.fixtures import Fixtures
from .toy_autodiff import grad
from .toy_framework import Array, Module, Parameter
from .toy_layers import Conv2d, Dropout, Linear, ReLU


class Made(Module):
    """A module from a function and its parts."""

    def __init__(self, forward: Callable[..., Any], parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.forward = types.MethodType(forward, self)  # type: ignore[method-assign]
        for name, part in parts.items():
            if isinstance(part, Array) and not isinstance(part, Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)


class ToyFixtures(Fixtures):
    """The toy framework."""

    backend = "toy"
    cannot: ClassVar = {"views": "arrays share no memory: a write puts another value into one cell"}

    def array(self, data: np.ndarray[Any, Any]) -> Array:
        return Array(data)

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        return array.data  # type: ignore[no-any-return]

    def module(self, forward: Callable[..., Any], **parts: Any) -> Module:
        return Made(forward, parts)

    def parameter(self, data: np.ndarray[Any, Any]) -> Parameter:
        return Parameter(self.array(data).data)

    def buffer(self, data: np.ndarray[Any, Any]) -> Array:
        return self.array(data)

    def linear(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None) -> Module:
        made = Linear(weight.shape[1], weight.shape[0])
        made.weight = self.parameter(weight)
        made.bias = 0.0 if bias is None else self.parameter(bias)
        return made

    def conv2d(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> Module:
        made = Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
        made.weight, made.bias = self.parameter(weight), self.parameter(bias)
        return made

    def dropout(self, p: float) -> Module:
        return Dropout(p)

    def relu_layer(self) -> Module:
        return ReLU()

    relu, tanh, sin = (staticmethod(each) for each in (toy.relu, toy.tanh, toy.sin))
    sum, concat, split = (staticmethod(each) for each in (toy.total, toy.concat, toy.split))
    mean, reshape, sort, zeros, add_ = (
        staticmethod(each) for each in (toy.mean, toy.reshape, toy.sort, toy.zeros, toy.add_)
    )

    def state(self, model: Any) -> Mapping[str, Array]:
        if not isinstance(model, Module):
            return {}
        held = dict(model.named_arrays())
        for name, child in model.named_children():
            held |= {f"{name}.{inner}": array for inner, array in self.state(child).items()}
        return held

    def generator(self) -> Any:
        return toy.generator_state()

    def seed(self, number: int) -> None:
        toy.generator_state(np.random.default_rng(number).bit_generator.state)

    def gradient(self, function: Callable[..., Any], arrays: Sequence[Any]) -> Sequence[Any]:
        return grad(function, arrays)[1]
