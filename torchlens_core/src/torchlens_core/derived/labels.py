"""Names of Ops and layers: ``conv2d_3_7:1`` is the first pass of the third conv2d, the seventh layer of all."""

from __future__ import annotations

from array import array
from collections import Counter
from functools import cached_property

from .graph import Graph, Kind

_UNNUMBERED = {Kind.INPUT: "input", Kind.BUFFER: "buffer", Kind.OUTPUT: "output"}


class Labels:
    """Layers and labels of a graph, from the layer number of each node.

    Attributes:
        layer_of: layer of each node; layers are numbered from 0 in the order of their first pass.
        pass_of: pass of each node within its layer, from 1.
        nodes: the nodes of each layer, in order.
        types: ``conv2d``, ``input`` ... of each layer.
        type_index: k of each layer: the k-th layer of its type, from 1.
        total_index: N of each layer, from 1; 0 for inputs, buffers and outputs, which have none.
    """

    def __init__(self, graph: Graph, layer_of: array[int]) -> None:
        self.layer_of = layer_of
        self.pass_of = array("q")
        self.nodes: list[list[int]] = []
        self.types: list[str] = []
        self.type_index = array("q")
        self.total_index = array("q")
        counts: Counter[str] = Counter()
        total = 0
        for node, layer in enumerate(layer_of):
            if layer == len(self.nodes):
                self.nodes.append([])
                kind = Kind(graph.kinds[node])
                if kind in _UNNUMBERED:
                    type_ = _UNNUMBERED[kind]
                    self.total_index.append(0)
                else:
                    type_ = "source" if kind == Kind.SOURCE else graph.program.rows[graph.refs[node]].func.type
                    total += 1
                    self.total_index.append(total)
                counts[type_] += 1
                self.types.append(type_)
                self.type_index.append(counts[type_])
            self.nodes[layer].append(node)
            self.pass_of.append(len(self.nodes[layer]))

    def num_passes(self, layer: int) -> int:
        """How many nodes a layer has."""
        return len(self.nodes[layer])

    def short(self, layer: int) -> str:
        """Short label of a layer, ``conv2d_3``."""
        return f"{self.types[layer]}_{self.type_index[layer]}"

    def layer(self, layer: int) -> str:
        """Label of a layer: ``conv2d_3_7``, ``input_1``."""
        total = self.total_index[layer]
        return f"{self.short(layer)}_{total}" if total else self.short(layer)

    def op(self, node: int) -> str:
        """Label of a node: ``conv2d_3_7:1``."""
        return f"{self.layer(self.layer_of[node])}:{self.pass_of[node]}"

    def neighbour(self, node: int) -> str:
        """How a node is named beside another: with its pass only where its layer has several."""
        layer = self.layer_of[node]
        return self.layer(layer) if len(self.nodes[layer]) == 1 else self.op(node)

    @cached_property
    def by_name(self) -> dict[str, tuple[int, int]]:
        """Every label of a layer or Op, short ones too, to (layer, node); node is -1 for a layer."""
        names: dict[str, tuple[int, int]] = {}
        for layer, nodes in enumerate(self.nodes):
            for base in (self.layer(layer), self.short(layer)):
                names[base] = (layer, -1)
                for number, node in enumerate(nodes, start=1):
                    names[f"{base}:{number}"] = (layer, node)
        return names
