"""What the edges of pictures say of programs made by hand, and how they run through what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.pictures import (
    edge,
    node,
    outline,
    pairs,
    scene_of,
    titles,
)
from torchlens_core.control_flow.conditionals import Conditional, ControlFlow
from torchlens_core.errors import DrawError
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape

# -- edges -------------------------------------------------------------------------------------------------------------


def test_the_same_array_twice_is_two_edges() -> None:
    tape = Tape()
    x = tape.input()
    tape.output(tape.op("mul", x, x))
    for rolled in (False, True):
        assert pairs(scene_of(tape, is_rolled=rolled))[:2] == [("input_1", "mul_1_1")] * 2


def test_arguments_are_named_where_there_are_several() -> None:
    tape = Tape()
    x, y = tape.input("x"), tape.input("y")
    product = tape.op("matmul", x, y)
    total = tape.op("add", product, y)
    joined = tape.op("stack", [total, y])
    masked = tape.op("where", joined, keywords={"input": x})
    tape.output(tape.op("relu", masked))
    scene = scene_of(tape)
    named = {ends: e.argument for e, ends in zip(scene.edges, pairs(scene), strict=True)}
    assert named["input_1", "matmul_1_1"] == "arg 0"
    assert named["input_2", "matmul_1_1"] == "arg 1"
    assert named["matmul_1_1", "add_1_2"] == "", "add is commutative"
    assert (named["add_1_2", "stack_1_3"], named["input_2", "stack_1_3"]) == ("arg 0[0]", "arg 0[1]")
    assert named["input_1", "where_1_4"] == "input"
    assert named["where_1_4", "relu_1_5"] == "", "one argument needs no name"


def test_settings_of_the_trace_name_the_arguments() -> None:
    tape = Tape()
    q, k = tape.input("q"), tape.input("k")
    row = len(tape.program.rows)
    tape.output(tape.op("attention", q, k))
    hole = tape.program.rows[row].args[0]
    tape.program.settings[row] = {"query": hole, "key": hole, "is_causal": True}
    scene = scene_of(tape)
    assert [e.argument for e in scene.edges] == ["query", "key", ""]
    assert "is_causal=True" in node(scene, "attention_1_1").lines


def test_what_no_input_leads_to_is_told_apart() -> None:
    tape = Tape()
    x = tape.input()
    tape.output(tape.op("add", x, tape.op("tanh", tape.op("zeros"))))
    scene = scene_of(tape)
    assert [n.title for n in scene.nodes.values() if not n.from_input] == ["zeros_1_1", "tanh_1_2"]
    assert [pairs(scene)[i] for i, e in enumerate(scene.edges) if not e.from_input] == [
        ("zeros_1_1", "tanh_1_2"),
        ("tanh_1_2", "add_1_3"),
    ]


def test_write_edges() -> None:
    tape = Tape()
    x = tape.input()
    base = tape.op("mul", x)
    row = len(tape.program.rows)
    tape.op("add_", tape.op("getitem", base), writes=None)
    tape.output(tape.op("sum", base, after={0: row + 1}))
    scene = scene_of(tape)
    assert [e.is_write for e in scene.edges if scene.nodes[e.head].title == "sum_1_4"] == [False, True]
    assert edge(scene, "add_1_3", "sum_1_4").is_write


# -- what is left out --------------------------------------------------------------------------------------------------


def test_skip_fn_joins_parents_to_children() -> None:
    tape = Tape()
    x = tape.input()
    y = tape.op("tanh", tape.op("dropout", tape.op("dropout", x)))
    tape.output(tape.op("dropout", y))
    scene = scene_of(tape, skip=lambda layer: layer.type == "dropout")
    assert pairs(scene) == [("input_1", "tanh_1_3"), ("tanh_1_3", "output_1")]


def test_a_long_chain_of_skipped_layers() -> None:
    tape = Tape()
    x = tape.input()
    for _ in range(5000):
        x = tape.op("identity", x)
    tape.output(x)
    assert pairs(scene_of(tape, skip=lambda layer: layer.type == "identity")) == [("input_1", "output_1")]


def test_orphans_are_shown_when_asked_for() -> None:
    tape = Tape()
    tape.op("tanh", tape.op("zeros"))
    tape.output(tape.op("relu", tape.input()))
    assert titles(scene_of(tape)) == ["input_1", "relu_1_3", "output_1"]
    assert "tanh_1_2" in titles(scene_of(tape, orphans=True))


def buffer_model() -> Tape:
    """A buffer that is read, one that is written, and a counter that nothing else touches."""
    tape = Tape()
    x = tape.input()
    mean, count, scale = tape.buffer("bn.mean"), tape.buffer("bn.count", ()), tape.buffer("bn.scale")
    with tape.module("bn") as bn:
        tape.assign(count, tape.op("add", count, shape=()))
        new_mean = tape.assign(mean, tape.op("lerp", mean, x))
        bn.outs = y = tape.op("sub", x, new_mean, scale)
    tape.output(y)
    return tape


def test_meaningful_buffers_are_those_that_the_run_wrote() -> None:
    scene = scene_of(buffer_model())
    assert sorted(n.lines[-1] for n in scene.nodes.values() if n.kind == "buffer") == [
        "@bn.count",
        "@bn.count, version 2",
        "@bn.mean",
        "@bn.mean, version 2",
    ]
    assert node(scene, "sub_1_3").hidden_buffers == ["bn.scale"]
    assert outline(scene)[-1][0] == "@bn", "a buffer stands in the box of who uses it"
    assert len(outline(scene)[-1]) == 8


def test_all_buffers() -> None:
    scene = scene_of(buffer_model(), buffers="always")
    assert sum(n.kind == "buffer" for n in scene.nodes.values()) == 5
    assert node(scene, "sub_1_3").hidden_buffers == []


def test_hidden_buffers_pass_the_flow_on() -> None:
    scene = scene_of(buffer_model(), buffers="never")
    assert titles(scene) == ["input_1", "lerp_1_2", "sub_1_3", "output_1"], "the counter serves buffers alone"
    assert ("lerp_1_2", "sub_1_3") in pairs(scene), "through the new value of bn.mean"
    assert node(scene, "sub_1_3").hidden_buffers == ["bn.mean", "bn.scale"]
    assert node(scene, "lerp_1_2").hidden_buffers == ["bn.mean"]


def test_nothing_to_draw() -> None:
    with pytest.raises(DrawError, match="nothing to draw"):
        scene_of(Tape())


# -- conditionals ------------------------------------------------------------------------------------------------------


def _conditional(kind: str) -> Conditional:
    return Conditional(0, kind, "m.py", "f", None, None, None, {}, {}, None, None, ())  # type: ignore[arg-type]


def branching_model(kind: str, arms: dict[Any, Any]) -> Trace:
    """input -> add -> (sum -> gt), relu: Ops 0 to 4."""
    tape = Tape()
    x = tape.op("add", tape.input())
    predicate = tape.op("gt", tape.op("sum", x, shape=()), shape=())
    tape.read(predicate, value=False)
    tape.output(tape.op("relu", x))
    return tape.trace(control_flow=ControlFlow((_conditional(kind),), {}, {(1, 2): (0,)}, arms))


@pytest.mark.parametrize(
    ("kind", "arm", "question", "answer"),
    [
        ("if_chain", "then", "IF", "THEN"),
        ("if_chain", "elif_2", "IF", "ELIF 2"),
        ("ifexp", "else", "IF", "ELSE"),
        ("while", "body", "WHILE", "BODY"),
        ("assert", "then", "ASSERT", "THEN"),
    ],
)
def test_marks_of_conditionals(kind: str, arm: str, question: str, answer: str) -> None:
    scene = scene_of(branching_model(kind, {(0, arm): ((1, 4),)}))
    assert edge(scene, "add_1_1", "sum_1_2").mark == question
    assert edge(scene, "add_1_1", "relu_1_4").mark == answer
    assert edge(scene, "sum_1_2", "gt_1_3").mark == ""


def test_a_predicate_says_what_it_was() -> None:
    scene = scene_of(branching_model("if_chain", {}))
    assert node(scene, "gt_1_3").truth == "FALSE"
    assert node(scene, "sum_1_2").truth == ""


def test_truth_of_several_passes() -> None:
    tape = Tape()
    x = tape.input()
    for value in (True, True, False):
        tape.read(tape.op("gt", x, at="test", shape=()), value=value)
        x = tape.op("mul", x, at="body")
    tape.output(x)
    scene = scene_of(tape.trace(control_flow=ControlFlow()), is_rolled=True)
    assert node(scene, "gt_1_1 (x3)").truth == "TRUE (x2), FALSE"


def test_an_edge_that_stands_for_several_shows_only_what_all_of_them_are() -> None:
    tape = Tape()
    x = tape.input()
    with tape.module("arm") as arm:
        first, second = tape.op("relu", x), tape.op("tanh", x)
        arm.outs = tape.op("matmul", first, second)
    tape.output(arm.outs)
    entries = {(0, "then"): ((0, 1), (0, 2))}
    both = tape.trace(control_flow=ControlFlow((_conditional("if_chain"),), {}, {}, entries))
    tape.read(first)
    assert edge(scene_of(both, depth=1), "input_1", "@arm").mark == "THEN"
    one = tape.trace(control_flow=ControlFlow((_conditional("if_chain"),), {}, {}, {(0, "then"): ((0, 1),)}))
    assert edge(scene_of(one, depth=1), "input_1", "@arm").mark == ""
    assert edge(scene_of(one), "input_1", "relu_1_1").mark == "THEN"
