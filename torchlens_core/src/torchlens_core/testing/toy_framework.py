"""A small eager framework in numpy: arrays, operations, modules with parameters and buffers.

It stands for every framework that runs operations as they are called, and knows nothing of TorchLens. What it offers to
whoever wants to watch it, as the large ones do in some form, is at its end: :func:`watching`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

__version__ = "1.0"

# -- operations --------------------------------------------------------------------------------------------------------


class Operation:
    """A function of the framework: numpy inside, arrays outside.

    Attributes:
        compute: the work, on numpy arrays. It returns one, or a tuple of several.
        outputs: names of the several.
        writes: the result goes into the first argument instead of a new array.
        random: it draws from the generator.
    """

    def __init__(
        self, name: str, compute: Callable[..., Any], outputs: tuple[str, ...], writes: bool, random: bool
    ) -> None:
        self.name, self.compute, self.outputs, self.writes, self.random = name, compute, outputs, writes, random

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Compute, unseen by any watcher."""
        result = self.compute(*map(_data, args), **{name: _data(value) for name, value in kwargs.items()})
        if self.writes:
            args[0].data = _frozen(result)
            return args[0]
        if isinstance(result, tuple):
            return tuple(map(Array, result))
        # Like dropout outside training: an argument that was not touched is handed back as it came.
        same = [value for value in args if isinstance(value, Array) and value.data is result]
        return same[0] if same else Array(result)


OPERATIONS: dict[str, Operation] = {}


def operation(
    name: str,
    compute: Callable[..., Any],
    *,
    outputs: tuple[str, ...] = (),
    writes: bool = False,
    random: bool = False,
) -> Callable[..., Any]:
    """The public function of a new operation."""
    made = OPERATIONS[name] = Operation(name, compute, outputs, writes, random)

    @functools.wraps(compute)
    def call(*args: Any, **kwargs: Any) -> Any:
        watcher = watcher_here()
        if watcher is None:
            return made.run(*args, **kwargs)
        with watching(None):
            return watcher.operation(made, args, kwargs)

    return call


def _data(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_data, value))
    return value.data if isinstance(value, Array) else value


def _with_item(x: Any, key: Any, value: Any) -> Any:
    x = x.copy()
    x[key] = value
    return x


def _dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return x * (_generator.random(x.shape) >= p) / (1 - p) if training else x


def _conv2d(x: Any, weight: Any, bias: Any) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


_generator = np.random.default_rng(0)

add = operation("add", lambda x, y: x + y)
sub = operation("sub", lambda x, y: x - y)
mul = operation("mul", lambda x, y: x * y)
div = operation("div", lambda x, y: x / y)
neg = operation("neg", lambda x: -x)
gt = operation("gt", lambda x, y: x > y)
lt = operation("lt", lambda x, y: x < y)
matmul = operation("matmul", lambda x, y: x @ y)
linear = operation("linear", lambda x, weight, bias=0.0: x @ weight.T + bias)
conv2d = operation("conv2d", _conv2d)
relu = operation("relu", lambda x: np.maximum(x, 0))
tanh = operation("tanh", lambda x: np.tanh(x))
exp = operation("exp", lambda x: np.exp(x))
sin = operation("sin", lambda x: np.sin(x))
total = operation("sum", lambda x, axis=None: np.sum(x, axis))
mean = operation("mean", lambda x, axis=None: np.mean(x, axis))
concat = operation("concat", lambda arrays, axis=0: np.concatenate(arrays, axis))
split = operation("split", lambda x, parts, axis=-1: tuple(np.split(x, parts, axis)))
sort = operation("sort", lambda x: (np.sort(x), np.argsort(x)), outputs=("values", "indices"))
reshape = operation("reshape", lambda x, shape: x.reshape(shape))
getitem = operation("__getitem__", lambda x, key: x[key])
setitem = operation("__setitem__", _with_item, writes=True)
add_ = operation("add_", lambda x, y: x + y, writes=True)
mul_ = operation("mul_", lambda x, y: x * y, writes=True)
zeros = operation("zeros", lambda shape: np.zeros(shape))
rand = operation("rand", lambda shape: _generator.random(shape), random=True)
dropout = operation("dropout", _dropout, random=True)
identity = operation("identity", lambda x: x)


