"""``trace.summary()`` and the call tree."""

import re

import numpy as np
import pytest

from tests.core.toy_models import Loop, Net, traced, x
from torchlens_core.errors import OptionError
from torchlens_core.selectors import func
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array, Module
from torchlens_core.testing.toy_layers import Linear


def without_times(text):
    return re.sub(r"\d+(\.\d)? (ns|µs|ms|s)\b", "TIME", text)


def test_overview():
    assert (
        traced(Net(), x(3, 4)).summary()
        == """\
Model: Net
+--------------------+--------------+--------+-------+
| Layer              | Output Shape | Params | Train |
+--------------------+--------------+--------+-------+
| input              | [3,4]        | 0      | -     |
| body (Sequential)  | [3,8]        | 40     | yes   |
| norm (RunningMean) | [3,8]        | 0      | -     |
| head (Linear)      | [3,2]        | 16     | yes   |
| output             | [3,2]        | -      | -     |
+--------------------+--------------+--------+-------+
Params: 56 unique; trainable: 56
Ops: 9 total
Edges: 9 total
Forward FLOPs: 385 FLOPs  MACs: 144 FLOPs"""
    )


class Several(Module):
    """Two inputs, outputs in a container, a module called twice, one that returns two arrays, one that is frozen."""

    def __init__(self):
        super().__init__()
        self.fc = Linear(4, 4)
        self.both = Both()

    def forward(self, a, b):
        a = self.fc(self.fc(a))
        left, right = self.both(a, b)
        return {"left": left, "right": [right]}


class Both(Module):
    def forward(self, a, b):
        return a + b, a * b


