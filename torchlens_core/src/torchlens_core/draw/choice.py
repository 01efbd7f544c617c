"""Which Ops a picture shows, and how the flow runs through those that it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..derived.graph import Kind
from .interventions import Interventions

if TYPE_CHECKING:
    from ..records.layer import Layer
    from ..records.module import Module
    from ..records.trace import Trace

Buffers = Literal["never", "meaningful", "always"]


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What a scene shows. See :func:`torchlens_core.draw.draw` for what the options mean."""

    is_rolled: bool = False
    depth: int | None = None
    module: str | None = None
    buffers: Buffers = "meaningful"
    orphans: bool = False
    collapse: Callable[[Module], bool] | None = None
    skip: Callable[[Layer], bool] | None = None
    profile: bool = False  # lines with FLOPs, MACs and time
    interventions: Interventions = "node_mark"


class Link(NamedTuple):
    """An array that went from one drawn Op to another."""

    parent: int
    child: int
    hole: int  # which array argument of the child's call; -1 where it is no argument
    is_write: bool
    step: tuple[int, int]  # the recorded edge that enters the child; its parent may be left out


class Choice:
    """The nodes of a trace that are drawn.

    Attributes:
        nodes: those drawn, in the order they ran.
        hidden_buffers: node -> addresses of the buffers that it reads or writes and that are not drawn.
    """

    def __init__(self, trace: Trace, options: SceneOptions) -> None:
        self._trace = trace
        self._graph = trace.graph
        self._options = options
        self._written = {s.address for s in trace.program.sources if s.kind == "buffer" and s.version > 1}
        hidden = bytearray(len(self._graph)) if options.orphans else trace.structure.hidden
        idle = self._serving_buffers_alone()
        skipped = self._skipped()
        self.nodes: list[int] = []
        self._origins: dict[int, tuple[int, ...]] = {}  # node -> itself; left out: the drawn nodes that lead to it
        for node, kind in enumerate(self._graph.kinds):
            if hidden[node] or idle[node]:
                self._origins[node] = ()
            elif node in skipped or (kind == Kind.BUFFER and not self._shows_buffer(node)):
                before = self._graph.parents_of(node)
                self._origins[node] = tuple(dict.fromkeys(origin for p in before for origin in self._origins[p]))
            else:
                self.nodes.append(node)
                self._origins[node] = (node,)

    def links(self) -> Iterator[Link]:
        """The edges between drawn nodes, those through nodes left out included, by the order of their children."""
        for child in self.nodes:
            for edge in self._graph.edges_into(child):
                for parent in self._origins[edge.parent]:
                    yield Link(parent, child, edge.hole, edge.is_write, (edge.parent, child))

    def hidden_buffers(self, node: int) -> list[str]:
        """Addresses of the buffers that a node reads or writes and that are not drawn."""
        sources, graph = self._trace.program.sources, self._graph
        around = (*graph.parents_of(node), *graph.children_of(node))
        hidden = (n for n in around if graph.kinds[n] == Kind.BUFFER and self._origins[n] != (n,))
        return list(dict.fromkeys(sources[graph.refs[n]].address for n in hidden))

    def _shows_buffer(self, node: int) -> bool:
        if self._options.buffers == "meaningful":
            return self._trace.program.sources[self._graph.refs[node]].address in self._written
        return self._options.buffers == "always"

    def _skipped(self) -> set[int]:
        skip, labels = self._options.skip, self._trace.labels
        if skip is None:
            return set()
        compute = {labels.layer_of[node] for node, kind in enumerate(self._graph.kinds) if kind == Kind.COMPUTE}
        return {node for layer in compute if skip(self._trace.layer(layer)) for node in labels.nodes[layer]}

    def _serving_buffers_alone(self) -> bytearray:
        """1 for each Op between buffers alone, which would hang in the air where no buffer is drawn."""
        graph = self._graph
        idle = bytearray(len(graph))
        if self._options.buffers != "never" or self._options.orphans or self._trace.is_partial:
            return idle
        useful = bytearray(kind == Kind.OUTPUT for kind in graph.kinds)
        for event in self._trace.program.events:
            if event.vid >= 0 and graph.node_of[event.vid] >= 0:
                useful[graph.node_of[event.vid]] = 1
        for node in range(len(graph) - 1, -1, -1):
            if useful[node]:
                for parent in graph.parents_of(node):
                    useful[parent] = 1
            elif graph.kinds[node] == Kind.COMPUTE and not graph.from_input[node]:
                idle[node] = 1
        return idle
