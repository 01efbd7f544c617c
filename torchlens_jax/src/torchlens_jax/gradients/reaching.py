"""What an output depends on, by the tape alone."""

from __future__ import annotations

from collections.abc import Collection

from torchlens_core.program import Program, walk_outs


def reached_from(program: Program, vids: Collection[int]) -> frozenset[int]:
    """The arrays that some arrays are computed from, and those."""
    reached: set[int] = set()
    replaced = {change.new: change.old for change in program.changes}
    versions = {source.vid: source.origin for source in program.sources if source.origin >= 0}
    before = replaced | versions

    def add(vid: int) -> None:
        while vid not in reached:
            reached.add(vid)
            vid = before.get(vid, vid)

    for vid in vids:
        add(vid)
    for index in range(len(program.rows) - 1, -1, -1):
        row = program.rows[index]
        news = [new for _, new in program.writes.get(index, ())]
        if any(vid in reached for vid in news) or any(vid in reached for vid, _ in walk_outs(row.outs)):
            for vid in row.ins:
                add(vid)
    return frozenset(reached)
