"""What code reaches by itself: globals, attributes of classes, contents of mutable objects. Watched for changes.

A staged program holds what a global was when it was staged. So with each program is noted what its code could reach
then, and the program is not used again once any of it is another object. Code of JAX and of the module libraries is
taken not to change.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import is_
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from .patching import original_of

_LIBRARIES = frozenset(
    {"jax", "jaxlib", "flax", "equinox", "haiku", "penzai", "numpy", "optax", "jaxtyping", "einops", "ml_dtypes"}
    | {"torchlens", "torchlens_core", "torchlens_jax", "builtins"}
    | sys.stdlib_module_names
) - {"__main__"}
_MISSING = object()
_LIMIT = 50_000  # objects watched; what is beyond is taken not to change


class Watch:
    """Everything that code reaches, as it was.

    Args:
        start: functions, modules and classes that the code is.
        apart: objects that are no part of the program, and may be replaced by others like them.
    """

    def __init__(self, start: Iterable[Any], apart: Iterable[Any] = ()) -> None:
        self._apart = {id(value) for value in apart}
        self._checks: list[tuple[Callable[[], Sequence[Any]], tuple[Any, ...]]] = []
        self._contents: list[tuple[Any, Any]] = []  # numpy arrays, and copies of them
        seen: set[int] = set(self._apart)
        pending: deque[Any] = deque(start)
        while pending and len(seen) < _LIMIT:
            value = pending.popleft()
            if id(value) not in seen:
                seen.add(id(value))
                pending.extend(self._visit(value))

    def holds(self) -> bool:
        """Whether nothing has changed since."""
        for get, before in self._checks:
            now = get()
            if len(now) != len(before) or not all(map(is_, now, before)):
                return False
        return all(np.array_equal(array, copy) for array, copy in self._contents)

    def _note(self, get: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        now = tuple(get())
        if now:
            self._checks.append((get, now))
        return now

    def _visit(self, value: Any) -> Sequence[Any]:
        """Watch one object; what it reaches in turn."""
        if isinstance(value, jax.Array | str | bytes | int | float | complex | ModuleType | CodeType | type(None)):
            return ()
        if isinstance(value, np.ndarray):
            self._contents.append((value, value.copy()))
            return ()
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return () if is_library(value.__module__) else self._class(value)
        if isinstance(value, list | tuple):
            return self._note(lambda: value)
        if isinstance(value, dict):
            return self._note(lambda: list(value.values()))
        if isinstance(value, set | frozenset):
            return self._note(lambda: sorted(value, key=id))
        if isinstance(value, MethodType):
            return (value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            return (value.func, value.args, value.keywords)
        inner = getattr(value, "__wrapped__", None)
        found: list[Any] = [] if inner is None else [inner]
        if not is_library(type(value).__module__):
            found.append(type(value))
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict) and not isinstance(value, jax.stages.Wrapped):
            found += self._note(lambda: list(attributes.values()))
        return found

    def _function(self, function: FunctionType) -> Sequence[Any]:
        cells = [cell for cell in function.__closure__ or () if id(_content(cell)) not in self._apart]
        found = [*self._note(lambda: [_content(cell) for cell in cells])]
        found += function.__defaults__ or ()
        found += (function.__kwdefaults__ or {}).values()
        if is_library(function.__module__ or ""):
            return found
        names = _names(function.__code__)
        scope = function.__globals__
        known = [name for name in names if name in scope and id(scope[name]) not in self._apart]
        values = self._note(lambda: [scope.get(name, _MISSING) for name in known])
        for value in values:
            if isinstance(value, ModuleType) and not is_library(value.__name__):
                inside = [name for name in names if name in vars(value)]
                found += self._note(functools.partial(_attributes, value, inside))
        return [*found, *(value for value in values if not _is_of_library(value))]

    def _class(self, cls: type) -> Sequence[Any]:
        names = [name for name in vars(cls) if not name.startswith("__") or name in ("__call__", "__getattr__")]
        values = self._note(lambda: [original_of(cls, name, vars(cls).get(name, _MISSING)) for name in names])
        functions = (getattr(value, "__func__", getattr(value, "fget", value)) for value in values)
        return [*(each for each in functions if each is not None), *cls.__mro__[1:]]


def _attributes(module: ModuleType, names: Sequence[str]) -> list[Any]:
    return [vars(module).get(name, _MISSING) for name in names]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[str, ...]:
    """The globals and attributes that a function, and those inside it, name."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(_names(constant)))
    return tuple(names)


@functools.lru_cache(maxsize=4096)
def is_library(module: str) -> bool:
    """Whether a module is part of Python, of JAX, or of a library of modules for it."""
    return module.partition(".")[0] in _LIBRARIES


def _is_of_library(value: Any) -> bool:
    return isinstance(value, FunctionType | type) and is_library(value.__module__ or "")
