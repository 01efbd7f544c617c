"""``tl.trace``: run a model once, and get everything that ran."""

from __future__ import annotations

import time
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .backend import Backend, Call, Discovery, not_implemented
from .derived.graph import Kind
from .derived.structure import Structure
from .diagnosis.extent import Which
from .diagnosis.watch import asked_for
from .errors import BackendError, NonFiniteError, NothingCaptured, NotSupported, SelectorWarning
from .facets.tree import ModuleTree
from .interventions.acted import check_all_acted
from .interventions.when import When
from .plan import Plan, SaveSpec
from .plugins import choose_backend, get_backend
from .program import Meta, Program, Row
from .recording.streamed_trace import complete, open_stream
from .records.op import Op
from .records.selection import Selection
from .records.trace import Trace
from .selectors import Names, Selector
from .session import Repeats, Session
from .steering.recorded import copied_arguments, recorded
from .values import LiveValues

if TYPE_CHECKING:
    from .recording.streaming import Stream, ToDisk


def trace(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
    save: SaveSpec = True,
    halt: Selector | None = None,
    intervene: When | Iterable[When] | None = None,
    save_grads: SaveSpec = False,
    lookback: int | None = None,
    lookback_payload_policy: Literal["detached_raw"] = "detached_raw",
    activation_transform: Callable[[Any], Any] | None = None,
    grad_transform: Callable[[Any], Any] | None = None,
    output_device: Any = None,
    detach: bool = False,
    granularity: Literal["function", "kernel"] = "function",
    kernels: bool = False,
    recurrence: bool = True,
    keep_orphans: bool = False,
    replay_ready: bool = False,
    intervention_ready: bool = False,
    profile: bool = False,
    raise_on_nan: bool | Which = False,
    storage: ToDisk | None = None,
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
        intervene: ``tl.when(selector, action)`` or several, in order: values to change as the model runs.
        save_grads: the gradients at which Ops to keep when ``trace.log_backward(loss)`` runs: as for ``save``.
        lookback: with ``tl.followed_by``, how many calls an Op may wait for its follower; without it, to the end of the
            run, with every candidate held until then.
        lookback_payload_policy: candidates are held as they ran; the only policy.
        activation_transform: applied to every kept array; its result is kept instead.
        grad_transform: the same, for gradients.
        output_device: where kept arrays go.
        detach: cut kept arrays from the gradient tape. Otherwise they stay as they ran, and keep their tape alive.
        granularity: ``'function'``, what the model's author wrote, or ``'kernel'``, the framework's kernels.
        kernels: note for each Op the names of the kernels that ran below it.
        recurrence: whether Ops without parameters may be grouped as passes of one layer.
        keep_orphans: show Ops connected to neither an input nor an output.
        profile: wait for the device after each operation, so that durations are known on accelerators too.
        replay_ready: also keep what an exact replay needs (``trace.replay``): copies of inputs, buffers and constants,
            the generator's state before random Ops, and the parameters, by reference.
        intervention_ready: the same, by the name that it had in version 2.
        raise_on_nan: look at every floating-point value as it is made, and stop at the first that has a NaN (True or
            ``'nan'``), an infinity (``'inf'``) or either (``'nonfinite'``). Memory not written yet does not count.
        storage: ``tl.to_disk(path)``: write kept values to a trace file as the model runs, so that they need not fit in
            memory; they are read back when they are asked for.

    Raises:
        SelectorError: before the run, for a selector that names what the model cannot have.
        BackendError: no backend, or several, recognise the model and its arguments.
        NothingCaptured: the model ran and not one operation was seen.
        NonFiniteError: with ``raise_on_nan``, at the first such value; says where it came up and what the call took.
        InterventionError: an action cannot be carried out, or an intervention never acted; the exception has the trace
            as ``partial_trace``.

    What the model raises is raised as it is, with the trace up to there as the exception's ``partial_trace``.
    """
    if lookback_payload_policy != "detached_raw":
        raise ValueError(
            f"lookback_payload_policy is 'detached_raw' (candidates' values are held); got {lookback_payload_policy!r}."
        )
    if granularity not in ("function", "kernel"):
        raise ValueError(f"granularity is 'function' or 'kernel'; got {granularity!r}.")
    asked = {name: value for name, value in locals().items() if name in (trace.__kwdefaults__ or {})}
    options = _given(asked)
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    plan = Plan(
        save, halt, intervene=intervene, save_grads=save_grads, lookback=lookback, transform=activation_transform,
        grad_transform=grad_transform, device=output_device, raise_on=asked_for(raise_on_nan),
        streams=storage is not None,
    )  # fmt: skip
    if plan.grads and isinstance(type(chosen).backward, not_implemented):
        raise NotSupported(
            f"save_grads= keeps what the framework's own backward computes, and {chosen.name} has none that runs on "
            "what has run. Trace with replay_ready=True, and ask trace.gradients(of=...)."
        )
    if granularity == "kernel" and (plan.whens or plan.grads):
        raise NotSupported(
            "Interventions and gradients are at the operations that a model's author wrote; with granularity='kernel' "
            "there are only kernels, below the gradient tape. Leave granularity out."
        )
    needs = {"operations", "sites"}
    needs |= {"kernels"} if kernels else set()
    needs |= {"kernel rows"} if granularity == "kernel" else set()
    needs |= {"replay"} if replay_ready or intervention_ready else set()
    needs |= {"profile"} if profile else set()
    needs |= {"gradients"} if plan.grads else set()
    with nullcontext() if storage is None else open_stream(storage, chosen.arrays) as stream:
        made, _ = run(
            chosen, call, plan, needs, recurrence=recurrence, keep_orphans=keep_orphans, detach=detach, stream=stream
        )
        made.program.facts["options"] = options
        assert made.recorded is not None
        made.recorded.options = asked
        if stream is not None:
            complete(stream, made)
    if any(keep.selector is not None for keep in plan.keeps) and not len(made.values):
        warnings.warn(
            f"save={[keep.selector for keep in plan.keeps]} matched nothing in this run, so the trace holds no values. "
            "tl.sites(model, x) lists what could be selected.",
            SelectorWarning,
            stacklevel=2,
        )
    if plan.halt is not None and made.halted is None:
        warnings.warn(f"halt={plan.halt!r} matched nothing: the model ran to its end.", SelectorWarning, stacklevel=2)
    if made.halted is None:
        check_all_acted(plan, made)
    return made


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``trace`` that differ from their defaults, as noted: numbers and names, of all else the repr."""
    defaults: Mapping[str, Any] = trace.__kwdefaults__ or {}
    differing = {name: values[name] for name, default in defaults.items() if values[name] is not default}
    given = {name: value for name, value in differing.items() if name != "storage"}  # where it lay is nobody's business
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
    stream: Stream | None = None,
) -> tuple[Trace, Any]:
    """One captured run: the trace, and what the model returned."""
    discovery = discovery or backend.discover(call)
    plan.bind(names_of(backend, discovery))
    session = Session(plan, backend.arrays, discovery, needs=needs)
    session.stream = stream
    arguments = copied_arguments(backend, call) if "replay" in needs else None
    session.facts["started_at"] = time.time()
    start = time.perf_counter_ns()

    def finish() -> Trace:
        session.facts["duration_ns"] = time.perf_counter_ns() - start
        made = _finish(session, backend, recurrence=recurrence, keep_orphans=keep_orphans, detach=detach)
        made.recorded = recorded(session, backend, arguments)
        return made

    try:
        returned = backend.capture(call, session)
    except BaseException as error:
        if not session.rows and not session.metas:
            raise
        session.facts["error"] = f"{type(error).__name__}: {error}"
        made = error.partial_trace = finish()  # type: ignore[attr-defined]
        if isinstance(error, NonFiniteError) and session.watch is not None:
            session.watch.explain(error, made)
        raise
    if session.watch is not None and session.watch.error is not None:  # the model caught it
        caught = session.watch.error
        made = caught.partial_trace = finish()
        session.watch.explain(caught, made)
        raise caught
    if not session.rows:
        raise NothingCaptured(
            f"{discovery.name} ran and returned {type(returned).__name__}, and not one operation of {backend.name} was "
            "seen. Is the model written in another framework, or does it run in another process?"
        )
    return finish(), returned


