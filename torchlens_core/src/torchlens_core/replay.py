"""Replay: run the recorded operations again, from other inputs, parameters or values, without the model's code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .backend import Backend
from .divergence import Divergence, Events
from .dtypes import is_floating
from .errors import ReplayError
from .program import Change, Meta, Program, Row, fill, walk_outs


@dataclass(frozen=True, slots=True)
class Step:
    """What one row gave when it was run again, with the changes that came then.

    Attributes:
        row: the row; None for changes that come where no row is run (before the first one, or after one left out).
        arrays: the arrays that it returned or wrote, and those changed, by value id.
    """

    row: Row | None
    arrays: dict[int, Any]


class Replay:
    """One replay of a program.

    Args:
        program: the tape, recorded with what a replay needs (``replay_ready=True``).
        backend: of the framework that ran it.
        sources: value id -> array, for every input, parameter, buffer and constant that the rows read, and for results
            of rows that are left out. Arrays that rows write to are overwritten, so give copies of what must stay.
            Results of a row that are given here too replace what it returns: memory that nobody has filled is
            otherwise another every time.
        rows: the rows to run; None runs all.
        changes: what takes the place of arrays, in order: those of the recorded run, and new ones.
        change: gives the array that takes the place of another.
        before_write: told of the arrays that a row is about to overwrite.
        tape: which rows run with a gradient tape: none; those that did when they were recorded, as kernels may choose
            by whether a gradient is wanted; or all but those that the model cut from it.

    Attributes:
        divergence: the first place at which the recorded path was left; None where it was not.
    """

    def __init__(
        self,
        program: Program,
        backend: Backend,
        sources: Mapping[int, Any],
        *,
        rows: Collection[int] | None = None,
        changes: Iterable[Change] = (),
        change: Callable[[Change, Any], Any] = lambda change, array: array,
        before_write: Callable[[list[Any]], None] = lambda arrays: None,
        tape: Literal["none", "recorded", "all"] = "none",
    ) -> None:
        self._program = program
        self._backend = backend
        self._arrays = backend.arrays
        self._env: dict[int, Any] = dict(sources)
        self._rows = range(len(program.rows)) if rows is None else rows
        self._changes: dict[int, list[Change]] = defaultdict(list)
        changes = list(changes)
        for each in changes:
            self._changes[each.row].append(each)
        self._change = change
        self._before_write = before_write
        self._tape = _Tape(program, tape, backend)
        self._versions = {s.origin: s.vid for s in program.sources if s.origin >= 0}  # buffers' new versions
        self._last_use = _last_uses(program, self._rows, changes)
        self._events = Events(program)
        self.divergence: Divergence | None = None

    def steps(self) -> Iterator[Step]:
        """Run the rows in order. An array is let go after its last use."""
        yield from self._others(0, {})
        for index, row in enumerate(self._program.rows):
            if index in self._rows:
                made = self._run(index, row)
                self._make_others(index + 1, made)
                self._look(index + 1, made)
                yield Step(row, made)
            else:
                yield from self._others(index + 1, {})
            for vid in self._last_use.get(index, ()):
                self._env.pop(vid, None)

    def __getitem__(self, vid: int) -> Any:
        """An array of the replay, while it is held: outputs, and what events read, are to the end."""
        return self._env[vid]

    def __setitem__(self, vid: int, array: Any) -> None:
        """Put another array in the place of one, for the rows to come; who holds the old one keeps it."""
        self._put(vid, {vid: array})

    def __contains__(self, vid: int) -> bool:
        return vid in self._env

    def get(self, vid: int) -> Any:
        """An array while it is held; None where it is not."""
        return self._env.get(vid)

    # -- one row ---------------------------------------------------------------------------------------------------

    def _run(self, index: int, row: Row) -> dict[int, Any]:
        env = self._env
        written = self._program.writes.get(index, ())
        if row.func.gives_written:
            return self._run_giving(index, row, written)
        if written:
            self._before_write([env[old] for old, _ in written if old in env])
        apart = self._apart(index, row) if written else {}
        result = self._call(index, row, apart)
        made: dict[int, Any] = {}
        for old, new in written:
            made[new] = env[new] = apart.get(old, env[old])
        for vid, array in self._returned(index, row, result):
            made[vid] = env[vid] = env.get(vid, array)
        if apart:
            self._write_changed(index, made, apart)
        for vid in made:
            self._put(vid, made)
        return made

    def _run_giving(self, index: int, row: Row, written: Sequence[tuple[int, int]]) -> dict[int, Any]:
        """Run a row that returns what it writes, as new arrays after its results."""
        arrays = [array for _, array in self._backend.leaves(self._call(index, row, {}))]
        count = len(arrays) - len(written)
        made = dict(self._returned(index, row, arrays[:count]))
        made |= {new: array for (_, new), array in zip(written, arrays[count:], strict=True)}
        self._env |= made
        for vid in made:
            self._put(vid, made)
        return made

    def _call(self, index: int, row: Row, instead: Mapping[int, Any]) -> Any:
        env = self._env
        try:
            arrays = [instead[vid] if vid in instead else env[vid] for vid in row.ins]
        except KeyError as missing:
            raise ReplayError(
                f"Row {index} ({row.func.name}) takes an array that the recording does not hold (value {missing}). "
                "Trace with replay_ready=True."
            ) from None
        args, taken = fill(row.args, arrays)
        kwargs, _ = fill(dict(row.kwargs), arrays[taken:])
        state = self._program.rng.get(index)
        if state is not None:
            self._backend.rng(state)
        return self._backend.call(row, args, kwargs, is_differentiable=self._tape.has(row))

    def _returned(self, index: int, row: Row, result: Any) -> list[tuple[int, Any]]:
        """The arrays that a row returned, by the value ids of the recorded ones; of one that returns none, its targets.

        A parameter that is written stays the parameter for those who read it, so what was written has an id of its own.
        """
        expected = [vid for vid, _ in walk_outs(row.outs) if vid is not None]
        if result is None:
            written = self._program.writes.get(index, ())
            news = {new for _, new in written}
            pairs = zip(expected, written, strict=False)
            return [(vid, self._env[new]) for vid, (_, new) in pairs if vid not in news]
        returned = [array for _, array in self._backend.leaves(result)]
        if len(returned) != len(expected):
            raise ReplayError(
                f"Row {index} ({row.func.name}) returned {len(returned)} arrays and {len(expected)} before."
            )
        return list(zip(expected, returned, strict=True))

    def _put(self, vid: int, made: dict[int, Any]) -> None:
        """Have an array there for who reads it, also as the version of a buffer that it may be."""
        self._env[vid] = made[vid]
        while vid in self._versions:
            self._env[self._versions[vid]] = self._env[vid]
            vid = self._versions[vid]

    # -- changes ---------------------------------------------------------------------------------------------------

    def _apart(self, index: int, row: Row) -> dict[int, Any]:
        """Copies for a row to overwrite in place of the arrays themselves, where what it writes is changed.

        What a gradient tape saves of the result must not be overwritten by the changed value.
        """
        new = {new for _, new in self._program.writes[index]}
        if not any(change.old == change.new and change.old in new for change in self._changes.get(index + 1, ())):
            return {}
        env = self._env
        taken = {old for old, _ in self._program.writes[index] if old in row.ins and old in env}
        return {vid: self._arrays.copy(env[vid], attached=True) for vid in taken}

    def _write_changed(self, index: int, made: dict[int, Any], apart: Mapping[int, Any]) -> None:
        """Change what a row wrote to copies, and write it where it belongs: who shares that memory sees it."""
        env = self._env
        here = [each for each in self._changes.get(index + 1, ()) if each.old == each.new and each.old in made]
        for each in here:
            self._changes[index + 1].remove(each)
            made[each.new] = self._change(each, made[each.new])
        for old, new in self._program.writes[index]:
            if old in apart:
                self._arrays.overwrite(env[old], made[new])
                made[new] = env[new] = env[old]
            elif old in made:  # the buffer's next version, which is what was written
                made[new] = env[new] = made[old]

    def _others(self, moment: int, made: dict[int, Any]) -> Iterator[Step]:
        """The changes that come where no row was run, as a step."""
        self._make_others(moment, made)
        self._look(moment, made)
        if made:
            yield Step(None, made)

    def _make_others(self, moment: int, made: dict[int, Any]) -> None:
        """Put other arrays in the place of some; who holds the old ones keeps them."""
        for each in self._changes.pop(moment, ()):
            made[each.new] = self._change(each, self._env[each.old])
            self._put(each.new, made)

    def _look(self, moment: int, made: Mapping[int, Any]) -> None:
        """Whether what Python read is read as before, and arrays have the recorded shapes."""
        if self.divergence is None:
            self.divergence = self._events.first_other(moment, self._env) or self._other_shape(made)

    def _other_shape(self, made: Mapping[int, Any]) -> Divergence | None:
        for vid, array in made.items():
            if tuple(self._arrays.meta(array)[0]) != tuple(self._program.metas[vid][0]):
                return Divergence(vid=vid)
        return None


class _Tape:
    """Which rows are run with a gradient tape."""

    def __init__(self, program: Program, which: Literal["none", "recorded", "all"], backend: Backend) -> None:
        self._metas = program.metas
        self._dtype_name = backend.arrays.dtype_name
        self._which = which
        self._trainable = {source.vid for source in program.sources if source.trainable}
        self._any_had = which == "all" and any(meta[3] is not None for meta in program.metas)

    def has(self, row: Row) -> bool:
        """Whether to run a row with a tape."""
        if self._which == "none":
            return False
        metas = [self._metas[vid] for vid, _ in walk_outs(row.outs) if vid is not None]
        if any(meta[3] is not None for meta in metas):
            return True
        return self._which == "all" and not self._is_cut(row) and not self._is_of_integers(metas)

    def _is_of_integers(self, metas: list[Meta]) -> bool:
        """Whether all that a row gave is without gradients: frameworks refuse to differentiate some such operations."""
        names = [self._dtype_name(meta[1]) for meta in metas]
        return bool(names) and not any(map(is_floating, names))

    def _is_cut(self, row: Row) -> bool:
        """Whether a row without a tape took what had one: it ran with gradients switched off.

        Of a run that kept none at all nothing is known: none of its rows is cut.
        """
        return self._any_had and any(self._metas[vid][3] is not None or vid in self._trainable for vid in row.ins)


def _last_uses(program: Program, rows: Iterable[int], changes: Iterable[Change]) -> dict[int, list[int]]:
    """Row -> the value ids that no later row, output, event or change reads."""
    last: dict[int, int] = {}
    for index in sorted(rows):
        row = program.rows[index]
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
    kept |= {vid for change in changes for vid in (change.old, change.new)}
    uses: dict[int, list[int]] = defaultdict(list)
    for vid, index in last.items():
        if vid not in kept:
            uses[index].append(vid)
    return uses
