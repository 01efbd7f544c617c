"""What is derived from a program once: graph, layers, labels, and the indexes that look-up needs."""

from __future__ import annotations

from array import array
from collections import defaultdict
from functools import cached_property

from .graph import Graph, Kind
from .labels import Labels
from .program import Program, Scope, walk_outs
from .recurrence import group, is_recurrent


class Structure:
    """Graph and layers of a program, each worked out when it is first asked for.

    Args:
        program: the tape.
        layer_of: the layer of each node where it is known already (a loaded trace); worked out otherwise.
        recurrence: whether Ops without parameters may be passes of one layer.
        keep_orphans: whether Ops connected to neither an input nor an output are shown.
    """

    def __init__(
        self,
        program: Program,
        *,
        layer_of: array[int] | None = None,
        recurrence: bool = True,
        keep_orphans: bool = False,
    ) -> None:
        self.program = program
        self._layer_of = layer_of
        self._recurrence = recurrence
        self._keep_orphans = keep_orphans

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
    def hidden(self) -> bytearray:
        """1 for each node that lists, counts and pictures leave out."""
        is_partial = "halted" in self.program.facts or "error" in self.program.facts
        return bytearray(len(self.graph)) if self._keep_orphans or is_partial else self.graph.orphans

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
