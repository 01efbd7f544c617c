"""``tl.trace``: run a model once, and get everything that ran."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .backend import Backend, Call, Discovery
from .derived.graph import Kind
from .derived.structure import Structure
from .errors import BackendError, NothingCaptured, SelectorWarning
from .plan import Plan, SaveSpec
from .plugins import choose_backend, get_backend
from .program import Meta, Program, Row
from .records.op import Op
from .records.selection import Selection
from .records.trace import Trace
from .selectors import Names, Selector
from .session import Session
from .values import LiveValues


def trace(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
    save: SaveSpec = True,
    halt: Selector | None = None,
    lookback: int | None = None,
    lookback_payload_policy: Literal["detached_raw"] = "detached_raw",
    activation_transform: Callable[[Any], Any] | None = None,
    output_device: Any = None,
    detach: bool = False,
    granularity: Literal["function", "kernel"] = "function",
    kernels: bool = False,
    recurrence: bool = True,
    keep_orphans: bool = False,
    replay_ready: bool = False,
    profile: bool = False,
) -> Trace:
    """Run ``model(*args, **kwargs)`` once and return every operation that ran.

    Args:
        model: a module, a function, a bound method, or a function that closes over modules.
        args: a list or tuple of positional arguments; anything else is the one argument.
        kwargs: keyword arguments.
        backend: name of the framework's backend; by default the model and the arrays tell.
        save: which values to keep: True (all), False, a selector, a label or module address, ``tl.keep(...)``, or a
            list of these. The graph is recorded whatever is kept.
        halt: stop just after the first Op that matches; the Op is included.
        lookback: with ``tl.followed_by``, how many calls an Op may wait for its follower; without it, to the end of the
            run, with every candidate held until then.
        lookback_payload_policy: candidates are held as they ran; the only policy.
        activation_transform: applied to every kept array; its result is kept instead.
        output_device: where kept arrays go.
        detach: cut kept arrays from the gradient tape. Otherwise they stay as they ran, and keep their tape alive.
        granularity: ``'function'``, what the model's author wrote, or ``'kernel'``, the framework's kernels.
        kernels: note for each Op the names of the kernels that ran below it.
        recurrence: whether Ops without parameters may be grouped as passes of one layer.
        keep_orphans: show Ops connected to neither an input nor an output.
        profile: wait for the device after each operation, so that durations are known on accelerators too.
        replay_ready: also keep what an exact replay needs: constants, and the generator's state before random Ops.

    Raises:
        SelectorError: before the run, for a selector that names what the model cannot have.
        BackendError: no backend, or several, recognise the model and its arguments.
        NothingCaptured: the model ran and not one operation was seen.

    What the model raises is raised as it is, with the trace up to there as the exception's ``partial_trace``.
    """
    if lookback_payload_policy != "detached_raw":
        raise ValueError(
            f"lookback_payload_policy is 'detached_raw' (candidates' values are held); got {lookback_payload_policy!r}."
        )
    if granularity not in ("function", "kernel"):
        raise ValueError(f"granularity is 'function' or 'kernel'; got {granularity!r}.")
    options = _given(locals())
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    plan = Plan(save, halt, lookback=lookback, transform=activation_transform, device=output_device)
    needs = {"operations", "sites"}
    needs |= {"kernels"} if kernels else set()
    needs |= {"kernel rows"} if granularity == "kernel" else set()
    needs |= {"replay"} if replay_ready else set()
    needs |= {"profile"} if profile else set()
    made = run(chosen, call, plan, needs, recurrence=recurrence, keep_orphans=keep_orphans, detach=detach)[0]
    made.program.facts["options"] = options
    if plan.selectors and plan.keeps and not len(made.values):
        warnings.warn(
            f"save={[keep.selector for keep in plan.keeps]} matched nothing in this run, so the trace holds no values. "
            "tl.sites(model, x) lists what could be selected.",
            SelectorWarning,
            stacklevel=2,
        )
    if plan.halt is not None and made.halted is None:
        warnings.warn(f"halt={plan.halt!r} matched nothing: the model ran to its end.", SelectorWarning, stacklevel=2)
    return made


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``trace`` that differ from their defaults, as noted: numbers and names, of all else the repr."""
    defaults: Mapping[str, Any] = trace.__kwdefaults__ or {}
    given = {name: values[name] for name, default in defaults.items() if values[name] is not default}
    return {name: value if isinstance(value, bool | int | str) else repr(value) for name, value in given.items()}


def make_call(model: Any, args: Any, kwargs: Mapping[str, Any] | None) -> Call:
    """A list or tuple is the positional arguments; anything else is the one argument."""
    given = tuple(args) if type(args) in (list, tuple) else (args,)
    return Call(model, given, dict(kwargs or {}))


