"""One captured run: the program compiled once for what is asked of it, run, and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from torchlens_core.backend import Call
from torchlens_core.derived.frames import frame_of
from torchlens_core.errors import EstimateError, NonFiniteError
from torchlens_core.plan import Decision, Keep
from torchlens_core.program import Output
from torchlens_core.session import Halt, Repeats, Session

from ..arrays import Kept, device_of, is_abstract
from ..calls.generators import generators_of
from ..calls.prepare import Prepared
from ..containers import leaves
from ..live.concrete import may_repeat, run_concretely
from ..live.dynamic import run_dynamically
from ..lowering.ir import Slot, Switch, While
from ..lowering.lowering import walk
from ..modes import asked
from ..staging.discovery import StagedDiscovery, staged_discovery
from ..staging.staged import Staged, Unstaged, in_primitives
from ..staging.values_needed import ERRORS, HiddenChoice, NeedsValues, read_at, refuse_hidden
from .compiling import compiled
from .deciding import Decided, add_sources, decided, expansion_of
from .expanding import At
from .expanding import Kept as KeptPlace
from .ran import Places, Ran
from .versions import note_new_state, note_reads

_FIRST_CAPACITY = 64  # iterations of a while_loop whose values are kept before it is known how many there are


@dataclass
class Tape:
    """The tables of one run, and what a run with the same facts still has to do.

    Attributes:
        inputs: vid, position and decision of the arrays given that are kept.
        new_state: the same of new state, by position among what the program gives it.
        kept: where the values are that the session keeps.
        clean: vid and place of values kept as they were before they were changed.
    """

    session: Session
    inputs: list[tuple[int, int, Decision]]
    new_state: list[tuple[int, int, Decision]]
    kept: list[KeptPlace]
    clean: list[tuple[int, Slot, At]]
    constants: list[tuple[int, Any]]
    state: list[tuple[int, int]]  # vid and position of what a replay starts from, parameters left out
    places: Places
    repeats: Repeats = field(default_factory=Repeats)
    error: NonFiniteError | None = None  # what ended it


def capture(call: Call, session: Session) -> Any:
    """Run the model, write down in the session what it does, and return what it returns."""
    found = session.discovery
    if not isinstance(found, StagedDiscovery):
        found = staged_discovery(call)
    prepared, staged = found.prepared_for(call)
    if generators := generators_of(prepared, staged.described):
        session.rng[-1] = generators
    if "kernel rows" in session.needs:
        staged = in_primitives(prepared, staged)
    if isinstance(staged, Unstaged):
        return run_dynamically(prepared, staged, session)
    if asked() == "concrete" and not is_abstract(prepared.arrays):
        return run_concretely(prepared, staged, session, "asked for")
    try:
        return _run_compiled(prepared, staged, session)
    except HiddenChoice:
        raise
    except (NeedsValues, *ERRORS) as error:
        if asked() is not None or is_abstract(prepared.arrays):
            raise
        reason = str(error) if isinstance(error, NeedsValues) else read_at(error)
        return run_concretely(prepared, staged, session, reason)
    except Exception as error:
        if asked() is None and not session.rows and not is_abstract(prepared.arrays) and may_repeat(staged):
            run_concretely(prepared, staged, session, f"the compiled program raised {type(error).__name__}")
        raise


def _run_compiled(prepared: Prepared, staged: Staged, session: Session) -> Any:
    wanted = decided(staged, session.plan, session.arrays, session.discovery, session.needs)
    out, kept, facts = _run(staged, wanted, session, prepared.arrays)
    returned, new_state = out if out is not None else ((), ())
    result = None if out is None else staged.outputs(returned)
    tape = _tape(staged, wanted, session, prepared, kept, facts, result)
    _fill(session, tape, prepared)
    if "replay" in session.needs:
        session.staged = _ran(staged, wanted, session, facts, tape)
    _keep_given(session, tape, prepared.arrays, new_state)
    _keep(session, tape, kept, _after(staged, wanted, session))
    if tape.error is not None:
        raise tape.error
    if out is not None and not is_abstract(prepared.arrays):
        prepared.finish(dict(zip(staged.changed, new_state, strict=True)))
    return result


def _run(staged: Staged, wanted: Decided, session: Session, arrays: list[Any]) -> tuple[Any, Any, Any]:
    """Run the compiled program, again with more room where a loop has run more often than there was room for."""
    values = wanted.settings.values(session.plan.whens)
    capacity = staged.made.get("capacity")
    if capacity is None:
        loops = (item.number for item in walk(staged.block) if isinstance(item, While))
        capacity = staged.made["capacity"] = dict.fromkeys(loops, _FIRST_CAPACITY)
    while True:
        program = compiled(staged, wanted, capacity, session.arrays)
        if is_abstract(arrays):
            _refuse_choices(staged)
            return jax.eval_shape(program.run, values, staged.consts, *arrays)
        out, kept, facts = program.run(values, staged.consts, *arrays)
        refuse_hidden(facts)
        facts = {number: np.asarray(value) for number, value in facts.items()}
        trips = {
            number: int(np.max(facts["region", number], initial=0))
            for number in capacity
            if ("region", number) in facts
        }
        short = {number: count for number, count in trips.items() if count > capacity[number]}
        if not short:
            return out, kept, facts
        capacity |= {number: 1 << (count - 1).bit_length() for number, count in short.items()}


def _refuse_choices(staged: Staged) -> None:
    for item in walk(staged.block):
        if isinstance(item, While | Switch):
            name = "how often a while_loop runs" if isinstance(item, While) else "which branch of a cond runs"
            raise EstimateError(
                f"The run depends on values, which an estimate has not: {name}{_place_of(item.site)}. Estimate the "
                "part without it, or trace a smaller input and scale."
            )


def _place_of(site: Any) -> str:
    if not site:
        return ""
    frame = frame_of(*site[0])
    return f", at {frame.file}:{frame.line} in {frame.function}"


def _after(staged: Staged, wanted: Decided, session: Session) -> Any:
    return compiled(staged, wanted, staged.made["capacity"], session.arrays).after


# -- the tables --------------------------------------------------------------------------------------------------------


def _tape(
    staged: Staged, wanted: Decided, session: Session, prepared: Prepared, kept: Any, facts: Any, result: Any
) -> Tape:
    """The tables of a run: those of an earlier one with the same facts, where there was one."""
    if not wanted.repeats:
        return _expand(staged, wanted, session, prepared, kept, facts, result)
    known = tuple((number, value.shape, value.tobytes()) for number, value in facts.items())
    tapes = wanted.tapes
    key = (known, session.needs & _SHAPING)
    tape = tapes.get(key)
    if tape is None:
        scratch = Session(session.plan, session.arrays, session.discovery, needs=session.needs)
        tape = tapes[key] = _expand(staged, wanted, scratch, prepared, kept, facts, result)
        scratch.discovery = _NOTHING
    return tape  # type: ignore[no-any-return]


_SHAPING = frozenset({"sites", "replay", "gradients", "kernels", "selected"})
_NOTHING: Any = None  # in the place of what a tape that stays must not hold


def _expand(
    staged: Staged, wanted: Decided, session: Session, prepared: Prepared, kept: Any, facts: Any, result: Any
) -> Tape:
    def value_of(slot: Slot, at: At) -> Any:
        if session.watch is None or slot not in kept:
            return None
        return kept[slot][at] if at else kept[slot]

    expansion = expansion_of(staged, session, facts, answers=wanted.answers, value_of=value_of)
    expansion.device = next((device_of(array) for array in prepared.arrays if device_of(array) is not None), None)
    asked, vids = add_sources(staged, session, expansion)
    inputs = [(vid, vids.index(vid)) for vid in asked]
    decisions = [(vid, at, session.decide_source(vid, _watched(session, prepared.arrays[at]))) for vid, at in inputs]
    new_state: list[tuple[int, int, Decision]] = []
    error: NonFiniteError | None = None
    try:
        outs = expansion.run(staged.block, vids)
        expansion.close_to()
        note_reads(session)
        new_state = note_new_state(staged.described, staged.changed, session, vids, outs)
        session.exit(session.scopes[0], tuple(outs[: staged.num_outs]))
        session.outputs += [Output(path, vid) for (path, _), vid in zip(leaves(result), outs, strict=False)]
    except (Halt, NonFiniteError) as stopped:
        session.abandon(session.scopes[0])
        note_reads(session)
        error = stopped if isinstance(stopped, NonFiniteError) else None
    clean = [
        (change.old, *expansion.places[change.new])
        for change in session.steering.changes
        if any(when.keep_clean for when in change.whens)
    ]
    read = {source.vid for source in session.sources if source.kind == "buffer" and source.row >= 0}
    decisions += [
        (vid, at, session.decide_source(vid, _watched(session, prepared.arrays[at])))
        for at, vid in enumerate(vids)
        if vid in read
    ]
    state = [(vid, at) for at, vid in enumerate(vids) if staged.described[at].kind != "param"]
    chosen = [(vid, at, decision) for vid, at, decision in decisions if decision.keep is not None]
    given = {vid: (slot, ()) for vid, slot in zip(vids, staged.block.ins, strict=True)}
    places = Places(given | expansion.places, frozenset(expansion.opaque), expansion.results, tuple(vids))
    return Tape(session, chosen, new_state, expansion.kept, clean, expansion.constants, state, places, error=error)


def _ran(staged: Staged, wanted: Decided, session: Session, facts: Any, tape: Tape) -> Ran:
    """The note of a run, of which nothing is left where it has no values."""
    settings = wanted.settings.values(session.plan.whens)
    wide = bool(jax.config.jax_enable_x64)
    return Ran(staged, wanted, settings, facts, tape.places, session.plan.whens, wide)


def _watched(session: Session, array: Any) -> Any:
    return array if session.watch is not None else None


# -- the session -------------------------------------------------------------------------------------------------------


def _fill(session: Session, tape: Tape, prepared: Prepared) -> None:
    """Give a session the tables of a tape. They are shared: nobody writes to them any more."""
    other = tape.session
    if other is not session:
        for name in (
            "rows",
            "metas",
            "sources",
            "scopes",
            "sites",
            "events",
            "writes",
            "outputs",
            "numbers",
            "returned",
            "kernels",
        ):
            setattr(session, name, getattr(other, name))
        session.scope = other.scope
        session.halted_vid = other.halted_vid
        now = dict(zip(other.plan.whens, session.plan.whens, strict=True))  # like those, with other settings
        for name in ("changes", "gradient_changes"):
            made = [
                change._replace(whens=tuple(now[when] for when in change.whens))
                for change in getattr(other.steering, name)
            ]
            setattr(session.steering, name, made)
        session.repeats = tape.repeats
    if "replay" in session.needs:
        session.constants |= {vid: prepared.arrays[at] for vid, at in tape.state}
        session.constants |= tape.constants


def _keep_given(session: Session, tape: Tape, arrays: Sequence[Any], new_state: Sequence[Any]) -> None:
    """Keep what the plan wants of what the model was given, and of the state that it made."""
    for vid, at, decision in tape.inputs:
        session.keep(vid, arrays[at], decision)
    for vid, number, decision in tape.new_state:
        session.keep(vid, new_state[number], decision)


def _keep(session: Session, tape: Tape, kept: Any, after: Any) -> None:
    """Keep the values that the plan wants."""
    arrays, streams = session.arrays, session.stream is not None
    for place in tape.kept:
        stacked = kept.get(place.slot)
        if stacked is None:
            continue
        keep = place.decision.keep
        assert keep is not None
        value: Any
        if keep.is_own:
            value = Kept(stacked, place.at)
        elif place.slot in after:
            value = keep.result(stacked[place.at] if place.at else stacked, arrays)
        else:
            made = jax.tree.map(lambda leaf, at=place.at: leaf[at], stacked) if place.at else stacked
            value = arrays.cast(made, None, keep.device) if arrays.is_array(made) else made
        if streams:
            value = arrays.release(value) if keep.is_own else value
            session.keep(place.vid, value, _streamed(place.decision))
            continue
        (session.values if keep.is_own else session.kept_results)[place.vid] = value
        session.kept_order.append(place.vid)
        if place.decision.is_candidate or place.decision.asks:
            session.candidates.add(place.vid)
    for vid, slot, at in tape.clean:
        session.steering.clean[vid] = Kept(kept[~slot], at)


def _streamed(decision: Decision) -> Decision:
    """A decision about what has been made of a value already, on its way to the disk."""
    assert decision.keep is not None
    keep = Keep() if decision.keep.is_own else Keep(transform=lambda made: made)
    return Decision(keep, is_candidate=decision.is_candidate or decision.asks)


__all__ = ["capture", "Tape"]
