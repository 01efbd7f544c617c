"""Which Ops are passes of one layer, in toy code: what the conformance kit does not hold every backend to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torchlens_core.derived.recurrence import group, is_recurrent
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array, Module, Parameter, linear, mul, relu, sin, tanh
from torchlens_core.testing.toy_layers import Linear, ReLU, RunningMean, Sequential
from torchlens_core.tracing import trace


def layers(made: Trace) -> dict[str, int]:
    """Short label of each layer of operations -> how many passes it has."""
    return {layer.layer_label_short: layer.num_passes for layer in made.layers if layer.ops[0].is_compute}


def traced(model: Any, *args: Any, **options: Any) -> dict[str, int]:
    return layers(trace(model, list(args), **options))


class Net(Module):
    """A module with three linear layers, whose forward is given."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.other = Linear(4, 4, seed=1)
        self.act = ReLU()
        self.blocks: list[Module] = [Linear(4, 4, seed=seed) for seed in range(12)]
        self._forward = forward

    def forward(self, *args: Any) -> Any:
        return self._forward(self, *args)


# -- loops ---------------------------------------------------------------------------------------------------------


def test_the_test_of_a_while_loop_is_one_place(x: Array) -> None:
    def model(x: Array) -> Any:
        while (x * x).sum() < 500:
            x = x * 2
        return x

    made = trace(model, x)
    assert layers(made) == {"mul_1": 5, "sum_1": 5, "lt_1": 5, "mul_2": 4}
    assert made.is_recurrent


def test_a_while_loop_stays_whole_beside_a_loop_over_blocks(x: Array) -> None:
    def forward(net: Any, x: Array) -> Any:
        for block in net.blocks[:2]:
            x = block(x)
        while (x * x).sum() < 500:
            x = x * 2
        return x

    found = traced(Net(forward), x)
    assert (found["sum_1"], found["lt_1"]) == (found["mul_1"], found["mul_1"])
    assert found["mul_2"] == found["mul_1"] - 1
    assert len(found) == 6


def test_a_comprehension_is_a_loop(x: Array) -> None:
    assert traced(lambda x: sum(relu(part) for part in [x, x, x]), x)["relu_1"] == 3


def test_nested_loops(x: Array) -> None:
    def model(x: Array) -> Any:
        for _ in range(2):
            x = tanh(x)
            for _ in range(3):
                x = sin(x)
        return x

    assert traced(model, x) == {"tanh_1": 2, "sin_1": 6}


def test_a_helper_called_at_two_places_is_two_layers_and_in_a_loop_one(x: Array) -> None:
    def helper(x: Array) -> Any:
        return relu(x)

    def model(x: Array) -> Any:
        x = helper(x) + helper(x)
        for _ in range(3):
            x = helper(x)
        return x

    assert traced(model, x) == {"relu_1": 1, "relu_2": 1, "add_1": 1, "relu_3": 3}


# -- shared modules and parameters ---------------------------------------------------------------------------------


def test_one_linear_on_two_branches_is_not_recurrent(x: Array) -> None:
    made = trace(Net(lambda net, x: net.fc(x) + net.fc(x * 2)), x)
    assert layers(made)["linear_1"] == 2
    assert not made.is_recurrent


