"""Whether a model may build modules as it runs: those of Linen and Haiku, which nothing else knows of."""

from __future__ import annotations

import sys
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torchlens_core.reach import reachable

from .structure import unwrapped
from .watching import is_library

_BUILDERS = ("haiku", "flax.linen")


def may_build_modules(model: Any) -> bool:
    """Whether the code of a model, or a function that it calls, names these libraries or holds what is theirs."""
    if not any(name in sys.modules for name in _BUILDERS):
        return False
    pending, seen = [unwrapped(model)], set[int]()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        owner = getattr(value, "__self__", None)
        if _is_theirs(value) or (owner is not None and _is_theirs(owner)):
            return True
        if isinstance(value, FunctionType | MethodType) and not is_library(value.__module__ or ""):
            pending += [inner for _, inner in reachable(value)]
    return False


def _is_theirs(value: Any) -> bool:
    classes = () if isinstance(value, ModuleType) else type(value).__mro__
    homes = [getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)]
    homes += [cls.__module__ for cls in classes]
    return any(str(home).startswith(_BUILDERS) for home in homes if home)
