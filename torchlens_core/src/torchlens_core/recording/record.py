"""``tl.record``: the values of chosen sites of one run, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..backend import Backend, Call, Discovery
from ..errors import InterventionError, SelectorWarning
from ..interventions.when import READ, When
from ..plan import Plan, SaveSpec
from ..selectors import Selector
from ..tracing import backend_for, make_call, names_of
from .origin import Repeatable
from .recording import Recording
from .relevance import check, has_facets, named_modules
from .steps import Steps

if TYPE_CHECKING:
    from .stored import RecordingFile
    from .streaming import Stream, ToDisk


def record(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    save: SaveSpec,
    halt: Selector | None = None,
    intervene: When | Iterable[When] | None = None,
    activation_transform: Callable[[Any], Any] | None = None,
    output_device: Any = None,
    detach: bool = True,
    return_output: bool = False,
    replay_ready: bool = True,
    storage: ToDisk | None = None,
    backend: str | None = None,
) -> Recording:
    """Run ``model(*args, **kwargs)`` once and keep the values that ``save`` means. No graph, no labels are made.

    What only modules return (``tl.module``) is taken where the modules return, as a forward hook takes it. For other
    selectors the calls of functions are watched, and those that surely are not meant are passed over.

    Args:
        model: a module, a function, a bound method, or a function that closes over modules.
        args: a list or tuple of positional arguments; anything else is the one argument.
        kwargs: keyword arguments.
        save: which values to keep: a selector that can be told as the model runs, a module's address, ``tl.keep(...)``,
            a list of these, True (every operation) or False (none).
        halt: stop just after the first match; it is included.
        intervene: ``tl.when(selector, action)`` or several, in order.
        activation_transform: applied to every kept array; its result is kept instead.
        output_device: where kept arrays go.
        detach: cut kept arrays from the gradient tape.
        return_output: also keep what the model returned, as ``recording.output``.
        replay_ready: hold the arguments, and note the state of the run, for ``recording.to_trace()``.
        storage: ``tl.to_disk(path)``: write kept values to a folder as the model runs; ``tl.load(path)`` gives the
            recording again.
        backend: name of the framework's backend; by default the model and the arrays tell.

    Raises:
        SelectorError: before the run, for a selector that names what the model cannot have, or that only a graph can
            answer; the message says what to use.
        InterventionError: an action cannot be carried out, or an intervention never acted.

    What the model raises is raised as it is, with the recording up to there as ``partial_recording``.
    """
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)

    def make_plan() -> Plan:
        return Plan(save, halt, intervene=intervene, transform=activation_transform, device=output_device)

    plan, discovery = prepare(chosen, call, make_plan())
    made: list[Recording] = []
    repeatable = Repeatable(chosen, discovery, make_plan) if replay_ready else None
    with ExitStack() as stack:
        stream, file = open_file(stack, storage, chosen, discovery, is_one_run=True)
        steps = Steps(chosen, discovery, plan, made.append, detach=detach, repeatable=repeatable, stream=stream)
        run = stack.enter_context(chosen.recording(model, discovery, plan, steps))
        try:
            output = run(call)
        except BaseException as error:
            if made:
                error.partial_recording = made[0]  # type: ignore[attr-defined]
            raise
        recording = made[0]
        if file is not None:
            file.add(recording)
            file.complete()
    if return_output:
        recording.keep_output(output)
    if not recording.halted:
        check_acted(plan, steps.acted)
        warn_of_nothing(plan, len(recording))
    return recording


def prepare(backend: Backend, call: Call, plan: Plan) -> tuple[Plan, Discovery]:
    """The plan, checked against the model, and the modules that it takes."""
    named = named_modules(plan)
    if has_facets(plan):
        discovery = backend.discover(call)
        plan.bind(names_of(backend, discovery))
    else:
        found = backend.find_modules(call, named) if named is not None else None
        is_enough = found is not None and named is not None and named <= found.addresses()
        discovery = found if found is not None and is_enough else backend.find_modules(call)
        plan.bind(names_of(backend, discovery, facets=False))
    check(plan)
    return plan, discovery


def open_file(
    stack: ExitStack, storage: ToDisk | None, backend: Backend, discovery: Discovery, *, is_one_run: bool
) -> tuple[Stream | None, RecordingFile | None]:
    """Where values go as the model runs, and the file that is completed in the end; None where they stay in memory."""
    if storage is None:
        return None, None
    from .stored import RecordingFile
    from .streaming import Stream  # what these import takes time, and few recordings need it

    stream = stack.enter_context(Stream(storage, backend.arrays))
    return stream, RecordingFile(stream, discovery.name, backend, is_one_run=is_one_run)


def check_acted(plan: Plan, acted: set[Any]) -> None:
    """Raise InterventionError for an intervention that acted nowhere; one that depends on values is a warning."""
    for when in plan.whens:
        if when in acted or when.action is READ or when.action.is_backward:
            continue
        message = f"{when!r} never acted: nothing that ran matched. tl.sites(model, x) lists what could be selected."
        if "value" not in when.selector.reads:
            raise InterventionError(message)
        warnings.warn(message, SelectorWarning, stacklevel=3)


def warn_of_nothing(plan: Plan, count: int) -> None:
    """Warn where values were asked for and none was kept."""
    if plan.keeps and not count:
        warnings.warn(
            f"save={[keep.selector for keep in plan.keeps]} matched nothing, so nothing was recorded. "
            "tl.sites(model, x) lists what could be selected.",
            SelectorWarning,
            stacklevel=3,
        )
