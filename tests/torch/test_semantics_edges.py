"""Semantics, section 4: edges, and memory that is written.

Every model of the table is also compared with an oracle that copies each result at once (see ``traced``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Case, Model, Table, graph, traced, x

TABLE = Table()


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_graph(case: Case) -> None:
    assert graph(traced(case.make, **case.options)) == case.expected


# -- in-place operations -----------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    add_1_2 <- mul_1_1
    mul_2_3 <- add_1_2, input_1
    sub_1_4 <- mul_2_3
    div_1_5 <- sub_1_4
    pow_1_6 <- div_1_5
    output_1 = output <- pow_1_6
""")
def augmented_assignments() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y += 1
        y *= x
        y -= 1
        y /= 2
        y **= 2
        return y

    return forward, x()


@TABLE("""
    input_1 = input.input
    linear_1_1 <- input_1
    relu_1_2 <- linear_1_1
    linear_2_3 <- relu_1_2
    output_1 = output <- linear_2_3
""")
def inplace_argument_of_a_module() -> Any:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)), x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    leakyrelu_1_2 <- mul_1_1
    add_1_3 <- leakyrelu_1_2
    output_1 = output <- add_1_3
""")
def inplace_argument_given_by_position() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        F.leaky_relu(y, 0.1, True)
        return y + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    zeros_1_1
    getitem_1_2 <- input_1
    setitem_1_3 <- zeros_1_1, getitem_1_2
    setitem_2_4 <- setitem_1_3
    output_1 = output <- setitem_2_4
""")
def setitem() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = torch.zeros(2, 4)
        y[:, 0] = x[:, 1]
        y[0] = 1.0
        return y

    return forward, x()


@TABLE("""
    input_1 = input.x
    input_2 = input.index
    mul_1_1 <- input_1
    getitem_1_2 <- input_1
    setitem_1_3 <- mul_1_1, input_2, getitem_1_2
    gt_1_4 <- setitem_1_3
    setitem_2_5 <- setitem_1_3, gt_1_4
    output_1 = output <- setitem_2_5
""")
def setitem_with_an_index_array() -> Any:
    def forward(x: Tensor, index: Tensor) -> Tensor:
        y = x * 2
        y[index] = x[0]
        y[y > 0] = 0
        return y

    return forward, x(), torch.tensor([1, 0])


@TABLE("""
    input_1 = input.x
    input_2 = input.index
    empty_1_1
    copy_1_2 <- empty_1_1, input_1
    gt_1_3 <- input_1
    maskedfill_1_4 <- copy_1_2, gt_1_3
    getitem_1_5 <- input_1
    indexput_1_6 <- maskedfill_1_4, input_2, getitem_1_5
    getitem_2_7 <- input_2
    scatter_1_8 <- indexput_1_6, getitem_2_7
    clamp_1_9 <- scatter_1_8
    output_1 = output <- clamp_1_9
""")
def copy_masked_fill_index_put_scatter() -> Any:
    def forward(x: Tensor, index: Tensor) -> Tensor:
        y = torch.empty(2, 4)
        y.copy_(x)
        y.masked_fill_(x > 0, 3.0)
        y.index_put_((index,), x[1])
        y.scatter_(1, index[:, None], 9.0)
        return y.clamp_(max=5)

    return forward, x(), torch.tensor([1, 0])


@TABLE("""
    input_1 = input.x
    empty_1_1
    mul_1_2 <- input_1, empty_1_1
    add_1_3 <- mul_1_2
    output_1 = output <- add_1_3
""")
def out_argument() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = torch.empty(2, 4)
        torch.mul(x, 2, out=y)
        return y + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    empty_1_1
    empty_2_2
    max_1_3 <- input_1, empty_1_1, empty_2_2
    max_2_4 <- input_1, empty_1_1, empty_2_2
    add_1_5 <- max_1_3, max_2_4
    output_1 = output <- add_1_5
