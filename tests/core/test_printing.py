"""What records look like in a terminal and in a notebook."""

import re

import pytest

from tests.core.toy_models import Loop, Net, traced, x
from torchlens_core.derived.frames import Frame
from torchlens_core.plan import keep
from torchlens_core.records.location import CodeLocation
from torchlens_core.selectors import func, module
from torchlens_core.show.text import names_text, table, value_text
from torchlens_core.testing.tape import Tape


def lines_of(record):
    """Its text, durations blotted out."""
    return re.sub(r"\d+(\.\d)? (ns|µs|ms|s)\b", "TIME", str(record)).split("\n")


@pytest.fixture(scope="module")
def net():
    return traced(Net(), x(3, 4))


@pytest.fixture(scope="module")
def loop():
    return traced(Loop(), x(2, 4))


# -- Ops ---------------------------------------------------------------------------------------------------------------


def test_an_op_with_parameters(net):
    lines = lines_of(net["linear_1_1"])
    assert re.fullmatch(r"tensor\(\[\[(-?\d\.\d{4}, ){3}\.\.\.", lines.pop(2))
    assert lines == [
        "Layer linear_1_1, operation 1/9:",
        "Output tensor: shape=(3, 8), dtype=toy.float64, size=192 B",
        "Related Layers:",
        "- parent layers: input_1",
        "- child layers: relu_1_2",
        "Params: Computed from params with shape (8, 4), (8,); 40 params total (320 B)",
        "Function: linear",
        "Computed inside module: body.layers.0:1",
        "Config: in_features=4, out_features=8",
        "Time elapsed: TIME",
        "Lookup keys: -10, 1, body.layers.0, body.layers.0:1, linear_1, linear_1:1, linear_1_1, linear_1_1:1",
    ]


def test_an_op_that_a_container_returns_too_names_the_container(net):
    assert "Output of modules: body:1" in lines_of(net["relu_1"])
    assert not any(line.startswith("Output of modules") for line in lines_of(net["linear_1"]))


def test_ops_that_share_parents_or_children_name_each_other(net):
    assert "- shares parents with layers: sub_1_8" in lines_of(net["mean_1"])
    assert "- shares children with layers: mul_2_5" in lines_of(net["mul_1"])


def test_an_input_an_output_and_a_buffer(net):
    assert lines_of(net[0])[0] == "Layer input_1, model input:"
    assert {"- parent layers: none", "Address: input.x", "Given to modules: body:1, body.layers.0:1"} <= {
        *lines_of(net[0])
    }
    assert lines_of(net[-1])[0] == "Layer output_1, model output:"
    newest = net.buffers["norm.center"].versions[-1]
    assert lines_of(newest)[0] == f"Layer {newest.layer_label}, buffer:"
    assert "Address: norm.center, version 2" in lines_of(newest)


def test_a_pass_says_which_one_it_is(loop):
    assert lines_of(loop["linear_1:2"])[0] == "Layer linear_1_1 (pass 2/3), operation 3/6:"
    assert "- parent layers: add_1_2:1" in lines_of(loop["linear_1:2"])
    assert lines_of(loop["linear_1:2"])[-1] == "Lookup keys: -5, 3, fc:2, linear_1:2, linear_1_1:2"


def test_a_layer_of_several_passes(loop):
    assert lines_of(loop["linear_1"]) == [
        "Layer linear_1_1, 3 passes:",
        "Output tensors: shape=(2, 4), size=192 B in all",
        "Passes: linear_1_1:1, linear_1_1:2, linear_1_1:3",
        "Related Layers:",
        "- parent layers: input_1, add_1_2",
        "- child layers: add_1_2",
        "Params: Computed from params with shape (4, 4), (4,); 20 params total (160 B)",
        "Function: linear",
        "Computed inside module: fc",
        "Config: in_features=4, out_features=4",
        "Time elapsed: TIME in all",
        "Lookup keys: linear_1, linear_1_1",
    ]


def test_a_layer_of_one_pass_looks_like_its_op(net):
    assert str(net.layers["relu_1_2"]) == str(net["relu_1_2"])


