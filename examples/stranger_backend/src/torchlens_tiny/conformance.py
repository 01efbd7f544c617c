"""What the conformance kit is given: each word of its models, said in `tiny`."""

import types

from torchlens_core.testing.conformance import Fixtures

from .framework import (
    Module,
    Parameter,
    Tensor,
    concat,
    dropout,
    generator,
    grad,
    linear,
    mean,
    relu,
    reshape,
    sin,
    sort,
    split,
    tanh,
    total,
    zeros,
)


class Made(Module):
    def __init__(self, forward, parts):
        self.forward = types.MethodType(forward, self)
        vars(self).update(parts)


class Linear(Module):
    def __init__(self, weight, bias):
        self.weight = Parameter(weight)
        self.bias = 0.0 if bias is None else Parameter(bias)

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class ReLU(Module):
    def forward(self, x):
        return relu(x)


class Dropout(Module):
    def __init__(self, p):
        self.p = p

    def forward(self, x):
        return dropout(x, self.p)


class TinyFixtures(Fixtures):
    backend = "tiny"
    cannot = {
        "in_place": "tensors do not change",
        "views": "tensors do not change",
        "convolutions": "there are none",
    }
    relu, tanh, sin, sum, mean = map(staticmethod, (relu, tanh, sin, total, mean))
    concat, split, sort, reshape, zeros = map(staticmethod, (concat, split, sort, reshape, zeros))

    def array(self, data):
        return Tensor(data.copy())

    def to_numpy(self, array):
        return array.data

    def module(self, forward, **parts):
        return Made(forward, parts)

    def parameter(self, data):
        return Parameter(data.copy())

    def buffer(self, data):
        return Tensor(data.copy())

    def linear(self, weight, bias):
        return Linear(weight, bias)

    def dropout(self, p):
        return Dropout(p)

    def relu_layer(self):
        return ReLU()

    def state(self, model):
        held = {}
        for name, value in vars(model).items() if isinstance(model, Module) else ():
            if isinstance(value, Tensor):
                held[name] = value
            for number, part in enumerate(value if isinstance(value, list) else [value]):
                held |= {f"{name}.{number}.{inner}": array for inner, array in self.state(part).items()}
        return held

    def generator(self):
        return generator.bit_generator.state

    def seed(self, number):
        generator.bit_generator.state = type(generator.bit_generator)(number).state

    def gradient(self, function, arrays):
        return grad(function, arrays)[1]
