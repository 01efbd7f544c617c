"""Labels: ``{type}_{k}_{N}:{pass}``, and everything that names an Op."""

from __future__ import annotations

from typing import Any

import pytest

from torchlens_core.selectors import LABEL_PATTERN
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array, add_, concat, relu, split
from torchlens_core.testing.toy_layers import Linear
from torchlens_core.tracing import trace


def test_k_counts_layers_of_a_type_and_n_layers_of_all_types(tape: Tape) -> None:
    x = tape.input()
    x = tape.op("relu", x)
    x = tape.op("conv2d", x)
    x = tape.op("relu", x)
    tape.output(x)
    assert [op.label for op in tape.trace()] == ["input_1:1", "relu_1_1:1", "conv2d_1_2:1", "relu_2_3:1", "output_1:1"]


def test_repeated_layers_are_numbered_by_their_first_pass(tape: Tape) -> None:
    x = tape.input()
    for _ in range(2):
        x = tape.op("relu", x, at="relu in the loop")
        x = tape.op("neg", x, at="neg in the loop")
    tape.output(tape.op("relu", x))
    found = [op.label for op in tape.trace().compute_ops]
    assert found == ["relu_1_1:1", "neg_1_2:1", "relu_1_1:2", "neg_1_2:2", "relu_2_3:1"]


def test_inputs_outputs_and_buffers_have_no_total_number(tape: Tape) -> None:
    x, y, mean = tape.input("x"), tape.input("y"), tape.buffer("bn.mean")
    tape.output(tape.op("sub", x, mean), tape.op("neg", y))
    trace = tape.trace(keep_orphans=True)
    graph = trace.graph
    names = [trace.labels.op(node) for node in range(len(graph))]
    assert names == ["input_1:1", "input_2:1", "buffer_1:1", "sub_1_1:1", "neg_1_2:1", "output_1:1", "output_2:1"]


def test_the_parts_of_a_label(tape: Tape) -> None:
    x = tape.input()
    for _ in range(2):
        x = tape.op("relu", x, at="loop")
    tape.output(x)
    op = tape.trace()["relu_1_1:2"]
    assert (op.label, op.label_short) == ("relu_1_1:2", "relu_1:2")
    assert (op.layer_label, op.layer_label_short) == ("relu_1_1", "relu_1")
    assert (op.type, op.type_index, op.pass_index, op.num_passes) == ("relu", 1, 2, 2)


def test_step_index_counts_repeats_and_no_inputs(tape: Tape) -> None:
    x = tape.input()
    for _ in range(3):
        x = tape.op("relu", x, at="loop")
    tape.output(x)
    trace = tape.trace()
    assert [op.step_index for op in trace] == [None, 1, 2, 3, None]
    assert [op.ordinal_index for op in trace] == [0, 1, 2, 3, 4]


def test_a_neighbour_is_named_with_its_pass_only_where_it_has_several(tape: Tape) -> None:
    x = tape.op("neg", tape.input())
    for _ in range(2):
        x = tape.op("relu", x, at="loop")
    tape.output(x)
    trace = tape.trace()
    assert trace["relu_1:1"].parents == ["neg_1_1"]
    assert trace["relu_1:2"].parents == ["relu_1_2:1"]


def test_each_output_of_a_call_is_a_layer_of_its_own(tape: Tape) -> None:
    x = tape.input()
    for _ in range(2):
        x, other = tape.ops("split", x, outs=2, at="loop")
    tape.output(tape.op("add", x, other))
    found = [op.label for op in tape.trace().compute_ops]
    assert found == ["split_1_1:1", "split_2_2:1", "split_1_1:2", "split_2_2:2", "add_1_3:1"]


@pytest.mark.parametrize(
    ("model", "type", "func_name"),
    [
        (lambda x: x[0], "getitem", "__getitem__"),
        (lambda x: add_(x, 1.0), "add", "add_"),
        (lambda x: concat([x, x]), "cat", "concat"),
        (lambda x: x / 2, "div", "div"),
    ],
)
def test_the_type_is_the_common_word_and_func_name_the_frameworks(
    model: Any, type: str, func_name: str, x: Array
) -> None:
    op = trace(model, x).compute_ops[-1]
    assert (op.type, op.func_name, op.layer_label_short) == (type, func_name, f"{type}_1")


def test_a_reflected_operator_is_the_operation_with_its_operands_in_their_places(x: Array) -> None:
    op = trace(lambda x: 3.0 - x, x)["sub_1"]
    assert (op.type, op.args[0]) == ("sub", 3.0)
    assert op.parent_arg_positions["args"] == {1: "input_1"}


def test_labels_do_not_depend_on_dead_ends_that_follow(x: Array) -> None:
    fc = Linear(4, 4)

    def model(x: Array, dead: bool) -> Any:
        y = relu(fc(x))
        if dead:
            split(fc(y) * 2, 2)
        return y

    plain, longer = trace(model, [x, False]), trace(model, [x, True])
    assert [op.label for op in plain.compute_ops] == [op.label for op in longer.compute_ops][:2]


@pytest.mark.parametrize("label", ["relu_1", "relu_1_2", "relu_1_2:3", "conv2d_12:1", "maxpool2d_1_2"])
def test_label_pattern_takes_labels_apart(label: str) -> None:
    match = LABEL_PATTERN.match(label)
    assert match is not None
    rebuilt = f"{match['type']}_{match['k']}"
    rebuilt += f"_{match['total']}" if match["total"] else ""
    rebuilt += f":{match['pass']}" if match["pass"] else ""
    assert rebuilt == label


@pytest.mark.parametrize("text", ["relu", "relu_", "relu_1_2_3", "relu_x", "features.0", "relu_1:", ""])
def test_label_pattern_refuses_what_is_no_label(text: str) -> None:
    assert LABEL_PATTERN.match(text) is None


def test_without_recurrence_each_op_is_a_layer(tape: Tape) -> None:
    x = tape.input()
    for _ in range(2):
        x = tape.op("relu", x, at="loop")
    tape.output(x)
    trace = tape.trace(recurrence=False)
    assert [op.label for op in trace] == ["input_1:1", "relu_1_1:1", "relu_2_2:1", "output_1:1"]