def backend_for(call: Call, name: str | None) -> Backend:
    """The backend of this name, or the one whose model and arrays these are."""
    if not callable(call.model):
        raise BackendError(f"The model is to be called and {type(call.model).__name__} is not callable.")
    return get_backend(name) if name is not None else choose_backend(call.model, [*call.args, *call.kwargs.values()])


def run(
    backend: Backend,
    call: Call,
    plan: Plan,
    needs: set[str],
    *,
    discovery: Discovery | None = None,
    recurrence: bool = True,
    keep_orphans: bool = False,
    detach: bool = False,
) -> tuple[Trace, Any]:
    """One captured run: the trace, and what the model returned."""
    discovery = discovery or backend.discover(call)
    plan.bind(names_of(backend, discovery))
    session = Session(plan, backend.arrays, discovery, needs=needs)
    session.facts["started_at"] = time.time()
    start = time.perf_counter_ns()

    def finish() -> Trace:
        session.facts["duration_ns"] = time.perf_counter_ns() - start
        return _finish(session, backend, recurrence=recurrence, keep_orphans=keep_orphans, detach=detach)

    try:
        returned = backend.capture(call, session)
    except BaseException as error:
        if not session.rows and not session.metas:
            raise
        session.facts["error"] = f"{type(error).__name__}: {error}"
        error.partial_trace = finish()  # type: ignore[attr-defined]
        raise
    if not session.rows:
        raise NothingCaptured(
            f"{discovery.name} ran and returned {type(returned).__name__}, and not one operation of {backend.name} was "
            "seen. Is the model written in another framework, or does it run in another process?"
        )
    return finish(), returned


def names_of(backend: Backend, discovery: Discovery) -> Names:
    """What this model can have, for the checks of selectors."""

    def functions() -> frozenset[str]:
        return backend.function_names() | {"input", "output", "buffer", "source"}

    return Names(discovery.addresses(), lambda name: name in functions(), functions)


def _finish(session: Session, backend: Backend, *, recurrence: bool, keep_orphans: bool, detach: bool) -> Trace:
    facts = session.facts | {"framework_version": backend.version()}
    if session.halted_vid >= 0:
        facts["halted"] = session.halted_vid
    program = Program(
        backend=backend.name,
        model=session.discovery.name,
        rows=list(map(Row._make, session.rows)),
        scopes=session.scopes,
        sources=session.sources,
        metas=list(map(Meta._make, session.metas)),
        modules=[info for info, _ in session.discovery.modules],
        outputs=session.outputs,
        events=session.events,
        sites=session.sites,
        writes=session.writes,
        deps=session.deps,
        kernels=session.kernels,
        rng=session.rng,
        batch_dims=session.batch_dims,
        constants=session.constants,
        facts=facts,
    )
    arrays = backend.arrays
    if detach:
        session.values = {vid: arrays.hold(arrays.detach(arrays.release(held))) for vid, held in session.values.items()}
    structure = Structure(program, recurrence=recurrence, keep_orphans=keep_orphans)
    made = Trace(program, LiveValues(arrays, session.values, session.kept_results), structure, backend)
    _settle(session, made)
    return made


def _settle(session: Session, made: Trace) -> None:
    """Drop the candidates that the finished trace does not select."""
    if not session.candidates:
        return
    node_of = {vid: node for vid, node in enumerate(made.graph.node_of) if node >= 0}
    outputs = [node for node, kind in enumerate(made.graph.kinds) if kind == Kind.OUTPUT]
    # Matches that were counted as the model ran: the values that they were told by may be gone.
    places = node_of | {("output", position): node for position, node in enumerate(outputs)}
    for selector, numbering in session.numbers.items():
        if numbering.is_complete:
            made.numbers[selector] = {places[key]: number or 0 for key, number in numbering.of.items() if key in places}
    nodes = {vid: [node_of[vid]] if vid in node_of else [] for vid in session.candidates}
    for node in outputs:
        if made.graph.vids[node] in nodes:
            nodes[made.graph.vids[node]].append(node)
    for vid, same in nodes.items():
        if all(session.plan.matching(Op(made, node)) is None for node in same):
            session.drop(vid)


def sites(
    model: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None, *, backend: str | None = None
) -> Selection:
    """Everything that could be selected: the Ops of one run that keeps no value and leaves the model as it was."""
    from .selectors import in_module

    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    discovery = chosen.discover(call)
    with chosen.preserve(call, discovery):
        made, _ = run(chosen, call, Plan(False), {"operations", "sites"}, discovery=discovery)
    return made.find_sites(in_module("self"))