def test_several_inputs_and_outputs_are_named_and_repeated_modules_counted():
    rows = traced(Several(), x(2, 4), x(2, 4)).summary().split("\n")[4:10]
    assert [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows] == [
        ["input.a", "[2,4]", "0", "-"],
        ["input.b", "[2,4]", "0", "-"],
        ["fc (Linear) (x2)", "[2,4]", "20", "yes"],
        ["both (Both)", "[2,4], [2,4]", "0", "-"],
        ["output.left", "[2,4]", "-", "-"],
        ["output.right.0", "[2,4]", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("trainable", "word"), [((True, True), "yes"), ((True, False), "some"), ((False, False), "no")]
)
def test_train_says_whether_parameters_are_trainable(trainable, word):
    tape = Tape()
    with tape.module("m") as scope:
        params = [tape.param(f"m.{name}") for name in "ab"]
        scope.outs = tape.op("add", *params)
    tape.output(scope.outs)
    for source, is_trainable in zip(tape.program.sources, trainable, strict=True):
        source.trainable = is_trainable
    assert f"| 6      | {word}" in tape.trace().summary()


def test_unknown_costs_are_counted_and_named():
    tape = Tape()
    value = tape.op("relu", tape.op("mystery", tape.op("mystery", tape.input("x"))))
    tape.output(tape.op("riddle", value))
    assert tape.trace().summary().split("\n")[-2:] == [
        "Forward FLOPs: 6 FLOPs  MACs: 0 FLOPs",
        "Not counted: 3 calls of unknown cost (mystery, riddle)",
    ]


def test_a_run_that_was_stopped_says_where():
    trace = traced(Net(), x(3, 4), halt=func("relu"))
    assert trace.summary().split("\n")[-1] == "Run: halted at relu_1_2:1"
    assert "output" not in trace.summary().replace("Output Shape", "")


class Fails(Module):
    def forward(self, a):
        (a + 1).data[7]


def test_a_run_that_failed_says_how():
    with pytest.raises(IndexError) as failure:
        traced(Fails(), x(2, 4))
    assert failure.value.partial_trace.summary().split("\n")[-1].startswith("Run: ended by IndexError: index 7")


# -- other levels ------------------------------------------------------------------------------------------------------


def test_graph():
    assert (
        traced(Loop(), x(2, 4)).summary("graph")
        == """\
Model: Loop
+------------+--------+------------------+----------------------+--------+
| Layer      | Passes | Parents          | Children             | Module |
+------------+--------+------------------+----------------------+--------+
| input_1    | 1      | none             | linear_1_1           | -      |
| linear_1_1 | 3      | input_1, add_1_2 | add_1_2              | fc     |
| add_1_2    | 3      | linear_1_1       | linear_1_1, output_1 | -      |
| output_1   | 1      | add_1_2          | none                 | -      |
+------------+--------+------------------+----------------------+--------+
Ops: 6 total in 2 layers
Edges: 7 total, 4 between layers
Branching factor: 1.00; most parents: 1; most children: 1
Buffers read or written: none
Made inside the model: none
Reach no output: none"""
    )


def test_memory():
    assert (
        traced(Net(), x(3, 4), save=func("relu")).summary("memory")
        == """\
Model: Net
+--------------------+-------------+--------+--------+
| Module             | Activations | Output | Params |
+--------------------+-------------+--------+--------+
| body (Sequential)  | 384 B       | 192 B  | 320 B  |
| norm (RunningMean) | 456 B       | 192 B  | 0 B    |
| head (Linear)      | 48 B        | 48 B   | 128 B  |
| model              | 888 B       | 48 B   | 448 B  |
+--------------------+-------------+--------+--------+
Inputs: 48 B
Saved values: 192 B in 1 of 11"""
    )


def test_compute():
    text = without_times(traced(Loop(), x(2, 4)).summary("compute"))
    assert [line.split() for line in text.split("\n")[4:6]] == [
        ["|", "linear", "|", "3", "|", "192", "|", "96", "|", "TIME", "|"],
        ["|", "add", "|", "3", "|", "24", "|", "0", "|", "TIME", "|"],
    ]
    assert text.endswith("Forward FLOPs: 216 FLOPs  MACs: 96 FLOPs")


def test_time():
    lines = without_times(traced(Net(), x(3, 4)).summary("time")).split("\n")
    assert [line.split()[1] for line in lines[4:8]] == ["body", "norm", "head", "model"]
    assert lines[-1] == "Whole run: TIME"


class Branches(Module):
    def forward(self, a):
        for _ in range(3):
            a = a * 2 if a.sum() > 0 else a * -1
        return a


def test_control_flow():
    trace = traced(Branches(), Array(np.full((2, 2), -1.0)))
    lines = trace.summary("control_flow").split("\n")
    assert lines[1] == "Recurrent: yes"
    assert "Conditionals: 1" in lines
    cells = [cell.strip() for cell in lines[-2].split("|")[1:-1]]
    assert cells[0:2] == ["0", "ifexp"]
    assert cells[2].startswith("Branches.forward, line ")
    assert cells[3:] == ["3", "else, then (x2)"]
    assert traced(Net(), x(3, 4)).summary("control_flow").split("\n")[1:] == ["Recurrent: no", "Conditionals: 0"]


def test_a_long_table_is_cut_and_counted():
    tape = Tape()
    value = tape.input("x")
    for _ in range(300):
        value = tape.op("sin", value)
    tape.output(value)
    lines = tape.trace().summary("graph").split("\n")
    assert len([line for line in lines if line.startswith("| sin")]) == 199
    assert any(line.startswith("| ... 102 more") for line in lines)


def test_an_unknown_level_is_an_error_that_lists_the_levels():
    with pytest.raises(OptionError, match=r"'overview', 'graph', .*got 'memroy'\. Did you mean 'memory'"):
        traced(Net(), x(3, 4)).summary("memroy")


# -- call tree ---------------------------------------------------------------------------------------------------------


def test_call_tree():
    trace = traced(Net(), x(3, 4))
    assert (
        without_times(trace.show_call_tree())
        == """\
Net  TIME
├── body (Sequential)  TIME
│   ├── body.layers.0 (Linear)  TIME
│   └── body.layers.1 (ReLU)  TIME
├── norm (RunningMean)  TIME
└── head (Linear)  TIME"""
    )
    assert (
        without_times(trace.show_call_tree(depth=1))
        == """\
Net  TIME
├── body (Sequential)  TIME
├── norm (RunningMean)  TIME
└── head (Linear)  TIME"""
    )


def test_call_tree_numbers_the_calls_of_a_module():
    assert (
        without_times(traced(Loop(), x(2, 4)).show_call_tree())
        == """\
Loop  TIME
├── fc:1 (Linear)  TIME
├── fc:2 (Linear)  TIME
└── fc:3 (Linear)  TIME"""
    )
