"""What a plan wants of a staged program: asked once, and answered from memory for the same plan again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torchlens_core.backend import Arrays, Discovery
from torchlens_core.errors import NotSupported
from torchlens_core.plan import SAVE, Decision, Keep, Plan
from torchlens_core.program import Meta
from torchlens_core.selectors.by_value import Where
from torchlens_core.session import Session

from ..calls.freezing import Freezer
from ..calls.recent import Recent
from ..lowering.ir import Slot
from ..lowering.layers import LAYERS
from ..staging.staged import Staged
from .expanding import Answers, Expansion
from .interventions import Settings

_TAPES = 16  # kept for one plan


@dataclass
class Decided:
    """What is to be done with the values of a program.

    Attributes:
        answers: what the session said.
        settings: of the interventions, as arguments.
        keep: slot -> how its value is kept; None keeps it as it is.
        clean: slots kept as they were before they were changed.
        key: all that the compiled program depends on.
        changes_key: of that, what its changes depend on.
        repeats: whether runs with the same facts have the same tables.
        tapes: these tables, by the facts.
    """

    answers: Answers
    settings: Settings
    keep: dict[Slot, Keep | None]
    clean: frozenset[Slot]
    key: Hashable
    changes_key: Hashable
    pinned: list[Any]
    repeats: bool
    tapes: Recent = field(default_factory=lambda: Recent(_TAPES))


def decided(staged: Staged, plan: Plan, arrays: Arrays, discovery: Discovery, needs: frozenset[str]) -> Decided:
    """The answers of a plan."""
    _refuse_unknown_gradients(plan)
    freeze = Freezer()
    key = plan_key(plan, freeze)
    if key is None:
        return _decide(staged, plan, arrays, discovery, needs, freeze)
    found = staged.made.get(("decided", key))
    if found is None:
        found = staged.made["decided", key] = _decide(staged, plan, arrays, discovery, needs, freeze)
    return found  # type: ignore[no-any-return]


def _refuse_unknown_gradients(plan: Plan) -> None:
    for when in plan.whens:
        if when.action.is_backward and ("value" in when.selector.reads or when.action.reads):
            raise NotSupported(
                f"{when!r}: gradients are changed in a backward pass that is compiled before there are values, so what "
                "acts on them cannot depend on values of the run. Select by name, module or number."
            )


def plan_key(plan: Plan, freeze: Freezer) -> Hashable | None:
    """A key of a plan: another with an equal key gets the same answers. None where a predicate has to be asked."""
    if any(isinstance(part, Where) for selector in plan.selectors for part in selector.parts()):
        return None
    keeps = [(keep.selector, freeze(keep.transform), keep.dtype, keep.device) for keep in (*plan.keeps, *plan.grads)]
    return (len(plan.keeps), *keeps, plan.halt, Settings.of(plan.whens, freeze).key, plan.lookback, plan.raise_on)


def _decide(
    staged: Staged, plan: Plan, arrays: Arrays, discovery: Discovery, needs: frozenset[str], freeze: Freezer
) -> Decided:
    answers = _asked(staged, plan, arrays, discovery, needs)
    settings = Settings.of(plan.whens if answers.changes else (), freeze)
    keep = {slot: _way(decision) for slot, decision in answers.keep.items()}
    if plan.raise_on is not None:
        keep = dict.fromkeys(staged.operations()) | keep
    clean = frozenset(
        slot
        for slot, changes in answers.changes.items()
        if any(when.keep_clean for applied in changes.values() for when in (*applied.whens, *applied.maybe))
    )
    number = {when: position for position, when in enumerate(plan.whens)}
    acting = tuple(
        (slot, at, tuple(number[when] for when in applied.whens), tuple(number[when] for when in applied.maybe))
        for slot, changes in answers.changes.items()
        for at, applied in changes.items()
    )
    predicates = tuple(
        freeze(part.predicate)
        for when in plan.whens if acting
        for part in when.selector.parts() if isinstance(part, Where)
    )  # fmt: skip
    kept = tuple((slot, way and (freeze(way.transform), way.dtype)) for slot, way in sorted(keep.items()))
    changes_key = (answers.stop, acting, settings.key, predicates)
    return Decided(
        answers, settings, keep, clean, (kept, clean, changes_key), changes_key, freeze.pinned, plan.raise_on is None
    )


def _way(decision: Decision) -> Keep | None:
    assert decision.keep is not None
    return None if decision.keep.is_own else decision.keep


def _asked(staged: Staged, plan: Plan, arrays: Arrays, discovery: Discovery, needs: frozenset[str]) -> Answers:
    if plan.is_simple:
        whole = next((keep for keep in plan.keeps), None)
        decision = SAVE if whole is None or whole.is_plain else Decision(whole)
        return Answers(keep=dict.fromkeys(staged.operations(), decision) if plan.saves_everything else {})
    session = Session(plan, arrays, discovery, needs=needs - {"sites"})
    session.watch = None
    expansion = expansion_of(staged, session, None)
    vids = add_sources(staged, session, expansion)
    for vid in vids[0]:
        session.decide_source(vid, None)
    outs = expansion.run(staged.block, vids[1])
    expansion.close_to()
    session.exit(session.scopes[0], tuple(outs[: staged.num_outs]))
    return expansion.answers


def expansion_of(staged: Staged, session: Session, facts: Mapping[Any, Any] | None, **options: Any) -> Expansion:
    """The walk of a program for a session."""
    made = Expansion(session, staged.calls, staged.avals, facts, layers=LAYERS, **options)
    made.const_names = staged.const_names
    made.buffers = {each.address: each.module or "" for each in staged.described if each.kind == "buffer"}
    return made


def add_sources(staged: Staged, session: Session, expansion: Expansion) -> tuple[list[int], list[int]]:
    """Note the arrays that a program takes. Returns those that are asked about (inputs), and all."""
    asked, vids = [], []
    for each, slot in zip(staged.described, staged.block.ins, strict=True):
        aval = staged.avals[slot]
        meta = Meta(tuple(aval.shape), aval.dtype, expansion.device)
        vid = session.source(
            each.kind, each.address, meta, aliases=each.aliases, trainable=each.kind == "param",
            row=0 if each.kind == "input" else -1, module=each.module,
        )  # type: ignore[arg-type]  # fmt: skip
        vids.append(vid)
        if each.kind == "input":
            asked.append(vid)
    session.scopes[0].ins = tuple(asked)
    return asked, vids
