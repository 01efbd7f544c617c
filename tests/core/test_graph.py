"""Nodes and edges of programs made by hand, and what follows from them."""

from __future__ import annotations

import pytest

from torchlens_core.derived.graph import Kind
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape


def labels(trace: Trace) -> list[str]:
    return [op.label for op in trace]


def diamond(tape: Tape) -> Trace:
    """x -> relu -> tanh -> add, x -> add: two ways of different length."""
    x = tape.input()
    tape.output(tape.op("add", tape.op("tanh", tape.op("relu", x)), x))
    return tape.trace()


def test_nodes_stand_in_the_order_they_ran(tape: Tape) -> None:
    trace = diamond(tape)
    assert labels(trace) == ["input_1:1", "relu_1_1:1", "tanh_1_2:1", "add_1_3:1", "output_1:1"]
    assert [Kind(kind) for kind in trace.graph.kinds] == [Kind.INPUT, *[Kind.COMPUTE] * 3, Kind.OUTPUT]


def test_parents_and_children(tape: Tape) -> None:
    trace = diamond(tape)
    assert trace["add_1"].parents == ["tanh_1_2", "input_1"]
    assert trace["input_1"].children == ["relu_1_1", "add_1_3"]
    assert trace["output_1"].parents == ["add_1_3"]
    assert trace.num_edges == 5


def test_distances_are_of_the_shortest_and_of_the_longest_way(tape: Tape) -> None:
    trace = diamond(tape)
    add, x = trace["add_1"], trace["input_1"]
    assert (add.min_distance_from_input, add.max_distance_from_input) == (1, 3)
    assert (x.min_distance_to_output, x.max_distance_to_output) == (2, 4)
    assert (x.min_distance_from_input, trace["output_1"].max_distance_to_output) == (0, 0)


def test_distance_is_none_where_nothing_leads(tape: Tape) -> None:
    x = tape.input()
    made = tape.op("zeros")
    tape.output(tape.op("add", x, made))
    tape.op("neg", x)
    trace = tape.trace()
    assert trace["zeros_1"].min_distance_from_input is None
    assert trace["neg_1"].max_distance_to_output is None


def test_ancestors_and_descendants(tape: Tape) -> None:
    trace = diamond(tape)
    graph = trace.graph
    assert graph.reachable(3, backwards=True) == {0, 1, 2}
    assert graph.reachable(1, backwards=False) == {2, 3, 4}
    assert trace["add_1"].input_ancestors == ["input_1"]
    assert trace["relu_1"].output_descendants == ["output_1"]


def test_siblings_share_a_parent_and_co_parents_a_child(tape: Tape) -> None:
    trace = diamond(tape)
    assert trace["relu_1"].siblings == ["add_1_3"]
    assert trace["tanh_1"].co_parents == ["input_1"]


def test_several_outputs_are_several_nodes_of_one_call(tape: Tape) -> None:
    left, right = tape.ops("split", tape.input(), outs=2)
    tape.output(right, left)
    trace = tape.trace()
    assert labels(trace) == ["input_1:1", "split_1_1:1", "split_2_2:1", "output_1:1", "output_2:1"]
    assert [op.output_index for op in trace.compute_ops] == [0, 1]
    assert trace["split_1"].func_call_id == trace["split_2"].func_call_id
    assert trace["output_1"].parents == ["split_2_2"]


def test_a_part_of_the_result_that_is_no_array_is_no_node(tape: Tape) -> None:
    x = tape.input()
    left, right = tape.ops("topk", x, outs=2)
    row = tape.program.rows[-1]
    tape.program.rows[-1] = row._replace(outs=(left, None, (right,)))
    tape.output(right)
    trace = tape.trace()
    assert [op.container_path for op in trace.compute_ops] == [(0,), (2, 0)]


def test_one_array_given_twice_is_two_inputs_and_returned_twice_two_outputs(tape: Tape) -> None:
    first, second = tape.input("x"), tape.input("y")
    made = tape.op("relu", first)
    tape.output(made, made)
    trace = tape.trace()
    assert [op.address for op in trace if not op.is_compute] == ["input.x", "input.y", "output.0", "output.1"]
    assert trace["input_2"].children == []
    assert second == 1


