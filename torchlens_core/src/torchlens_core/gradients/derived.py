"""Gradients without a gradient tape: what was recorded is run again, differentiably, and asked for those at every Op.

Nothing has to be watched while the model runs, and no gradient of a parameter is computed that nobody asked for. The
form that all frameworks have: it needs their autodiff of a function, and no gradient tape of what has run. How it is
done is the backend's (``Backend.differentiate``): by a replay, row by row, or by one compiled program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from ..derived.graph import Kind
from ..dtypes import is_floating
from ..errors import GradientError, ReplayError, ValueOverwritten, nearest
from ..interventions.action import Moment
from ..program import Change, Program, walk_outs
from ..records.op import Op
from ..replay import Replay
from ..values import LiveValues
from .additive import Tape
from .gradients import DerivedGradients
from .lookup import has_no_tape

if TYPE_CHECKING:
    from ..backend import Backend
    from ..records.trace import Trace
    from ..selectors import Selector


def derive(
    trace: Trace, of: Callable[[Any], Any] | str | None, at: Selector | str | None, params: bool = False
) -> DerivedGradients:
    """Gradients by label; see :meth:`~torchlens_core.gradients.gradients.RecordedGradients.__call__`."""
    nodes = _wanted(trace, at)
    backend = _backend_of(trace)
    vids = trace.graph.vids
    sources = {source.address: source.vid for source in trace.program.sources if source.kind == "param"}
    state = {address: vid for address, vid in sources.items() if _is_floating(trace, vid)} if params else {}
    run = Computation(trace, backend, of, frozenset([*(vids[node] for node in nodes.values()), *state.values()]))
    generators = backend.rng()
    try:
        found = backend.differentiate(run)
    finally:
        backend.rng(generators)
    if all(found.get(vids[node]) is None for node in nodes.values()):
        for reason in run.reasons.values():
            raise GradientError(f"There is no gradient at any of these Ops: {reason}.")
        raise GradientError("What was to be differentiated depends on none of these Ops.")
    return DerivedGradients(trace, nodes, found, run.reasons, state if params else None)


def _wanted(trace: Trace, at: Selector | str | None) -> dict[str, int]:
    """The nodes of the floating-point Ops that are meant, by label; all of them are looked for once a structure."""
    if at is None:
        known: dict[str, int] | None = trace.structure.floating
        if known is None:
            known = trace.structure.floating = _labelled(trace, trace.structure.listed)
        nodes = known
    else:
        nodes = _labelled(trace, [op.raw_index for op in trace.find_sites(at).assert_some()])
    if not nodes:
        meant = "The trace has" if at is None else f"{at!r} matches"
        raise GradientError(f"{meant} no Op of floating-point elements, and others have no gradients.")
    return nodes


def _labelled(trace: Trace, nodes: Iterable[int]) -> dict[str, int]:
    vids = trace.graph.vids
    return {trace.labels.neighbour(node): node for node in nodes if _is_floating(trace, vids[node])}


def _is_floating(trace: Trace, vid: int) -> bool:
    return is_floating(trace.dtype_name(trace.program.metas[vid][1]))


def _backend_of(trace: Trace) -> Backend:
    if not isinstance(trace.values, LiveValues) or trace.backend is None:
        raise ReplayError(
            "The trace was loaded from a file, which does not hold the parameters that a replay takes. Make it again "
            "with tl.trace(model, x, replay_ready=True)."
        )
    if trace.recorded is None or trace.recorded.params is None:
        raise ReplayError(
            "trace.gradients(of=...) runs the recorded operations again, and this trace was made without what that "
            f"takes: tl.trace(model, x, replay_ready=True).{_or_by_tape(trace.backend)}"
        )
    return trace.backend


def _or_by_tape(backend: Backend) -> str:
    """What else there is, of a framework that keeps a gradient tape."""
    if has_no_tape(backend):
        return ""
    return " With save_grads=, trace.log_backward(loss) gives gradients of the run itself."


def _refuse_what_no_replay_repeats(trace: Trace, backend: Backend) -> None:
    """Raise ReplayError where the recorded operations alone do not say how the run was differentiated."""
    late = _put_on_tape_later(trace, backend)
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
            f"replay does not repeat that.{_or_by_tape(backend)}"
        )


def _put_on_tape_later(trace: Trace, backend: Backend) -> str | None:
    """Label of a kept Op whose array came onto the tape after it was made; None where there is none."""
    if has_no_tape(backend):
        return None
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
    """The computation that is differentiated: the replay, and the function of its outputs.

    Attributes:
        trace: of the run.
        of: what was asked for: a function of the outputs, the path of one, or None for the only one.
        wanted: vids of the arrays at which gradients are wanted; all floating-point.
        reasons: vid -> why there can be no gradient at one of them, for the backend to say.
    """

    def __init__(
        self, trace: Trace, backend: Backend, of: Callable[[Any], Any] | str | None, wanted: frozenset[int]
    ) -> None:
        self.trace = trace
        self.of = of
        self.wanted = wanted
        self.reasons: dict[int, str] = {}
        self._backend = backend
        self._program = trace.program
        self._written = {vid for pairs in trace.program.writes.values() for vid, _ in pairs}
        self._acted: Counter[Any] = Counter()

    def __call__(self, tape: Tape) -> Any:
        """The array of one element that is differentiated, computed with a tape that taps what is wanted."""
        program = self._program
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
                if vid in self.wanted:
                    replay[vid] = tape.tap(vid, array, is_written=vid in written)
        return self.loss({output.path: replay[output.vid] for output in program.outputs})

    def by_replay(self, program: Program | None = None) -> dict[int, Any]:
        """The gradients from a replay, row by row: what a backend does that knows nothing better.

        Args:
            program: runs in the place of the recorded one, where some rows have to be others to be differentiated.

        Raises ReplayError where the recorded operations do not say all.
        """
        if program is not None:
            self._program = program
        _refuse_what_no_replay_repeats(self.trace, self._backend)
        return {int(vid): array for vid, array in self._backend.gradients_at(self).items()}  # type: ignore[call-overload]

    def _sources(self, tape: Tape) -> dict[int, Any]:
        """What the rows start from, and memory that nobody had filled."""
        program, values = self._program, self.trace.values
        found: dict[int, Any] = {}
        for source in program.sources:
            array = self.source(source.vid, source.address)
            if array is None:
                continue
            is_written = source.vid in self._written
            if source.kind in ("input", "param"):
                array = tape.start(array, is_written=is_written)
                found[source.vid] = (
                    tape.tap(source.vid, array, is_written=False) if source.vid in self.wanted else array
                )
            else:
                found[source.vid] = self._backend.arrays.copy(array) if is_written else array
        for row in program.rows:
            if row.func.undefined:
                made = (vid for vid, _ in walk_outs(row.outs) if vid is not None and vid in values)
                found.update((vid, self._backend.arrays.copy(values[vid])) for vid in made)
        return found

    def source(self, vid: int, address: str) -> Any:
        """An input, a parameter, a buffer or a constant as it was when the run began; None where it is not held.

        Raises ReplayError for a parameter that has been written to since.
        """
        program, recorded = self.trace.program, self.trace.recorded
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
        node = self.trace.graph.node_of[change.old]
        site = Op(self.trace, node) if node >= 0 else None
        for when in change.whens:
            array = when.apply(array, Moment(self._backend.arrays, site, self._acted[when]))
            self._acted[when] += 1
        return array

    def loss(self, outputs: Mapping[str, Any]) -> Any:
        """The array of one element that is differentiated, of the arrays that the model returns, by path.

        Raises GradientError where ``of`` gives none.
        """
        of, arrays = self.of, self._backend.arrays
        if not outputs:
            raise GradientError("The run was stopped before the model returned anything that could be differentiated.")
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
        shape, dtype, *_ = arrays.meta(loss)
        name = arrays.dtype_name(dtype)
        if not is_floating(name) or name.startswith("complex"):
            raise GradientError(f"{what} an array of {name}; only real floating-point numbers can be differentiated.")
        if prod(shape) != 1:
            raise GradientError(
                f"{what} an array of shape {tuple(shape)}; only one element can be differentiated. Reduce it: "
                "trace.gradients(of=lambda out: out.sum())."
            )
        return arrays.reshape(loss, ()) if shape else loss