def generator_state(state: Any = None) -> Any:
    """The state of the random generator; given one, sets it."""
    if state is not None:
        _generator.bit_generator.state = state
    return _generator.bit_generator.state


# -- arrays ------------------------------------------------------------------------------------------------------------


class Array:
    """A cell that holds a numpy array which nobody can change. Writing in place puts another array into the cell."""

    def __init__(self, data: Any, dtype: Any = None) -> None:
        self.data: np.ndarray[Any, Any] = _frozen(np.array(data, dtype))

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    device = "cpu"

    __neg__, __add__, __sub__, __mul__, __truediv__, __matmul__ = neg, add, sub, mul, div, matmul
    __gt__, __lt__, __iadd__, __imul__, __getitem__, __setitem__ = gt, lt, add_, mul_, getitem, setitem
    sum, mean = total, mean

    def __radd__(self, other: Any) -> Any:
        return add(other, self)

    def __rsub__(self, other: Any) -> Any:
        return sub(other, self)

    def __rmul__(self, other: Any) -> Any:
        return mul(other, self)

    def __bool__(self) -> bool:
        return bool(self._read("bool", bool(self.data)))

    def __float__(self) -> float:
        return float(self._read("float", float(self.data)))

    def __int__(self) -> int:
        return int(self._read("int", int(self.data)))

    def item(self) -> Any:
        """The one element, as a Python number."""
        return self._read("item", self.data.item())

    def _read(self, kind: str, value: Any) -> Any:
        watcher = watcher_here()
        if watcher is not None:
            watcher.read(kind, self, value)
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data!r})"


class Parameter(Array):
    """An array that a module learns."""


def _frozen(data: Any) -> Any:
    data = np.asarray(data)
    data.flags.writeable = False
    return data


# -- modules -----------------------------------------------------------------------------------------------------------


class Module:
    """Base of all modules: ``forward`` computes. Parameters, buffers, modules and lists of modules are attributes."""

    training = True

    def __init__(self) -> None:
        self.buffers: dict[str, Array] = {}
        self.hooks: list[Callable[[Module, Any], Any]] = []  # each takes what forward returned; None leaves it

    def register_buffer(self, name: str, array: Array) -> None:
        """Make an attribute state that is not learned. It may be written in place, or bound to another array."""
        self.buffers[name] = array
        setattr(self, name, array)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dict__.get("buffers", ()):
            self.buffers[name] = value
            watcher = watcher_here()
            if watcher is not None:
                watcher.assigned(self, name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside, those in lists by position: ``('blocks.0', block)``."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}.{n}", item) for n, item in enumerate(value) if isinstance(item, Module))

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """The parameters and buffers that it holds itself."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter) or name in self.buffers:
                yield name, value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module, seen by the watcher."""
        watcher = watcher_here()
        return self.run(*args, **kwargs) if watcher is None else watcher.module_call(self, args, kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """``forward`` and the hooks, without telling a watcher of the call."""
        output = self.forward(*args, **kwargs)
        for hook in self.hooks:
            replaced = hook(self, output)
            output = output if replaced is None else replaced
        return output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward().")


# -- watching ----------------------------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Sees what the framework does in one thread, and has it done: ``operation.run(...)``, ``module.run(...)``."""

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation is called. Nothing is watched while this runs."""

    def module_call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module is called."""

    def read(self, kind: str, array: Array, value: Any) -> None:
        """An array was read as a Python value: ``'bool'``, ``'float'``, ``'int'`` or ``'item'``."""

    def assigned(self, module: Module, name: str, array: Array) -> None:
        """A buffer was bound to an array."""


_thread = threading.local()


def watcher_here() -> Watcher | None:
    """Who watches this thread."""
    return getattr(_thread, "watcher", None)


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Let a watcher see what happens in this thread; None lets nobody."""
    before = watcher_here()
    _thread.watcher = watcher
    try:
        yield
    finally:
        _thread.watcher = before
