"""The values of a replay: those of the old trace that it starts from, and those that the new one keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ValueOverwritten
from ..plan import PLAIN, Keep, Plan, SaveSpec
from ..records.op import Op
from ..selectors import Names
from ..values import LiveValues, Values
from .downstream import Part

if TYPE_CHECKING:
    from ..records.trace import Trace


class Kept(Mapping[int, Any]):
    """The kept arrays of a trace, by value id, that are the Ops' own and that nobody has overwritten."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def __contains__(self, vid: object) -> bool:
        return isinstance(vid, int) and self._find(vid) is not None

    def __getitem__(self, vid: int) -> Any:
        found = self._find(vid)
        if found is None:
            raise KeyError(vid)
        return found

    def _find(self, vid: int) -> Any:
        if vid not in self._values or self._values.is_transformed(vid):
            return None
        try:
            return self._values[vid]
        except ValueOverwritten:
            return None

    def __iter__(self) -> Iterator[int]:
        return (vid for vid in self._values if vid in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Keeping:
    """The values that a replay keeps: by reference, and copied just before they are overwritten."""

    def __init__(self, trace: Trace, save: SaveSpec | Mapping[int, Keep] | None, *, is_attached: bool) -> None:
        assert trace.backend is not None
        self._trace = trace
        self._arrays = trace.backend.arrays
        self._is_attached = is_attached  # to a gradient tape
        self._late: Plan | None = None  # decided about by value, when the replay is over
        self._may_be_written = bool(trace.program.writes)
        self._made: dict[int, Any] = {}
        self._results: dict[int, Any] = {}
        self._in_memory: dict[Hashable, set[int]] = defaultdict(set)
        if save is None:
            self.wanted: Mapping[int, Keep] = self._as_before()
        else:
            self.wanted = save if isinstance(save, Mapping) else self._asked_for(save)

    def _as_before(self) -> dict[int, Keep]:
        trace = self._trace
        keeps: dict[int, Keep] = dict.fromkeys(trace.values, PLAIN)
        for vid in trace.values:
            node = trace.graph.node_of[vid]
            if trace.values.is_transformed(vid) and trace.recorded is not None and node >= 0:
                keeps[vid] = trace.recorded.plan.matching(Op(trace, node)) or PLAIN
        return keeps

    def _asked_for(self, save: SaveSpec) -> dict[int, Keep]:
        trace, backend = self._trace, self._trace.backend
        assert backend is not None
        plan = Plan(save)
        plan.bind(Names(frozenset(trace.modules.addresses()), lambda name: True, backend.function_names))
        if "value" in plan.reads:
            self._late = plan
            return dict.fromkeys(trace.graph.vids, PLAIN)
        return _matching(plan, trace, range(len(trace.program.metas)))

    def offer(self, vid: int, array: Any) -> None:
        """An array has been made, or takes another's place."""
        keep = self.wanted.get(vid)
        if keep is None:
            return
        if not keep.is_plain:
            self._results[vid] = keep.result(array, self._arrays)
            return
        self._made[vid] = array if self._is_attached else self._arrays.detach(array)
        if self._may_be_written:
            self._in_memory[self._arrays.memory(array)].add(vid)

    def before_write(self, written: Iterable[Any]) -> None:
        """Copy what is kept in the memory of these arrays."""
        for array in written:
            memory = self._arrays.memory(array)
            if memory is not None:
                for vid in self._in_memory.pop(memory, ()):
                    self._made[vid] = self._arrays.copy(self._made[vid])

    def values(self, part: Part) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
        """What the new trace holds: what was made, and what nothing reached as the old trace holds it."""
        assert isinstance(self._trace.values, LiveValues)
        old_held, old_results, old_clean = self._trace.values.held()
        again = self._made.keys() | self._results.keys()
        same = {vid for vid in self.wanted if vid not in again and vid not in part.reached}
        held = {vid: old_held[vid] for vid in same if vid in old_held}
        held |= {vid: self._arrays.hold(array) for vid, array in self._made.items()}
        results = {vid: old_results[vid] for vid in same if vid in old_results and vid not in held} | self._results
        return held, results, {vid: clean for vid, clean in old_clean.items() if vid not in part.reached}

    def settle(self, made: Trace) -> None:
        """Let go of what a selector that looks at values does not match."""
        if self._late is None:
            return
        assert isinstance(made.values, LiveValues)
        held, results, clean = made.values.held()
        keeps = _matching(self._late, made, held)
        for vid in list(held):
            if vid not in keeps or not keeps[vid].is_plain:
                array = self._arrays.release(held.pop(vid))
                if vid in keeps:
                    results[vid] = keeps[vid].result(array, self._arrays)
        made.values = LiveValues(self._arrays, held, results, clean)


def _matching(plan: Plan, trace: Trace, among: Container[int]) -> dict[int, Keep]:
    """Value id -> what a plan keeps of the Ops that have the array."""
    keeps: dict[int, Keep] = {}
    for node, vid in enumerate(trace.graph.vids):
        keep = plan.matching(Op(trace, node)) if vid in among else None
        if keep is not None:
            keeps.setdefault(vid, keep)
    return keeps
