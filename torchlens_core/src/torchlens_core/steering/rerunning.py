"""A trace from a rerun: the model run again with changes, from the same states of the generators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backend import Backend, Call
from ..errors import InterventionError, SelectorWarning
from ..interventions.when import When, as_whens
from ..tracing import backend_for, make_call
from ..tracing import trace as run_and_trace
from .lineage import steered
from .places import live, places
from .recorded import copied_arguments

if TYPE_CHECKING:
    from ..records.trace import Trace


def rerun(
    trace: Trace, model: Any, x: Any, kwargs: Mapping[str, Any] | None, whens: Sequence[When], seed: int | None
) -> Trace:
    """A new trace of the model with the options of an old one, and with changes. See ``Trace.rerun``."""
    recorded = trace.recorded
    options = dict(recorded.options) if recorded is not None else {}
    meant = (*(recorded.added if recorded is not None else ()), *whens)
    now = tuple(When(live(trace, when.target), when.action, when.keep_clean) for when in meant)
    call = _call(trace, model, x, kwargs)
    backend = backend_for(call, trace.backend_name)
    with backend.preserve(call, backend.discover(call)):
        _set_generators(backend, call.model, trace, seed)
        options["intervene"] = [*as_whens(options.get("intervene")), *now]
        made = run_and_trace(call.model, call.args, call.kwargs, **options)
    made.program.facts["steered"] = steered(trace, "rerun", meant)
    _check_labels(trace, made, meant, now)
    return made


def _call(trace: Trace, model: Any, x: Any, kwargs: Mapping[str, Any] | None) -> Call:
    """The call to run: with what is given, or with the recorded arguments."""
    if x is not None or kwargs is not None:
        return make_call(model, () if x is None else x, kwargs)
    recorded = trace.recorded
    if recorded is None or recorded.arguments is None or trace.backend is None:
        raise InterventionError(
            "The trace holds no inputs: give them, trace.rerun(model, x), or make it with "
            "tl.trace(model, x, replay_ready=True)."
        )
    args, kwargs = copied_arguments(trace.backend, Call(model, *recorded.arguments))
    return Call(model, args, kwargs)


def _set_generators(backend: Backend, model: Any, trace: Trace, seed: int | None) -> None:
    if seed is not None:
        backend.seed(seed)
        backend.restart_own(model, seed=seed)
    elif -1 in trace.program.rng:
        backend.rng(trace.program.rng[-1])
        backend.restart_own(model, trace.program.rng[-1])


def _check_labels(trace: Trace, made: Trace, meant: Sequence[When], now: Sequence[When]) -> None:
    """Warn where the model took another path, so that the n-th call of a function is another Op than was meant."""
    for old, new in zip(meant, now, strict=True):
        if old.selector is new.selector:
            continue
        wanted = {trace.labels.op(place.node) for place in places(trace, old.selector)}
        program = made.program
        acted = [each for each in (*program.changes, *program.gradient_changes) if new in each.whens]
        changed = {made.labels.op(made.graph.node_of[each.old]) for each in acted}
        if wanted != changed:
            warnings.warn(
                f"{old!r} was to change {', '.join(sorted(wanted))}, and changed {', '.join(sorted(changed))}: the "
                "model took another path. Use a selector that means a place in the model, such as tl.module(address).",
                SelectorWarning,
                stacklevel=5,
            )
