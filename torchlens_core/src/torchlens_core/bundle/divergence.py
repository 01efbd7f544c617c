"""``bundle.first_divergence()``: the operation at which two runs begin to differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..records.op import Op
from ..show.text import joined, shape_text, value_text
from .axes import Axes
from .axes_matching import through
from .levels import levelled
from .metrics import METRICS, Reading
from .mistakes import Suspect, mistakes
from .pair import Pair, TwoValues, check_saved, in_run_order
from .settings_compared import differing_settings
from .sites import Site, label_of
from .table import number_text

SHOWN: Final = tuple(METRICS[name] for name in ("relative_error", "cosine", "max_abs"))


@dataclass(frozen=True)
class Divergence:
    """The first site, in the order in which ``a`` ran, whose values differ.

    Attributes:
        site: where that is.
        a, b: names of the members.
        ops: their Ops there.
        readings: name of a metric -> its value, or why it has none; ``a`` is the reference.
        inputs: of each array that the Op took, its label in ``a`` and whether it agrees: True, False, or None where
            that is not known (it was not saved, or ``b`` took something else).
        settings: arguments that are not the same: name -> (in ``a``, in ``b``); ``DEFAULT`` stands for what a function
            does unless told otherwise. Of functions of two frameworks what both are known to be set to.
        axes: how the axes of ``b`` were put in the order of ``a``; None where they cannot be.
        hints: in words, which of the classical mistakes it looks like.
        not_compared: how many shared sites that ran before were not saved in both.
        unmatched: sites that ran before in one of the two alone.
    """

    site: Site
    a: str
    b: str
    ops: tuple[Op, Op]
    readings: Mapping[str, Reading]
    inputs: Mapping[str, bool | None]
    settings: Mapping[str, tuple[Any, Any]]
    axes: Axes | None
    hints: Sequence[str]
    not_compared: int
    unmatched: Sequence[Site]

    @property
    def module(self) -> str | None:
        """Label of the innermost module call around it, in ``a``; None directly in the model."""
        return self.ops[0].module

    @property
    def inputs_agree(self) -> bool | None:
        """Whether all that the Op took agrees, so that the difference begins here; None where that is not known."""
        answers = set(self.inputs.values())
        return False if False in answers else None if None in answers else True

    @property
    def source_lines(self) -> tuple[str, str]:
        """Where each of the two called the operation: ``'net.py:12 in Net.forward: x = self.fc(x)'``, or ``''``."""
        return _source_line(self.ops[0]), _source_line(self.ops[1])

    def __str__(self) -> str:
        where = f", in {self.module}" if self.module else ""
        lines = [
            f"{self.a!r} and {self.b!r} first differ at {self.site.key}{where}",
            f"  {self._numbers()}",
            *(f"  {name}: {_described(op)}" for name, op in zip((self.a, self.b), self.ops, strict=True)),
            *self._hints(),
        ]
        return joined(lines)

    def _numbers(self) -> str:
        known = [f"{name} {number_text(r.value)}" for name, r in self.readings.items() if r.value is not None]
        return ", ".join(known) or next(iter(self.readings.values())).why

    def _hints(self) -> list[str]:
        op = self.ops[0]
        hints = []
        if self.inputs:
            words = {True: "agrees", False: "differs", None: "not compared"}
            hints.append("took " + ", ".join(f"{label} ({words[agrees]})" for label, agrees in self.inputs.items()))
        if self.axes is not None and str(self.axes):
            hints.append(f"axes of {self.b!r} taken as {self.axes}")
        if op.param_addresses:
            hints.append(f"uses the parameters {', '.join(op.param_addresses)}")
        if op.constants:
            hints.append(f"uses the arrays {', '.join(op.constants)}, which no operation made")
        for name, (left, right) in self.settings.items():
            hints.append(f"{name} is {value_text(left)} in {self.a!r} and {value_text(right)} in {self.b!r}")
        for name, each in zip((self.a, self.b), self.ops, strict=True):
            if each.is_changed:
                hints.append(f"changed in {name!r} by {', '.join(each.interventions)}")
        if op.is_random:
            hints.append("draws random numbers")
        hints += [f"likely: {hint}" for hint in self.hints]
        if self.unmatched:
            more = ", ..." if len(self.unmatched) > 5 else ""
            hints.append(f"in one alone, before: {', '.join(site.key for site in self.unmatched[:5])}{more}")
        if self.not_compared:
            hints.append(f"before it {self.not_compared} shared sites were not saved in both")
        return [f"  {hint}" for hint in hints]

    def __repr__(self) -> str:
        return f"<Divergence at {self.site.key}: {self.a!r} against {self.b!r}>"


def first_divergence(pairs: Sequence[Pair], rtol: float | None, atol: float | None) -> Divergence | None:
    """The first of the pairs, in the order in which ``a`` ran, whose values differ; None where none do.

    Raises:
        ValueNotSaved: the two share sites, and have two values at none of them.
    """
    check_saved(pairs)
    agreement: dict[Site, bool | None] = {}
    unmatched: list[Site] = []
    for pair in in_run_order(pairs):
        if pair.ops is None:
            unmatched.append(pair.site)
            continue
        values = pair.read()
        agreement[pair.site] = values.agree(rtol, atol)
        if agreement[pair.site] is False:
            return Divergence(
                site=pair.site,
                a=pair.names[0],
                b=pair.names[1],
                ops=pair.ops,
                readings={metric.name: values.measure(metric) for metric in SHOWN},
                inputs=_inputs(pair, agreement),
                settings=differing_settings(*pair.ops),
                axes=values.axes,
                hints=tuple(_mistakes(pair, values, agreement, unmatched)),
                not_compared=sum(known is None for known in agreement.values()),
                unmatched=tuple(unmatched),
            )
    return None


def _mistakes(
    pair: Pair, values: TwoValues, agreement: Mapping[Site, bool | None], unmatched: Sequence[Site]
) -> list[str]:
    """What it may be; nothing where an intervention or chance explains it."""
    assert pair.ops is not None
    if values.arrays is None or any(op.is_changed or op.is_random for op in pair.ops):
        return []
    taken = [pair.site.bundle.pair(site, *pair.names) for site in _taken(pair)]
    read = [each.read() for each in taken]
    agreed = [two.arrays for each, two in zip(taken, read, strict=True) if agreement.get(each.site) and two.arrays]
    return mistakes(
        Suspect(
            names=pair.names,
            ops=pair.ops,
            arrays=values.arrays,
            taken=agreed[0][0] if agreed else None,
            axes_taken=tuple(two.axes for two in read if two.axes is not None),
            unmatched=tuple(op for site in unmatched for op in site.ops.values()),
        )
    )


def _taken(pair: Pair) -> list[Site]:
    """The sites that both Ops took something from.

    Of an operation that is several in one of the two, its inputs are those of the first of these.
    """
    assert pair.ops is not None
    is_one = levelled(pair.ops[0].type) == levelled(pair.ops[1].type)
    taken = (op.parent_ops() if is_one else through(op, pair, side, back=True)[0] for side, op in enumerate(pair.ops))
    left, right = ([pair.site.bundle.at(op) for op in ops] for ops in taken)
    return [site for site in left if site in right]


def _inputs(pair: Pair, agreement: Mapping[Site, bool | None]) -> dict[str, bool | None]:
    """Whether what the Op of ``a`` took agrees with what that of ``b`` took."""
    assert pair.ops is not None
    taken = _taken(pair)
    found: dict[str, bool | None] = {}
    for parent in pair.ops[0].parent_ops():
        where = pair.site.bundle.at(parent)
        found[label_of(parent)] = agreement.get(where) if where in taken else None
    return found


def _described(op: Op) -> str:
    where = _source_line(op)
    return f"{label_of(op)} {shape_text(op.shape)} {op.dtype_name}{f', {where}' if where else ''}"


def _source_line(op: Op) -> str:
    """The line of the user's model: that which called the innermost module that holds nothing but this operation."""
    atomic = op.atomic_module_call
    context = op.trace.modules.call(atomic).code_context if atomic is not None else op.code_context
    if not context:
        return ""  # an input, an output, or a trace without sources
    line = context[-1].call_line
    return f"{context[-1]!r}" + (f": {line}" if line else "")
