"""Semantics, section 3: which Ops are passes of one layer, beside what the conformance kit holds every backend to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Case, Model, Table, layers, traced, x

TABLE = Table()
RENDER = layers


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_layers(case: Case) -> None:
    assert layers(traced(case.make, **case.options)) == " ".join(case.expected.split())


# -- the worked examples -----------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual branch: Linear, GELU, a scaling."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x)) * 0.5


@TABLE("norm_1_1 x4, lt_1_2 x4, mul_1_3 x3")
def a_while_loop() -> Any:
    def forward(x: Tensor) -> Tensor:
        while x.norm() < 10:
            x = x * 2
        return x

    return forward, torch.full((4,), 0.75)


@TABLE("unbind_1_1, unbind_2_2, unbind_3_3, lstmcell_1_4 x3, lstmcell_2_5 x3")
def an_lstm_cell_in_a_loop() -> Any:
    def forward(self: Any, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        for step in x:
            h, c = self.cell(step, (h, c))
        return h

    return Model(forward, cell=nn.LSTMCell(4, 3)), x(3, 2, 4), x(2, 3), x(2, 3)


@TABLE("linear_1_1 x4, tanh_1_2 x4, cat_1_3 x3, linear_2_4 x3, tanh_2_5 x3")
def a_tree_rnn() -> Any:
    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = nn.Linear(2, 4)
            self.join = nn.Linear(8, 4)

        def encode(self, tree: Any) -> Tensor:
            if isinstance(tree, Tensor):
                return torch.tanh(self.leaf(tree))
            left, right = (self.encode(branch) for branch in tree)
            return torch.tanh(self.join(torch.cat([left, right])))

        def forward(self, *leaves: Tensor) -> Tensor:
            a, b, c, d = leaves
            return self.encode((((a, b), c), d))

    return Tree(), x(2), x(2), x(2), x(2)


# -- rule 1: parameters, at one position -------------------------------------------------------------------------------


@TABLE("getitem_1_1, getitem_2_2, getitem_3_3, linear_1_4, linear_2_5, add_1_6, linear_3_7, add_2_8")
def three_slices_of_a_fused_weight() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.w[:4], self.w[4:8], self.w[8:]
        return F.linear(x, q) + F.linear(x, k) + F.linear(x, v)

    return Model(forward, w=nn.Parameter(torch.randn(12, 4))), x()


@TABLE("linear_1_1, mul_1_2, linear_2_3, add_1_4")
def the_same_parameters_at_two_positions_of_the_authors_code() -> Any:
    return Model(lambda self, x: F.linear(x, self.w) + F.linear(x * 1, self.w), w=nn.Parameter(torch.randn(4, 4))), x()


@TABLE("linear_1_1, linear_2_2")
def two_modules_that_share_a_weight_but_no_bias() -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    return Tied(), x()


@TABLE("linear_1_1 x2")
def two_modules_that_share_all_their_parameters() -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    return Tied(), x()


# -- rule 2: the frames up to the module that holds parameters ---------------------------------------------------------


@TABLE("linear_1_1, sin_1_2, linear_2_3, sin_2_4")
def a_helper_called_from_two_places() -> Any:
    def squash(x: Tensor) -> Tensor:
        return torch.sin(x)

    def forward(self: Any, x: Tensor) -> Tensor:
        x = squash(self.a(x))
        return squash(self.b(x))

    return Model(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), x()


@TABLE("linear_1_1 x2, gelu_1_2 x2, mul_1_3 x2")
def one_block_called_from_two_places() -> Any:
    """Its own operations are passes: above the module that holds parameters the positions do not count."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.block(x)
        return self.block(x)

    return Model(forward, block=Block()), x()


@TABLE("sin_1_1 x6")
def a_loop_in_a_loop() -> Any:
    def forward(x: Tensor) -> Tensor:
        for _ in range(2):
            for _ in range(3):
                x = torch.sin(x)
        return x

    return forward, x()


@TABLE("sin_1_1 x3, stack_1_2")
def a_comprehension() -> Any:
    return lambda x: torch.stack([torch.sin(row) for row in (x, x, x)]), x()


@TABLE("sin_1_1, sin_2_2, sin_3_3")
def a_loop_unrolled_by_hand() -> Any:
    def forward(x: Tensor) -> Tensor:
        x = torch.sin(x)
        x = torch.sin(x)
        return torch.sin(x)

    return forward, x()


