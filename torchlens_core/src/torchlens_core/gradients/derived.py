"""Gradients from a replay: the tape is run again, differentiably, and asked for the gradient at every Op.

Nothing has to be watched while the model runs, and no gradient of a parameter is computed that nobody asked for. The
form that all frameworks have: it needs their autodiff of a function, and no gradient tape of what has run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from ..derived.graph import Kind
from ..dtypes import is_floating
from ..errors import GradientError, ReplayError, ValueOverwritten, nearest
from ..interventions.action import Moment
from ..program import Change, walk_outs
from ..records.op import Op
from ..replay import Replay
from ..values import LiveValues
from .additive import Tape
from .gradients import Gradients

if TYPE_CHECKING:
    from ..backend import Backend
    from ..records.trace import Trace
    from ..selectors import Selector


def derive(trace: Trace, of: Callable[[Any], Any] | str | None, at: Selector | str | None) -> Gradients:
    """Gradients by label; see :meth:`~torchlens_core.gradients.gradients.RecordedGradients.__call__`."""
    wanted = _wanted(trace, at)
    backend = _backend_of(trace)
    run = Computation(trace, backend, of, frozenset(trace.graph.vids[op.raw_index] for op in wanted.values()))
    generators = backend.rng()
    try:
        found = backend.gradients_at(run)
    finally:
        backend.rng(generators)
    vids = {label: trace.graph.vids[op.raw_index] for label, op in wanted.items()}
    if all(found.get(vid) is None for vid in vids.values()):
        raise GradientError("What was to be differentiated depends on none of these Ops.")
    return Gradients(trace, wanted, lambda op: found.get(trace.graph.vids[op.raw_index]))


def _wanted(trace: Trace, at: Selector | str | None) -> dict[str, Op]:
    """The floating-point Ops that are meant, by label."""
    ops = list(trace) if at is None else list(trace.find_sites(at).assert_some())
    floating = [op for op in ops if is_floating(op.dtype_name)]
    if not floating:
        raise GradientError(f"{at!r} matches no Op of floating-point elements, and others have no gradients.")
    return {trace.labels.neighbour(op.raw_index): op for op in floating}


def _backend_of(trace: Trace) -> Backend:
    if not isinstance(trace.values, LiveValues) or trace.backend is None:
        raise ReplayError(
            "The trace was loaded from a file, which does not hold the parameters that a replay takes. Make it again "
            "with tl.trace(model, x, replay_ready=True)."
        )
    if trace.recorded is None or trace.recorded.params is None:
        raise ReplayError(
            "trace.gradients(of=...) runs the recorded operations again, and this trace was made without what that "
            "takes: tl.trace(model, x, replay_ready=True). With save_grads=, trace.log_backward(loss) gives gradients "
            "of the run itself."
        )
    late = _put_on_tape_later(trace, trace.backend)
    if late is not None:
        raise ReplayError(
            f"{late} was computed without a gradient tape and then given a derivative of its own (a custom "
            "differentiation rule, a checkpoint), which a replay does not know: use save_grads= and "
            "trace.log_backward(loss)."
        )
    changes = [*trace.program.changes, *trace.program.gradient_changes]
    if trace.program.gradient_changes or any(when.action.reads for change in changes for when in change.whens):
        raise ReplayError(
            "Interventions changed gradients in this run, or put values of other Ops in the place of some, and a "
            "replay does not repeat that: use save_grads= and trace.log_backward(loss)."
        )
    return trace.backend


def _put_on_tape_later(trace: Trace, backend: Backend) -> str | None:
    """Label of a kept Op whose array came onto the tape after it was made; None where there is none."""
    store = trace.gradient_store
    for vid, meta in enumerate(trace.program.metas):
        node = trace.graph.node_of[vid]
        if meta[3] is None and node >= 0 and trace.graph.kinds[node] == Kind.COMPUTE:
            is_watched = store is not None and vid in store.keeps
            if is_watched or (vid in trace.values and _is_on_tape(trace, vid, backend)):
                return Op(trace, node).label
    return None


def _is_on_tape(trace: Trace, vid: int, backend: Backend) -> bool:
    try:
        array = trace.values[vid]
    except ValueOverwritten:
        return False
    return backend.arrays.is_array(array) and backend.arrays.meta(array)[3] is not None


class Computation:
    """The computation that is differentiated: the replay, and the function of its outputs."""

    def __init__(
        self, trace: Trace, backend: Backend, of: Callable[[Any], Any] | str | None, wanted: frozenset[int]
    ) -> None:
        self._trace = trace
        self._backend = backend
        self._of = of
        self._wanted = wanted
        self._written = {vid for pairs in trace.program.writes.values() for vid, _ in pairs}
        self._acted: Counter[Any] = Counter()

    def __call__(self, tape: Tape) -> Any:
        """The array of one element that is differentiated, computed with a tape that taps what is wanted."""
        program = self._trace.program
        self._acted.clear()
        replay = Replay(
            program,
            self._backend,
            self._sources(tape),
            changes=program.changes,
            change=self._change,
            tape="all",
        )
        index = -1
        for step in replay.steps():
            index += step.row is not None
            written = {new for _, new in program.writes.get(index, ())} if step.row is not None else set()
            for vid, array in step.arrays.items():
                if vid in self._wanted:
                    replay[vid] = tape.tap(vid, array, is_written=vid in written)
        return self._scalar({output.path: replay[output.vid] for output in program.outputs})

    def _sources(self, tape: Tape) -> dict[int, Any]:
        """What the rows start from, and memory that nobody had filled."""
        program, values = self._trace.program, self._trace.values
        found: dict[int, Any] = {}
        for source in program.sources:
            array = self._source(source.vid, source.address)
            if array is None:
                continue
            is_written = source.vid in self._written
            if source.kind in ("input", "param"):
                array = tape.start(array, is_written=is_written)
                found[source.vid] = (
                    tape.tap(source.vid, array, is_written=False) if source.vid in self._wanted else array
                )
            else:
                found[source.vid] = self._backend.arrays.copy(array) if is_written else array
        for row in program.rows:
            if row.func.undefined:
                made = (vid for vid, _ in walk_outs(row.outs) if vid is not None and vid in values)
                found.update((vid, self._backend.arrays.copy(values[vid])) for vid in made)
        return found

    def _source(self, vid: int, address: str) -> Any:
        program, recorded = self._trace.program, self._trace.recorded
        if vid in program.constants:
            return program.constants[vid]
        held: Mapping[int, Any] = (recorded.params if recorded is not None else None) or {}
        if vid not in held:
            return None
        try:
            return self._backend.arrays.release(held[vid])
        except ValueOverwritten:
            raise ReplayError(
                f"The parameter {address!r} was changed after the trace was made (an optimizer step, loading a state), "
                "so it cannot be replayed as it ran. Trace the model again."
            ) from None

    def _change(self, change: Change, array: Any) -> Any:
        node = self._trace.graph.node_of[change.old]
        site = Op(self._trace, node) if node >= 0 else None
        for when in change.whens:
            array = when.apply(array, Moment(self._backend.arrays, site, self._acted[when]))
            self._acted[when] += 1
        return array

    def _scalar(self, outputs: dict[str, Any]) -> Any:
        """The array of one element that is differentiated."""
        of, arrays = self._of, self._backend.arrays
        if callable(of):
            loss = of(next(iter(outputs.values())) if list(outputs) == [""] else outputs)
            what = "of= returned"
        else:
            path = of.removeprefix("output.") if of not in (None, "output") else next(iter(outputs), "")
            if path not in outputs:
                raise GradientError(f"The model returned no {of!r}.{nearest(str(path), outputs)}")
            if of is None and len(outputs) > 1:
                raise GradientError(f"The model returned {', '.join(map(repr, outputs))}: say of=path, or of=function.")
            loss, what = outputs[path], f"the output {path!r} is" if path else "the output is"
        if not arrays.is_array(loss):
            raise GradientError(f"{what} {type(loss).__name__}, not an array of one element.")
        shape = tuple(arrays.meta(loss)[0])
        if prod(shape) != 1:
            raise GradientError(
                f"{what} an array of shape {shape}; only one element can be differentiated. Reduce it: "
                "trace.gradients(of=lambda out: out.sum())."
            )
        return arrays.reshape(loss, ()) if shape else loss
