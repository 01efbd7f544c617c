"""Which rows of a tape a change reaches, and which others have to be run so that those can.

Whatever a change does not reach is taken from the values that the trace kept. Where operations write in place, an array
taken so is not enough for who reads memory that is then written through another array: such arrays have to be made
again, from where their memory came to be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from itertools import chain

from ..program import Change, Program, walk_outs


@dataclass(slots=True)
class Part:
    """What of a tape is to be run.

    Attributes:
        rows: the rows to run.
        taken: value ids of arrays that rows take from the kept values.
        sources: value ids of the parameters, inputs, buffers and constants that they take.
        reached: value ids whose arrays are others than in the recorded run.
        changes: what takes the place of arrays, recorded changes and new ones, in order.
    """

    rows: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    sources: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class New:
    """What a replay does beside repeating what was recorded.

    Attributes:
        changes: what takes the place of arrays.
        reads: changes that leave an array as it is, and note it for others that read it.
        read_by: which of the ``reads`` a change takes values from.
    """

    changes: list[Change]
    reads: list[Change]
    read_by: Callable[[Change], Iterable[Change]]


def whole(program: Program, new: New) -> Part:
    """Everything, with the new changes after the recorded ones of the same moment."""
    rows = set(range(len(program.rows)))
    sources = {source.vid for source in program.sources if source.origin < 0}
    changes = _merged(program.changes, new.changes, new.reads)
    return Part(rows, set(), sources, set(range(len(program.metas))), changes)


def downstream(program: Program, new: New, kept: Container[int], wanted: Iterable[int] = ()) -> Part:
    """What new changes reach, and what has to be run for it.

    Args:
        program: the tape.
        new: the changes.
        kept: value ids of the arrays that can be taken as they were kept.
        wanted: value ids of arrays that are asked for, reached or not.
    """
    return _Planner(program, new, kept).part(wanted)


def _merged(*changes: Iterable[Change]) -> list[Change]:
    return sorted(chain(*changes), key=lambda change: change.row)


class _Planner:
    def __init__(self, program: Program, new: New, kept: Container[int]) -> None:
        self._program = program
        self._new = new
        self._kept = kept
        self._row_of = _rows_that_made(program)
        self._source_of = {source.vid: source for source in program.sources}
        self._old_of = {change.new: change.old for change in program.changes if change.new != change.old}
        self._changes_of: dict[int, list[Change]] = defaultdict(list)  # row -> recorded changes of what it made
        for change in program.changes:
            self._changes_of[self._row_of.get(self._first(change.old), -1)].append(change)
        self._reads: dict[int, Change] = {}  # the reads to be done, by id
        self._part = Part()
        self._pending: list[int] = []  # rows to run whose own needs are not looked at yet

    def part(self, wanted: Iterable[int]) -> Part:
        self._reach()
        for vid in wanted:
            self._need(vid)
        for change in self._new.changes:
            self._need(change.old)
            self._need_reads(change)
        while self._pending:
            self._look_at(self._pending.pop())
        part = self._part
        part.taken = {vid for vid in part.taken if not self._is_made(vid)}
        again = [change for change in self._program.changes if self._is_made(change.old)]
        part.changes = _merged(again, self._new.changes, self._reads.values())
        return part

    # -- what changes reach ----------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Mark the rows that take what is changed, in one pass over the tape."""
        program = self._program
        since: dict[int, int] = {}  # value id -> number of rows that had run when its array became another
        changes = _merged(program.changes, self._new.changes)
        new = set(map(id, self._new.changes))
        versions = {source.origin: source.vid for source in program.sources if source.origin >= 0}
        position = 0

        def mark(vid: int, moment: int) -> None:
            while vid not in since:
                since[vid] = moment
                vid = versions.get(vid, vid)

        first = min((change.row for change in self._new.changes), default=0)
        while position < len(changes) and changes[position].row < first:
            position += 1
        for moment in range(first, len(program.rows) + 1):
            if moment > first and self._is_reached(moment - 1, since):
                row = program.rows[moment - 1]
                self._run(moment - 1)
                for vid, _ in walk_outs(row.outs):
                    if vid is not None:
                        mark(vid, moment)
                for _, written in program.writes.get(moment - 1, ()):
                    mark(written, moment)
            while position < len(changes) and changes[position].row <= moment:
                change = changes[position]
                position += 1
                reads_other = any(read.old in since for read in self._new.read_by(change))
                if id(change) in new or change.old in since or reads_other:
                    mark(change.new, moment)
                    if id(change) not in new:
                        self._run(self._row_of[self._first(change.old)])
                    if moment and change.new in {vid for _, vid in program.writes.get(moment - 1, ())}:
                        self._run(moment - 1)  # what it wrote is changed in memory that others may share
        self._part.reached = set(since)

    def _is_reached(self, index: int, since: dict[int, int]) -> bool:
        row = self._program.rows[index]
        if any(since.get(vid, index + 1) <= index for vid in row.ins):
            return True
        return any(writer in self._part.rows for _, writer in self._program.deps.get(index, ()))

    def _run(self, index: int) -> None:
        if index not in self._part.rows:
            self._part.rows.add(index)
            self._pending.append(index)

    # -- what they need --------------------------------------------------------------------------------------------

    def _look_at(self, index: int) -> None:
        row, deps = self._program.rows[index], self._program.deps.get(index, ())
        for vid in row.ins:
            self._need(vid)
        for change in self._changes_of[index]:
            self._need_reads(change)
        for hole, writer in deps:
            self._run(writer)
            self._make(row.ins[hole])
            for old, _ in self._program.writes[writer]:
                self._make(old)

    def _need(self, vid: int) -> None:
        """An array is to be there: one that a row makes, one that was kept, or one that is made now.

        What a new change replaces is taken as it was kept.
        """
        if self._is_made(vid):
            return
        source = self._source_of.get(vid)
        is_version_reached = source is not None and source.origin in self._part.reached
        if vid in self._kept and not is_version_reached and (source is None or source.origin >= 0):
            self._part.taken.add(vid)
        else:
            self._find(vid)

    def _need_reads(self, change: Change) -> None:
        for read in self._new.read_by(change):
            self._reads[id(read)] = read
            self._need(read.old)

    def _first(self, vid: int) -> int:
        """The value id under which a row made what modules have returned in other versions."""
        while vid in self._old_of:
            vid = self._old_of[vid]
        return vid

    def _is_made(self, vid: int) -> bool:
        return self._row_of.get(self._first(vid), -1) in self._part.rows

    def _find(self, vid: int) -> None:
        """Have an array made by what made it."""
        vid = self._first(vid)
        source = self._source_of.get(vid)
        if source is not None and source.origin < 0:
            self._part.sources.add(vid)
        elif source is not None:
            self._need(source.origin)
        elif vid in self._row_of:
            self._run(self._row_of[vid])

    def _make(self, vid: int) -> None:
        """Have an array made again, with all that it is made from: another that shares its memory is written."""
        pending, seen = [vid], set[int]()
        while pending:
            vid = pending.pop()
            if vid in seen:
                continue
            seen.add(vid)
            self._part.taken.discard(vid)
            self._find(vid)
            vid = self._first(vid)
            source = self._source_of.get(vid)
            if source is not None and source.origin >= 0:
                pending.append(source.origin)
            elif source is None and vid in self._row_of:
                pending += self._program.rows[self._row_of[vid]].ins


def _rows_that_made(program: Program) -> dict[int, int]:
    """Value id -> the row that returned or wrote the array."""
    made: dict[int, int] = {}
    for index, row in enumerate(program.rows):
        for vid, _ in walk_outs(row.outs):
            if vid is not None:
                made[vid] = index
        for _, new in program.writes.get(index, ()):
            made.setdefault(new, index)
    return made
