"""A staged program run operation by operation: the concrete mode. Also what all live runs have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from torchlens_core.program import Output
from torchlens_core.session import Halt, Session

from ..arrays import device_of
from ..calls.prepare import Prepared
from ..containers import leaves
from ..lowering.ir import Op, Slot
from ..lowering.lowering import walk
from ..running.deciding import add_sources
from ..running.versions import note_new_state, note_reads
from ..staging.staged import Staged
from .deferring import computing
from .live import Live


def run_concretely(prepared: Prepared, staged: Staged, session: Session, reason: str) -> Any:
    """Run a staged program one operation after the other, and return what the model returns."""
    note_mode(session, "concrete", reason)
    live = begin(staged, session, prepared.arrays)
    try:
        with computing():
            live.execute(staged.block)
        made = staged.block.outs
        state = {at: made[number] for at, number in staged.changed.items()}
        result = end(live, staged, made[: staged.num_outs], state, staged.outputs)
    except Halt:
        return None
    finally:
        close(live)
    prepared.finish({at: live.values[slot] for at, slot in state.items()})
    return result


def may_repeat(staged: Staged) -> bool:
    """Whether a program whose run has raised may be run once more, to see where: no callback writes anything."""
    items = (item for item in walk(staged.block) if isinstance(item, Op))
    return not any("io_callback" in getattr(item.func, "primitives", ()) for item in items)


def note_mode(session: Session, mode: str, reason: str) -> None:
    """Note how the model is run, and why."""
    session.facts |= {"mode": mode, "mode_reason": reason}


def begin(staged: Staged, session: Session, arrays: Sequence[Any]) -> Live:
    """A live run of a program, given its arguments: they are noted, and kept where that is wanted."""
    device = next((found for array in arrays if (found := device_of(array)) is not None), None)
    live = Live(session, staged.calls, staged.avals, device)
    live.const_names = staged.const_names
    live.buffers = {each.address: each.module or "" for each in staged.described if each.kind == "buffer"}
    asked, vids = add_sources(staged, session, live)
    values = [array if isinstance(array, jax.Array) else jnp.asarray(array) for array in arrays]
    live.given = dict(zip(vids, values, strict=True))
    live.bind(staged.block.ins, list(live.given.items()))
    for vid, value, each in zip(vids, values, staged.described, strict=True):
        if vid in asked:
            session.keep(vid, value, session.decide_source(vid, value))
        if "replay" in session.needs and each.kind != "param":
            session.constants[vid] = value
    return live


def close(live: Live) -> None:
    """Whatever has happened: close what is open, and note which buffers were read."""
    session = live.session
    live.abandon()
    note_reads(session)
    for source in session.sources:
        if source.kind == "buffer" and source.row >= 0 and source.vid in live.given:
            array = live.given[source.vid]
            session.keep(source.vid, array, session.decide_source(source.vid, array))


def end(
    live: Live,
    staged: Staged,
    outs: Sequence[Slot],
    state: Mapping[int, Slot],
    result_of: Callable[[list[Any]], Any],
) -> Any:
    """Close the model's own call, and give what it returns.

    Args:
        outs: the arrays that it returns.
        state: what it made of arrays of state, by position among the program's arguments.
        result_of: what it returns, with these arrays in it.
    """
    session = live.session
    live.close_to()
    positions = list(state)
    new = [live.vids[slot] for slot in state.values()]
    numbered = {at: number for number, at in enumerate(positions)}
    for vid, number, decision in note_new_state(staged.described, numbered, session, list(live.given), new):
        session.keep(vid, live.values[state[positions[number]]], decision)
    root = session.scopes[0]
    vids = [live.vids[slot] for slot in outs]
    decisions = session.exit(root, tuple(vids))
    for number, (slot, vid) in enumerate(zip(outs, vids, strict=True)):
        if vid in decisions:
            vids[number] = live.returned(root, slot, vid, (), decisions[vid])
    root.outs = tuple(vids)
    result = result_of([live.values[slot] for slot in outs])
    session.outputs += [Output(path, vid) for (path, _), vid in zip(leaves(result), vids, strict=False)]
    if "replay" in session.needs:
        session.constants |= live.constants
    return result