def names_of(backend: Backend, discovery: Discovery, *, facets: bool = True) -> Names:
    """What this model can have, for the checks of selectors; its facets only where they may be asked for."""

    def functions() -> frozenset[str]:
        return backend.function_names() | {"input", "output", "buffer", "source"}

    tree = ModuleTree(discovery.infos, backend.name) if facets else None
    return Names(discovery.addresses(), lambda name: name in functions(), functions, tree)


def _finish(session: Session, backend: Backend, *, recurrence: bool, keep_orphans: bool, detach: bool) -> Trace:
    facts = session.facts | {"framework_version": backend.version()}
    if session.halted_vid >= 0:
        facts["halted"] = session.halted_vid
    repeats = session.repeats or Repeats()
    if repeats.program is None:
        repeats.program = _program(session, backend, facts)
    program = replace(
        repeats.program,
        changes=session.steering.changes,
        gradient_changes=session.steering.gradient_changes,
        constants=session.constants,
        rng=session.rng,
        facts=facts,
        staged=session.staged,
    )
    arrays = backend.arrays
    if detach:
        session.values = {vid: arrays.detach_held(held) for vid, held in session.values.items()}
    structure = repeats.structures.get((recurrence, keep_orphans))
    if structure is None:
        structure = Structure(repeats.program, recurrence=recurrence, keep_orphans=keep_orphans)
        repeats.structures[recurrence, keep_orphans] = structure
    values = LiveValues(arrays, session.values, session.kept_results, session.steering.clean)
    made = Trace(program, values, structure, backend)
    made.params_now = _references(session)
    _settle(session, made)
    if session.gradients is not None:
        made.gradient_store = session.gradients
        session.gradients.is_open = True
    return made