def test_parameters_and_constants_are_no_nodes(tape: Tape) -> None:
    tape.output(tape.op("linear", tape.input(), tape.param("fc.weight"), tape.const("table")))
    trace = tape.trace()
    assert labels(trace) == ["input_1:1", "linear_1_1:1", "output_1:1"]
    assert trace["linear_1"].param_addresses == ["fc.weight"]


def test_an_array_of_unknown_origin_is_a_numbered_source(tape: Tape) -> None:
    x = tape.input()
    early = tape.op("relu", x)
    tape.output(tape.op("add", early, tape.unknown()))
    trace = tape.trace()
    assert labels(trace) == ["input_1:1", "relu_1_1:1", "source_1_2:1", "add_1_3:1", "output_1:1"]
    assert trace["source_1"].is_internal_source


def test_internal_sources_and_sinks(tape: Tape) -> None:
    x = tape.input()
    tape.output(tape.op("add", x, tape.op("zeros")))
    tape.op("neg", x)
    trace = tape.trace()
    assert [op.layer_label for op in trace if op.is_internal_source] == ["zeros_1_1"]
    assert [op.layer_label for op in trace if op.is_internal_sink] == ["neg_1_3"]


class TestOrphans:
    def test_are_connected_to_no_input_and_no_output(self, tape: Tape) -> None:
        x = tape.input()
        tape.op("neg", tape.op("zeros"))
        tape.output(tape.op("relu", x))
        trace = tape.trace()
        assert [op.layer_label for op in trace.orphans] == ["zeros_1_1", "neg_1_2"]

    def test_are_hidden_from_lists_and_counts_and_numbered_all_the_same(self, tape: Tape) -> None:
        x = tape.input()
        tape.op("neg", tape.op("zeros"))
        tape.output(tape.op("relu", x))
        trace, kept = tape.trace(), tape.trace(keep_orphans=True)
        assert labels(trace) == ["input_1:1", "relu_1_3:1", "output_1:1"]
        assert (trace.num_ops, trace.num_layers, trace.num_edges, len(trace)) == (1, 1, 2, 3)
        assert labels(kept) == ["input_1:1", "zeros_1_1:1", "neg_1_2:1", "relu_1_3:1", "output_1:1"]
        assert kept.num_edges == 3
        assert [op.step_index for op in kept.compute_ops] == [1, 2, 3]

    def test_no_parent_of_a_shown_op_is_one(self, tape: Tape) -> None:
        x = tape.input()
        tape.op("add", x, tape.op("zeros"))
        tape.output(tape.op("relu", x))
        trace = tape.trace()
        assert trace["add_1"].parents == ["input_1", "zeros_1_1"]
        assert trace.orphans == []

    def test_a_predicate_counts_as_an_output(self, tape: Tape) -> None:
        tape.output(tape.op("relu", tape.input()))
        tape.read(tape.op("gt", tape.op("rand")))
        assert tape.trace().orphans == []

    def test_a_written_buffer_counts_as_an_output(self, tape: Tape) -> None:
        x, steps = tape.input(), tape.buffer("steps")
        tape.assign(steps, tape.op("add", steps))
        tape.output(tape.op("relu", x))
        trace = tape.trace()
        assert trace.orphans == []

    def test_what_only_reads_a_buffer_is_one(self, tape: Tape) -> None:
        x = tape.input()
        tape.op("neg", tape.buffer("mean"))
        tape.output(tape.op("relu", x))
        assert [op.label for op in tape.trace().orphans] == ["buffer_1:1", "neg_1_1:1"]

    def test_a_read_of_no_array_harms_nothing(self, tape: Tape) -> None:
        tape.op("zeros")
        tape.output(tape.op("relu", tape.input()))
        tape.read(-1)
        assert [op.layer_label for op in tape.trace().orphans] == ["zeros_1_1"]

    @pytest.mark.parametrize("ended", ["halted", "error"])
    def test_nothing_is_hidden_from_a_partial_trace(self, tape: Tape, ended: str) -> None:
        x = tape.input()
        tape.op("zeros")
        tape.program.facts[ended] = tape.op("relu", x)
        assert labels(tape.trace()) == ["input_1:1", "zeros_1_1:1", "relu_1_2:1"]


def test_is_branching(tape: Tape) -> None:
    x = tape.input()
    tape.output(tape.op("tanh", tape.op("relu", x)))
    assert not tape.trace().is_branching
    tape.output(tape.op("neg", x))
    assert tape.trace().is_branching