""")
def out_argument_of_several_outputs() -> Any:
    def forward(x: Tensor) -> Tensor:
        values, indices = torch.empty(2), torch.empty(2, dtype=torch.long)
        torch.max(x, dim=1, out=(values, indices))
        return values + indices

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    mul_2_2 <- input_1
    foreachadd_1_3 <- mul_1_1, mul_2_2
    foreachadd_2_4 <- mul_1_1, mul_2_2
    foreachmul_1_5 <- foreachadd_1_3, foreachadd_2_4, input_1
    foreachmul_2_6 <- foreachadd_1_3, foreachadd_2_4, input_1
    foreachexp_1_7 <- foreachmul_1_5, foreachmul_2_6
    foreachexp_2_8 <- foreachmul_1_5, foreachmul_2_6
    add_1_9 <- foreachmul_1_5, foreachmul_2_6
    add_2_10 <- add_1_9, foreachexp_1_7
    add_3_11 <- add_2_10, foreachexp_2_8
    output_1 = output <- add_3_11
""")
def foreach_functions() -> Any:
    def forward(x: Tensor) -> Tensor:
        a, b = x * 2, x * 3
        torch._foreach_add_([a, b], 1.0)
        torch._foreach_mul_([a, b], [x, x])
        c, d = torch._foreach_exp([a, b])
        return a + b + c + d

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    data_1_2 <- mul_1_1
    mul_2_3 <- data_1_2
    add_1_4 <- mul_1_1 | mul_2_3
    output_1 = output <- add_1_4
""")
def written_through_data() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y.data.mul_(3)
        return y + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    mul_2_2 <- input_1
    getitem_1_3 <- mul_1_1
    data_1_4 <- mul_1_1, mul_2_2
    add_1_5 <- data_1_4, getitem_1_3
    add_2_6 <- add_1_5, mul_2_2
    output_1 = output <- add_2_6
""")
def data_set_to_another_array() -> Any:
    def forward(x: Tensor) -> Tensor:
        y, z = x * 2, x * 3
        view = y[0]
        y.data = z
        return y + view + z

    return forward, x()


@TABLE("""
    input_1 = input.x
    empty_1_1
    fill_1_2 <- empty_1_1
    kaiminguniform_1_3 <- fill_1_2
    normal_1_4 <- kaiminguniform_1_3
    matmul_1_5 <- input_1, normal_1_4
    output_1 = output <- matmul_1_5
""")
def initialised_in_place() -> Any:
    def forward(x: Tensor) -> Tensor:
        w = torch.empty(4, 4)
        nn.init.ones_(w)
        nn.init.kaiming_uniform_(w)
        w.normal_()
        return x @ w

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    add_1_2 <- input_1
    add_2_3 <- add_1_2, mul_1_1
    output_1 = output <- add_2_3
""")
def the_users_own_input_is_overwritten() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        x.add_(1)
        return x + y

    return forward, x()


# -- views and overlapping memory --------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    view_1_2 <- mul_1_1
    t_1_3 <- view_1_2
    reshape_1_4 <- t_1_3
    unsqueeze_1_5 <- reshape_1_4
    mt_1_6 <- unsqueeze_1_5
    output_1 = output <- mt_1_6
""")
def a_view_is_a_child_of_its_base() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = (x * 2).view(4, 2)
        return y.T.reshape(-1).unsqueeze(0).mT

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    add_1_3 <- mul_1_1
    add_2_4 <- getitem_1_2 | add_1_3
    output_1 = output <- add_2_4
""")
def view_read_after_its_base_was_written() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        y.add_(1)
        return row + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    getitem_2_3 <- getitem_1_2
    zero_1_4 <- getitem_2_3
    getitem_3_5 <- mul_1_1 | zero_1_4
    add_1_6 <- getitem_1_2, getitem_3_5 | zero_1_4
    output_1 = output <- add_1_6
""")
def view_of_a_view() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        left = y[:, :2]
        left[0].zero_()
        return left + y[:, 2:]

    return forward, x()


@TABLE("""
    input_1 = input.qkv
    chunk_1_1 <- input_1
    chunk_2_2 <- input_1
    chunk_3_3 <- input_1
    mul_1_4 <- chunk_1_1
    add_1_5 <- chunk_2_2, chunk_3_3
    output_1 = output <- add_1_5
""")
def siblings_that_do_not_overlap() -> Any:
    def forward(qkv: Tensor) -> Tensor:
        q, k, v = qkv.chunk(3, dim=1)
        q.mul_(2)
        return k + v

    return forward, x(2, 6)


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    getitem_2_3 <- mul_1_1
    mul_2_4 <- getitem_1_2
    add_1_5 <- getitem_2_3 | mul_2_4
    output_1 = output <- add_1_5
