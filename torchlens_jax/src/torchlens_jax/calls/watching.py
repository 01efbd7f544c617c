"""What code reaches by itself: globals, attributes of classes, contents of mutable objects. Watched for changes.

A staged program holds what a global was when it was staged. So with each program is noted what its code could reach
then, and the program is not used again once any of it is another object. Code of JAX and of the module libraries is
taken not to change; what the user's code takes from them by name is looked at as all else.
"""

from __future__ import annotations

import array
import functools
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from operator import is_
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from ..of_jax import is_jitted
from ..staging.patching import original_of
from .code_names import MISSING, Names, look_ups, names_in
from .unsteady import is_unsteady

_LIBRARIES = frozenset(
    {"jax", "jaxlib", "flax", "equinox", "haiku", "penzai", "numpy", "optax", "jaxtyping", "einops", "ml_dtypes"}
    | {"torchlens", "torchlens_core", "torchlens_jax", "builtins"}
    | sys.stdlib_module_names
) - {"__main__"}
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
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}  # id of a dict -> it, and values by name
        self._reached: dict[int, _Reached] = {}
        start = list(start)
        seen: set[int] = set(self._apart)
        pending: deque[Any] = deque(start)
        while pending and len(seen) < _LIMIT:
            value = pending.popleft()
            if id(value) not in seen:
                seen.add(id(value))
                pending.extend(self._visit(value))
        self._is_steady = not _meets_unsteady(start, self._reached)
        self._reached = {}

    def holds(self) -> bool:
        """Whether nothing has changed since, and all of it is such that a change would be seen."""
        if not self._is_steady:
            return False
        for space, values in self._names.values():
            if not all(space.get(name, MISSING) is value for name, value in values.items()):
                return False
        for get, before in self._checks:
            now = get()
            if len(now) != len(before) or not all(map(is_, now, before)):
                return False
        return all(np.array_equal(array, copy, equal_nan=array.dtype.kind in "fc") for array, copy in self._contents)

    def _note(self, get: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        now = tuple(get())
        self._checks.append((get, now))
        return now

    def _visit(self, value: Any) -> Iterable[Any]:
        """Watch one object; what it reaches in turn."""
        if isinstance(value, jax.Array | str | bytes | int | float | complex | CodeType | type(None)):
            return ()
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, ModuleType):
            return () if is_library(value.__name__) else self._note(lambda: list(vars(value).values()))
        if isinstance(value, type):
            return () if _is_of_library(value) else self._class(value)
        if isinstance(value, MethodType):
            return (value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            return (value.func, value.args, value.keywords)
        inner = self._inside(value)
        return [*self._attributes(value), *inner] if inner is not None else self._attributes(value)

    def _inside(self, value: Any) -> Sequence[Any] | None:
        """What a container holds."""
        if isinstance(value, np.ndarray):
            self._contents.append((value, value.copy()))
            return ()
        if isinstance(value, bytearray | array.array):
            contents = bytes(value)
            self._checks.append((lambda: [bytes(value) == contents], (True,)))
            return ()
        if isinstance(value, ContextVar):
            return self._note(lambda: [value.get(MISSING)])
        if isinstance(value, dict):  # not by its own methods, which may load what it names
            return self._note(lambda: list(dict.values(value)))
        if isinstance(value, MappingProxyType):
            return self._note(lambda: list(value.values()))
        if isinstance(value, list | tuple | deque):
            return self._note(lambda: list(value))
        if isinstance(value, set | frozenset):
            return self._note(lambda: sorted(value, key=id))
        return None

    def _attributes(self, value: Any) -> Sequence[Any]:
        """What an object holds by name; where its class comes from a library too, if it says what it holds."""
        inner = _attribute(value, "__wrapped__")
        found: list[Any] = [] if inner is None else [inner]
        cls = type(value)
        if not is_library(cls.__module__):
            found.append(cls)
        slots = _slots(cls)
        if slots:
            found += self._note(lambda: [_slot(each, value) for each in slots])
        owner = _attribute(value, "__self__")  # of a method written in C
        if owner is not None and not isinstance(owner, ModuleType | type):
            found.append(owner)
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict) and not is_jitted(value):
            found += self._note(lambda: list(attributes.values()))
        return found

    def _function(self, function: FunctionType) -> Iterable[Any]:
        cells = [cell for cell in function.__closure__ or () if id(_content(cell)) not in self._apart]
        found = [*self._note(lambda: [_content(cell) for cell in cells])] if cells else []
        found += function.__defaults__ or ()
        found += (function.__kwdefaults__ or {}).values()
        if is_library(function.__module__ or ""):
            return found
        parts, alive, attributes = _parts(function), weakref.ref(function), vars(function)
        self._checks.append((lambda: parts if (now := alive()) is None else _parts(now), parts))
        found += self._note(lambda: list(attributes.values()))
        names = names_in(function.__code__)
        reached = _Reached(function.__name__, names.attributes)
        self._reached[id(function)] = reached
        for chain in names.chains:
            found += self._chain(chain, function.__globals__, reached)
        variables = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name, *rest in names.closed:
            module = _content(variables[name]) if name in variables else None
            if isinstance(module, ModuleType) and rest:
                found += self._chain(tuple(rest), vars(module), reached)
        for name in names.imports:
            found += self._module(sys.modules.get(name), names, reached)
        for value in found:
            reached.add(value)
        return found

    def _chain(self, chain: tuple[str, ...], scope: Mapping[str, Any], reached: _Reached) -> list[Any]:
        """Watch a global, and what is taken of it as long as it is a module."""
        value, depth = MISSING, 0
        for space, name, value in look_ups(chain, scope):
            if id(value) in self._apart:
                return []
            self._names.setdefault(id(space), (space, {}))[1][name] = value
            depth += space is not scope or value is not MISSING
        if value is MISSING or isinstance(value, ModuleType):
            wanted = value is not MISSING and len(chain) == 1  # all of it may be asked for
            whole = chain == ("globals",) or (wanted and not is_library(value.__name__))
            return [value] if whole and isinstance(value, ModuleType) else []
        if chain[-1] in ("globals", "vars", "eval", "exec") and getattr(value, "__module__", None) == "builtins":
            self._note(lambda: list(scope.values()))
        if chain[-1] == "getenv" and getattr(value, "__module__", None) == "os":
            value = sys.modules["os"].environ
        reached.is_unsteady |= is_unsteady(value, chain[1:])
        return [] if _is_of_library(value) else [value]

    def _module(self, module: ModuleType | None, names: Names, reached: _Reached) -> list[Any]:
        """Watch what code may take of a module that it imports as it runs."""
        if module is None:
            return []
        found = []
        for name in sorted(names.attributes & vars(module).keys()):
            found += self._chain((name,), vars(module), reached)
        return found

    def _class(self, cls: type) -> Iterable[Any]:
        self._note(lambda: [original_of(cls, name, value) for name, value in _own(cls)])
        functions = (getattr(value, "__func__", getattr(value, "fget", value)) for _, value in _own(cls))
        originals = [original_of(cls, "__call__", None)] if "__call__" in vars(cls) else []
        return [*(each for each in (*functions, *originals) if each is not None), type(cls), *cls.__mro__[1:]]


