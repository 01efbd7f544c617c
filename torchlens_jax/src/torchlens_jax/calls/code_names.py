"""What the code of a function names: globals with the attributes taken of them, modules that it imports."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any, NamedTuple


class Names(NamedTuple):
    """What code names.

    Attributes:
        chains: each global, with the attributes taken of it one after the other: ``('np', 'random', 'rand')``.
        closed: the same of variables that are closed over.
        imports: modules imported where the code runs.
        attributes: all attributes that are taken of anything, and all strings that could be the name of one.
    """

    chains: tuple[tuple[str, ...], ...]
    closed: tuple[tuple[str, ...], ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> Names:
    """What a function names, and those inside it."""
    chains: dict[tuple[str, ...], None] = {}
    closed: dict[tuple[str, ...], None] = {}
    imports: dict[str, None] = {}
    attributes = {*code.co_names}
    into: dict[tuple[str, ...], None] = chains
    chain: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if chain and name in ("LOAD_ATTR", "LOAD_METHOD"):
            chain = (*chain, instruction.argval)
            continue
        into[chain] = None
        into = closed if name == "LOAD_DEREF" else chains
        chain = (instruction.argval,) if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF") else ()
        if name == "IMPORT_NAME":
            imports[instruction.argval] = None
    into[chain] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = names_in(constant)
            chains.update(dict.fromkeys(inner.chains))
            closed.update(dict.fromkeys(inner.closed))
            imports.update(dict.fromkeys(inner.imports))
            attributes |= inner.attributes
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)
    pairs = (tuple(chain for chain in each if chain) for each in (chains, closed))
    return Names(*pairs, tuple(imports), frozenset(attributes))


MISSING: Any = object()


def look_ups(chain: tuple[str, ...], scope: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, Any]]:
    """The look-ups that a chain makes in dicts that names can be given anew in: the dict, the name, what is found.

    From modules on to what is in them; what attributes of other objects are is no matter of names.
    """
    head, *rest = chain
    value = scope.get(head, MISSING)
    yield scope, head, value
    if value is MISSING:
        builtins = scope.get("__builtins__", {})
        space = vars(builtins) if isinstance(builtins, ModuleType) else builtins
        value = space.get(head, MISSING)
        yield space, head, value
    for name in rest:
        if not isinstance(value, ModuleType):
            return
        space = vars(value)
        value = space.get(name, MISSING)
        yield space, name, value
