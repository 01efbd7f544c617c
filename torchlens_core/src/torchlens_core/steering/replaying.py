"""A trace from a replay: the recorded operations run again, with changes, without the model's code."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError, ReplayDiverged, ReplayError, ReplayWarning, TorchLensError, ValueOverwritten
from ..interventions.action import Moment
from ..interventions.when import READ, When, read_into, with_reads
from ..plan import Keep, SaveSpec
from ..program import Change, Meta, Source, walk_outs
from ..records.op import Op
from ..replay import Replay
from ..values import LiveValues
from .downstream import New, Part, downstream, whole
from .keeping import Keeping, Kept
from .lineage import steered
from .places import places

if TYPE_CHECKING:
    from ..backend import Backend
    from ..records.trace import Trace
    from ..selectors import Selector


def replayed(
    trace: Trace,
    whens: Sequence[When],
    *,
    save: SaveSpec | Mapping[int, Keep] | None = None,
    only_downstream: bool = True,
    is_differentiable: bool = False,
    strict: bool = False,
    wanted: Iterable[int] = (),
) -> tuple[Trace, list[Any]]:
    """A new trace: the tape of an old one run again with changes; and the arrays of the outputs.

    Args:
        trace: made with ``replay_ready=True``.
        whens: the changes, in order; their selectors are those of ``places.targets``.
        save: what to keep, also as value ids with what of each; None keeps what the old trace did.
        only_downstream: run what the changes reach, and take all else from the kept values.
        is_differentiable: keep a gradient tape; everything is run then.
        strict: raise ReplayDiverged where the recorded path is left, and do not warn.
        wanted: value ids of arrays to have in any case, kept or computed. An output that nothing asked for is None.
    """
    run = _Run(trace, whens, save, is_differentiable)
    return run.made(only_downstream and not is_differentiable, strict, wanted)


class _Run:
    """One replay."""

    def __init__(
        self, trace: Trace, whens: Sequence[When], save: SaveSpec | Mapping[int, Keep] | None, is_differentiable: bool
    ) -> None:
        self._trace = trace
        self._whens = tuple(whens)
        self._is_differentiable = is_differentiable
        self._backend = _backend_of(trace, is_differentiable)
        self._arrays = self._backend.arrays
        self._read: dict[Selector, Any] = {}
        self._acted: Counter[When] = Counter()
        self._new = _new(trace, self._whens)
        self._keeping = Keeping(trace, save, is_attached=is_differentiable)
        self._clean: dict[int, Any] = {}
        self._is_acting = False  # an action is running

    def made(self, only_downstream: bool, strict: bool, wanted: Iterable[int]) -> tuple[Trace, list[Any]]:
        started_at, start = time.time(), time.perf_counter_ns()
        kept = Kept(self._trace.values)
        if only_downstream:
            missing = [vid for vid in self._keeping.wanted if vid not in self._trace.values]
            part = downstream(self._trace.program, self._new, kept, [*wanted, *missing])
        else:
            part = whole(self._trace.program, self._new)
        replay = self._replay(part, self._environment(part, kept))
        generators = self._backend.rng()
        try:
            metas = self._run(replay, part, strict)
        finally:
            self._backend.rng(generators)
        made = self._assembled(part, metas)
        facts = made.program.facts
        facts["started_at"], facts["duration_ns"] = started_at, time.perf_counter_ns() - start
        diverged_at = None if replay.divergence is None else replay.divergence.in_words(self._trace)
        facts["steered"] = steered(
            self._trace,
            "replay",
            self._whens,
            rows_run=len(part.rows),
            rows=len(made.program.rows),
            diverged_at=diverged_at,
        )
        if diverged_at is not None:
            warnings.warn(
                f"The replay left the recorded path at {diverged_at}. The model may take another one from there, so "
                "what follows is not what it would give; trace.rerun(model, x) runs it.",
                ReplayWarning,
                stacklevel=4,
            )
        outputs = (output.vid for output in made.program.outputs)
        return made, [replay.get(vid) for vid in outputs]

    # -- what it starts from ---------------------------------------------------------------------------------------

    def _environment(self, part: Part, kept: Mapping[int, Any]) -> dict[int, Any]:
        """The arrays that the rows take and do not make; copies where a row may write to them."""
        program, arrays = self._trace.program, self._arrays
        writes = any(row in part.rows for row in program.writes)
        given = {vid: arrays.copy(kept[vid], attached=True) if writes else kept[vid] for vid in part.taken}
        for source in program.sources:
            if source.vid in part.sources:
                array = self._source(source)
                if array is not None:
                    given[source.vid] = array
        for index in part.rows:
            if program.rows[index].func.undefined:  # memory not filled yet holds what it held
                made = (vid for vid, _ in walk_outs(program.rows[index].outs) if vid is not None and vid in kept)
                given.update((vid, arrays.copy(kept[vid])) for vid in made)
        return given

    def _source(self, source: Source) -> Any:
        """A parameter, input, buffer or constant as it was when the run began; None where it is not held."""
        constants = self._trace.program.constants
        if source.vid in constants:
            return self._arrays.copy_of_argument(constants[source.vid])
        recorded = self._trace.recorded
        if source.kind != "param" or recorded is None or recorded.params is None:
            return None
        try:
            param = self._arrays.release(recorded.params[source.vid])
        except ValueOverwritten:
            raise ReplayError(
                f"The parameter {source.address!r} was changed after the trace was made (an optimizer step, loading a "
                "state), so the trace cannot be replayed as it ran. trace.rerun(model, x) runs the model as it is now."
            ) from None
        return param

    # -- the run ---------------------------------------------------------------------------------------------------

    def _replay(self, part: Part, given: Mapping[int, Any]) -> Replay:
        return Replay(
            self._trace.program,
            self._backend,
            given,
            rows=part.rows,
            changes=part.changes,
            change=self._change,
            before_write=self._keeping.before_write,
            tape="all" if self._is_differentiable else "recorded",
        )

    def _run(self, replay: Replay, part: Part, strict: bool) -> dict[int, Meta]:
        """Run it, keep what is to be kept, and return what is noted of each array."""
        metas: dict[int, Meta] = {}
        try:
            for vid in part.sources:
                if vid in replay:
                    self._keeping.offer(vid, replay[vid])
            for step in replay.steps():
                for vid, array in step.arrays.items():
                    metas[vid] = self._arrays.meta(array)
                    self._keeping.offer(vid, array)
                if replay.divergence is not None and strict:
                    raise ReplayDiverged(
                        f"The replay left the recorded path at {replay.divergence.in_words(self._trace)}."
                    )
        except TorchLensError:
            raise
        except Exception as error:
            if self._is_acting:  # the user's own
                raise
            left = replay.divergence.in_words(self._trace) if replay.divergence is not None else ""
            raise ReplayError(
                f"A recorded operation could not be run again with these values: {type(error).__name__}: {error}."
                f"{f' The recorded path was left at {left}.' if left else ''} "
                "trace.rerun(model, x) runs the model itself."
            ) from error
        return metas

    def _change(self, change: Change, array: Any) -> Any:
        """What takes the place of an array."""
        node = self._trace.graph.node_of[change.old]
        site = Op(self._trace, node) if node >= 0 else None
        if any(when.keep_clean for when in change.whens):
            self._clean[change.old] = self._arrays.hold(self._arrays.copy(array))
        for when in change.whens:
            if when.action is READ:
                read_into(self._read, when, array, self._arrays)
            else:
                self._is_acting = True
                array = when.apply(array, Moment(self._arrays, site, self._acted[when], self._read))
                self._is_acting = False
                self._acted[when] += 1
        return array

    # -- the trace -------------------------------------------------------------------------------------------------

    def _assembled(self, part: Part, metas: Mapping[int, Meta]) -> Trace:
        old = self._trace
        program = replace(
            old.program,
            metas=[metas.get(vid, meta) for vid, meta in enumerate(old.program.metas)],
            changes=sorted([*old.program.changes, *self._new.changes], key=lambda change: change.row),
            facts=dict(old.program.facts),
        )
        structure = old.structure
        if any(tuple(meta[0]) != tuple(old.program.metas[vid][0]) for vid, meta in metas.items()):
            program.costs = {}
            structure = structure.of_other_shapes(program)
        held, results, clean = self._keeping.values(part)
        values = LiveValues(self._arrays, held, results, clean | self._clean)
        made = type(old)(program, values, structure, old.backend)
        made.params_now = old.params_now
        if old.recorded is not None:
            made.recorded = replace(old.recorded, added=(*old.recorded.added, *self._whens))
        self._keeping.settle(made)
        return made


def _backend_of(trace: Trace, is_differentiable: bool) -> Backend:
    """The backend to run a trace with, where all is there that a replay takes."""
    if not isinstance(trace.values, LiveValues) or trace.backend is None:
        params = sum(source.kind == "param" for source in trace.program.sources)
        raise ReplayError(
            f"The trace was loaded from a file, which does not hold the {params} parameters that a replay takes, nor "
            "the states of the generators. Make the trace again with tl.trace(model, x, replay_ready=True), or run the "
            "model with the same changes: trace.rerun(model, x)."
        )
    if trace.recorded is None or trace.recorded.params is None:
        raise ReplayError(
            "The trace was made without what a replay takes: its inputs, constants and parameters, and the states of "
            "the generators. Make it with tl.trace(model, x, replay_ready=True), or use trace.rerun(model, x)."
        )
    if is_differentiable and trace.program.gradient_changes:
        raise ReplayError(
            "Interventions changed gradients in this run, which a replay does not repeat; trace.rerun(model, x) does."
        )
    return trace.backend


def _new(trace: Trace, whens: Sequence[When]) -> New:
    """What interventions do beside the recorded ones; at one place in the order in which they are given."""
    for when in whens:
        if when.action.is_backward:
            raise InterventionError(f"{when!r} acts on gradients, which a replay has not: use trace.rerun(model, x).")
    changes = [change for when in whens for change in _at_all_places(trace, when)]
    acting = [*(when for change in trace.program.changes for when in change.whens), *whens]
    reading = [when for when in with_reads(acting) if when.action is READ]
    reads = {when.selector: _at_all_places(trace, when) for when in reading}

    def read_by(change: Change) -> list[Change]:
        selectors = {selector for when in change.whens for selector in when.action.reads}
        return [read for selector in selectors for read in reads[selector] if read.row <= change.row]

    return New(changes, [read for each in reads.values() for read in each], read_by)


def _at_all_places(trace: Trace, when: When) -> list[Change]:
    found = places(trace, when.selector)
    if not found:
        raise InterventionError(f"{when!r} never acts: nothing in this trace matches.")
    return [Change(place.moment, place.vid, place.vid, (when,)) for place in found]
