"""What an operation took, by the names of its parameters: what computed facets are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ValueNotSaved
from ..program import hole_paths

if TYPE_CHECKING:
    from ..records.op import Op


def argument(op: Op, name: str, signature: Sequence[str]) -> Any:
    """The value of an array that the call of an Op took; None where it took none there.

    Args:
        op: an Op of a finished trace.
        name: of the parameter.
        signature: names of the positional parameters, in order.

    Raises:
        ValueNotSaved: the value was not kept.
    """
    row, hole = op._row, _hole(op, name, signature)
    if row is None or hole is None:
        return None
    vid, values, constants = row.ins[hole], op.trace.values, op.trace.program.constants
    if vid in values:
        return values[vid]
    if vid in constants:
        return constants[vid]
    if op.trace.graph.node_of[vid] < 0:
        raise ValueNotSaved(f"The {name} that {op.label} took is made by no operation: replay_ready=True keeps it.")
    raise ValueNotSaved(f"The {name} that {op.label} took was not saved.")


def argument_op(op: Op, name: str, signature: Sequence[str]) -> Op | None:
    """The Op whose array the call of an Op took as this argument; None where it is none."""
    hole = _hole(op, name, signature)
    edges = op.trace.graph.edges_into(op.raw_index)
    parents = [edge.parent for edge in edges if not edge.is_write and edge.hole == hole]
    return type(op)(op.trace, parents[0]) if hole is not None and parents else None


def setting(op: Op, name: str, signature: Sequence[str], default: Any = None) -> Any:
    """A plain argument of the call of an Op: a number, a bool, a string."""
    if name in op.kwargs:
        return op.kwargs[name]
    position = list(signature).index(name) if name in signature else len(op.args)
    return op.args[position] if position < len(op.args) else default


def _hole(op: Op, name: str, signature: Sequence[str]) -> int | None:
    """Which of the arrays that a call took stands at a parameter."""
    row = op._row
    places: set[tuple[Any, ...]] = {(name,)}
    if name in signature:
        places.add((list(signature).index(name),))
    paths = enumerate(hole_paths(row)) if row is not None else ()
    return next((number for number, path in paths if path in places), None)