def test_a_value_that_was_not_saved_says_how_to_save_it():
    trace = traced(Net(), x(3, 4), save=func("relu"))
    line = "Value not saved: run the trace again with save=True, save=tl.func('linear') or save='linear_1_1'"
    assert line in lines_of(trace["linear_1"])
    assert not any(line.startswith("tensor") for line in lines_of(trace["linear_1"]))
    how = "Value not saved: run the trace again with save=True, save=tl.label('input_1') or save='input_1'"
    assert how in lines_of(trace[0])


def test_a_value_that_a_transform_reduced_says_so():
    trace = traced(Net(), x(3, 4), save=keep(func("relu"), transform=lambda array: array.mean(0)))
    lines = lines_of(trace["relu_1"])
    assert lines[1:3] == [
        "Output tensor: shape=(3, 8), dtype=toy.float64, size=192 B",
        "Kept of it, by a transform: shape=(8,), dtype=float64",
    ]
    assert lines[3].startswith("tensor([")


def test_what_a_transform_made_need_be_no_array():
    trace = traced(Net(), x(3, 4), save=keep(func("relu"), transform=lambda array: {"max": 1.5}))
    assert "Kept of it, by a transform: {'max': 1.5}" in lines_of(trace["relu_1"])


def test_unknown_time_and_no_module():
    tape = Tape()
    tape.output(tape.op("relu", tape.input("x")))
    lines = str(tape.trace()["relu_1"]).split("\n")
    assert {"Time elapsed: unknown", "Computed inside module: none, directly in the model"} <= {*lines}
    assert "Params: no params used" in lines


def test_several_outputs_of_a_call_are_told_apart():
    tape = Tape()
    tape.output(*tape.ops("max", tape.input("x"), outs=2))
    assert "Output number 1 of its call" in str(tape.trace()["max_2"]).split("\n")


def test_predicates_say_how_they_were_read():
    tape = Tape()
    predicate = tape.op("gt", tape.input("x"), shape=())
    tape.read(predicate, value=False)
    assert "Read as a bool: False" in str(tape.trace()["gt_1"]).split("\n")


# -- other records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("find", "title", "some_lines"),
    [
        (
            lambda t: t.modules["body"],
            "Module body (Sequential), 1 call:",
            [
                "  num_params: 40",
                "  param_nbytes: 320 B",
                "  output_shape: (3, 8)",
                "  calls_to: body.layers.0, body.layers.1",
            ],
        ),
        (lambda t: t.module_calls["head:1"], "ModuleCall head:1 (Linear), 1 op:", ["  op_labels: linear_2_9:1"]),
        (
            lambda t: t.params["head.weight"],
            "Param head.weight (2, 8):",
            ["  is_trainable: yes", "  used_by_layers: linear_2_9", "  nbytes: 128 B", "  dtype_name: float64"],
        ),
        (
            lambda t: t.buffers["norm.center"],
            "Buffer norm.center (8,), 2 versions:",
            ["  num_versions: 2", "  written_by: add_1_6"],
        ),
    ],
)
def test_records_show_the_fields_that_say_something(net, find, title, some_lines):
    lines = lines_of(find(net))
    assert lines[0] == title
    assert set(some_lines) <= set(lines)
    assert not any(line.endswith((": ", ": unknown", ": []")) for line in lines[1:])


def test_a_trace_shows_its_ops(net):
    lines = lines_of(net)
    assert lines[:2] == ["Trace of Net (toy): 9 ops, 9 layers, complete", "Run by toy 1.0 in TIME"]
    assert lines[2] == "9 edges, 6 module calls, 11 of 11 values saved (1.1 KB)"
    assert "| 9  | linear_2_9 | [3,2] | head:1          | 16     |" in lines


def test_a_long_trace_shows_its_beginning_and_its_end():
    tape = Tape()
    value = tape.input("x")
    for _ in range(100):
        value = tape.op("sin", value)
    tape.output(value)
    lines = str(tape.trace()).split("\n")
    assert len(lines) == 48
    assert [line for line in lines if "62 more" in line]


def test_a_halted_trace_says_where():
    trace = traced(Net(), x(3, 4), halt=func("relu"))
    assert repr(trace) == "<Trace of Net (toy): 2 ops, 2 layers, halted>"
    assert "Halted at relu_1_2:1" in lines_of(trace)