def _program(session: Session, backend: Backend, facts: Mapping[str, Any]) -> Program:
    """The tape of a session, without what belongs to one run alone."""
    return Program(
        backend=backend.name,
        model=session.discovery.name,
        rows=list(map(Row._make, session.rows)),
        scopes=session.scopes,
        sources=session.sources,
        metas=list(map(Meta._make, session.metas)),
        modules=session.discovery.infos,
        outputs=session.outputs,
        events=session.events,
        sites=session.sites,
        writes=session.writes,
        deps=session.deps,
        kernels=session.kernels,
        batch_dims=session.batch_dims,
        changes=session.steering.changes,
        gradient_changes=session.steering.gradient_changes,
        facts={name: facts[name] for name in ("halted", "error") if name in facts},
    )


def _references(session: Session) -> dict[int, Callable[[], Any]]:
    """Weak references to the model's parameters, by vid: a trace keeps no model alive."""
    arrays = session.discovery.parameters()
    params = (source for source in session.sources if source.kind == "param")
    return {source.vid: weakref.ref(arrays[source.address]) for source in params}


def _settle(session: Session, made: Trace) -> None:
    """Drop the candidates that the finished trace does not select."""
    if not session.candidates and not session.grad_candidates:
        return
    node_of = {vid: node for vid, node in enumerate(made.graph.node_of) if node >= 0}
    outputs = [node for node, kind in enumerate(made.graph.kinds) if kind == Kind.OUTPUT]
    # Matches that were counted as the model ran: the values that they were told by may be gone.
    places = node_of | {("output", position): node for position, node in enumerate(outputs)}
    for selector, numbering in session.numbers.items():
        if numbering.is_complete:
            made.numbers[selector] = {places[key]: number or 0 for key, number in numbering.of.items() if key in places}
    nodes: dict[int, list[int]] = defaultdict(list)
    for vid in session.candidates | session.grad_candidates:
        nodes[vid] += [node_of[vid]] if vid in node_of else []
    for node in outputs:
        if made.graph.vids[node] in nodes:
            nodes[made.graph.vids[node]].append(node)
    plan, gradients = session.plan, session.gradients
    for vid in list(session.candidates):
        if all(plan.matching(Op(made, node)) is None for node in nodes[vid]):
            session.drop(vid)
    for vid in session.grad_candidates:
        if gradients is not None and all(plan.matching_grad(Op(made, node)) is None for node in nodes[vid]):
            gradients.drop(vid)


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
