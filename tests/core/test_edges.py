"""Edges: who took whose array, at which argument, and who had overwritten it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from torchlens_core.errors import CaptureWarning
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import (
    Array,
    Module,
    add,
    add_,
    concat,
    dropout,
    identity,
    linear,
    mul,
    relu,
    setitem,
    split,
    zeros,
)  # fmt: skip
from torchlens_core.testing.toy_layers import Identity, Linear, Sequential
from torchlens_core.tracing import trace


class TestPositions:
    def test_one_array_at_two_positions_is_one_edge(self, x: Array) -> None:
        made = trace(lambda x: x * x, x)
        op = made["mul_1"]
        assert op.parent_arg_positions == {"args": {0: "input_1", 1: "input_1"}, "kwargs": {}}
        assert op.parents == ["input_1"]
        assert made.num_edges == 2
        assert len(made.graph.parents_of(1)) == 2

    def test_positional_and_keyword(self, x: Array) -> None:
        weight = Array(np.eye(4))
        made = trace(lambda x, w: linear(x, bias=relu(x)[0], weight=w), [x, weight])
        op = made["linear_1"]
        assert op.parent_arg_positions == {
            "args": {0: "input_1"},
            "kwargs": {"bias": "getitem_1_2", "weight": "input_2"},
        }
        assert op.parents == ["input_1", "getitem_1_2", "input_2"]

    def test_inside_containers(self, x: Array) -> None:
        made = trace(lambda x: concat([x, relu(x), x], axis=0), x)
        op = made["cat_1"]
        assert op.parent_arg_positions["args"] == {(0, 0): "input_1", (0, 1): "relu_1_1", (0, 2): "input_1"}
        assert op.kwargs == {"axis": 0}

    def test_python_numbers_and_closed_over_arrays_are_arguments_and_no_ops(self, x: Array) -> None:
        table = Array(np.ones((2, 4)))
        made = trace(lambda x: add(x, table) * 3.0, x)
        assert [op.layer_label for op in made] == ["input_1", "add_1_1", "mul_1_2", "output_1"]
        assert made["add_1"].parents == ["input_1"]
        assert made["mul_1"].args[1] == 3.0
        assert [source.address for source in made.program.sources if source.kind == "const"] == ["table"]

    def test_an_index_is_kept_among_the_arguments(self, x: Array) -> None:
        op = trace(lambda x: x[0:1, None], x)["getitem_1"]
        assert op.args[1] == (slice(0, 1), None)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Result:
    logits: Any
    hidden: Any
    count: int = 0


class TestContainers:
    def test_inputs_are_named_by_the_signature_and_their_path(self, x: Array) -> None:
        def model(x: Array, pair: Any, *rest: Any, scale: Any) -> Any:
            return x + pair["a"] + rest[0] + rest[1] * scale

        made = trace(model, [x, {"a": x * 2, "n": 3}, relu(x), [x][0]], {"scale": Array(2.0)})
        addresses = [op.address for op in made if op.is_input]
        assert addresses == ["input.x", "input.pair.a", "input.rest.0", "input.rest.1", "input.scale"]

    @pytest.mark.parametrize(
        ("wrap", "paths"),
        [
            (lambda a, b: a, ["output"]),
            (lambda a, b: (a, b), ["output.0", "output.1"]),
            (lambda a, b: [a, [b]], ["output.0", "output.1.0"]),
            (lambda a, b: {"x": a, "y": (b, 3)}, ["output.x", "output.y.0"]),
            (lambda a, b: Pair(a, b), ["output.left", "output.right"]),
            (lambda a, b: Result(a, [b]), ["output.logits", "output.hidden.0"]),
            (lambda a, b: (a, None, "text", a), ["output.0", "output.3"]),
        ],
    )
    def test_outputs_are_named_by_their_path(self, x: Array, wrap: Any, paths: list[str]) -> None:
        made = trace(lambda x: wrap(relu(x), x + 1), x)
        assert [op.address for op in made if op.is_output] == paths

    def test_a_container_inside_itself_is_entered_once(self, x: Array) -> None:
        def model(x: Array) -> Any:
            out: list[Any] = [relu(x)]
            out.append(out)
            return out

        assert [op.address for op in trace(model, x) if op.is_output] == ["output.0"]


class TestInPlace:
    def test_who_reads_the_array_later_has_the_write_as_parent(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = relu(x)
            add_(y, 1.0)
            return mul(y, 2.0)

        made = trace(model, x)
        assert made["add_1"].parents == ["relu_1_1"]
        assert made["add_1"].is_inplace
        assert made["mul_1"].parents == ["add_1_2"]

    def test_an_operator_in_place(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = relu(x)
            y += x
            y[0] = 0.0
            return y

        made = trace(model, x)
        assert [(op.func_name, op.parents) for op in made.compute_ops] == [
            ("relu", ["input_1"]),
            ("add_", ["relu_1_1", "input_1"]),
            ("__setitem__", ["add_1_2"]),
        ]
        assert made["output_1"].parents == ["setitem_1_3"]

    def test_a_value_is_the_one_at_the_op(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = relu(x)
            before = y
            y += 1.0
            return y, before

        made = trace(model, x)
        clean = np.maximum(x.data, 0)
        assert np.array_equal(made["relu_1"].numpy(), clean)
        assert np.array_equal(made["add_1"].numpy(), clean + 1)
        assert [op.parents for op in made if op.is_output] == [["add_1_2"], ["add_1_2"]]

    def test_a_written_input_keeps_its_value(self, x: Array) -> None:
        before = x.data
        made = trace(lambda x: add_(x, 1.0), x)
        assert np.array_equal(made["input_1"].numpy(), before)
        assert np.array_equal(x.data, before + 1)

    def test_the_array_written_and_read_at_once(self, x: Array) -> None:
        made = trace(lambda x: add_(x, x), x)
        assert made["add_1"].parents == ["input_1"]
        assert made.num_edges == 2

    def test_a_written_item_has_the_value_as_second_parent(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = zeros((2, 4))
            setitem(y, 0, x[1])
            return y

        made = trace(model, x)
        assert made["setitem_1"].parents == ["zeros_1_1", "getitem_1_2"]


class TestWritesThroughOtherArrays:
    """Who reads an array whose memory was overwritten through another one has two parents."""

    def test_value_edge_and_write_edge(self, tape: Tape) -> None:
        x = tape.input()
        base = tape.op("relu", x)
        view = tape.op("getitem", base)
        tape.op("mul_", view, writes=view)  # row 2
        tape.output(tape.op("neg", base, after={0: 2}))
        made = tape.trace()
        assert made["neg_1"].parents == ["relu_1_1", "mul_1_3"]
        assert made["neg_1"].write_parents == ["mul_1_3"]
        assert made["neg_1"].parent_arg_positions["args"] == {0: "relu_1_1"}
        assert made["mul_1"].children == ["neg_1_4"]
        assert made.num_edges == 6

    def test_a_write_connects_what_was_written_to_the_output(self, tape: Tape) -> None:
        x = tape.input()
        base = tape.op("zeros")
        tape.op("copy_", tape.op("getitem", base), x)  # row 2
        tape.output(tape.op("neg", base, after={0: 2}))
        made = tape.trace()
        assert made["input_1"].has_output_descendant
        assert made["copy_1"].max_distance_to_output == 2


class TestPassThrough:
    def test_an_operation_that_returns_its_argument_is_an_op(self, x: Array) -> None:
        made = trace(lambda x: relu(dropout(x, 0.5, False)), x)
        assert [op.type for op in made.compute_ops] == ["dropout", "relu"]
        assert made["relu_1"].parents == ["dropout_1_1"]

    def test_readers_of_the_argument_and_of_the_result_are_told_apart(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = identity(x)
            return relu(x) + relu(y)

        made = trace(model, x)
        assert made["relu_1"].parents == ["input_1"]
        assert made["relu_2"].parents == ["identity_1_1"]

    def test_a_module_that_returns_its_input_adds_an_identity(self, x: Array) -> None:
        made = trace(Sequential(Identity(), Linear(4, 4), Identity()), x)
        assert [op.layer_label for op in made.compute_ops] == ["identity_1_1", "linear_1_2", "identity_2_3"]
        assert made["identity_1"].modules == ["layers.0:1"]
        assert made["layers.2"].label == "identity_2_3:1"

    def test_a_model_that_returns_its_input(self, x: Array) -> None:
        made = trace(Identity(), x)
        assert [op.label for op in made] == ["input_1:1", "identity_1_1:1", "output_1:1"]
        assert made["identity_1"].modules == []


class TestOrigins:
    def test_an_array_from_unseen_code_is_a_source_with_one_warning(self, x: Array) -> None:
        def model(x: Array) -> Any:
            return x + Array(np.ones((2, 4))) + Array(np.ones((2, 4)))

        with pytest.warns(CaptureWarning, match=r"2 array\(s\) .*shape \(2, 4\), in the model itself") as caught:
            made = trace(model, x)
        assert len(caught) == 1
        assert made["add_1"].parents == ["input_1", "source_1_1"]
        assert [op.type for op in made.compute_ops] == ["source", "add", "source", "add"]
        assert np.array_equal(made["source_1"].numpy(), np.ones((2, 4)))

    def test_an_attribute_that_is_no_state_is_a_constant(self, x: Array) -> None:
        class Model(Module):
            def __init__(self) -> None:
                super().__init__()
                self.tables = {"mask": [Array(np.ones(4))]}

            def forward(self, x: Array) -> Any:
                return x * self.tables["mask"][0]

        made = trace(Model(), x)
        assert [op.type for op in made] == ["input", "mul", "output"]
        assert [source.address for source in made.program.sources if source.kind == "const"] == ["tables"]

    def test_an_attribute_set_to_an_unseen_array_in_the_run_is_no_constant(self, x: Array) -> None:
        class Model(Module):
            def forward(self, x: Array) -> Any:
                self.cache = Array(np.ones(4))
                return x * self.cache

        with pytest.warns(CaptureWarning):
            made = trace(Model(), x)
        assert [op.type for op in made] == ["input", "source", "mul", "output"]

    def test_arrays_made_inside_are_internal_sources(self, x: Array) -> None:
        made = trace(lambda x: x + zeros((2, 4)), x)
        assert made["zeros_1"].is_internal_source
        assert not made["zeros_1"].has_input_ancestor

    def test_one_array_given_twice(self, x: Array) -> None:
        made = trace(lambda a, b: a - b, [x, x])
        assert [op.label for op in made if op.is_input] == ["input_1:1", "input_2:1"]
        assert made["sub_1"].parent_arg_positions["args"] == {0: "input_1", 1: "input_1"}
        assert np.array_equal(made["input_2"].numpy(), x.data)

    def test_one_array_returned_twice(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = relu(x)
            return y, y

        made = trace(model, x)
        assert [op.parents for op in made if op.is_output] == [["relu_1_1"], ["relu_1_1"]]
        assert made["relu_1"].children == ["output_1", "output_2"]

    def test_several_outputs_of_one_call(self, x: Array) -> None:
        def model(x: Array) -> Any:
            left, right = split(x, 2)
            return left * right

        made = trace(model, x)
        assert made["mul_1"].parents == ["split_1_1", "split_2_2"]
        assert [op.in_multi_output for op in made.compute_ops] == [True, True, False]


def test_a_read_is_an_event_on_the_op_it_reads(x: Array) -> None:
    def model(x: Array) -> Any:
        scale = float(x.sum()) + int(x.mean() * 4) + x[0, 0].item()
        return x * 2 if x.sum() > scale - 1e6 else x

    made = trace(model, x)
    assert [(event.kind, made.graph.node_of[event.vid]) for event in made.program.events] == [
        ("float", 1), ("int", 3), ("item", 4), ("bool", 6)
    ]  # fmt: skip
    assert made["gt_1"].bool_value is True
    assert made["gt_1"].is_terminal_bool
    assert not made["sum_1"].is_terminal_bool
