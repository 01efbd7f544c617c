"""What is derived from a program once: graph, layers, labels, and the indexes that look-up needs."""

from __future__ import annotations

from array import array
from collections import defaultdict
from functools import cached_property

from ..control_flow.conditionals import BoolEvent, ControlFlow, OpPlace, ScopePlace, find_conditionals
from ..program import Program, Scope, walk_outs
from .graph import Graph, Kind
from .labels import Labels
from .recurrence import group, is_recurrent


class Structure:
    """Graph and layers of a program, each worked out when it is first asked for.

    Args:
        program: the tape.
        layer_of: the layer of each node where it is known already (a loaded trace); worked out otherwise.
        recurrence: whether Ops without parameters may be passes of one layer.
        keep_orphans: whether Ops connected to neither an input nor an output are shown.
        control_flow: the conditionals where they are known already; found in the source otherwise.
    """

    def __init__(
        self,
        program: Program,
        *,
        layer_of: array[int] | None = None,
        recurrence: bool = True,
        keep_orphans: bool = False,
        control_flow: ControlFlow | None = None,
    ) -> None:
        self.program = program
        self._layer_of = layer_of
        self._recurrence = recurrence
        self.keep_orphans = keep_orphans
        self._control_flow = control_flow
        self.floating: dict[str, int] | None = None  # label -> node of floating-point Ops, once they were looked for

    def of_other_shapes(self, program: Program) -> Structure:
        """The same structure of a program whose arrays have other shapes, and nothing else."""
        return Structure(
            program,
            layer_of=self.labels.layer_of,
            recurrence=self._recurrence,
            keep_orphans=self.keep_orphans,
            control_flow=self.control_flow,
        )

    @cached_property
    def graph(self) -> Graph:
        """Nodes and edges."""
        return Graph(self.program)

    @cached_property
    def labels(self) -> Labels:
        """Layers and names."""
        known = self._layer_of
        return Labels(self.graph, group(self.graph, recurrence=self._recurrence) if known is None else known)

    @cached_property
    def control_flow(self) -> ControlFlow:
        """The conditionals that read an array, and which of their arms ran."""
        return self._control_flow if self._control_flow is not None else self._find_conditionals()

    def _find_conditionals(self) -> ControlFlow:
        program, graph = self.program, self.graph
        events = [
            BoolEvent(graph.node_of[vid] if vid >= 0 else -1, value, scope.index, site, row)
            for _, vid, value, scope, site, row in program.events
            if isinstance(value, bool)
        ]
        if not events:
            return ControlFlow()
        sites = [program.frames(site) for site in range(len(program.sites))]
        scopes = [ScopePlace(-1 if s.parent is None else s.parent.index, s.site) for s in program.scopes]
        return find_conditionals(sites, scopes, [self._place(node) for node in range(len(graph))], events)

    def _place(self, node: int) -> OpPlace:
        graph, ref = self.graph, self.graph.refs[node]
        parents = graph.parents_of(node)
        if graph.kinds[node] == Kind.COMPUTE:
            row = self.program.rows[ref]
            return OpPlace(row.scope.index, row.site, ref, parents)
        order = len(self.program.rows) if graph.kinds[node] == Kind.OUTPUT else self.program.sources[ref].row
        return OpPlace(0, -1, order, parents, is_source=graph.kinds[node] != Kind.OUTPUT)

    @cached_property
    def hidden(self) -> bytearray:
        """1 for each node that lists, counts and pictures leave out."""
        is_partial = "halted" in self.program.facts or "error" in self.program.facts
        return bytearray(len(self.graph)) if self.keep_orphans or is_partial else self.graph.orphans

    @cached_property
    def listed(self) -> array[int]:
        """Inputs, compute Ops and outputs in the order they ran: what an integer indexes."""
        kinds, hidden = self.graph.kinds, self.hidden
        return array("q", (n for n, kind in enumerate(kinds) if kind != Kind.BUFFER and not hidden[n]))

    @cached_property
    def position(self) -> dict[int, int]:
        """Node -> its position in ``listed``."""
        return {node: position for position, node in enumerate(self.listed)}

    @cached_property
    def compute(self) -> array[int]:
        """The Ops that are numbered: operations, and arrays of unknown origin."""
        kinds = self.graph.kinds
        return array("q", (node for node in self.listed if kinds[node] in (Kind.COMPUTE, Kind.SOURCE)))

    @cached_property
    def step(self) -> dict[int, int]:
        """Compute node -> its position among them, from 1."""
        return {node: number for number, node in enumerate(self.compute, start=1)}

    @cached_property
    def layers(self) -> list[int]:
        """Layers with at least one Op that is shown, buffers left out, in the order of their first pass."""
        labels = self.labels
        return list(dict.fromkeys(labels.layer_of[node] for node in self.listed))

    @cached_property
    def num_edges(self) -> int:
        """Distinct pairs of parent and child among what is shown; buffers do not count."""
        kinds, hidden = self.graph.kinds, self.hidden
        return sum(
            len({parent for parent in self.graph.parents_of(node) if kinds[parent] != Kind.BUFFER})
            for node in range(len(self.graph))
            if kinds[node] != Kind.BUFFER and not hidden[node]
        )

    @cached_property
    def is_recurrent(self) -> bool:
        """Whether one pass of a layer, fed by an input, reaches another."""
        return is_recurrent(self.graph, self.labels.layer_of)

    @cached_property
    def returned_by(self) -> dict[int, list[Scope]]:
        """Node -> the module calls that returned its array, inner before outer; the model's own call is left out."""
        calls: dict[int, list[Scope]] = defaultdict(list)
        for scope in sorted(self.program.scopes, key=lambda scope: -scope.index):
            if scope.kind == "module" and scope.parent is not None:
                for vid, _ in walk_outs(scope.outs):
                    node = -1 if vid is None else self.graph.node_of[vid]
                    if node >= 0 and (not calls[node] or calls[node][-1] is not scope):
                        calls[node].append(scope)
        return calls

    @cached_property
    def scopes_by_address(self) -> dict[str, list[Scope]]:
        """Module address -> its calls, in order. The model is ``''``."""
        calls: dict[str, list[Scope]] = defaultdict(list)
        for scope in self.program.scopes:
            if scope.kind == "module":
                calls[scope.address].append(scope)
        return calls
