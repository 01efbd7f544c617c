"""One captured run: the program compiled once for what is asked of it, run, and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from torchlens_core.backend import Call
from torchlens_core.derived.frames import frame_of
from torchlens_core.errors import EstimateError
from torchlens_core.plan import Decision
from torchlens_core.program import Output
from torchlens_core.session import Halt, Repeats, Session

from .arrays import Kept, device_of
from .compiling import compiled
from .containers import leaves
from .deciding import Decided, add_sources, decided, expansion_of
from .discovery import StagedDiscovery, discover
from .expanding import At
from .expanding import Kept as KeptPlace
from .ir import Slot, Switch, While
from .lowering import walk
from .prepare import Prepared
from .staged import Staged

_FIRST_CAPACITY = 64  # iterations of a while_loop whose values are kept before it is known how many there are
_TAPES = 64  # kept for one program


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
    repeats: Repeats = field(default_factory=Repeats)


def capture(call: Call, session: Session) -> Any:
    """Run the model, write down in the session what it does, and return what it returns."""
    found = session.discovery
    if not isinstance(found, StagedDiscovery):
        found = discover(call)
    prepared, staged = found.prepared_for(call)
    wanted = decided(staged, session.plan, session.arrays, session.discovery, session.needs)
    out, kept, facts = _run(staged, wanted, session, prepared.arrays)
    returned, new_state = out if out is not None else ((), ())
    result = None if out is None else staged.outputs(returned)
    tape = _tape(staged, wanted, session, prepared, kept, facts, result)
    _fill(session, tape, prepared)
    _keep_given(session, tape, prepared.arrays, new_state)
    _keep(session, tape, kept, _after(staged, wanted, session))
    if out is not None and not is_abstract(prepared.arrays):
        prepared.finish(dict(zip(staged.changed, new_state, strict=True)))
    return result


def _run(staged: Staged, wanted: Decided, session: Session, arrays: list[Any]) -> tuple[Any, Any, Any]:
    """Run the compiled program, again with more room where a loop has run more often than there was room for."""
    values = wanted.settings.values(session.plan.whens)
    capacity = staged.made.setdefault("capacity", {})
    if not capacity:
        capacity |= {item.number: _FIRST_CAPACITY for item in walk(staged.block) if isinstance(item, While)}
    while True:
        program = compiled(staged, wanted, capacity, session.arrays)
        if is_abstract(arrays):
            _refuse_choices(staged)
            return jax.eval_shape(program.run, values, staged.consts, *arrays)
        out, kept, facts = program.run(values, staged.consts, *arrays)
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


def is_abstract(arrays: Sequence[Any]) -> bool:
    """Whether arrays have no elements, so that nothing can be run."""
    return any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays)


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
    tapes = staged.made.setdefault("tapes", {})
    key = (id(wanted), known, session.needs & _SHAPING)
    tape = tapes.get(key)
    if tape is None:
        if len(tapes) >= _TAPES:
            tapes.clear()
        scratch = Session(session.plan, session.arrays, session.discovery, needs=session.needs)
        tape = tapes[key] = _expand(staged, wanted, scratch, prepared, kept, facts, result)
        scratch.discovery = _NOTHING
    return tape  # type: ignore[no-any-return]


_SHAPING = frozenset({"sites", "replay", "gradients"})
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
    try:
        outs = expansion.run(staged.block, vids)
        expansion.close_to()
        _note_reads(session)
        new_state = _note_new_state(staged, session, vids, outs)
        session.exit(session.scopes[0], tuple(outs[: staged.num_outs]))
        session.outputs += [Output(path, vid) for (path, _), vid in zip(leaves(result), outs, strict=False)]
    except Halt:
        session.abandon(session.scopes[0])
        _note_reads(session)
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
    return Tape(session, chosen, new_state, expansion.kept, clean, expansion.constants, state)


def _watched(session: Session, array: Any) -> Any:
    return array if session.watch is not None else None


def _note_reads(session: Session) -> None:
    """Buffers come into the graph where they are first read."""
    first: dict[int, int] = {}
    for index, row in enumerate(session.rows):
        for vid in row[3]:
            first.setdefault(vid, index)
    for source in session.sources:
        if source.kind in ("buffer", "param"):
            source.row = first.get(source.vid, source.row)


def _note_new_state(
    staged: Staged, session: Session, vids: list[int], outs: list[int]
) -> list[tuple[int, int, Decision]]:
    """Buffers that the run gave another value have a second version."""
    made = []
    rows = {}
    for index, row in enumerate(session.rows):
        for vid in row[4] if isinstance(row[4], tuple) else (row[4],):
            rows[vid] = index
        rows.update((new, index) for _, new in session.writes.get(index, ()))
    known = {source.vid for source in session.sources}
    for number, (at, out) in enumerate(staged.changed.items()):
        each, new = staged.described[at], outs[out]
        if each.kind != "buffer" or new in known:
            continue
        first = next(source for source in session.sources if source.vid == vids[at])
        row = rows.get(new, len(session.rows) - 1) + 1
        if first.row < 0:
            first.row = row - 1
        vid = session.source(
            "buffer", each.address, session.metas[new], version=2, origin=new, row=row, module=each.module
        )
        decision = session.decide_source(vid, None)
        if decision.keep is not None:
            made.append((vid, number, decision))
    return made


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
        ):
            setattr(session, name, getattr(other, name))
        session.scope = other.scope
        session.halted_vid = other.halted_vid
        now = dict(zip(other.plan.whens, session.plan.whens, strict=True))  # like those, with other settings
        session.steering.changes = [
            change._replace(whens=tuple(now[when] for when in change.whens)) for change in other.steering.changes
        ]
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
    arrays, values, results = session.arrays, session.values, session.kept_results
    for place in tape.kept:
        stacked = kept.get(place.slot)
        if stacked is None:
            continue
        keep = place.decision.keep
        assert keep is not None
        if keep.is_plain:
            values[place.vid] = Kept(stacked, place.at)
        elif place.slot in after:
            results[place.vid] = keep.result(stacked[place.at] if place.at else stacked, arrays)
        else:
            made = jax.tree.map(lambda leaf, at=place.at: leaf[at], stacked) if place.at else stacked
            results[place.vid] = arrays.cast(made, None, keep.device) if arrays.is_array(made) else made
        if place.decision.is_candidate or place.decision.asks:
            session.candidates.add(place.vid)
    for vid, slot, at in tape.clean:
        session.steering.clean[vid] = Kept(kept[~slot], at)


__all__ = ["capture", "Tape"]
