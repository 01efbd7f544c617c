"""Pictures as DOT text: structure, conventions, functions of the user, and escaping of hostile text."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from typing import Any
from xml.etree import ElementTree

import pygraphviz
import pytest

from tests.core.pictures import (
    SVG,
    Parsed,
    small_model,
    texts,
)
from torchlens_core.draw import NodeSpec, draw
from torchlens_core.draw.dot import quoted, quoted_text
from torchlens_core.draw.style import THEMES
from torchlens_core.errors import DrawError
from torchlens_core.program import Func
from torchlens_core.records.trace import Trace
from torchlens_core.show.untrusted import MAX_LENGTH, visible
from torchlens_core.testing.tape import Tape

# -- DOT text ----------------------------------------------------------------------------------------------------------


def test_dot_has_the_nodes_edges_and_boxes_of_the_scene() -> None:
    drawing = draw(small_model(), return_graph=True)
    graph = Parsed(drawing)
    assert set(graph.nodes) == set(drawing.scene.nodes)
    assert sorted(edge[:2] for edge in graph.edges) == sorted((edge.tail, edge.head) for edge in drawing.scene.edges)
    ((inside, box),) = graph.boxes
    assert inside == sorted(drawing.scene.root.groups[0].nodes)
    assert box["label"] == "<B>@box</B> (Module)"
    assert (box["penwidth"], box["labelloc"]) == ("5", "b")
    assert graph.attributes["rankdir"] == "BT"
    assert "<B>Small</B>" in graph.attributes["label"]


def test_conventions_of_shape_and_colour() -> None:
    tape = Tape()
    x = tape.input()
    weight, bias = tape.param("fc.weight", (4, 3)), tape.param("fc.bias", (4,))
    with tape.module("fc") as fc:
        fc.outs = y = tape.op("linear", x, weight, bias)
    with tape.module("frozen") as frozen:
        scale = tape.param("frozen.scale")
        frozen.outs = y = tape.op("mul", y, scale)
    tape.program.sources[-1].trainable = False
    with tape.module("act") as act:
        act.outs = y = tape.op("relu", y)
    mean = tape.buffer("mean")
    y = tape.op("sub", y, tape.assign(mean, tape.op("lerp", mean, y)))
    mixed = tape.op("linear", y, weight, scale)
    predicate = tape.op("gt", mixed, shape=())
    tape.read(predicate, value=True)
    tape.output(mixed)
    drawing = draw(tape.trace(), return_graph=True)
    graph = Parsed(drawing)
    looks = {}
    for id, node in drawing.scene.nodes.items():
        attributes = graph.nodes[id]
        looks[node.title] = (attributes["shape"], attributes["fillcolor"], attributes["style"])
    assert looks["input_1"] == ("oval", "#98FB98", "filled")
    assert looks["output_1"] == ("oval", "#ff9999", "filled")
    assert looks["linear_1_1"] == ("box", "#D9D9D9", "filled")
    assert looks["mul_1_2"] == ("box", "#B0B0B0", "filled")
    assert looks["linear_2_6"] == ("box", "#D9D9D9:#B0B0B0", "filled"), "some of its parameters are frozen"
    assert looks["relu_1_3"] == ("box", "white", "filled"), "the one Op of a module"
    assert looks["sub_1_5"] == ("oval", "white", "filled")
    assert looks["gt_1_7"] == ("oval", "#F7D460", "filled")
    assert looks["buffer_1"][0::2] == ("cylinder", "filled,dashed"), "no input leads to it"
    assert looks["buffer_2"][0::2] == ("cylinder", "filled")
    assert "<B>gt_1_7: TRUE</B>" in drawing.dot
    hidden = Parsed(draw(tape.trace(), return_graph=True, show_buffer_layers=False)).nodes.values()
    doubled = [node["tooltip"] for node in hidden if node["peripheries"] == "2"]
    assert doubled == [r"lerp_1_4\nHidden buffers: mean", r"sub_1_5\nHidden buffers: mean"]
    assert Parsed(draw(small_model(), return_graph=True, depth=1)).nodes["module0"]["shape"] == "box3d"


def test_edges_without_input_ancestry_are_dashed_and_writes_dotted() -> None:
    tape = Tape()
    base = tape.op("mul", tape.input())
    row = len(tape.program.rows)
    tape.op("add_", tape.op("getitem", base))
    tape.output(tape.op("add", tape.op("sum", base, after={0: row + 1}), tape.op("zeros")))
    edges = Parsed(draw(tape.trace(), return_graph=True)).edges
    styles = sorted(attributes["style"] or "solid" for _, _, attributes in edges)
    assert styles == ["dashed", "dotted", *["solid"] * 6]


def test_labels_of_edges() -> None:
    tape = Tape()
    x = first = tape.input()
    for _ in range(3):
        x = tape.op("matmul", x, first, at="loop")
    tape.output(x)
    edges = Parsed(draw(tape.trace(), return_graph=True, vis_mode="rolled")).edges
    labels = {
        name: [attributes[name] for _, _, attributes in edges if attributes[name]]
        for name in ("headlabel", "taillabel", "label")
    }
    assert labels["headlabel"] == ["In 1"]
    assert labels["taillabel"] == ["Out 3"]
    assert sorted(labels["label"]) == [
        "&nbsp;arg 0", "&nbsp;arg 0<BR/>&nbsp;In 2-3 / Out 1-2", "&nbsp;arg 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("direction", "rankdir"), [("bottomup", "BT"), ("topdown", "TB"), ("leftright", "LR")])
def test_direction(direction: Any, rankdir: str) -> None:
    assert Parsed(draw(small_model(), return_graph=True, direction=direction)).attributes["rankdir"] == rankdir


@pytest.mark.parametrize("theme", THEMES)
def test_every_theme_draws(theme: str) -> None:
    drawing = draw(small_model(), return_graph=True, theme=theme, legend=True)
    assert THEMES[theme].fills["input"] in drawing.dot
    assert "truth value asked by the model's code" in texts(drawing.svg)


def test_siblings_dpi_and_font_size() -> None:
    graph = Parsed(draw(small_model(), return_graph=True, dpi=300, font_size=14)).attributes
    assert (graph["ordering"], graph["dpi"], graph["fontsize"]) == ("out", "300", "14")
    assert not Parsed(draw(small_model(), return_graph=True, order_siblings=False)).attributes["ordering"]


# -- functions and attributes of the user ------------------------------------------------------------------------------


def test_node_spec_fn_changes_the_look_of_nodes() -> None:
    seen: list[str] = []

    def spec(record: Any, spec: NodeSpec) -> NodeSpec | None:
        seen.append(record.layer_label)
        if record.type != "relu":
            return None
        spec.fill, spec.lines, spec.shape = "pink", ["mine & <yours>"], "diamond"
        spec.attributes = {"URL": 'https://example.org/?a="b"&c'}
        return spec

    drawing = draw(small_model(), return_graph=True, node_spec_fn=spec)
    (relu,) = [node for node in Parsed(drawing).nodes.values() if node["shape"] == "diamond"]
    assert relu["fillcolor"] == "pink"
    assert seen == ["input_1", "relu_1_1", "tanh_1_2", "zeros_1_3", "sub_1_4", "output_1"]
    assert "mine & <yours>" in texts(drawing.svg)
    assert draw(small_model(), return_graph=True, vis_mode="rolled", node_spec_fn=spec).scene.is_rolled


def test_collapsed_node_spec_fn_gets_the_module() -> None:
    def spec(module: Any, spec: NodeSpec) -> NodeSpec:
        spec.title = f"{module.address} has {module.num_layers}"
        return spec

    assert "<B>box has 2</B>" in draw(small_model(), return_graph=True, depth=1, collapsed_node_spec_fn=spec).dot


def test_a_spec_function_that_returns_something_else() -> None:
    with pytest.raises(DrawError, match="NodeSpec or None; for input_1 it was 'red'"):
        draw(small_model(), return_graph=True, node_spec_fn=lambda record, spec: "red")  # type: ignore[arg-type,return-value]


def test_overrides() -> None:
    drawing = draw(
        small_model(),
        return_graph=True,
        vis_graph_overrides={"ranksep": 0.1, "rankdir": "LR"},
        vis_edge_overrides={"color": lambda edge: None if edge.from_input else "blue", "penwidth": 2},
        vis_module_overrides={"bgcolor": lambda module: "#EEEEEE" if module.address == "box" else None},
    )
    graph = Parsed(drawing)
    assert (graph.attributes["ranksep"], graph.attributes["rankdir"]) == ("0.1", "LR")
    assert [attributes["color"] for _, _, attributes in graph.edges].count("blue") == 1
    assert {attributes["penwidth"] for _, _, attributes in graph.edges} == {"2"}
    assert graph.boxes[0][1]["bgcolor"] == "#EEEEEE"


def test_an_override_that_is_no_attribute() -> None:
    with pytest.raises(DrawError, match="vis_edge_overrides maps names"):
        draw(small_model(), return_graph=True, vis_edge_overrides={'x="]; evil': 1})


# -- hostile text ------------------------------------------------------------------------------------------------------

HOSTILE = {
    "script": "</script><script>alert(1)</script>",
    "image": '<img src=x onerror="alert(1)">',
    "bold": "<b>not bold</b>",
    "quotes": "a\"b'c`d",
    "backslash": "back\\slash \\N \\G \\l trailing\\",
    "entity": "&lt;&amp;&#60;&nbsp;",
    "brackets": "<>]}; a -> b; {",
    "label end": '>, URL="javascript:alert(1)", x=<',
    "charset": 'charset="utf-7"',
    "newlines": "one\ntwo\r\nthree",
    "controls": "\x00\x07\x1b[31m\x7f\x85",
    "bidirectional": "abc\u202egnp.exe\u2066\u200f",
    "lines": "a\u2028b\u2029c",
    "surrogate": "\ud800 and \udfff",
    "no character": "\ufffe\uffff",
    "cdata": "]]>",
    "comment": "-->  // # /* ",
    "huge": "x" * 1_000_000,
    "huge entities": "<&" * 500_000,
}


def hostile_model(text: str) -> Trace:
    """A trace whose every name is the text."""
    tape = Tape(text)
    x = tape.input(text)
    with tape.module(text) as outer:
        weight = tape.param(f"{text}.{text}", (3, 3))
        y = tape.op("linear", x, weight)
        outer.outs = tape.op("f", x, y, keywords={text: x})
    tape.output(outer.outs)
    for info in tape.program.modules:
        info.cls = text
    for scope in tape.program.scopes:
        scope.cls = text
    for number, row in enumerate(tape.program.rows):
        tape.program.rows[number] = row._replace(func=Func(None, text, text))
    tape.program.settings[0] = {"input": row.args[0], "weight": row.args[0], text: text}
    tape.program.outputs[0] = tape.program.outputs[0]._replace(path=text)
    tape.program.facts["error"] = text
    return tape.trace()


@pytest.mark.parametrize("depth", [None, 1])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_shown_as_text_and_nothing_else(name: str, depth: int | None) -> None:
    text = HOSTILE[name]
    drawing = draw(hostile_model(text), return_graph=True, depth=depth, legend=True)
    assert len(drawing.dot) < 20_000
    graph = Parsed(drawing)
    assert set(graph.nodes) == {*drawing.scene.nodes, "legend"}, "nothing was added to the graph"
    assert not any(attributes["URL"] for attributes in graph.nodes.values())
    root = ElementTree.fromstring(drawing.svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "g", "title", "polygon", "polyline", "ellipse", "path", "text", "a", "defs", "linearGradient", "stop",
    }  # fmt: skip
    attributes = {attribute for element in root.iter() for attribute in element.attrib}
    assert not {a for a in attributes if a.startswith("on") or a.endswith("href")}
    shown = set(texts(drawing.svg))
    assert visible(text).strip() in shown, "the name of the model"
    assert visible(f"@{text}").strip() in shown, "the address of the module"
    assert depth == 1 or visible(text, 40).strip() in shown, "the name of the argument"
    assert all(len(line) <= 2 * MAX_LENGTH for line in shown)


def test_hostile_tooltips() -> None:
    for text in HOSTILE.values():
        value = quoted_text(text)
        assert value[0] == value[-1] == '"'
        graph = pygraphviz.AGraph(string=f"digraph {{ n [tooltip={value}, label=x] }}")
        svg = graph.draw(format="svg", prog="dot").decode()
        (link,) = ElementTree.fromstring(svg).iter(f"{SVG}a")
        lines = [visible(line, 1000) for line in text.split("\n")]
        assert link.get("{http://www.w3.org/1999/xlink}title", "").split() == " ".join(lines).split()


def test_quoted_values_come_back_as_they_went_in() -> None:
    for value in ('a"b', "\\", 'x\\"', "a -> b", ""):
        graph = pygraphviz.AGraph(string=f"digraph {{ n [comment={quoted(value)}] }}")
        assert graph.get_node("n").attr["comment"].replace("\\\\", "\\") == value


@pytest.mark.parametrize("limit", [1, 2, 5, 120])
def test_visible_text_is_bounded(limit: int) -> None:
    for text in HOSTILE.values():
        assert len(visible(text, limit)) <= limit
        assert visible(visible(text, limit), limit) == visible(text, limit)


# -- what it may import and cost ---------------------------------------------------------------------------------------


def test_drawing_imports_neither_files_nor_a_framework_nor_graphviz() -> None:
    code = """
    import sys
    import torchlens_core.draw
    unwanted = ("torchlens_core.file", "torch.", "pygraphviz", "graphviz")
    loaded = {name for name in sys.modules if name.startswith(unwanted)}
    assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_three_thousand_ops_collapsed_by_module_cost_little() -> None:
    tape = Tape()
    x = tape.input()
    for number in range(150):
        with tape.module(f"blocks.{number}") as block:
            for step in range(5):
                with tape.module(f"blocks.{number}.part{step}") as part:
                    for _ in range(4):
                        x = tape.op("tanh", x)
                    part.outs = x
            block.outs = x
    tape.output(x)
    trace = tape.trace()
    start = time.process_time()
    drawing = draw(trace, return_graph=True, depth=1)
    assert drawing.dot
    assert time.process_time() - start < 1, "CPU seconds, from the trace to DOT text"
    assert len(drawing.scene.nodes) == 152
