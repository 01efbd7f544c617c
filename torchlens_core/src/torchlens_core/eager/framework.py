"""What an eager framework is watched by, and which frames are no place in the user's program."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def call_sites(*files: str) -> CallSites:
    """Call sites of a framework.

    Args:
        files: source files whose frames are no place in the user's program: the framework's wrappers, the plugin.
    """

    def classify(code: CodeType) -> int:
        return SKIP if code.co_filename in files or code.co_filename.startswith(_HERE) else KEEP

    made = CallSites(classify)
    made.stop_at(Call.run.__code__)
    return made