""")
def siblings_that_overlap() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        left, right = y[:, :3], y[:, 1:]
        left.mul_(2)
        return right + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    getitem_2_3 <- mul_1_1
    mul_2_4 <- getitem_1_2
    add_1_5 <- getitem_2_3
    output_1 = output <- add_1_5
""")
def interleaved_columns() -> Any:
    """Even and odd columns span the same memory and share none of it."""

    def forward(x: Tensor) -> Tensor:
        y = x * 2
        even, odd = y[:, ::2], y[:, 1::2]
        even.mul_(2)
        return odd + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    chunk_1_2 <- mul_1_1
    chunk_2_3 <- mul_1_1
    chunk_3_4 <- mul_1_1
    mul_2_5 <- chunk_1_2
    sum_1_6 <- mul_1_1 | mul_2_5
    sum_2_7 <- chunk_2_3
    add_1_8 <- sum_1_6, sum_2_7
    output_1 = output <- add_1_8
""")
def the_base_of_a_written_chunk() -> Any:
    def forward(x: Tensor) -> Tensor:
        qkv = x * 2
        q, k, _ = qkv.chunk(3, dim=1)
        q.mul_(2)
        return qkv.sum() + k.sum()

    return forward, x(2, 6)


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    add_1_3 <- mul_1_1
    mul_2_4 <- add_1_3
    add_2_5 <- getitem_1_2 | mul_2_4
    output_1 = output <- add_2_5
""")
def two_writes_of_which_the_last_counts() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        y.add_(1)
        y.mul_(3)
        return row + 1

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    getitem_1_2 <- mul_1_1
    add_1_3 <- getitem_1_2
    add_2_4 <- mul_1_1
    add_3_5 <- add_1_3, add_2_4
    output_1 = output <- add_3_5
""")
def written_after_the_last_read() -> Any:
    """What was read before the write keeps its parents."""

    def forward(x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        z = row + 1
        y.add_(1)
        return z + y

    return forward, x()


@TABLE("""
    input_1 = input.x
    complex_1_1 <- input_1
    viewasreal_1_2 <- complex_1_1
    getitem_1_3 <- viewasreal_1_2
    zero_1_4 <- getitem_1_3
    imag_1_5 <- complex_1_1 | zero_1_4
    add_1_6 <- imag_1_5
    abs_1_7 <- complex_1_1 | add_1_6
    output_1 = output <- abs_1_7
""")
def a_real_view_of_a_complex_array() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = torch.complex(x, x)
        torch.view_as_real(y)[..., 0].zero_()
        y.imag.add_(1)
        return y.abs()

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    view_1_2 <- mul_1_1
    setitem_1_3 <- view_1_2
    getitem_1_4 <- mul_1_1 | setitem_1_3
    getitem_2_5 <- mul_1_1 | setitem_1_3
    add_1_6 <- getitem_1_4, getitem_2_5
    output_1 = output <- add_1_6
""")
def reinterpreted_elements_of_another_size() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        bits = y.view(torch.int16)
        bits[0, 0] = 0
        return y[0] + y[1]

    return forward, x()


@TABLE("""
    input_1 = input.x
    sum_1_1 <- input_1
    expand_1_2 <- sum_1_1
    add_1_3 <- sum_1_1
    mul_1_4 <- expand_1_2 | add_1_3
    output_1 = output <- mul_1_4
""")
def an_expanded_view() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x.sum(1, keepdim=True)
        wide = y.expand(2, 4)
        y.add_(1)
        return wide * 2

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    contiguous_1_2 <- mul_1_1
    add_1_3 <- contiguous_1_2
    add_2_4 <- mul_1_1 | add_1_3
    output_1 = output <- add_2_4
""")
def in_place_on_what_a_pass_through_returned() -> Any:
    """The alias and the argument share memory, and both are read after the write."""

    def forward(x: Tensor) -> Tensor:
        y = x * 2
        z = y.contiguous()
        z.add_(1)
        return y + z

    return forward, x()


@TABLE("""
    input_1 = input.x
    contiguous_1_1 <- input_1
    mul_1_2 <- contiguous_1_1
    output_1 = output <- mul_1_2
""")
def in_place_under_no_grad_on_what_a_pass_through_returned() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x.contiguous()
        y.mul_(self.w)
        return y

    return Model(forward, w=nn.Parameter(torch.ones(4))), x()


# -- edges -------------------------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    input_2 = input.y
    cat_1_1 <- input_1, input_2
    gt_1_2 <- cat_1_1
    stack_1_3 <- cat_1_1
    getitem_1_4 <- stack_1_3
    where_1_5 <- gt_1_2, cat_1_1, getitem_1_4
    output_1 = output <- where_1_5
""")
def keyword_and_container_arguments() -> Any:
    def forward(x: Tensor, y: Tensor) -> Tensor:
        z = torch.cat([x, y, x], dim=0)
        return torch.where(condition=z > 0, input=z, other=torch.stack(tensors=(z, z))[0])

    return forward, x(), x()


