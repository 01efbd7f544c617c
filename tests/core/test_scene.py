"""What pictures show of programs made by hand: nodes and groups, collapsed, rolled, and of one module."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.pictures import (
    edge,
    linear,
    node,
    outline,
    pairs,
    scene_of,
    titles,
)
from torchlens_core.draw.edges import ranges
from torchlens_core.draw.node_text import LINE_LENGTH, MAX_LINES, wrapped
from torchlens_core.errors import DrawError, LabelError
from torchlens_core.program import ModuleInfo
from torchlens_core.testing.tape import Tape


def block_model() -> Tape:
    """input -> stem -> blocks.0 (norm, mlp.fc, mlp.act; residual add) -> output"""
    tape = Tape("Net")
    x = linear(tape, "stem", tape.input("x", (2, 4)))
    with tape.module("blocks.0") as block:
        y = linear(tape, "blocks.0.norm", x)
        with tape.module("blocks.0.mlp") as mlp:
            y = linear(tape, "blocks.0.mlp.fc", y)
            with tape.module("blocks.0.mlp.act") as act:
                act.outs = y = tape.op("relu", y, shape=(2, 4))
            mlp.outs = y
        block.outs = y = tape.op("add", x, y, shape=(2, 4))
    tape.output(y)
    return tape


# -- nodes, groups and captions ----------------------------------------------------------------------------------------


def test_unrolled_scene_has_one_node_an_op_and_one_group_a_module() -> None:
    scene = scene_of(block_model())
    assert outline(scene) == [
        "input_1",
        "linear_1_1",
        "output_1",
        ["@blocks.0", "linear_2_2", "add_1_5", ["@blocks.0.mlp", "linear_3_3", "relu_1_4"]],
    ]
    assert pairs(scene) == [
        ("input_1", "linear_1_1"),
        ("linear_1_1", "linear_2_2"),
        ("linear_2_2", "linear_3_3"),
        ("linear_3_3", "relu_1_4"),
        ("linear_1_1", "add_1_5"),
        ("relu_1_4", "add_1_5"),
        ("add_1_5", "output_1"),
    ]
    assert [(group.level, group.cls) for group in scene.root.groups_within()] == [(0, "Module"), (1, "Module")]
    assert scene.caption == ["Net", "7 tensors total (224 B)", "60 params (all trainable, 240 B)"]
    assert not scene.is_rolled


def test_lines_of_nodes() -> None:
    scene = scene_of(block_model())
    assert node(scene, "input_1").lines == ["(2, 4), 32 B", "@input.x"]
    assert node(scene, "linear_1_1").lines == [
        "(2, 4), 32 B",
        "in_features=4, out_features=4",
        "params: weight (4, 4) · bias (4,)",
        "@stem",
    ]
    assert node(scene, "output_1").lines == ["(2, 4), 32 B"]
    assert node(scene, "add_1_5").lines == ["(2, 4), 32 B"]


def test_the_op_of_a_module_of_one_op_stands_for_it() -> None:
    scene = scene_of(block_model())
    assert node(scene, "relu_1_4").is_module_output
    assert node(scene, "relu_1_4").lines[-1] == "@blocks.0.mlp.act"
    assert not node(scene, "add_1_5").is_module_output
    assert node(scene, "linear_1_1").params == "trainable"
    assert node(scene, "relu_1_4").params == "none"


def test_frozen_parameters() -> None:
    tape = block_model()
    for source in tape.program.sources:
        source.trainable = source.kind == "param" and source.address not in (
            "stem.weight",
            "stem.bias",
            "blocks.0.norm.bias",
        )
    scene = scene_of(tape)
    assert node(scene, "linear_1_1").params == "frozen"
    assert "params: [weight (4, 4)] · [bias (4,)]" in node(scene, "linear_1_1").lines
    assert node(scene, "linear_2_2").params == "mixed"
    assert "params: weight (4, 4) · [bias (4,)]" in node(scene, "linear_2_2").lines
    assert scene.caption[-1] == "60 params (36 trainable, 240 B)"
    assert node(scene_of(tape, depth=1), "@blocks.0").params == "mixed"


def test_several_inputs_and_outputs_by_name() -> None:
    tape = Tape()
    x, y = tape.input("x"), tape.input("mask")
    tape.output(tape.op("relu", x), tape.op("tanh", y))
    scene = scene_of(tape)
    assert [n.lines[-1] for n in scene.nodes.values() if n.kind == "input"] == ["@input.x", "@input.mask"]
    assert [n.lines[-1] for n in scene.nodes.values() if n.kind == "output"] == ["@output.0", "@output.1"]


def test_outputs_of_one_call_say_which_they_are() -> None:
    tape = Tape()
    first, second = tape.ops("split", tape.input(), outs=2)
    tape.output(tape.op("add", first, second))
    scene = scene_of(tape)
    assert [n.lines[-1] for n in scene.nodes.values() if n.title.startswith("split")] == ["output: 0", "output: 1"]


def test_scalars_and_passes_of_different_shapes() -> None:
    tape = Tape()
    x = tape.input("x", ())
    for size in (1, 2, 3):
        x = tape.op("cat", x, at="loop", shape=(size,))
    tape.output(x)
    scene = scene_of(tape, is_rolled=True)
    assert node(scene, "input_1").lines[0] == "scalar, 4 B"
    assert node(scene, "cat_1_1 (x3)").lines[0] == "(1,), 4 B … (3,), 12 B"


def test_long_lists_are_wrapped_and_bounded() -> None:
    lines = wrapped([f"setting_{n}={n}" for n in range(100)])
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith("…")
    assert all(len(line) <= LINE_LENGTH + 3 for line in lines)
    assert wrapped(["a=1", "b=2"]) == ["a=1, b=2"]


# -- collapsing --------------------------------------------------------------------------------------------------------


def test_depth_collapses_modules_at_that_level() -> None:
    scene = scene_of(block_model(), depth=1)
    assert titles(scene) == ["input_1", "linear_1_1", "@blocks.0", "output_1"]
    assert pairs(scene) == [("input_1", "linear_1_1"), ("linear_1_1", "@blocks.0"), ("@blocks.0", "output_1")]
    box = node(scene, "@blocks.0")
    assert (box.kind, box.address, box.params) == ("module", "blocks.0", "trainable")
    assert box.lines == ["Module", "(2, 4), 32 B", "4 layers total", "40 params (all trainable, 160 B)"]
    assert not scene.root.groups


def test_a_deeper_limit_opens_the_outer_modules() -> None:
    scene = scene_of(block_model(), depth=2)
    assert outline(scene)[-1] == ["@blocks.0", "linear_2_2", "@blocks.0.mlp", "add_1_5"]
    assert outline(scene_of(block_model(), depth=3)) == outline(scene_of(block_model()))


def test_a_module_of_one_op_is_not_collapsed_at_the_limit() -> None:
    scene = scene_of(block_model(), depth=1)
    assert node(scene, "linear_1_1").kind == "op"


def test_collapse_fn_collapses_at_any_level_and_even_one_op() -> None:
    asked: list[str] = []

    def collapse(module: Any) -> bool:
        asked.append(module.address)
        return module.address in ("blocks.0.mlp", "stem")

    scene = scene_of(block_model(), collapse=collapse)
    assert outline(scene) == ["input_1", "@stem", "output_1", ["@blocks.0", "linear_2_2", "@blocks.0.mlp", "add_1_5"]]
    assert sorted(asked) == sorted(set(asked)), "asked once for each module"


def test_two_ops_of_a_collapsed_module_share_one_edge() -> None:
    tape = Tape()
    x = tape.input()
    with tape.module("attn") as attn:
        q, k = tape.op("linear", x), tape.op("tanh", x)
        attn.outs = tape.op("matmul", q, k)
    tape.output(attn.outs)
    assert pairs(scene_of(tape, depth=1)) == [("input_1", "@attn"), ("@attn", "output_1")]


# -- rolled ------------------------------------------------------------------------------------------------------------


def loop_model(passes: int = 4, *, in_module: bool = False) -> Tape:
    """x = fc(x); x = x + 1; x = x * 2, in a loop"""
    tape = Tape("SimpleRecurrent")
    x = tape.input("x", (2, 4))
    for _ in range(passes):
        if in_module:
            with tape.module("cell", at="loop") as cell:
                x = linear(tape, "cell.fc", x)
                cell.outs = x = tape.op("tanh", x, at="tanh", shape=(2, 4))
        else:
            x = linear(tape, "fc", x)
            x = tape.op("add", x, at="add", shape=(2, 4))
            x = tape.op("mul", x, at="mul", shape=(2, 4))
    tape.output(x)
    return tape


def test_rolled_scene_has_one_node_a_layer_and_passes_on_the_edges_that_differ() -> None:
    scene = scene_of(loop_model(), is_rolled=True)
    assert titles(scene) == ["input_1", "linear_1_1 (x4)", "add_1_2 (x4)", "mul_1_3 (x4)", "output_1"]
    assert node(scene, "linear_1_1 (x4)").lines[-1] == "@fc (x4)"
    assert len(scene.edges) == 5
    assert [(e.head_passes, e.tail_passes) for e in scene.edges] == [
        ("1", ""),  # input -> linear
        ("", ""),  # linear -> add
        ("", ""),  # add -> mul
        ("2-4", "1-3"),  # mul -> linear, of the pass before
        ("", "4"),  # mul -> output
    ]
    assert edge(scene, "mul_1_3 (x4)", "linear_1_1 (x4)").head_passes == "2-4"


def test_unrolled_loop_names_passes_and_calls() -> None:
    scene = scene_of(loop_model(2))
    assert titles(scene) == [
        "input_1", "linear_1_1:1", "add_1_2:1", "mul_1_3:1", "linear_1_1:2", "add_1_2:2", "mul_1_3:2", "output_1",
    ]  # fmt: skip
    assert node(scene, "linear_1_1:2").lines[-1] == "@fc:2"
    assert all(not edge.head_passes and not edge.tail_passes for edge in scene.edges)


def test_groups_of_a_loop() -> None:
    assert [g.title for g in scene_of(loop_model(3, in_module=True)).root.groups] == ["@cell:1", "@cell:2", "@cell:3"]
    assert [g.title for g in scene_of(loop_model(3, in_module=True), is_rolled=True).root.groups] == ["@cell (x3)"]


def test_a_rolled_collapsed_module_keeps_the_edge_to_itself() -> None:
    scene = scene_of(loop_model(4, in_module=True), is_rolled=True, depth=1)
    assert titles(scene) == ["input_1", "@cell (x4)", "output_1"]
    back = edge(scene, "@cell (x4)", "@cell (x4)")
    assert (back.head_passes, back.tail_passes) == ("2-4", "1-3")
    assert edge(scene, "input_1", "@cell (x4)").head_passes == "1"
    assert edge(scene, "@cell (x4)", "output_1").tail_passes == "4"
    assert node(scene, "@cell (x4)").lines[2] == "2 layers total"


def test_collapsed_calls_of_a_module_are_nodes_of_their_own_when_unrolled() -> None:
    scene = scene_of(loop_model(3, in_module=True), depth=1)
    assert titles(scene) == ["input_1", "@cell:1", "@cell:2", "@cell:3", "output_1"]


def test_a_layer_with_passes_in_two_modules_stands_in_the_first() -> None:
    tape = Tape()
    x = tape.input("x", (2, 4))
    for outer in ("encoder", "decoder"):
        with tape.module(outer):
            x = linear(tape, "encoder.shared", x)
            x = tape.op("tanh", x) if outer == "encoder" else x
    tape.output(x)
    scene = scene_of(tape, is_rolled=True)
    assert outline(scene) == ["input_1", "output_1", ["@encoder", "linear_1_1 (x2)", "tanh_1_2"]], "no empty box"


def test_a_module_used_at_two_places_says_which_call() -> None:
    tape = Tape()
    x = tape.input()
    for place in ("first", "second"):
        with tape.module("relu", at=place) as relu:
            relu.outs = x = tape.op("relu", x, at=place)
        x = tape.op("tanh", x)
    tape.output(x)
    scene = scene_of(tape, is_rolled=True)
    assert [n.lines[-1] for n in scene.nodes.values() if n.title.startswith("relu")] == ["@relu:1", "@relu:2"]


@pytest.mark.parametrize(
    ("numbers", "text"), [({1}, "1"), ({2, 3, 4}, "2-4"), ({1, 3, 4, 8}, "1, 3-4, 8"), (set(), "")]
)
def test_ranges(numbers: set[int], text: str) -> None:
    assert ranges(numbers) == text


# -- one module alone --------------------------------------------------------------------------------------------------


def test_focus_on_a_module_shows_where_arrays_come_from_and_what_goes_out() -> None:
    scene = scene_of(block_model(), module="blocks.0")
    assert outline(scene) == [
        "linear_2_2", "add_1_5", "linear_1_1", "output", ["@blocks.0.mlp", "linear_3_3", "relu_1_4"],
    ]  # fmt: skip
    assert [n.title for n in scene.nodes.values() if n.kind == "input"] == ["linear_1_1"]
    assert node(scene, "output").kind == "output"
    assert ("linear_1_1", "linear_2_2") in pairs(scene)
    assert ("add_1_5", "output") in pairs(scene)
    assert scene.caption == ["Net: blocks.0 (0)", "4 tensors total (128 B)", "40 params (all trainable, 160 B)"]
    assert "@blocks.0.mlp" in titles(scene_of(block_model(), module="blocks.0", depth=1))


def test_focus_on_a_module_called_several_times() -> None:
    unrolled = scene_of(loop_model(3, in_module=True), module="cell")
    assert [g.title for g in unrolled.root.groups] == ["@cell:1", "@cell:2", "@cell:3"]
    assert titles(unrolled)[-2:] == ["input_1", "output"]
    assert ("tanh_1_2:1", "linear_1_1:2") in pairs(unrolled)
    rolled = scene_of(loop_model(3, in_module=True), module="cell", is_rolled=True)
    assert not rolled.root.groups
    assert edge(rolled, "linear_1_1 (x3)", "tanh_1_2 (x3)").head_passes == ""
    assert edge(rolled, "tanh_1_2 (x3)", "linear_1_1 (x3)").head_passes == "2-3"


def test_focus_on_the_model_is_the_whole_picture() -> None:
    assert outline(scene_of(block_model(), module="self")) == outline(scene_of(block_model()))


def test_focus_on_what_is_not_there() -> None:
    with pytest.raises(LabelError, match=r"Did you mean 'blocks\.0'"):
        scene_of(block_model(), module="blocks.00")
    tape = block_model()
    tape.program.modules.append(ModuleInfo("spare", "Linear"))
    with pytest.raises(DrawError, match=r"'spare'.*was not called"):
        scene_of(tape, module="spare")


# -- runs that ended early ---------------------------------------------------------------------------------------------


def test_a_halted_trace_shows_everything_and_says_where_it_stopped() -> None:
    tape = Tape()
    x = tape.op("relu", tape.input())
    tape.op("zeros")
    tape.program.facts["halted"] = x
    scene = scene_of(tape)
    assert titles(scene) == ["input_1", "relu_1_1", "zeros_1_2"]
    assert scene.caption[-1] == "halted at relu_1_1"


def test_a_partial_trace_says_why_it_ended() -> None:
    tape = Tape()
    tape.op("relu", tape.input())
    tape.program.facts["error"] = "ValueError: no\u202e\nluck"
    assert scene_of(tape).caption[-1] == r"ended by ValueError: no\u202e\nluck"
