"""What a model's code can reach: the names of its arguments, the modules it closes over, the arrays it holds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any

from .backend import Call, Discovery


def input_names(function: Callable[..., Any], count: int) -> list[str]:
    """Names of the first ``count`` positional arguments, from the signature; ``arg_2`` where it gives none."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}.{position}" for position in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"arg_{position}" for position in range(len(names), count)]
    return names[:count]


def reachable(model: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """What a callable can be or use, with names.

    Itself and the object that it is a method of (both named ``''``), the attributes of an object that is called, what
    it closes over, and what it names among its globals.
    """
    while isinstance(model, functools.partial):
        model = model.func
    yield "", model
    owner = getattr(model, "__self__", None)
    if owner is not None:
        yield "", owner
    holder = model if owner is None else owner
    if not isinstance(holder, FunctionType):
        yield from getattr(holder, "__dict__", {}).items()
    for function in _functions(model):
        yield from _closed_over(function)


def _functions(model: Callable[..., Any]) -> list[FunctionType]:
    """What runs when a callable is called: a decorated function's wrappers, and what they wrap."""
    chain: list[Any] = [getattr(model, "__func__", model)]
    while len(chain) < _MOST_WRAPPERS and hasattr(chain[-1], "__wrapped__"):
        chain.append(chain[-1].__wrapped__)
    functions = [function for function in chain if isinstance(function, FunctionType)]
    called = type(model).__call__
    return functions or ([called] if isinstance(called, FunctionType) else [])


_MOST_WRAPPERS = 100  # a chain that comes back to itself is no longer


def _closed_over(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield name, function.__globals__[name]


def attributes(discovery: Discovery) -> Iterator[tuple[str, Any]]:
    """Everything that attributes of the model's modules hold, with addresses.

    To be asked before the run, for a model can set attributes while it runs.
    """
    for info, module in discovery.modules:
        for name, value in getattr(module, "__dict__", {}).items():
            yield f"{info.address}.{name}" if info.address else name, value


def find_variable(array: Any, frame: FrameType | None) -> str | None:
    """The global, or the variable closed over, through which the functions now running can reach an array."""
    while frame is not None and frame.f_code is not Call.run.__code__:
        code = frame.f_code
        for name in (*code.co_names, *code.co_freevars):
            value = frame.f_locals.get(name) if name in code.co_freevars else frame.f_globals.get(name)
            if _holds(value, array):
                return name
        frame = frame.f_back
    return None


def _holds(value: Any, array: Any, depth: int = 3) -> bool:
    if value is array:
        return True
    if depth and isinstance(value, list | tuple):
        return any(_holds(item, array, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return any(_holds(item, array, depth - 1) for item in value.values())
    return False
