"""Why an Op has no gradient, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..derived.graph import Kind
from ..dtypes import is_floating

if TYPE_CHECKING:
    from ..records.trace import Trace


class TapeEnds:
    """Where the framework's gradient tape of a run began and ended.

    Attributes:
        on_tape: vids of the arrays of which it kept track, and of those that ask for a gradient themselves.
        cut_at: node off the tape -> the last node that took an array on it, which cut it; missing where the tape never
            began. Empty where the run kept none at all.
    """

    def __init__(self, trace: Trace) -> None:
        program, graph = trace.program, trace.graph
        self.on_tape = {vid for vid, meta in enumerate(program.metas) if meta[3] is not None}
        self.on_tape |= {source.vid for source in program.sources if source.trainable}
        self.on_tape |= set(trace.gradient_store.keeps if trace.gradient_store is not None else ())
        self.cut_at: dict[int, int] = {}
        if not any(meta[3] is not None for meta in program.metas):
            return  # no tape was kept at all, or the framework keeps none
        for node in range(len(graph)):
            if graph.kinds[node] != Kind.COMPUTE or graph.vids[node] in self.on_tape:
                continue
            if not self.on_tape.isdisjoint(program.rows[graph.refs[node]].ins):
                self.cut_at[node] = node
                continue
            cut = next((self.cut_at[parent] for parent in graph.parents_of(node) if parent in self.cut_at), None)
            if cut is not None:
                self.cut_at[node] = cut


def not_floating(dtype: str) -> str:
    """Why arrays of an element type have no gradients."""
    return f"its elements are {dtype}: only floating-point and complex arrays have gradients"


def why_none(trace: Trace, node: int) -> str | None:
    """Why the framework can have no gradient at an Op, whatever the loss; None where it can."""
    vid, kind = trace.graph.vids[node], trace.graph.kinds[node]
    dtype = trace.dtype_name(trace.program.metas[vid][1])
    if not is_floating(dtype):
        return not_floating(dtype)
    if vid in trace.tape_ends.on_tape:
        return None
    if kind in (Kind.INPUT, Kind.BUFFER, Kind.SOURCE):
        return "the array does not ask for a gradient (requires_grad)"
    cut = trace.tape_ends.cut_at.get(node)
    if cut is None:
        return (
            "there is no gradient tape: nothing that it was computed from asks for a gradient (no input, no trainable "
            "parameter), or the whole run was without gradients"
        )
    return (
        f"{trace.labels.neighbour(cut)} is cut from the gradient tape: it ran with gradients switched off, it cuts "
        "(detach), or it has no derivative"
    )
