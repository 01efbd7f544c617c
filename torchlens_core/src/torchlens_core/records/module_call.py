"""One call of a module."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..program import Scope, walk_outs
from ..show.quantities import counted
from .op import Op
from .record import Record, field

if TYPE_CHECKING:
    from ..facets.access import Facets
    from .location import CodeLocation
    from .module import Module
    from .trace import Trace


class ModuleCall(Record):
    """One call of a module: what ran in it, what it was given and what it returned."""

    __slots__ = ("_scope", "_trace")
    kind = "module_call"

    def __init__(self, trace: Trace, scope: Scope) -> None:
        self._trace = trace
        self._scope = scope

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def call_label(self) -> str:
        """``features.6:1``; ``self:1`` for the model."""
        return self._scope.call_label

    @field(group="names")
    def address(self) -> str:
        """Address of the module; ``self`` for the model."""
        return self._scope.address or "self"

    @field(group="names")
    def cls(self) -> str:
        """Name of the module's class."""
        return self._scope.cls

    @field(group="names")
    def call_index(self) -> int:
        """Which call of the module it is, from 1."""
        return self._scope.call_index

    @property
    def module(self) -> Module:
        """The module."""
        found: Module = self._trace.modules[self.address]
        return found

    # -- contents --------------------------------------------------------------------------------------------------

    @property
    def _nodes(self) -> list[int]:
        compute, position = self._trace.structure.compute, self._trace.row_position
        first = bisect_left(compute, self._scope.first_row, key=position)
        last = bisect_left(compute, self._scope.last_row, lo=first, key=position)
        return list(compute[first:last])

    @property
    def ops(self) -> list[Op]:
        """The compute Ops that ran inside, at any depth."""
        return [Op(self._trace, node) for node in self._nodes]

    @field(group="contents", in_table=False)
    def op_labels(self) -> list[str]:
        """Their labels."""
        return [self._trace.labels.op(node) for node in self._nodes]

    @field(group="contents")
    def num_ops(self) -> int:
        """How many there are."""
        return len(self._nodes)

    @field(group="contents", in_table=False)
    def layers(self) -> list[str]:
        """Labels of the layers that ran inside."""
        labels = self._trace.labels
        return [labels.layer(layer) for layer in dict.fromkeys(labels.layer_of[node] for node in self._nodes)]

    @field(group="contents")
    def num_layers(self) -> int:
        """How many there are."""
        return len({self._trace.labels.layer_of[node] for node in self._nodes})

    # -- calls around and inside -----------------------------------------------------------------------------------

    @property
    def _parent(self) -> Scope | None:
        parent = self._scope.parent
        while parent is not None and parent.kind != "module":
            parent = parent.parent
        return parent

    @field(group="tree")
    def parent_call(self) -> str | None:
        """Label of the module call that it ran in; None for the model's own."""
        return self._parent.call_label if self._parent is not None else None

    @field(group="tree")
    def child_calls(self) -> list[str]:
        """Labels of the module calls directly inside it, in the order they ran."""
        return [call.call_label for call in self.children]

    @property
    def children(self) -> list[ModuleCall]:
        """The module calls directly inside it, in the order they ran."""
        return [ModuleCall(self._trace, scope) for scope in self._trace.calls_inside.get(self._scope.index, ())]

    @field(group="tree")
    def depth(self) -> int:
        """Number of module calls around it: 0 for the model's own."""
        depth, scope = 0, self._parent
        while scope is not None:
            depth += scope.kind == "module"
            scope = scope.parent
        return depth

    @field(group="tree", in_table=False)
    def code_context(self) -> list[CodeLocation]:
        """The call stack, from the model's own call inwards to the line that called it."""
        parent = self._scope.parent
        return self._trace.locations(parent, self._scope.site) if parent is not None else []

    # -- arrays given and returned ---------------------------------------------------------------------------------

    @field(group="graph")
    def input_ops(self) -> list[str]:
        """Labels of the Ops whose arrays it was given, in argument order."""
        return [self._trace.labels.neighbour(op.raw_index) for op in self.inputs]

    @property
    def inputs(self) -> list[Op]:
        """The Ops whose arrays it was given; for the model itself, its inputs."""
        if self._scope.parent is None:
            return [op for op in self._trace if op.is_input]
        return self._ops(self._scope.ins)

    @field(group="graph")
    def output_ops(self) -> list[str]:
        """Labels of the Ops whose arrays it returned."""
        return [self._trace.labels.neighbour(op.raw_index) for op in self.outputs]

    @property
    def outputs(self) -> list[Op]:
        """The Ops whose arrays it returned."""
        return self._ops(vid for vid, _ in walk_outs(self._scope.outs) if vid is not None)

    def _ops(self, vids: Iterable[int]) -> list[Op]:
        nodes = dict.fromkeys(self._trace.graph.node_of[vid] for vid in vids)
        return [Op(self._trace, node) for node in nodes if node >= 0]

    @field(group="value")
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the arrays it was given."""
        return [op.shape for op in self.inputs]

    @field(group="value")
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the arrays it returned."""
        return [op.shape for op in self.outputs]

    @field(group="value", unit="bytes")
    def output_nbytes(self) -> int:
        """Size of the arrays it returned."""
        return sum(op.nbytes for op in self.outputs)

    @field(group="value", unit="bytes")
    def activation_nbytes(self) -> int:
        """Size of the arrays of all Ops inside, each for itself."""
        return sum(op.nbytes for op in self.ops)

    # -- facets ----------------------------------------------------------------------------------------------------

    @property
    def facets(self) -> Facets:
        """Its facets by name, such as the queries and the heads of an attention; printed, a table of them."""
        from ..facets.access import Facets

        return Facets(self)

    # -- time and cost ---------------------------------------------------------------------------------------------

    @field(group="cost", unit="ns")
    def start_ns(self) -> int:
        """When it began, from the start of the run."""
        return self._scope.start_ns - self._trace.program.scopes[0].start_ns

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int:
        """Time from call to return."""
        return max(self._scope.end_ns - self._scope.start_ns, 0)

    @field(group="cost", unit="ns")
    def func_duration_ns(self) -> int:
        """Time inside the framework's functions."""
        rows = self._trace.program.rows[self._scope.first_row : self._scope.last_row]
        return sum(row.end_ns - row.start_ns for row in rows if row.end_ns)

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations inside it; None where one is unknown."""
        each = [op.flops for op in self.ops]
        return None if None in each else sum(filter(None, each))

    @field(group="cost", unit="MACs")
    def macs(self) -> int | None:
        """Multiply-accumulates inside it; None where one is unknown."""
        each = [op.macs for op in self.ops]
        return None if None in each else sum(filter(None, each))

    # -- identity and showing --------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleCall) and self._scope is other._scope

    def __hash__(self) -> int:
        return hash(id(self._scope))

    def _brief(self) -> str:
        return f"<ModuleCall {self.call_label} ({self.cls}), {counted(self.num_ops, 'op')}>"
