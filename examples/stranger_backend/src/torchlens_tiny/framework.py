"""The framework `tiny`: tensors that never change, operations, modules. It knows nothing of TorchLens."""

import functools
import threading
from contextlib import contextmanager

import numpy as np


class Tensor:
    def __init__(self, data):
        self.data = np.asarray(data)

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)

    def __bool__(self):
        return self.read("bool", bool(self.data))

    def __float__(self):
        return self.read("float", float(self.data))

    def read(self, kind, value):
        if watcher() is not None:
            watcher().read(kind, self, value)
        return value


class Parameter(Tensor):
    """Is trained. Any other tensor that a module holds is a buffer."""


FUNCTIONS = {}


def operation(name, compute, random=False):
    """A function of the framework: numpy inside, tensors outside."""

    @functools.wraps(compute)
    def run(*args, **kwargs):
        result = compute(*plain(args), **plain(kwargs))
        return [Tensor(part) for part in result] if isinstance(result, list) else Tensor(result)

    def call(*args, **kwargs):
        someone = watcher()
        if someone is None:
            return run(*args, **kwargs)
        with watched_by(None):
            return someone.operation(run, args, kwargs)

    run.name, run.random = name, random
    FUNCTIONS[name] = run
    return call


def plain(value):
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.data if isinstance(value, Tensor) else value


generator = np.random.default_rng(0)

Tensor.__add__ = add = operation("add", lambda x, y: x + y)
Tensor.__sub__ = sub = operation("sub", lambda x, y: x - y)
Tensor.__mul__ = mul = operation("mul", lambda x, y: x * y)
Tensor.__truediv__ = div = operation("div", lambda x, y: x / y)
Tensor.__matmul__ = matmul = operation("matmul", lambda x, y: x @ y)
Tensor.__gt__ = gt = operation("gt", lambda x, y: x > y)
Tensor.__lt__ = lt = operation("lt", lambda x, y: x < y)
Tensor.__getitem__ = getitem = operation("getitem", lambda x, key: x[key])
Tensor.__rsub__ = lambda self, other: sub(other, self)
linear = operation("linear", lambda x, weight, bias=0.0: x @ weight.T + bias)
relu = operation("relu", lambda x: np.maximum(x, 0))
tanh = operation("tanh", lambda x: np.tanh(x))
sin = operation("sin", lambda x: np.sin(x))
total = operation("sum", lambda x: np.sum(x))
mean = operation("mean", lambda x, axis: np.mean(x, axis))
concat = operation("concat", lambda tensors, axis: np.concatenate(tensors, axis))
split = operation("split", lambda x, parts: np.split(x, parts, -1))
sort = operation("sort", lambda x: [np.sort(x), np.argsort(x)])
reshape = operation("reshape", lambda x, shape: np.reshape(x, shape))
zeros = operation("zeros", lambda shape: np.zeros(shape, "float32"))
dropout = operation("dropout", lambda x, p: x * (generator.random(x.shape) >= p) / (1 - p), random=True)
identity = operation("identity", lambda x: x)


class Module:
    """Tensors, modules and lists of modules are attributes; ``forward`` computes."""

    def __call__(self, *args, **kwargs):
        if watcher() is None:
            return self.forward(*args, **kwargs)
        return watcher().module_call(self, args, kwargs, self.forward)

    def __setattr__(self, name, value):
        is_buffer = isinstance(vars(self).get(name), Tensor)
        super().__setattr__(name, value)
        if is_buffer and watcher() is not None:
            watcher().assigned(self, name, value)


_thread = threading.local()  # who watches is a matter of each thread


def watcher():
    return getattr(_thread, "watcher", None)


@contextmanager
def watched_by(someone):
    before, _thread.watcher = watcher(), someone
    try:
        yield
    finally:
        _thread.watcher = before


def grad(function, tensors):
    """A scalar function's value, and its gradient with respect to each tensor: differences, in 64 bits."""
    slopes = [np.zeros(tensor.shape) for tensor in tensors]
    for number, tensor in enumerate(tensors):
        for element in np.ndindex(tensor.shape):
            for step in (1e-6, -1e-6):
                moved = tensor.data.astype("float64")
                moved[element] += step
                value = function(*tensors[:number], Tensor(moved), *tensors[number + 1 :])
                slopes[number][element] += value.data / (2 * step)
    return function(*tensors), [
        Tensor(slope.astype(tensor.dtype)) for slope, tensor in zip(slopes, tensors, strict=True)
    ]