# -- rule 3: a loop over different blocks ------------------------------------------------------------------------------


@TABLE("linear_1_1, relu_1_2, linear_2_3, relu_2_4")
def sequential_with_one_shared_relu() -> Any:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu), x()


@TABLE("linear_1_1 x2, relu_1_2 x2")
def sequential_with_a_linear_and_a_relu_twice() -> Any:
    """One block only, run twice: a true loop."""
    fc, relu = nn.Linear(4, 4), nn.ReLU()
    return nn.Sequential(fc, relu, fc, relu), x()


@TABLE("""
    linear_1_1 x3, gelu_1_2 x3, mul_1_3 x3, add_1_4 x3,
    linear_2_5 x3, gelu_2_6 x3, mul_2_7 x3, add_2_8 x3
""")
def groups_of_shared_blocks() -> Any:
    """As ALBERT has them: six steps over two groups; the passes of a group are passes of one layer."""

    def forward(self: Any, x: Tensor) -> Tensor:
        for step in range(6):
            x = x + self.groups[step // 3](x)
        return x

    return Model(forward, groups=nn.ModuleList(Block() for _ in range(2))), x()


@TABLE("linear_1_1 x6, gelu_1_2 x6, mul_1_3 x6, add_1_4 x6")
def one_group_of_shared_blocks() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        for _ in range(6):
            x = x + self.group(x)
        return x

    return Model(forward, group=Block()), x()


@TABLE("matmul_1_1, relu_1_2, matmul_2_3, relu_2_4")
def a_loop_over_parameters() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        for w in self.weights:
            x = torch.relu(x @ w)
        return x

    return Model(forward, weights=nn.ParameterList(torch.randn(4, 4) for _ in range(2))), x()


@TABLE("linear_1_1, tanh_1_2, linear_2_3, tanh_2_4, linear_3_5, tanh_3_6, cat_1_7")
def a_list_comprehension_over_heads() -> Any:
    return Model(
        lambda self, x: torch.cat([torch.tanh(head(x)) for head in self.heads], dim=1),
        heads=nn.ModuleList(nn.Linear(4, 2) for _ in range(3)),
    ), x()


# -- recurrence=False --------------------------------------------------------------------------------------------------


@TABLE("linear_1_1 x3, add_1_2, add_2_3, add_3_4", recurrence=False)
def recurrence_false_leaves_rule_1() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.fc(x) + 1
        return x

    return Model(forward, fc=nn.Linear(4, 4)), x()


# -- is_recurrent ------------------------------------------------------------------------------------------------------

RECURRENT = {
    "an_lstm_cell_in_a_loop": True,
    "a_tree_rnn": True,
    "one_group_of_shared_blocks": True,
    "groups_of_shared_blocks": True,
    "a_while_loop": True,
    "sequential_with_one_shared_relu": False,
    "a_comprehension": False,
    "a_loop_over_parameters": False,
}


@pytest.mark.parametrize("name", RECURRENT)
def test_is_recurrent(name: str) -> None:
    (case,) = (case for case in TABLE.cases if case.name == name)
    assert traced(case.make).is_recurrent is RECURRENT[name]


def test_a_loop_without_an_input_ancestor_is_no_recurrence() -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            step = torch.zeros(4)
            for _ in range(3):
                step = step + 1
            return x + step

        return forward, x()

    trace = traced(make)
    assert layers(trace) == "zeros_1_1, add_1_2 x3, add_2_3"
    assert not trace.is_recurrent


def test_torch_lstm_is_one_operation() -> None:
    trace = traced(lambda: (nn.LSTM(4, 3), x(5, 2, 4)))
    assert [op.type for op in trace.compute_ops] == ["zeros", "zeros", "lstm", "lstm", "lstm"]
    assert len({op.func_call_id for op in trace.compute_ops if op.type == "lstm"}) == 1
    assert not trace.is_recurrent


def test_passes_of_a_layer_are_labelled_in_the_order_of_the_run() -> None:
    trace = tl.trace(Model(lambda self, x: self.fc(self.fc(self.fc(x))), fc=nn.Linear(4, 4)), x())
    assert [op.label for op in trace.compute_ops] == ["linear_1_1:1", "linear_1_1:2", "linear_1_1:3"]
    assert trace["linear_1_1"].num_passes == 3
    assert trace["linear_1_1:2"].parents == ["linear_1_1:1"]
    assert trace["linear_1_1"].parents == ["input_1", "linear_1_1"]
