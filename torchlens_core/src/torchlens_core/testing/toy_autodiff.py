"""Reverse-mode autodiff for the toy framework: a watcher that writes a tape, and a derivative for each operation.

Values never change in this framework, and a write puts another one into a cell. So a value is known by its identity,
and the tape needs no more than the values that went into an operation and those that came out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .toy_framework import Array, Module, Operation, watcher_here, watching

Values = Sequence[Any]  # arguments as numpy arrays and plain values
Derivative = Callable[..., Sequence[Any]]  # (gradients of outputs, outputs, *arguments) -> gradients of arguments


def grad(function: Callable[..., Array], arrays: Sequence[Array]) -> tuple[Array, list[Array | None]]:
    """The value of a scalar function of arrays, and its gradient with respect to each; None where it is not one."""
    leaves = [Array(array.data.copy()) for array in arrays]
    wanted = [leaf.data for leaf in leaves]
    tape = Tape()
    with watching(tape):
        value = function(*leaves)
    found = tape.gradients(value.data)
    return Array(value.data), [None if id(data) not in found else Array(found[id(data)]) for data in wanted]


def unseen() -> AbstractContextManager[None]:
    """A context in which nobody watches but a tape."""
    return nullcontext() if isinstance(watcher_here(), Tape) else watching(None)


class Tape:
    """Watches operations, and writes down those on floating-point values."""

    def __init__(self) -> None:
        self._entries: list[tuple[Operation, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = []

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and write it down."""
        values = tuple(map(_data, args))
        out = operation.run(*args, **kwargs)
        outputs = out if isinstance(out, tuple) else (out,)
        if operation.name in DERIVATIVES:
            self._entries.append((operation, values, kwargs, tuple(each.data for each in outputs)))
        return out

    def module_call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a module."""
        return module.run(*args, **kwargs)

    def read(self, kind: str, array: Array, value: Any) -> None:
        """An array was read as a Python value: nothing to do."""

    def assigned(self, module: Module, name: str, array: Array) -> None:
        """A buffer was bound to an array: nothing to do."""

    def gradients(self, of: Any) -> dict[int, Any]:
        """Identity of each value that a scalar depends on -> the gradient with respect to it."""
        found: dict[int, Any] = {id(of): np.ones_like(of)}
        for operation, values, kwargs, outputs in reversed(self._entries):
            if all(id(output) not in found or any(output is value for value in values) for output in outputs):
                continue
            given = tuple(found.get(id(output), np.zeros_like(output)) for output in outputs)
            for value, gradient in _pairs(values, DERIVATIVES[operation.name](given, outputs, *values, **kwargs)):
                before = found.get(id(value))
                found[id(value)] = gradient if before is None else before + gradient
        return found


def _pairs(values: Values, gradients: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Floating-point values with the gradients at them; containers of values element by element."""
    pairs = []
    for value, gradient in zip(values, gradients, strict=False):
        if gradient is None:
            continue
        if isinstance(value, tuple | list):
            pairs += _pairs(value, gradient)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            pairs.append((value, _unbroadcast(gradient, value.shape)))
    return pairs


def _unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of a value that was broadcast: summed over what it was repeated along."""
    gradient = np.asarray(gradient)
    gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return gradient.sum(repeated, keepdims=True).reshape(shape)


def _data(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_data, value))
    return value.data if isinstance(value, Array) else value


# -- derivatives -------------------------------------------------------------------------------------------------------


def _linear(g: Values, out: Values, x: Any, weight: Any, bias: Any = 0.0) -> Values:
    flat, rows = g[0].reshape(-1, g[0].shape[-1]), x.reshape(-1, x.shape[-1])
    return g[0] @ weight, flat.T @ rows, g[0]


def _conv2d(g: Values, out: Values, x: Any, weight: Any, bias: Any) -> Values:
    height, width = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), (2, 3))
    around = np.pad(g[0], ((0, 0), (0, 0), (height - 1, height - 1), (width - 1, width - 1)))
    back = np.lib.stride_tricks.sliding_window_view(around, (height, width), (2, 3))[..., ::-1, ::-1]
    of_x = np.einsum("nohwij,ocij->nchw", back, weight)
    return of_x, np.einsum("nchwij,nohw->ocij", windows, g[0]), g[0].sum((0, 2, 3))


def _matmul(g: Values, out: Values, x: Any, y: Any) -> Values:
    if x.ndim == 1 or y.ndim == 1:
        raise NotImplementedError("The derivative of matmul is that of matrices; add an axis to vectors.")
    return g[0] @ np.swapaxes(y, -1, -2), np.swapaxes(x, -1, -2) @ g[0]


def _sum(g: Values, out: Values, x: Any, axis: Any = None) -> Values:
    return (np.broadcast_to(g[0] if axis is None else np.expand_dims(g[0], axis), x.shape),)


def _mean(g: Values, out: Values, x: Any, axis: Any = None) -> Values:
    return (_sum(g, out, x, axis)[0] * out[0].size / x.size,)


def _concat(g: Values, out: Values, arrays: Any, axis: int = 0) -> Values:
    ends = np.cumsum([array.shape[axis] for array in arrays])[:-1]
    return (np.split(g[0], ends, axis),)


def _sort(g: Values, out: Values, x: Any) -> Values:
    made = np.zeros_like(x)
    np.put_along_axis(made, out[1], g[0], -1)
    return (made,)


def _getitem(g: Values, out: Values, x: Any, key: Any) -> Values:
    made = np.zeros_like(x)
    np.add.at(made, key, g[0])
    return made, None


def _setitem(g: Values, out: Values, x: Any, key: Any, value: Any) -> Values:
    kept = g[0].copy()
    kept[key] = 0
    return kept, None, g[0][key]


def _dropout(g: Values, out: Values, x: Any, p: float = 0.5, training: bool = True) -> Values:
    return (g[0] * np.divide(out[0], x, out=np.zeros_like(x), where=x != 0),)


DERIVATIVES: dict[str, Derivative] = {
    "add": lambda g, out, x, y: (g[0], g[0]),
    "sub": lambda g, out, x, y: (g[0], -g[0]),
    "mul": lambda g, out, x, y: (g[0] * y, g[0] * x),
    "div": lambda g, out, x, y: (g[0] / y, -g[0] * x / y**2),
    "neg": lambda g, out, x: (-g[0],),
    "relu": lambda g, out, x: (g[0] * (x > 0),),
    "tanh": lambda g, out, x: (g[0] * (1 - out[0] ** 2),),
    "exp": lambda g, out, x: (g[0] * out[0],),
    "sin": lambda g, out, x: (g[0] * np.cos(x),),
    "identity": lambda g, out, x: (g[0],),
    "reshape": lambda g, out, x, shape: (g[0].reshape(x.shape), None),
    "split": lambda g, out, x, parts, axis=-1: (np.concatenate(g, axis), None),
    "matmul": _matmul,
    "linear": _linear,
    "conv2d": _conv2d,
    "sum": _sum,
    "mean": _mean,
    "concat": _concat,
    "sort": _sort,
    "dropout": _dropout,
    "__getitem__": _getitem,
    "__setitem__": _setitem,
}
DERIVATIVES |= {"add_": DERIVATIVES["add"], "mul_": DERIVATIVES["mul"]}
