"""Where a replay leaves the recorded path: what Python read from an array comes out otherwise, or a shape does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from .derived.graph import Kind
from .program import Event, Program

if TYPE_CHECKING:
    from .records.trace import Trace


@dataclass(frozen=True, slots=True)
class Divergence:
    """One place; exactly one of the two is given.

    Attributes:
        event: the read that came out otherwise.
        now: what it gives now.
        vid: the array of another shape.
    """

    event: Event | None = None
    now: Any = None
    vid: int = -1

    def in_words(self, trace: Trace) -> str:
        """``bool() of ge_1_2:1 at net.py:12, which was True``: where it is in a trace of the program."""
        if self.event is None:
            return f"{_name(trace, self.vid)}, whose shape depends on the data"
        frames = trace.program.frames(self.event.site)
        place = f" at {frames[-1].file}:{frames[-1].line}" if frames else ""
        return f"{self.event.kind}() of {_name(trace, self.event.vid)}{place}, which was {self.event.value!r}"


def _name(trace: Trace, vid: int) -> str:
    node = trace.graph.node_of[vid]
    return trace.labels.op(node) if node >= 0 and trace.graph.kinds[node] != Kind.OUTPUT else "a constant"


class Events:
    """What Python read in a recorded run, to be read again."""

    def __init__(self, program: Program) -> None:
        self._by_row: dict[int, list[Event]] = defaultdict(list)
        for event in program.events:
            if event.vid >= 0:
                self._by_row[event.row].append(event)

    def first_other(self, moment: int, arrays: Mapping[int, Any]) -> Divergence | None:
        """The first read, when so many rows had run, that gives something else with these arrays, by value id."""
        for event in self._by_row.get(moment, ()):
            if event.vid in arrays:
                now = read_again(event, arrays[event.vid])
                if not _same(now, event.value):
                    return Divergence(event, now)
        return None


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


def _same(now: Any, before: Any) -> bool:
    """Whether two values that Python read are one; NaN is NaN."""
    if isinstance(now, list) and isinstance(before, list):
        return len(now) == len(before) and all(map(_same, now, before))
    return bool(now == before) or (now != now and before != before)