def test_slices_of_one_fused_weight_are_layers_of_their_own(x: Array) -> None:
    class Fused(Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = Parameter(np.eye(12, 4))

        def forward(self, x: Array) -> Any:
            q, k, v = self.weight[:4], self.weight[4:8], self.weight[8:]
            return linear(x, q) + linear(x, k) + linear(x, v)

    assert traced(Fused(), x) == dict.fromkeys(
        ["getitem_1", "getitem_2", "getitem_3", "linear_1", "linear_2", "add_1", "linear_3", "add_2"], 1
    )


def test_an_activation_shared_in_a_sequential_belongs_to_the_block_before_it(x: Array) -> None:
    act = ReLU()
    model = Sequential(Linear(4, 4, seed=1), act, Linear(4, 4, seed=2), act, Linear(4, 4, seed=3), act)
    made = trace(model, x)
    assert layers(made) == dict.fromkeys(["linear_1", "relu_1", "linear_2", "relu_2", "linear_3", "relu_3"], 1)
    assert not made.is_recurrent


def test_a_sequential_in_a_loop_repeats_all_its_layers(x: Array) -> None:
    act = ReLU()
    body = Sequential(Linear(4, 4, seed=1), act, Linear(4, 4, seed=2), act)

    def model(x: Array) -> Any:
        for _ in range(3):
            x = body(x)
        return x

    assert traced(model, x) == {"linear_1": 3, "relu_1": 3, "linear_2": 3, "relu_2": 3}


# -- loops over blocks ---------------------------------------------------------------------------------------------


def test_blocks_run_by_a_loop_are_layers_of_their_own_with_all_that_is_in_the_loop(x: Array) -> None:
    def forward(net: Any, x: Array) -> Any:
        for block in net.blocks:
            x = x + block(x)
        return x

    made = trace(Net(forward), x)
    assert layers(made) == {f"{type}_{k}": 1 for k in range(1, 13) for type in ("linear", "add")}
    assert not made.is_recurrent


def test_the_same_block_in_every_turn_is_a_repetition(x: Array) -> None:
    def forward(net: Any, x: Array) -> Any:
        for block in [net.fc] * 3:
            x = x + block(x)
        return x

    assert traced(Net(forward), x) == {"linear_1": 3, "add_1": 3}


def test_weights_run_by_a_loop_are_blocks_too(x: Array) -> None:
    class Weights(Module):
        def __init__(self) -> None:
            super().__init__()
            for name in "abc":
                setattr(self, name, Parameter(np.eye(4)))

        def forward(self, x: Array) -> Any:
            for weight in (self.a, self.b, self.c):
                x = x + relu(x @ weight)
            return x

    assert traced(Weights(), x) == {f"{type}_{k}": 1 for k in range(1, 4) for type in ("matmul", "relu", "add")}


def test_blocks_without_parameters_are_told_by_their_address(x: Array) -> None:
    assert traced(Sequential(ReLU(), ReLU(), ReLU()), x) == {"relu_1": 1, "relu_2": 1, "relu_3": 1}


def test_blocks_called_by_a_helper_in_the_loop(x: Array) -> None:
    def step(block: Any, x: Array) -> Any:
        return relu(block(x))

    def forward(net: Any, x: Array) -> Any:
        for block in net.blocks[:3]:
            x = step(block, x)
        return x

    assert traced(Net(forward), x) == {f"{type}_{k}": 1 for k in range(1, 4) for type in ("linear", "relu")}


def test_a_loop_around_a_loop_over_blocks_repeats_each_block(x: Array) -> None:
    def forward(net: Any, x: Array) -> Any:
        for _ in range(2):
            for block in net.blocks[:3]:
                x = relu(block(x))
        return x

    assert traced(Net(forward), x) == {f"{type}_{k}": 2 for k in range(1, 4) for type in ("linear", "relu")}


def test_buffers_make_no_blocks(x: Array) -> None:
    norms = Sequential(RunningMean(4), RunningMean(4))
    norms.layers[0].training = norms.layers[1].training = False
    assert traced(norms, x) == {"sub_1": 1, "sub_2": 1}


# -- cells and recursion -------------------------------------------------------------------------------------------


class Cell(Module):
    """A cell with two states."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = Linear(8, 4)

    def forward(self, x: Array, h: Array, c: Array) -> tuple[Any, Any]:
        from torchlens_core.testing.toy_framework import concat

        gates = self.gates(concat([x, h], axis=-1))
        c = c + tanh(gates)
        return tanh(c), c


def test_the_two_states_of_a_cell_are_layers_of_their_own(x: Array) -> None:
    class Lstm(Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: Array) -> Any:
            h = c = x * 0
            for _ in range(5):
                h, c = self.cell(x, h, c)
            return h

    made = trace(Lstm(), x)
    assert layers(made) == {"mul_1": 1, "cat_1": 5, "linear_1": 5, "tanh_1": 5, "add_1": 5, "tanh_2": 5}
    assert made["tanh_2"].children == ["cat_1_2", "output_1"]
    assert made.is_recurrent


class Tree(Module):
    """Combines the leaves of a nested tuple with one cell: by recursion of a method, or of the module itself."""

    def __init__(self, combine: Module | None, through_call: bool) -> None:
        super().__init__()
        self.combine = combine
        self.through_call = through_call

    def forward(self, tree: Any) -> Any:
        return self.node(tree)

    def node(self, tree: Any) -> Any:
        if isinstance(tree, Array):
            return tanh(tree)
        below = self if self.through_call else self.node
        left, right = below(tree[0]), below(tree[1])
        both = left + right
        return relu(both if self.combine is None else self.combine(both))


@pytest.mark.parametrize("through_call", [False, True], ids=["method", "module"])
@pytest.mark.parametrize("with_params", [False, True], ids=["plain", "params"])
def test_a_recursion_has_one_layer_for_each_operation(x: Array, with_params: bool, through_call: bool) -> None:
    tree = ((x, x), (x, (x, x)))
    model = Tree(Linear(4, 4) if with_params else None, through_call)
    expected = {"tanh_1": 5, "add_1": 4, "relu_1": 4} | ({"linear_1": 4} if with_params else {})
    assert traced(model, tree) == expected


def test_a_recursive_function(x: Array) -> None:
    def model(x: Array, depth: int = 3) -> Any:
        return sin(model(x, depth - 1)) if depth else tanh(x)

    assert traced(model, x) == {"tanh_1": 1, "sin_1": 3}


# -- the switch, and what a trace is -------------------------------------------------------------------------------


def test_without_recurrence_only_shared_parameters_make_passes(x: Array) -> None:
    def forward(net: Any, x: Array) -> Any:
        for _ in range(3):
            x = net.fc(x) + 1
        return x

    assert traced(Net(forward), x, recurrence=False) == {"linear_1": 3, "add_1": 1, "add_2": 1, "add_3": 1}


def test_without_recurrence_nothing_is_a_pass_of_an_input(x: Array) -> None:
    made = trace(sin, x, recurrence=False)
    assert [op.label for op in made] == ["input_1:1", "sin_1_1:1", "output_1:1"]


def test_each_output_of_a_repeated_call_is_a_layer(tape: Tape) -> None:
    x = tape.input()
    for _ in range(3):
        x, _other = tape.ops("split", x, outs=2, at="loop")
    tape.output(x)
    assert layers(tape.trace()) == {"split_1": 3, "split_2": 3}


def test_is_recurrent_needs_an_input_before(tape: Tape) -> None:
    y = tape.op("zeros")
    for _ in range(3):
        y = tape.op("sin", y, at="loop")
    tape.output(tape.op("add", tape.input(), y))
    made = tape.trace()
    assert layers(made)["sin_1"] == 3
    assert not made.is_recurrent


def test_is_recurrent_needs_a_way_from_pass_to_pass(tape: Tape) -> None:
    x = tape.input()
    parts = [tape.op("sin", x, at="loop") for _ in range(3)]
    tape.output(tape.op("concat", parts))
    assert not tape.trace().is_recurrent


def test_where_no_frames_are_known_the_module_call_is_the_place(tape: Tape) -> None:
    x = tape.input()
    for _ in range(2):
        with tape.module("act", at="loop"):
            x = tape.op("relu", x)
            x = tape.op("relu", x)
    for index, row in enumerate(tape.program.rows):
        tape.program.rows[index] = row._replace(site=-1)
    tape.output(x)
    assert layers(tape.trace()) == {"relu_1": 4}


def test_two_functions_at_one_place_are_two_layers(x: Array) -> None:
    def model(x: Array) -> Any:
        for function in (sin, tanh, sin):
            x = function(x)
        return x

    assert traced(model, x) == {"sin_1": 2, "tanh_1": 1}


def test_group_gives_a_layer_for_every_node(x: Array) -> None:
    made = trace(Net(lambda net, x: net.fc(x) + mul(x, 2)), x)
    layer_of = group(made.graph)
    assert list(layer_of) == list(made.labels.layer_of) == [0, 1, 2, 3, 4]
    assert not is_recurrent(made.graph, layer_of)