@TABLE("""
    input_1 = input.x
    input_2 = input.rows
    getitem_1_1 <- input_1, input_2
    output_1 = output <- getitem_1_1
""")
def arrays_in_an_index() -> Any:
    return lambda x, rows: x[rows, 1:], x(), torch.tensor([0, 1])


@TABLE("""
    input_1 = input.x
    pow_1_1 <- input_1
    div_1_2 <- pow_1_1
    ones_1_3
    sub_1_4 <- input_1, ones_1_3
    floordiv_1_5 <- div_1_2, sub_1_4
    sub_2_6 <- floordiv_1_5
    output_1 = output <- sub_2_6
""")
def reflected_operators() -> Any:
    return lambda x: 1 - (2 / (3**x)) // torch.ones(4).__rsub__(x), x()


def test_x_times_x_is_one_edge_with_two_positions() -> None:
    trace = tl.trace(lambda x: x * x, x())
    assert trace.num_edges == 2
    assert trace["mul_1_1"].parents == ["input_1"]
    assert trace["mul_1_1"].parent_arg_positions == {"args": {0: "input_1", 1: "input_1"}, "kwargs": {}}


def test_argument_positions() -> None:
    trace = tl.trace(lambda x, y: torch.add(torch.cat([x, y]), other=1 - torch.cat((y, x))), [x(), x()])
    assert trace["cat_1"].parent_arg_positions == {"args": {(0, 0): "input_1", (0, 1): "input_2"}, "kwargs": {}}
    assert trace["cat_2"].parent_arg_positions == {"args": {(0, 0): "input_2", (0, 1): "input_1"}, "kwargs": {}}
    assert trace["sub_1"].parent_arg_positions == {"args": {1: "cat_2_2"}, "kwargs": {}}
    assert trace["add_1"].parent_arg_positions == {"args": {0: "cat_1_1"}, "kwargs": {"other": "sub_1_3"}}


def test_a_write_edge_carries_no_argument_position() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        y.add_(1)
        return row + 1

    op = tl.trace(forward, x())["add_2"]
    assert op.parents == ["getitem_1_2", "add_1_3"]
    assert op.write_parents == ["add_1_3"]
    assert op.parent_arg_positions == {"args": {0: "getitem_1_2"}, "kwargs": {}}


# torch itself turns `2 + x` into `x.add(2)` (and `*`, `&`, `|`, `^`) before anybody can see which it was.
REFLECTED = {
    "__rsub__": (lambda x: 2 - x, "sub"),
    "__rtruediv__": (lambda x: 2 / x, "div"),
    "__rdiv__": (lambda x: x.__rdiv__(2), "div"),
    "__rfloordiv__": (lambda x: 2 // x, "floordiv"),
    "__rmod__": (lambda x: 2 % x, "remainder"),
    "__rpow__": (lambda x: 2**x, "pow"),
    "__rmatmul__": (lambda x: x.mT.__rmatmul__(x.clone()), "matmul"),
    "__rlshift__": (lambda x: 2 << x.int().abs(), "lshift"),
    "__rrshift__": (lambda x: 2 >> x.int().abs(), "rshift"),
    "rsub": (lambda x: torch.rsub(x, 2), "sub"),
}


@pytest.mark.parametrize("name", REFLECTED)
def test_reflected_operators_have_their_operands_in_their_real_positions(name: str) -> None:
    function, type_ = REFLECTED[name]
    trace = traced(lambda: (function, x()))
    op = trace.compute_ops[-1]
    assert op.type == type_
    assert list(op.parent_arg_positions["args"])[-1] == 1
    assert op.args[0] == 2 or name == "__rmatmul__"


def test_values_are_those_at_their_op_and_not_later() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        y[0] = 0
        return y

    given = torch.ones(2, 2)
    trace = tl.trace(forward, given)
    assert trace["mul_1"].out.tolist() == [[2, 2], [2, 2]]
    assert trace["add_1"].out.tolist() == [[3, 3], [3, 3]]
    assert trace["setitem_1"].out.tolist() == [[0, 0], [3, 3]]
    assert trace["output_1"].out.tolist() == [[0, 0], [3, 3]]
