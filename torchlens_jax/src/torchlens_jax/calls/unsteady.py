"""What gives another value each time that it is asked, and so is in no program that is kept: clocks, draws, files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_MODULES = frozenset({"time", "random", "secrets", "uuid", "datetime", "_random"})
_FUNCTIONS = frozenset({"open", "input"})
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_NOW = frozenset({"now", "utcnow", "today"})


def is_unsteady(value: Any, attributes: tuple[str, ...] = ()) -> bool:
    """Whether a value, of which code takes these attributes, is a clock, a generator, an iterator or a file."""
    if isinstance(value, type):
        return value.__module__ == "datetime" and not _NOW.isdisjoint(attributes)
    if isinstance(value, MethodType | BuiltinMethodType | BuiltinFunctionType):
        owner = value.__self__
        if isinstance(owner, _GENERATORS):
            return True
        return getattr(value, "__module__", None) in _MODULES or (
            isinstance(owner, ModuleType)
            and owner.__name__ in ("builtins", "io", "_io")
            and value.__name__ in _FUNCTIONS
        )
    if isinstance(value, FunctionType):
        return value.__module__ in _MODULES
    return isinstance(value, (*_GENERATORS, Iterator))
