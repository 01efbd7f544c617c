"""The place of an Op in the graph: neighbours, distances, what leads to it and where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..derived.graph import Kind
from ..program import hole_paths
from .op_node import OpNode
from .record import field

if TYPE_CHECKING:
    from .op import Op


class OpGraph(OpNode):
    """Fields of an Op that describe its edges."""

    __slots__ = ()

    # -- neighbours ------------------------------------------------------------------------------------------------

    @field(group="graph")
    def parents(self) -> list[str]:
        """Labels of the Ops whose arrays the call took, each once, by first argument position."""
        return self._names(self._shown(self._trace.graph.parents_of(self._node)))

    @field(group="graph")
    def children(self) -> list[str]:
        """Labels of the Ops that took this array, in the order they ran."""
        return self._names(self._shown(self._trace.graph.children_of(self._node)))

    def _shown(self, nodes: Sequence[int]) -> list[int]:
        hidden = self._trace.structure.hidden
        return [node for node in nodes if not hidden[node] or hidden[self._node]]

    def parent_ops(self) -> list[Op]:
        """The Ops whose arrays the call took, each once."""
        return self._ops(dict.fromkeys(self._shown(self._trace.graph.parents_of(self._node))))

    def child_ops(self) -> list[Op]:
        """The Ops that took this array, each once."""
        return self._ops(dict.fromkeys(self._shown(self._trace.graph.children_of(self._node))))

    parent_sites = parent_ops
    child_sites = child_ops

    def number_among(self, selector: Any) -> int:
        """Which match of a selector it is in the order of the run, from 1; 0 where it is none."""
        return self._trace.number_among(selector, self._node)

    @field(group="graph", in_table=False)
    def parent_arg_positions(self) -> dict[str, dict[Any, str]]:
        """Which parent each argument is: ``{'args': {0: 'relu_1_2'}, 'kwargs': {'mask': 'input_2'}}``.

        An argument inside a container has a path: ``{(0, 1): 'relu_1_2'}``.
        """
        positions: dict[str, dict[Any, str]] = {"args": {}, "kwargs": {}}
        row = self._row
        if row is not None:
            paths = hole_paths(row)
            for edge in self._trace.graph.edges_into(self._node):
                if not edge.is_write:
                    path = paths[edge.hole]
                    key = path[0] if len(path) == 1 else path
                    side = "args" if isinstance(path[0], int) else "kwargs"
                    positions[side][key] = self._trace.labels.neighbour(edge.parent)
        return positions

    @field(group="graph", in_table=False)
    def write_parents(self) -> list[str]:
        """Labels of the Ops that overwrote memory of an argument through another array, before this Op read it."""
        return self._names(edge.parent for edge in self._trace.graph.edges_into(self._node) if edge.is_write)

    @field(group="graph", in_table=False)
    def siblings(self) -> list[str]:
        """Labels of the other Ops that share a parent with it."""
        graph = self._trace.graph
        shared = [child for parent in graph.parents_of(self._node) for child in graph.children_of(parent)]
        return self._names(node for node in self._shown(shared) if node != self._node)

    @field(group="graph", in_table=False)
    def co_parents(self) -> list[str]:
        """Labels of the other Ops that share a child with it."""
        graph = self._trace.graph
        shared = [parent for child in graph.children_of(self._node) for parent in graph.parents_of(child)]
        return self._names(node for node in self._shown(shared) if node != self._node)

    # -- what it is ------------------------------------------------------------------------------------------------

    @field(group="graph")
    def is_input(self) -> bool:
        """Whether it is an argument of the model."""
        return self._kind == Kind.INPUT

    @field(group="graph")
    def is_output(self) -> bool:
        """Whether it is what the model returned."""
        return self._kind == Kind.OUTPUT

    @field(group="graph")
    def is_buffer(self) -> bool:
        """Whether it is a version of a buffer."""
        return self._kind == Kind.BUFFER

    @field(group="graph")
    def is_compute(self) -> bool:
        """Whether it is a numbered Op: no input, buffer or output."""
        return self._kind in (Kind.COMPUTE, Kind.SOURCE)

    @field(group="graph")
    def address(self) -> str | None:
        """``input.x``, ``output.logits``, a buffer's address; None for operations."""
        if self._kind == Kind.OUTPUT:
            path = self._trace.program.outputs[self._ref].path
            return f"output.{path}" if path else "output"
        source = self._source
        if source is None or source.kind == "unknown":
            return None
        return f"input.{source.address}" if source.kind == "input" else source.address

    @field(group="graph")
    def buffer_version(self) -> int | None:
        """Which version of its buffer it is, from 1; None for others."""
        source = self._source
        return source.version if source is not None and source.kind == "buffer" else None

    @field(group="graph")
    def is_output_parent(self) -> bool:
        """Whether the model returned its array."""
        return any(self._trace.graph.kinds[child] == Kind.OUTPUT for child in self._trace.graph.children_of(self._node))

    @field(group="graph")
    def is_orphan(self) -> bool:
        """Whether it is connected to neither an input nor an output."""
        return bool(self._trace.graph.orphans[self._node])

    @field(group="graph")
    def is_internal_source(self) -> bool:
        """Whether its array was made inside the model, from no other Op (``zeros``, ``arange``)."""
        return self.is_compute and not self._trace.graph.parents_of(self._node)

    @field(group="graph")
    def is_internal_sink(self) -> bool:
        """Whether it is computed and reaches no output."""
        return self.is_compute and not self._trace.graph.to_output[self._node]

    # -- what leads to it, where it leads --------------------------------------------------------------------------

    @field(group="graph")
    def has_input_ancestor(self) -> bool:
        """Whether an input leads to it."""
        return bool(self._trace.graph.from_input[self._node])

    @field(group="graph")
    def has_output_descendant(self) -> bool:
        """Whether it leads to an output."""
        return bool(self._trace.graph.to_output[self._node])

    @field(group="graph", in_table=False)
    def input_ancestors(self) -> list[str]:
        """Labels of the inputs that lead to it."""
        return [op.layer_label for op in self._relatives(backwards=True) if op.is_input]

    @field(group="graph", in_table=False)
    def internal_source_ancestors(self) -> list[str]:
        """Labels of the arrays made inside the model that lead to it."""
        return self._names(op.raw_index for op in self._relatives(backwards=True) if op.is_internal_source)

    @field(group="graph", in_table=False)
    def output_descendants(self) -> list[str]:
        """Labels of the outputs that it leads to."""
        return [op.layer_label for op in self._relatives(backwards=False) if op.is_output]

    def _relatives(self, *, backwards: bool) -> list[Op]:
        return self._ops(sorted(self._trace.graph.reachable(self._node, backwards=backwards)))

    @field(group="graph", unit="edges")
    def min_distance_from_input(self) -> int | None:
        """Fewest edges from any input; None where none leads here."""
        return _or_none(self._trace.graph.distances_from_input[0][self._node])

    @field(group="graph", unit="edges")
    def max_distance_from_input(self) -> int | None:
        """Most edges from any input; None where none leads here."""
        return _or_none(self._trace.graph.distances_from_input[1][self._node])

    @field(group="graph", unit="edges")
    def min_distance_to_output(self) -> int | None:
        """Fewest edges to any output; None where it leads to none."""
        return _or_none(self._trace.graph.distances_to_output[0][self._node])

    @field(group="graph", unit="edges")
    def max_distance_to_output(self) -> int | None:
        """Most edges to any output; None where it leads to none."""
        return _or_none(self._trace.graph.distances_to_output[1][self._node])


def _or_none(distance: int) -> int | None:
    return None if distance < 0 else distance
