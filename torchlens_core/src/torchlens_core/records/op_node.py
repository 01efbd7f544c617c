"""What every part of an Op's description stands on: the trace, the number of a node, and how to reach the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from ..derived.graph import Kind
from ..program import Func, Meta, Row, Scope, Source
from .record import Record

if TYPE_CHECKING:
    from .op import Op
    from .trace import Trace


class OpNode(Record):
    """A view of two fields on a finished run. Op is put together from its descendants, one for each group of fields."""

    __slots__ = ("_node", "_trace")
    kind = "op"

    def __init__(self, trace: Trace, node: int) -> None:
        self._trace = trace
        self._node = node

    @property
    def _kind(self) -> Kind:
        return Kind(self._trace.graph.kinds[self._node])

    @property
    def _ref(self) -> int:
        return self._trace.graph.refs[self._node]

    @property
    def _vid(self) -> int:
        return self._trace.graph.vids[self._node]

    @property
    def _layer(self) -> int:
        return self._trace.labels.layer_of[self._node]

    @property
    def _row(self) -> Row | None:
        return self._trace.program.rows[self._ref] if self._kind == Kind.COMPUTE else None

    @property
    def _func(self) -> Func | None:
        row = self._row
        return row.func if row is not None else None

    @property
    def _source(self) -> Source | None:
        is_source = self._kind in (Kind.INPUT, Kind.BUFFER, Kind.SOURCE)
        return self._trace.program.sources[self._ref] if is_source else None

    @property
    def _scope(self) -> Scope:
        row = self._row
        return self._trace.program.scopes[0] if row is None else row.scope

    @property
    def _meta(self) -> Meta:
        return Meta(*self._trace.program.metas[self._vid])

    def _ops(self, nodes: Iterable[int]) -> list[Op]:
        make = cast("type[Op]", type(self))
        return [make(self._trace, node) for node in nodes]

    def _names(self, nodes: Iterable[int]) -> list[str]:
        """Their labels as neighbours, each once."""
        return [self._trace.labels.neighbour(node) for node in dict.fromkeys(nodes)]

    # -- identity --------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpNode) and self._node == other._node and self._trace is other._trace

    def __hash__(self) -> int:
        return hash((id(self._trace), self._node))

    @property
    def trace(self) -> Trace:
        """The trace that it is part of."""
        return self._trace
