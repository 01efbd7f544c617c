"""A place in the user's source that an Op was called from."""

from __future__ import annotations

from collections.abc import Mapping

from .frames import Frame, source_context, source_line


class CodeLocation:
    """One frame of an Op's call stack. Source text is read from the file when it is asked for.

    A loaded trace brings its source text along (file -> line -> text), and no file is read.
    """

    __slots__ = ("_frame", "_source")

    def __init__(self, frame: Frame, source: Mapping[str, Mapping[int, str]] | None = None) -> None:
        self._frame = frame
        self._source = source

    @property
    def file(self) -> str:
        """Path of the source file."""
        return self._frame.file

    @property
    def line_number(self) -> int:
        """Line of the call, from 1."""
        return self._frame.line

    @property
    def col_offset(self) -> int:
        """Column of the call, from 0, in UTF-8 bytes; -1 where unknown."""
        return self._frame.col

    @property
    def end_line_number(self) -> int:
        return self._frame.end_line

    @property
    def end_col_offset(self) -> int:
        return self._frame.end_col

    @property
    def func_name(self) -> str:
        """The function's own name."""
        return self._frame.function.rpartition(".")[2]

    @property
    def func_qualname(self) -> str:
        """``Net.forward``"""
        return self._frame.function

    @property
    def code_firstlineno(self) -> int:
        return self._frame.first_line

    @property
    def call_line(self) -> str:
        """The text of the line; empty where there is no source."""
        if self._source is None:
            return source_line(self._frame).strip()
        return self._source.get(self.file, {}).get(self.line_number, "").strip()

    def source_context(self, num_lines: int = 7) -> list[str]:
        """The lines around the call."""
        if self._source is None:
            return source_context(self._frame, num_lines)
        known = self._source.get(self.file, {})
        around = range(self.line_number - num_lines, self.line_number + num_lines + 1)
        return [known[line] for line in around if line in known]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeLocation) and self._frame == other._frame

    def __hash__(self) -> int:
        return hash(self._frame)

    def __repr__(self) -> str:
        return f"{self.file}:{self.line_number} in {self.func_qualname}"
