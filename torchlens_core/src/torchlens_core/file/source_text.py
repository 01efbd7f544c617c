"""Call sites for a trace file: files by relative names, places in them, and the lines around what ran.

A trace file brings its own source text, so that it can be read where the source is not, and nobody opens a file that it
names. Names are relative, to a package or to the working directory: no home directory is in them.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

from ..derived.frames import Frame
from ..program import Program
from . import schema
from .text import clean, path_problem, plain

CONTEXT: Final = 7  # lines kept before and after: what `source_context()` shows
_LONGEST_LINE: Final = 400
_LONGEST_SPAN: Final = 60


class SourceText:
    """Gathers files and frames, each once, as they are asked for."""

    def __init__(self, known: Program) -> None:
        self._known = known.source  # of a trace that was itself loaded
        self._roots = [] if known.source is not None else _roots()
        self._files: dict[str, int] = {}
        self._relative: dict[str, str] = {}
        self._names: list[str] = []
        self._frames: dict[Frame, int] = {}
        self._wanted: list[set[int]] = []  # lines of each file
        self._uses: Counter[str] = Counter()

    def site(self, frames: Iterable[Frame]) -> tuple[int, ...]:
        """The numbers of the frames of a call site."""
        return tuple(self._frame(frame) for frame in frames)

    def name(self, file: str) -> str:
        """The name that a file has in the trace file."""
        return self._names[self._file(file)]

    def relative(self, file: str) -> str:
        """The relative name of a file, listed or not; two files may have the same."""
        if self._known is not None:
            return file
        if file not in self._relative:
            self._relative[file] = relative_name(file, self._roots)
        return self._relative[file]

    def files(self) -> tuple[schema.FileRecord, ...]:
        """The files with their lines."""
        return tuple(
            schema.FileRecord(name=self._names[number], lines=tuple(self._lines(file, sorted(self._wanted[number]))))
            for file, number in self._files.items()
        )

    def frames(self) -> tuple[schema.FrameRecord, ...]:
        """The frames."""
        return tuple(
            schema.FrameRecord(
                file=self._files[frame.file], line=frame.line, col=frame.col, end_line=frame.end_line,
                end_col=frame.end_col, function=clean(frame.function), first_line=frame.first_line,
            )
            for frame in self._frames
        )  # fmt: skip

    def _frame(self, frame: Frame) -> int:
        number = self._frames.get(frame)
        if number is None:
            number = self._frames[frame] = len(self._frames)
            last = min(max(frame.line, frame.end_line), frame.line + _LONGEST_SPAN)
            self._wanted[self._file(frame.file)].update(range(max(frame.line - CONTEXT, 1), last + CONTEXT + 1))
        return number

    def _file(self, file: str) -> int:
        number = self._files.get(file)
        if number is None:
            number = self._files[file] = len(self._files)
            name = self.relative(file)
            self._uses[name] += 1
            self._names.append(name if self._uses[name] == 1 else f"{name} ({self._uses[name]})")
            self._wanted.append(set())
        return number

    def _lines(self, file: str, wanted: list[int]) -> Iterable[tuple[int, str]]:
        if self._known is not None:
            known = self._known.get(file, {})
        else:
            known = dict(enumerate(linecache.getlines(file), start=1))
        return ((line, clean(known[line].rstrip("\r\n")[:_LONGEST_LINE])) for line in wanted if line in known)


def relative_name(file: str, roots: Iterable[str]) -> str:
    """A file's path from the innermost of ``roots`` that it is in, its last part where it is in none."""
    if file.startswith("<"):  # '<string>', '<ipython-input-3-...>'
        return plain(file).replace("/", "_").replace("\\", "_")
    path = PurePath(file)
    if path.is_absolute():
        for root in roots:
            if path.is_relative_to(root):
                path = path.relative_to(root)
                break
        else:
            path = PurePath(path.name)
    parts = [plain(part).replace("\\", "_").replace(":", "_") for part in path.parts if part not in ("..", "/", "")]
    name = "/".join(part if path_problem(part) is None else f"_{part}" for part in parts)
    return name or "unknown"


def _roots() -> list[str]:
    """The working directory and the places that packages are in, the innermost first."""
    places = {os.path.abspath(place) for place in ("", *sys.path)}
    return sorted(places, key=len, reverse=True)
