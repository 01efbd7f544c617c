"""Where the loops of a Python function are, read from its bytecode (so it works without source)."""

from __future__ import annotations

import dis
from types import CodeType
from typing import NamedTuple


class Loop(NamedTuple):
    """Instructions ``start`` to ``end`` (offsets, inclusive) that a backward jump repeats."""

    start: int
    end: int


_cache: dict[int, tuple[CodeType, tuple[Loop, ...]]] = {}  # the code object is kept so that its id stays its own


def loops_of(code: CodeType) -> tuple[Loop, ...]:
    """The loops of one code object, by start. Those of nested functions and comprehensions are in their own code."""
    known = _cache.get(id(code))
    if known is None:
        known = _cache[id(code)] = (code, _find(code))
    return known[1]


def loops_around(code: CodeType, offset: int) -> tuple[int, ...]:
    """Start offsets of the loops whose body holds the instruction at ``offset``."""
    return tuple(loop.start for loop in loops_of(code) if loop.start <= offset <= loop.end)


def _find(code: CodeType) -> tuple[Loop, ...]:
    ends: dict[int, int] = {}  # several jumps to one start (`continue`) are one loop
    for instruction in dis.get_instructions(code):
        is_jump = instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs
        if is_jump and instruction.argval <= instruction.offset:
            ends[instruction.argval] = max(ends.get(instruction.argval, 0), instruction.offset)
    return tuple(Loop(start, end) for start, end in sorted(ends.items()))
