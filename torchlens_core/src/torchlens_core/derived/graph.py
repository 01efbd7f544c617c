"""The graph of a run: nodes in the order they ran, edges, and what follows from them. Columns of integers, no objects.

Built once from a :class:`~torchlens_core.program.Program`, in linear time, when a trace is first asked a question.
A *node* is an Op in the sense of the user: an input, a buffer version, a source, one output of a call, or an output.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from ..program import Program, walk_outs


class Kind(IntEnum):
    """What a node is. ``COMPUTE`` and ``SOURCE`` nodes are the Ops that are numbered."""

    INPUT = 0
    BUFFER = 1
    SOURCE = 2
    COMPUTE = 3
    OUTPUT = 4


class Edge(NamedTuple):
    """One argument of a call, or the trace of a write."""

    parent: int
    child: int
    hole: int  # which array argument of the child's call; -1 where the edge is no argument
    is_write: bool  # the parent overwrote memory that the child then read through another array


class Graph:
    """Nodes and edges of one run.

    Attributes:
        kinds: what each node is.
        refs: row (compute), index into ``program.sources`` (input, buffer, source) or into ``program.outputs``.
        out_index: position of the node's array among the outputs of its call.
        vids: value id of each node's array.
        node_of: node of each value id, -1 for state and constants.
    """

    __slots__ = ("__dict__", "child_start", "children", "edges", "kinds", "node_of", "out_index", "parent_start",
                 "program", "refs", "rows_first", "vids")  # fmt: skip

    def __init__(self, program: Program) -> None:
        self.program = program
        self.kinds = bytearray()
        self.refs = array("q")
        self.out_index = array("q")
        self.vids = array("q")
        self.node_of = array("q", [-1]) * len(program.metas)
        self.rows_first = array("q", [-1]) * len(program.rows)  # first node of each row
        self._add_nodes()
        self._add_edges()

    def __len__(self) -> int:
        return len(self.kinds)

    def _add(self, kind: Kind, ref: int, out_index: int, vid: int) -> int:
        self.kinds.append(kind)
        self.refs.append(ref)
        self.out_index.append(out_index)
        self.vids.append(vid)
        return len(self.kinds) - 1

    def _add_nodes(self) -> None:
        program, node_of = self.program, self.node_of
        arriving = self._sources_in_order()
        arriving.reverse()
        for row_index, row in enumerate(program.rows):
            while arriving and arriving[-1][0] <= row_index:
                self._add_source(arriving.pop()[1])
            outs = row[4]
            if outs.__class__ is int:
                node_of[outs] = self.rows_first[row_index] = self._add(Kind.COMPUTE, row_index, 0, outs)
            else:
                self._add_several(row_index, outs)
            for _, new in program.writes.get(row_index, ()):
                if node_of[new] < 0:
                    node_of[new] = self.rows_first[row_index]
        while arriving:
            self._add_source(arriving.pop()[1])
        for change in program.changes:  # what took the place of an array is that Op's from there on
            if change.new != change.old and node_of[change.old] >= 0:
                node_of[change.new] = node_of[change.old]
                self.vids[node_of[change.old]] = change.new
        for index, output in enumerate(program.outputs):
            self._add(Kind.OUTPUT, index, 0, output.vid)

    def _sources_in_order(self) -> list[tuple[int, int]]:
        """(row, index) of inputs, buffer versions and arrays of unknown origin, as they came to be or were first read.

        Between two rows new versions of buffers, with what they are made from, come before what the second row reads
        for the first time.
        """
        sources = [(i, s) for i, s in enumerate(self.program.sources) if s.row >= 0 and s.kind in _SOURCE_KINDS]
        written = {(source.address, source.row) for _, source in sources if source.version > 1}
        origins = {source.origin for _, source in sources}
        keys = (
            (s.row, s.kind != "input", (s.address, s.row) not in written and s.vid not in origins, index)
            for index, s in sources
        )
        return [(row, index) for row, _, _, index in sorted(keys)]

    def _add_several(self, row_index: int, outs: object) -> None:
        for position, (vid, _) in enumerate(walk_outs(outs)):
            if vid is not None:
                node = self._add(Kind.COMPUTE, row_index, position, vid)
                if self.rows_first[row_index] < 0:
                    self.rows_first[row_index] = node
                self.node_of[vid] = node

    def _add_source(self, index: int) -> None:
        source = self.program.sources[index]
        self.node_of[source.vid] = self._add(_SOURCE_KINDS[source.kind], index, 0, source.vid)

    def _add_edges(self) -> None:
        program, node_of = self.program, self.node_of
        parents, holes, writes = array("q"), array("q"), bytearray()
        start = array("q", [0])
        deps = program.deps
        for kind, ref in zip(self.kinds, self.refs, strict=True):
            if kind == Kind.COMPUTE:
                for hole, vid in enumerate(program.rows[ref][3]):
                    parent = node_of[vid]
                    if parent >= 0:
                        parents.append(parent)
                        holes.append(hole)
                        writes.append(0)
                if deps:
                    for hole, writer in deps.get(ref, ()):
                        parents.append(self.rows_first[writer])
                        holes.append(hole)
                        writes.append(1)
            else:
                vid = program.outputs[ref].vid if kind == Kind.OUTPUT else program.sources[ref].origin
                if vid >= 0 and node_of[vid] >= 0:
                    parents.append(node_of[vid])
                    holes.append(-1)
                    writes.append(0)
            start.append(len(parents))
        self.edges = (parents, holes, writes)
        self.parent_start = start
        self._index_children()

    def _index_children(self) -> None:
        """Counting sort of the edges by parent: children in the order they ran."""
        parents = self.edges[0]
        count = array("q", [0]) * (len(self) + 1)
        for parent in parents:
            count[parent + 1] += 1
        for node in range(len(self)):
            count[node + 1] += count[node]
        self.child_start = array("q", count)
        children = array("q", [0]) * len(parents)
        start = self.parent_start
        for child in range(len(self)):
            for edge in range(start[child], start[child + 1]):
                parent = parents[edge]
                children[count[parent]] = child
                count[parent] += 1
        self.children = children

    # -- neighbours ------------------------------------------------------------------------------------------------

    def parents_of(self, node: int) -> Sequence[int]:
        """Parents by argument position; one that fills several arguments stands several times."""
        return self.edges[0][self.parent_start[node] : self.parent_start[node + 1]]

    def children_of(self, node: int) -> Sequence[int]:
        """Children in the order they ran, as often as they took the node's array."""
        return self.children[self.child_start[node] : self.child_start[node + 1]]

    def edges_into(self, node: int) -> Iterator[Edge]:
        """The edges to the parents of a node, by argument position, then those from writes."""
        parents, holes, writes = self.edges
        for index in range(self.parent_start[node], self.parent_start[node + 1]):
            yield Edge(parents[index], node, holes[index], bool(writes[index]))

    # -- what follows from the edges -------------------------------------------------------------------------------

    @cached_property
    def from_input(self) -> bytearray:
        """1 for each node that an input reaches."""
        reached = bytearray(kind == Kind.INPUT for kind in self.kinds)
        parents, start = self.edges[0], self.parent_start
        for node in range(len(self)):
            if not reached[node]:
                for edge in range(start[node], start[node + 1]):
                    if reached[parents[edge]]:
                        reached[node] = 1
                        break
        return reached

    @cached_property
    def to_output(self) -> bytearray:
        """1 for each node that reaches an output."""
        reaches = bytearray(kind == Kind.OUTPUT for kind in self.kinds)
        parents, start = self.edges[0], self.parent_start
        for node in range(len(self) - 1, -1, -1):
            if reaches[node]:
                for edge in range(start[node], start[node + 1]):
                    reaches[parents[edge]] = 1
        return reaches

    @cached_property
    def orphans(self) -> bytearray:
        """1 for each node connected to neither an input nor an output; written buffers and predicates are outputs here.

        A node is connected to what it can be reached from by edges in any direction, so that no parent of a node that
        is shown is hidden.
        """
        connected = bytearray(kind in (Kind.INPUT, Kind.OUTPUT) for kind in self.kinds)
        for node, kind in enumerate(self.kinds):
            if kind == Kind.BUFFER and self.program.sources[self.refs[node]].version > 1:
                connected[node] = 1
        for event in self.program.events:
            if event.vid >= 0 and self.node_of[event.vid] >= 0:
                connected[self.node_of[event.vid]] = 1
        pending = [node for node in range(len(self)) if connected[node]]
        while pending:
            node = pending.pop()
            for other in (*self.parents_of(node), *self.children_of(node)):
                if not connected[other]:
                    connected[other] = 1
                    pending.append(other)
        return bytearray(not here for here in connected)

    @cached_property
    def distances_from_input(self) -> tuple[array[int], array[int]]:
        """Shortest and longest number of edges from any input to each node, -1 where none leads there."""
        return self._distances(Kind.INPUT, range(len(self)), self.parents_of)

    @cached_property
    def distances_to_output(self) -> tuple[array[int], array[int]]:
        """Shortest and longest number of edges from each node to any output, -1 where none leads there."""
        return self._distances(Kind.OUTPUT, range(len(self) - 1, -1, -1), self.children_of)

    def _distances(
        self, origin: Kind, order: range, neighbours: Callable[[int], Sequence[int]]
    ) -> tuple[array[int], array[int]]:
        shortest, longest = array("q", [-1]) * len(self), array("q", [-1]) * len(self)
        for node in order:
            if self.kinds[node] == origin:
                shortest[node] = longest[node] = 0
                continue
            for other in neighbours(node):
                if shortest[other] >= 0:
                    if shortest[node] < 0 or shortest[other] + 1 < shortest[node]:
                        shortest[node] = shortest[other] + 1
                    longest[node] = max(longest[node], longest[other] + 1)
        return shortest, longest

    def reachable(self, node: int, *, backwards: bool) -> set[int]:
        """All ancestors (``backwards``) or descendants of a node, itself not among them."""
        step = self.parents_of if backwards else self.children_of
        seen: set[int] = set()
        pending = list(step(node))
        while pending:
            other = pending.pop()
            if other not in seen:
                seen.add(other)
                pending += step(other)
        return seen


_SOURCE_KINDS = {"input": Kind.INPUT, "buffer": Kind.BUFFER, "unknown": Kind.SOURCE}
