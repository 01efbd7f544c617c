"""What an eager framework is watched by, and which frames are no place in the user's program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Protocol

from ..backend import Call
from ..callsites import KEEP, SKIP, CallSites
from ..program import Func

_HERE = os.path.dirname(__file__) + os.sep


class Watch(Protocol):
    """Is told what a framework does in one thread, and has it done by ``run``, which nobody watches.

    ``run(*args, **kwargs)`` is the operation or the module call itself; what these methods return is what the user's
    code gets.
    """

    def operation(self, func: Func, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """An operation is called."""

    def module_call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """A module is called."""

    def read(self, kind: str, array: Any, value: Any) -> None:
        """An array was read as a Python value: ``'bool'``, ``'float'``, ``'int'`` or ``'item'``."""

    def assigned(self, module: Any, name: str, array: Any) -> None:
        """A buffer of a module was bound to an array."""


def call_sites(*places: str | Callable[..., Any]) -> CallSites:
    """Call sites of a framework.

    Args:
        places: what is no place in the user's program: the framework's wrappers, the plugin. Source files, functions
            (with those defined inside), and classes (with all their methods).
    """
    files = {place for place in places if isinstance(place, str)}
    codes = {id(code): code for place in places for code in _codes(place)}  # kept, so that an id stays its own

    def classify(code: CodeType) -> int:
        ours = code.co_filename in files or code.co_filename.startswith(_HERE) or id(code) in codes
        return SKIP if ours else KEEP

    made = CallSites(classify)
    made.stop_at(Call.run.__code__)
    return made


def _codes(place: Any) -> Iterator[CodeType]:
    """The code of a function or code object and of all that is defined inside it; of a class, that of its methods."""
    if isinstance(place, type):
        for member in (member for cls in place.__mro__ for member in vars(cls).values()):
            yield from _codes(member)
    code = place if isinstance(place, CodeType) else getattr(place, "__code__", None)
    if isinstance(code, CodeType):
        yield code
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from _codes(inner)