def _own(cls: type) -> list[tuple[str, Any]]:
    """What a class has, and is not of Python's own making."""
    return [
        (name, value)
        for name, value in vars(cls).items()
        if not name.startswith("__") or name in ("__call__", "__getattr__", "__getattribute__", "__getitem__")
    ]


class _Reached:
    """What one function reaches: for finding out whether code that may run meets what is unsteady."""

    def __init__(self, name: str, attributes: frozenset[str]) -> None:
        self.name = name
        self.attributes = attributes
        self.functions: set[int] = set()
        self.is_unsteady = False

    def add(self, value: Any) -> None:
        """Note what the function has at hand."""
        self.functions.add(id(getattr(value, "__func__", value)))
        self.is_unsteady |= is_unsteady(value)


def _meets_unsteady(start: Iterable[Any], reached: Mapping[int, _Reached]) -> bool:
    """Whether code that may run asks for what is another each time: functions at hand, methods by their names."""
    by_name: dict[str, list[int]] = {}
    for at, each in reached.items():
        by_name.setdefault(each.name, []).append(at)
    pending = [id(getattr(value, "__func__", value)) for value in start] + by_name.get("__call__", [])
    seen: set[int] = set()
    while pending:
        at = pending.pop()
        each = reached.get(at)
        if each is None or at in seen:
            continue
        seen.add(at)
        if each.is_unsteady:
            return True
        pending += each.functions
        for name in each.attributes & by_name.keys():
            pending += by_name[name]
    return False


def _parts(function: FunctionType) -> tuple[Any, ...]:
    return (function.__code__, function.__defaults__, function.__kwdefaults__)


def _attribute(value: Any, name: str) -> Any:
    """An attribute that an object or its class has; one that a ``__getattr__`` would make up is none."""
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict) and name in held:
        return held[name]
    if not any(name in vars(cls) for cls in type(value).__mro__):
        return None
    try:
        return getattr(value, name, None)
    except Exception:  # a property that raises
        return None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


@functools.lru_cache(maxsize=1024)
def _slots(cls: type) -> tuple[Any, ...]:
    """The descriptors of the slots of a class that somebody wrote."""
    if is_library(cls.__module__):
        return ()
    found = []
    for base in cls.__mro__:
        names = vars(base).get("__slots__", ())
        found += [vars(base).get(name) for name in ((names,) if isinstance(names, str) else names)]
    return tuple(each for each in found if hasattr(each, "__get__") and hasattr(each, "__set__"))


def _slot(descriptor: Any, value: Any) -> Any:
    try:
        return descriptor.__get__(value)
    except AttributeError:
        return MISSING


@functools.lru_cache(maxsize=4096)
def is_library(module: str) -> bool:
    """Whether a module is part of Python, of JAX, or of a library of modules for it."""
    return module.partition(".")[0] in _LIBRARIES


def _is_of_library(value: Any) -> bool:
    home = getattr(value, "__module__", None)
    is_code = isinstance(value, FunctionType | type) or is_jitted(value)
    return is_code and isinstance(home, str) and is_library(home)
