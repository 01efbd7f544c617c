"""Replay: run the recorded operations again, from other inputs, parameters or values, without the model's code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .backend import Backend
from .errors import ReplayError
from .program import Event, Program, Row, fill, walk_outs


@dataclass(frozen=True, slots=True)
class Step:
    """One row that was run again: its number, and the arrays it returned or wrote, by value id."""

    index: int
    row: Row
    arrays: dict[int, Any]


class Replay:
    """One replay of a program.

    Args:
        program: the tape, recorded with what a replay needs (``replay_ready=True``).
        backend: of the framework that ran it.
        sources: value id -> array, for every input, parameter, buffer and constant that the run read. Arrays that rows
            write to are overwritten, so give copies of what must stay. Results of a row that are given here too replace
            what it returns: memory that nobody has filled is otherwise another every time.
    """

    def __init__(self, program: Program, backend: Backend, sources: Mapping[int, Any]) -> None:
        self._program = program
        self._backend = backend
        self._env: dict[int, Any] = dict(sources)
        self._versions = {s.origin: s.vid for s in program.sources if s.origin >= 0}  # buffers' new versions
        self._last_use = _last_uses(program)

    def steps(self) -> Iterator[Step]:
        """Run the rows in order. An array is let go after its last use."""
        for index, row in enumerate(self._program.rows):
            yield self._run(index, row)
            for vid in self._last_use.get(index, ()):
                self._env.pop(vid, None)

    def __getitem__(self, vid: int) -> Any:
        """An array of the replay, while it is held: outputs, and what events read, are to the end."""
        return self._env[vid]

    def _run(self, index: int, row: Row) -> Step:
        program, env = self._program, self._env
        try:
            arrays = [env[vid] for vid in row.ins]
        except KeyError as missing:
            raise ReplayError(
                f"Row {index} ({row.func.name}) takes an array that the recording does not hold (value {missing}). "
                "Trace with replay_ready=True."
            ) from None
        args, taken = fill(row.args, arrays)
        kwargs, _ = fill(dict(row.kwargs), arrays[taken:])
        state = program.rng.get(index)
        if state is not None:
            self._backend.rng(state)
        result = self._backend.call(row, args, kwargs)
        made: dict[int, Any] = {}
        for old, new in program.writes.get(index, ()):
            made[new] = env[new] = env[old]
        if result is not None:
            returned = [array for _, array in self._backend.leaves(result)]
            expected = [vid for vid, _ in walk_outs(row.outs) if vid is not None]
            if len(returned) != len(expected):
                raise ReplayError(
                    f"Row {index} ({row.func.name}) returned {len(returned)} arrays and {len(expected)} before."
                )
            for vid, array in zip(expected, returned, strict=True):
                made[vid] = env[vid] = env.get(vid, array)
        for vid in list(made):
            if vid in self._versions:
                env[self._versions[vid]] = env[vid]
        return Step(index, row, made)


def _last_uses(program: Program) -> dict[int, list[int]]:
    """Row -> the value ids that no later row, output or event reads."""
    last: dict[int, int] = {}
    for index, row in enumerate(program.rows):
        for vid in row.ins:
            last[vid] = index
        for returned, _ in walk_outs(row.outs):
            if returned is not None:
                last.setdefault(returned, index)
        for old, new in program.writes.get(index, ()):
            last[old] = max(last.get(old, index), index)
            last.setdefault(new, index)
    kept = {output.vid for output in program.outputs} | {event.vid for event in program.events}
    kept |= {source.vid for source in program.sources} | {source.origin for source in program.sources}
    uses: dict[int, list[int]] = defaultdict(list)
    for vid, index in last.items():
        if vid not in kept:
            uses[index].append(vid)
    return uses


def events_by_row(program: Program) -> dict[int, list[Event]]:
    """Number of rows that had run -> the reads of an array as a Python value that came then."""
    events: dict[int, list[Event]] = defaultdict(list)
    for event in program.events:
        events[event.row].append(event)
    return events


_READERS: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": lambda array: array.__index__(),
    "item": lambda array: array.item(),
    "tolist": lambda array: array.tolist(),
}


def read_again(event: Event, array: Any) -> Any:
    """What the event's read gives for another array; as it was where one array alone does not tell (``x in array``)."""
    if event.kind not in _READERS or (event.kind != "tolist" and prod(array.shape) != 1):
        return event.value
    return _READERS[event.kind](array)
