"""Buffers in versions: where each is first read, and the second version of those that a run gave another value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchlens_core.plan import Decision
from torchlens_core.session import Session

from ..calls.prepare import Described


def note_reads(session: Session) -> None:
    """Buffers come into the graph where they are first read."""
    first: dict[int, int] = {}
    for index, row in enumerate(session.rows):
        for vid in row[3]:
            first.setdefault(vid, index)
    for source in session.sources:
        if source.kind in ("buffer", "param"):
            source.row = first.get(source.vid, source.row)


def note_new_state(
    described: Sequence[Described],
    changed: Mapping[int, int],
    session: Session,
    vids: Sequence[int],
    outs: Sequence[int],
) -> list[tuple[int, int, Decision]]:
    """Buffers that the run gave another value have a second version.

    Args:
        described: what each array is that the program takes.
        changed: of these, by position, those that it gives another value: position among ``outs``.
        vids: of the arrays that it takes.
        outs: vids of those that it gives.

    Returns:
        vid, number among the changed ones, and decision of those that are to be kept.
    """
    made = []
    rows = {}
    for index, row in enumerate(session.rows):
        for vid in row[4] if isinstance(row[4], tuple) else (row[4],):
            rows[vid] = index
        rows.update((new, index) for _, new in session.writes.get(index, ()))
    known = {source.vid for source in session.sources}
    for number, (at, out) in enumerate(changed.items()):
        each, new = described[at], outs[out]
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
