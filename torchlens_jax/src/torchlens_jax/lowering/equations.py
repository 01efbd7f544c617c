"""What the equations of a jaxpr read, and which module calls they belong to."""

from __future__ import annotations

import re
from typing import Any

from jax.extend import core as jex

SCOPE = re.compile(r"tl@(\d+)")  # the named scope of a module call, with its number


def uids_of(jaxpr: Any) -> set[int]:
    """The module calls in a body, those in bodies inside it too."""
    found: set[int] = set()
    for equation in jaxpr.eqns:
        found.update(map(int, SCOPE.findall(str(equation.source_info.name_stack))))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= uids_of(inner)
    return found


def readers_of(jaxpr: Any) -> dict[Any, list[Any]]:
    """Variable -> the equations that read it."""
    readers: dict[Any, list[Any]] = {}
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            if not isinstance(atom, jex.Literal):
                readers.setdefault(atom, []).append(equation)
    return readers


def last_uses_of(jaxpr: Any) -> dict[Any, int]:
    """Variable -> number of the last equation that reads it; past the last one for what is returned."""
    last: dict[Any, int] = {}
    for number, equation in enumerate(jaxpr.eqns):
        for atom in equation.invars:
            if not isinstance(atom, jex.Literal):
                last[atom] = number
    for atom in jaxpr.outvars:
        if not isinstance(atom, jex.Literal):
            last[atom] = len(jaxpr.eqns)
    return last