def test_lists_and_selections(net):
    assert repr(net.params) == "<3 parameters>"
    assert str(net.params).split("\n")[:2] == ["3 parameters:", "  <Param body.layers.0.weight (8, 4)>"]
    assert str(traced(Loop(), x(2, 4)).buffers) == "0 buffers:"
    found = net.find_sites(func("linear"))
    assert repr(found) == "<Selection of 2: func('linear')>"
    assert str(found).split("\n")[0] == "func('linear'): 2 Ops"
    assert "| linear_2_9:1 | head:1          | (3, 2) | yes   |" in str(found).split("\n")
    assert str(net.find_sites(module("head"))).split("\n")[0] == "module('head'): 1 Op"


def test_a_place_in_the_source_shows_the_lines_around_it(net):
    place = net["linear_2"].code_context[0]
    lines = str(place).split("\n")
    assert lines[0] == f"{place.file}:{place.line_number} in Net.forward"
    assert lines[4] == f"-> {place.line_number:4} |         return self.head(hidden)"
    assert len(lines) == 8


# -- pieces ------------------------------------------------------------------------------------------------------------


def test_a_table_is_as_wide_as_its_cells():
    assert table(["a", "long head"], [["longer cell", ""], ["", "x"]]).split("\n") == [
        "+-------------+-----------+",
        "| a           | long head |",
        "+-------------+-----------+",
        "| longer cell |           |",
        "|             | x         |",
        "+-------------+-----------+",
    ]


def test_long_lists_are_cut_and_counted():
    assert names_text([]) == "none"
    assert names_text([f"op_{n}" for n in range(13)]).endswith("op_11, ... (13 in all)")


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")


def test_a_repr_that_fails_does_no_harm():
    assert value_text(Hostile()) == "<Hostile, whose repr raised RuntimeError>"


EVIL = "a\x1b[31m\n<script>&"


def evil_trace():
    tape = Tape(model=EVIL)
    with tape.module(f"m{EVIL}") as scope:
        scope.outs = tape.op("relu", tape.input(EVIL), shape=(1,))
        tape.param(f"m{EVIL}.w")
    tape.output(scope.outs)
    return tape.trace()


def test_names_cannot_act_on_a_terminal():
    trace = evil_trace()
    shown = [trace, trace.summary(), trace.show_call_tree(), trace.modules, trace.params, *trace, *trace.modules,
             *trace.params, *trace.module_calls, *map(repr, trace.modules), repr(trace)]  # fmt: skip
    for text in map(str, shown):
        assert "\x1b" not in text
        assert EVIL not in text


def test_names_cannot_act_on_a_page():
    trace = evil_trace()
    for record in (trace, trace.modules, trace.params, *trace, *trace.modules, *trace.params, *trace.module_calls):
        page = record._repr_html_()
        assert "<script" not in page
        assert "\x1b" not in page


def test_notebooks_show_the_summary_and_the_ops(net):
    page = net._repr_html_()
    assert "<b>Trace of Net (toy): 9 ops, 9 layers, complete</b>" in page
    assert "| body (Sequential)" in page
    assert "<td>linear_2_9:1</td>" in page


def test_notebooks_show_records(net):
    assert "<td>num_params</td><td>40</td>" in net.modules["body"]._repr_html_()
    op = net["linear_1"]._repr_html_()
    assert "Layer linear_1_1, operation 1/9:" in op
    assert "<td>func_name</td><td>linear</td>" in op
    assert "<b>3 parameters</b>" in net.params._repr_html_()
    assert "<b>func(&#x27;linear&#x27;): 2 Ops</b>" in net.find_sites(func("linear"))._repr_html_()
    assert "Net.forward" in net["linear_2"].code_context[0]._repr_html_()


def test_places_without_source_stay_silent():
    place = CodeLocation(Frame("nowhere.py", 3, 0, 10**9, 5, "f", 1))
    assert str(place) == "nowhere.py:3 in f"
    assert (place.call_line, place.call_expression, place.arg_expressions, place.var_names) == ("", "", [], [])
    assert (place.func_signature, place.func_docstring) == (None, None)
