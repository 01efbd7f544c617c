"""Which arrays are memory that nobody has written yet: what stands in it means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..program import Row, walk_outs

# In-place operations after which part of the array is as it was.
_PARTIAL = frozenset(
    "setitem indexput indexcopy indexfill indexadd scatter scatteradd scatterreduce maskedfill "
    "maskedscatter put".split()
)


class Undefined:
    """Follows the rows of a run, and knows the value ids of undefined arrays.

    Undefined is what ``empty()`` and its like return, what is computed from such arrays alone (views of them, above
    all), and what has been written in part.
    """

    def __init__(self, rows: Sequence[Row], deps: Mapping[int, tuple[tuple[int, int], ...]]) -> None:
        self._rows = rows
        self._deps = deps
        self._seen = 0
        self._vids: set[int] = set()

    def __contains__(self, vid: object) -> bool:
        for index in range(self._seen, len(self._rows)):
            self._follow(index)
        self._seen = len(self._rows)
        return vid in self._vids

    def _follow(self, index: int) -> None:
        func, ins, outs = self._rows[index][0], self._rows[index][3], self._rows[index][4]
        if func.undefined or (ins and self._is_undefined(index)):
            self._vids.update(vid for vid, _ in walk_outs(outs) if vid is not None)

    def _is_undefined(self, index: int) -> bool:
        func, ins = self._rows[index][0], self._rows[index][3]
        if func.writes is not None and func.type in _PARTIAL:
            return ins[0] in self._vids
        return func.writes is None and index not in self._deps and all(vid in self._vids for vid in ins)
