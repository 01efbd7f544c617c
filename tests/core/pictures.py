"""Small traces to draw, and pictures taken apart: scenes by titles, DOT text and SVG as Graphviz and XML read them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from xml.etree import ElementTree

import pygraphviz

from torchlens_core.draw import Drawing
from torchlens_core.draw.build import build_scene
from torchlens_core.draw.choice import SceneOptions
from torchlens_core.draw.scene import Edge, Group, Node, Scene
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape

SVG = "{http://www.w3.org/2000/svg}"

# -- traces ------------------------------------------------------------------------------------------------------------


def small_model() -> Trace:
    """input -> box (relu, tanh) -> output, beside an array that no input leads to."""
    tape = Tape("Small")
    x = tape.input()
    with tape.module("box") as box:
        box.outs = y = tape.op("tanh", tape.op("relu", x))
    tape.output(tape.op("sub", y, tape.op("zeros")))
    return tape.trace()


def linear(tape: Tape, address: str, x: int) -> int:
    """A call of a module that is one operation with parameters."""
    weight, bias = _state(tape, f"{address}.weight", (4, 4)), _state(tape, f"{address}.bias", (4,))
    with tape.module(address) as scope:
        scope.ins = (x,)
        scope.outs = made = tape.op("linear", x, weight, bias, at=address, shape=(2, 4))
    return made


def _state(tape: Tape, address: str, shape: tuple[int, ...]) -> int:
    known = [source.vid for source in tape.program.sources if source.address == address]
    return known[0] if known else tape.param(address, shape)


# -- scenes ------------------------------------------------------------------------------------------------------------


def scene_of(source: Tape | Trace, **options: Any) -> Scene:
    trace = source.trace() if isinstance(source, Tape) else source
    return build_scene(trace, SceneOptions(**options))


def titles(scene: Scene) -> list[str]:
    return [node.title for node in scene.nodes.values()]


def node(scene: Scene, title: str) -> Node:
    (found,) = [node for node in scene.nodes.values() if node.title == title]
    return found


def pairs(scene: Scene) -> list[tuple[str, str]]:
    """Edges, by the titles of their ends."""
    return [(scene.nodes[edge.tail].title, scene.nodes[edge.head].title) for edge in scene.edges]


def edge(scene: Scene, tail: str, head: str) -> Edge:
    (found,) = [e for e, ends in zip(scene.edges, pairs(scene), strict=True) if ends == (tail, head)]
    return found


def outline(scene: Scene) -> list[Any]:
    """The groups as nested lists: title of a group, then what is in it."""

    def inside(group: Group) -> list[Any]:
        return [scene.nodes[id].title for id in group.nodes] + [[g.title, *inside(g)] for g in group.groups]

    return inside(scene.root)


# -- files -------------------------------------------------------------------------------------------------------------


class Parsed:
    """The DOT text of a drawing as Graphviz reads it."""

    def __init__(self, drawing: Drawing) -> None:
        graph = pygraphviz.AGraph(string=drawing.dot)
        self.attributes = _attributes(graph.graph_attr)
        self.nodes = {str(node): _attributes(node.attr) for node in graph.nodes()}
        self.edges = [(*edge, _attributes(edge.attr)) for edge in graph.edges()]
        self.boxes = [(sorted(map(str, box.nodes())), _attributes(box.graph_attr)) for box in graph.subgraphs()]


def _attributes(attributes: Any) -> defaultdict[str, str]:
    """Those that are set; the empty text for the others."""
    return defaultdict(str, attributes)


def texts(svg: str) -> list[str]:
    """The lines of text in an SVG file."""
    lines = ("".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text"))
    return [line.replace("\xa0", " ").strip() for line in lines]


def count(svg: str, kind: str) -> int:
    """How many nodes, edges or clusters an SVG file has."""
    return sum(group.get("class") == kind for group in ElementTree.fromstring(svg).iter(f"{SVG}g"))
