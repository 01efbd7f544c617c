"""The ops of a trace file, worked out from its calls: written by ``save``, and compared when a file is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..costs import Cost
from ..derived.graph import Kind
from ..derived.structure import Structure
from ..program import Program
from .schema import OpRecord

_KINDS: Final = {
    Kind.INPUT: "input",
    Kind.BUFFER: "buffer",
    Kind.SOURCE: "source",
    Kind.COMPUTE: "call",
    Kind.OUTPUT: "output",
}


def describe_ops(structure: Structure, dtype_name: Callable[[Any], str]) -> Iterator[OpRecord]:
    """One record for each node of the graph, in order. Costs are taken from ``program.costs``."""
    program, graph, labels = structure.program, structure.graph, structure.labels
    names = [labels.op(node) for node in range(len(graph))]
    params = {source.vid: source.address for source in program.sources if source.kind == "param"}
    orphans = graph.orphans
    modules = _innermost_modules(program)
    for node, (kind, of, vid) in enumerate(zip(graph.kinds, graph.refs, graph.vids, strict=True)):
        layer = labels.layer_of[node]
        shape, dtype = program.metas[vid][:2]
        row = program.rows[of] if kind == Kind.COMPUTE else None
        cost = _cost(program, of, graph.out_index[node]) if row is not None else None
        yield OpRecord(
            label=names[node],
            kind=_KINDS[Kind(kind)],  # type: ignore[arg-type]
            type=labels.types[layer],
            func=row.func.name if row is not None else labels.types[layer],
            layer=layer,
            pass_=labels.pass_of[node],
            of=of,
            output_index=graph.out_index[node],
            value=vid,
            parents=tuple([names[parent] for parent in graph.parents_of(node)]),
            module=modules[row.scope.index] if row is not None else None,
            shape=tuple(shape),
            dtype=dtype_name(dtype),
            params=tuple([params[vid] for vid in dict.fromkeys(row.ins) if vid in params]) if row is not None else (),
            flops=cost.flops if cost is not None else None,
            macs=cost.macs if cost is not None else None,
            is_orphan=bool(orphans[node]),
        )


def _cost(program: Program, row: int, output: int) -> Cost | None:
    """The cost of a call counts at its first output."""
    return program.costs[row] if output == 0 else Cost(0, 0)


def _innermost_modules(program: Program) -> list[str | None]:
    """The label of the innermost module call around what ran in each scope; None directly in the model."""
    innermost: list[str | None] = []
    for scope in program.scopes:
        if scope.parent is None:
            innermost.append(None)
        else:
            innermost.append(scope.call_label if scope.kind == "module" else innermost[scope.parent.index])
    return innermost
