"""``tl.pluck``: the value of one Op, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backend import Backend, Call, Discovery
from .errors import SelectorError
from .plan import Plan
from .selectors import Selector, module
from .session import Session
from .tracing import backend_for, make_call, names_of, run


def pluck(
    model: Any,
    args: Any,
    layer: str | Selector,
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
) -> Any:
    """The value of one Op: ``tl.pluck(model, x, 'relu_1_2')``. The model runs once; nothing else is kept.

    With a module address or ``tl.module(...)`` the run stops at that module and no operation is recorded, so that it
    costs what a forward hook costs. With another selector it stops there too. A label is final only after the run.

    Raises:
        SelectorError: the selector matches nothing, or the model cannot have what it names.
        LabelError: no Op has this label.
    """
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    discovery = chosen.discover(call)
    selector = module(layer) if isinstance(layer, str) and layer.split(":")[0] in discovery.addresses() else layer
    can_stop = isinstance(selector, Selector) and not selector.reads & {"label", "children"}
    plan = Plan(selector, selector if can_stop else None)
    if plan.only_modules() is not None:
        return _module_output(chosen, call, plan, discovery)
    made, _ = run(chosen, call, plan, {"operations", "sites"}, discovery=discovery)
    return made.halted.out if made.halted is not None else made[selector].out


def _module_output(backend: Backend, call: Call, plan: Plan, discovery: Discovery) -> Any:
    plan.bind(names_of(backend, discovery))
    session = Session(plan, backend.arrays, discovery, needs=())
    backend.capture(call, session)
    if session.halted_vid not in session.values:
        raise SelectorError(
            f"{plan.selectors[0]!r} returned no array in this run: the module was not called, or it returns something "
            "else. tl.sites(model, x) lists what could be selected."
        )
    return backend.arrays.release(session.values[session.halted_vid])
