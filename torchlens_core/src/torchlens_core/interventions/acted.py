"""Whether every intervention of a run acted somewhere."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..errors import InterventionError, SelectorWarning
from .when import READ

if TYPE_CHECKING:
    from ..plan import Plan
    from ..records.trace import Trace


_WITH_TAPE = (
    " and has a gradient (the model's parameters or its inputs have to want one, and the framework has to record)"
)


def check_all_acted(plan: Plan, made: Trace) -> None:
    """Raise InterventionError, with the trace, for an intervention that acted nowhere.

    One that depends on values may rightly find none to act on: that is a warning.
    """
    program = made.program
    acted = {when for change in (*program.changes, *program.gradient_changes) for when in change.whens}
    for when in plan.whens:
        if when in acted or when.action is READ:
            continue
        types = sorted({op.type for op in made.compute_ops})
        message = (
            f"{when!r} never acted: no operation of this run matched"
            f"{_WITH_TAPE if when.action.is_backward else ''}. What ran are {', '.join(types[:12])}"
            f"{', ...' if len(types) > 12 else ''}; trace.find_sites(selector) shows what a selector matches."
        )
        absent = getattr(when.selector, "absent", "")
        if absent:
            message += f" Where there is none: {absent}."
        if "value" in when.selector.reads:
            warnings.warn(message, SelectorWarning, stacklevel=3)
            continue
        error = InterventionError(message)
        error.partial_trace = made
        raise error
