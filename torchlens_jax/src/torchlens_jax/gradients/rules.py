"""Functions with a derivative rule, in runs that were gone through operation by operation.

A replay that is differentiated runs such a function as a whole, in the place of the rows that ran inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torchlens_core.errors import GradientError, ReplayError
from torchlens_core.gradients.derived import Computation
from torchlens_core.program import HOLE, Func, Program, Row, walk_outs

from .reaching import reached_from

RULE = (
    "it was computed inside a function with a derivative rule of its own (custom_vjp, custom_jvp), which gives the "
    "gradient of the whole"
)
_NOTHING = Func(lambda: (), "nothing", "nothing")


class Rule(NamedTuple):
    """One call of a function that has a derivative rule.

    Attributes:
        func: the function as a whole.
        ins: value ids of what it takes; ``outs`` of what it returns.
        first: the first of the rows that ran inside, and ``last``, the first after those.
    """

    func: Func
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True)
class LiveRun:
    """The note of a run that was gone through operation by operation.

    Attributes:
        rules: the outermost calls of functions that have a derivative rule.
    """

    rules: Sequence[Rule]


def differentiate_rows(run: Computation, live: LiveRun) -> dict[int, object]:
    """The gradients from a replay that knows the rules; none where the outputs do not depend on an array."""
    program = run.trace.program
    found = run.by_replay(_with_rules(run, live.rules) if live.rules else None)
    reached = reached_from(program, {output.vid for output in program.outputs})
    return {vid: gradient for vid, gradient in found.items() if vid in reached}


def _with_rules(run: Computation, rules: Sequence[Rule]) -> Program:
    program = run.trace.program
    rows = list(program.rows)
    acted = {change.old for change in program.changes}
    for rule in rules:
        made = {vid for row in rows[rule.first : rule.last] for vid, _ in walk_outs(row.outs) if vid is not None}
        inside = made.difference(rule.outs)
        if not made.issuperset(rule.outs) or len(set(rule.outs)) < len(rule.outs):
            raise ReplayError(
                "A function with a derivative rule of its own (custom_vjp, custom_jvp) returns an array that it was "
                "given, or one twice: of such a run, which Python drove, a replay cannot tell the gradient."
            )
        if acted & inside:
            raise GradientError(
                "An intervention acts inside a function with a derivative rule of its own (custom_vjp, custom_jvp): "
                "what the gradient would be then the rule does not say. Act on what the function returns."
            )
        run.reasons.update(dict.fromkeys(run.wanted & inside, RULE))
        outs = rule.outs[0] if len(rule.outs) == 1 else rule.outs
        whole = Row(rule.func, (HOLE,) * len(rule.ins), {}, rule.ins, outs, rows[rule.first].scope, -1, 0, 0, None)
        rows[rule.first] = whole
        for index in range(rule.first + 1, rule.last):
            rows[index] = rows[index]._replace(func=_NOTHING, args=(), kwargs={}, ins=(), outs=())
    return replace(program, rows=rows)
