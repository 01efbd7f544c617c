"""A fork: a cheap copy of a trace, on which changes are prepared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .attached import Attached
from .lineage import steered

if TYPE_CHECKING:
    from ..records.trace import Trace


def fork(trace: Trace, name: str | None, attached: Iterable[Attached]) -> Trace:
    """Another trace of the same run: tape, values and labels are shared, prepared changes are copied."""
    facts = {**trace.program.facts, "name": name or f"fork of {trace.name}", "steered": steered(trace, "fork", ())}
    made = type(trace)(replace(trace.program, facts=facts), trace.values, trace.structure, trace.backend)
    made.params_now = trace.params_now
    made.recorded = trace.recorded
    made.attached = [Attached(made, each.whens) for each in attached]
    return made
