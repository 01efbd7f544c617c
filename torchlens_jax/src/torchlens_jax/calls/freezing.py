"""The static part of a call as a key: whatever a staged program can depend on beside its arrays.

Two calls with equal keys, and with nothing changed that code reaches by itself (see :mod:`.watching`), stage the same
program.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Hashable
from types import FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from ..of_jax import is_jitted

_PLAIN = (bool, int, str, bytes, type(None), type(...))


class Freezer:
    """Turns values into keys.

    Attributes:
        pinned: objects whose ids stand in keys: to be kept for as long as a key is.
        code: functions and classes that were met: what they reach by name is in no key.
        statics: groups of values that stand in keys as they are, and are frozen when they are compared.
    """

    def __init__(self) -> None:
        self.pinned: list[Any] = []
        self.code: list[Any] = []
        self.statics: list[Any] = []
        self._inside: dict[int, int] = {}  # objects being frozen -> depth, for those that hold themselves

    def __call__(self, value: Any) -> Hashable:
        """The key of a value. Arrays are themselves; numbers, strings and containers are what they hold."""
        cls = type(value)
        if cls in _PLAIN:
            return (cls, value)
        if cls is float or cls is complex:
            return (cls, repr(value))  # NaN is itself, and 0.0 is not -0.0
        if isinstance(value, jax.Array | type | ModuleType | np.dtype):
            return self._by_id(value)
        if isinstance(value, np.ndarray | np.generic):
            return ("numpy", value.shape, value.dtype.str, value.tobytes())
        if id(value) in self._inside:
            return ("inside", self._inside[id(value)])
        self._inside[id(value)] = len(self._inside)
        try:
            return self._compound(value, cls)
        finally:
            del self._inside[id(value)]

    def _by_id(self, value: Any) -> Hashable:
        self.pinned.append(value)
        return (type(value), id(value))

    def _compound(self, value: Any, cls: type) -> Hashable:
        if isinstance(value, list | tuple):
            return (cls, *map(self, value))
        if isinstance(value, dict):
            return (cls, *((self(key), self(item)) for key, item in value.items()))
        if isinstance(value, set | frozenset):
            return (cls, frozenset(map(self, value)))
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and cls.__dataclass_params__.frozen:
            self.code.append(cls)
            return (cls, *(self(getattr(value, each.name, None)) for each in dataclasses.fields(value)))
        if isinstance(value, enum.Enum):
            return (cls, value.name)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return ("method", self(value.__func__), self(value.__self__))
        if isinstance(value, functools.partial):
            return ("partial", self(value.func), self(value.args), self(value.keywords))
        if is_jitted(value):
            return ("jit", self._by_id(value), self(getattr(value, "__wrapped__", None)))
        return self._object(value, cls)

    def _function(self, value: FunctionType) -> Hashable:
        self.pinned.append(value.__globals__)
        self.code.append(value)
        cells = tuple(self(_content(cell)) for cell in value.__closure__ or ())
        return (
            "function",
            value.__code__,
            id(value.__globals__),
            self(value.__defaults__),
            self(value.__kwdefaults__),
            cells,
        )

    def _object(self, value: Any, cls: type) -> Hashable:
        self.code.append(cls)
        leaves, tree = jax.tree.flatten(value)
        if not (len(leaves) == 1 and leaves[0] is value):  # a pytree
            try:
                hash(tree)
                return ("tree", tree, *map(self, leaves))
            except TypeError:  # holds static values that do not hash
                pass
        if hasattr(value, "__dict__"):
            inner = {name: item for name, item in vars(value).items() if name not in _NO_SETTINGS}
            if cls.__module__.startswith("flax.linen") or any(
                base.__module__.startswith("flax.linen") for base in cls.__mro__
            ):
                return ("linen", self._by_id(cls), self(inner))
            return ("object", self._by_id(value), self(inner))
        return self._by_id(value)


_NO_SETTINGS = frozenset({"_state", "_id", "parent", "scope", "_parent_ref", "__wrapped__", "__weakref__"})


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
