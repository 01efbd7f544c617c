"""Where in the source a frame stood: positions of instructions, and the text around them.

A position is a line *and column* span, taken from the code object's own table. It is what tells two calls on one line
apart. The offset of an instruction is no position: CPython compiles the test of a ``while`` and the body of a
``finally`` more than once.

Lines count from 1. Columns count from 0 in UTF-8 bytes, as in :mod:`ast`. Whatever the interpreter does not know is -1
(columns under ``python -X no_debug_ranges``).
"""

from __future__ import annotations

import dis
import linecache
import sys
from types import CodeType
from typing import NamedTuple


class Frame(NamedTuple):
    """The place of one frame: the span of the expression that it was evaluating, in which code object of which file."""

    file: str
    line: int
    col: int
    end_line: int
    end_col: int
    function: str  # qualified name: 'Net.forward', 'make.<locals>.<lambda>'
    first_line: int  # of the code object; of a decorated function its first decorator


class _Places:
    """Everything known of one code object. Holds the object itself, so that its id stays its own."""

    __slots__ = ("code", "frames", "positions")

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.positions = _position_table(code)
        self.frames: dict[int, Frame] = {}


_PLACES: dict[int, _Places] = {}  # by id(code), for the process: hashing a code object costs more than the look-up


def position(code: CodeType, lasti: int) -> tuple[int, int, int, int]:
    """``(line, end_line, col, end_col)`` of the instruction at ``lasti`` (``frame.f_lasti``), -1 where unknown."""
    return _places(code).positions[max(lasti, 0) >> 1]


def frame_of(code: CodeType, lasti: int) -> Frame:
    """The :class:`Frame` of ``code`` standing at ``lasti``; the same object for every call with these arguments."""
    places = _places(code)
    frame = places.frames.get(lasti)
    if frame is None:
        line, end_line, col, end_col = places.positions[max(lasti, 0) >> 1]
        frame = Frame(code.co_filename, line, col, end_line, end_col, code.co_qualname, code.co_firstlineno)
        places.frames[lasti] = frame
    return frame


def source_line(frame: Frame) -> str:
    """The line on which the frame's expression begins, without the line break; '' where there is no source."""
    return linecache.getline(frame.file, frame.line).rstrip("\r\n")


def source_context(frame: Frame, n: int) -> list[str]:
    """The frame's line with up to ``n`` lines before and after it, without line breaks; [] where there is no source."""
    lines = linecache.getlines(frame.file)
    if not 1 <= frame.line <= len(lines):
        return []
    return [line.rstrip("\r\n") for line in lines[max(frame.line - 1 - n, 0) : frame.line + n]]


def _places(code: CodeType) -> _Places:
    places = _PLACES.get(id(code))
    if places is None:
        places = _PLACES[id(code)] = _Places(code)
    return places


def _position_table(code: CodeType) -> list[tuple[int, int, int, int]]:
    """The position of each code unit (two bytes)."""
    table = [
        (
            -1 if line is None else line,
            -1 if end_line is None else end_line,
            -1 if col is None else col,
            -1 if end_col is None else end_col,
        )
        for line, end_line, col, end_col in code.co_positions()
    ]
    if sys.version_info < (3, 12):
        _narrow_jumps(code, table)
    return table


def _narrow_jumps(code: CodeType, table: list[tuple[int, int, int, int]]) -> None:
    """Give conditional jumps the position of the operand that they test.

    Python 3.11 puts the jumps of ``if a and b:`` at the whole statement, later versions at ``a`` and at ``b``. The
    operand is what the instruction before the jump evaluated.
    """
    opcodes = code.co_code[::2]
    for unit, opcode in enumerate(opcodes):
        if opcode in _TESTING_JUMPS:
            before = unit - 1
            while opcodes[before] == dis.EXTENDED_ARG:
                before -= 1
            table[unit] = table[before]


_TESTING_JUMPS = {
    opcode
    for name, opcode in dis.opmap.items()
    if name.startswith("POP_JUMP_") and name.endswith(("_IF_TRUE", "_IF_FALSE"))
}
