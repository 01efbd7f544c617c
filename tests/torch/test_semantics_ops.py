"""Semantics, section 1: what is an Op."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Case, Model, Setup, Table, graph, traced, x

TABLE = Table()


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_graph(case: Case) -> None:
    assert graph(traced(case.make, **case.options)) == case.expected


# -- function level ----------------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    linear_1_1 <- input_1
    relu_1_2 <- linear_1_1
    softmax_1_3 <- relu_1_2
    output_1 = output <- softmax_1_3
""")
def function_level() -> Any:
    return Model(lambda self, x: F.softmax(F.relu(self.fc(x)), dim=-1), fc=nn.Linear(4, 3)), x()


@TABLE("""
    input_1 = input.x
    conv2d_1_1 <- input_1
    batchnorm_1_2 <- conv2d_1_1, buffer_1, buffer_2
    gelu_1_3 <- batchnorm_1_2
    maxpool2d_1_4 <- gelu_1_3
    adaptiveavgpool2d_1_5 <- maxpool2d_1_4
    flatten_1_6 <- adaptiveavgpool2d_1_5
    layernorm_1_7 <- flatten_1_6
    dropout_1_8 <- layernorm_1_7
    output_1 = output <- dropout_1_8
    buffer_1 = bn.running_mean v1
    buffer_2 = bn.running_var v1
""")
def library_layers_are_one_op_each() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn(self.conv(x))))
        return self.drop(self.norm(torch.flatten(self.avg(x), 1)))

    parts = {
        "conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), "act": nn.GELU(), "pool": nn.MaxPool2d(2),
        "avg": nn.AdaptiveAvgPool2d(1), "norm": nn.LayerNorm(4), "drop": nn.Dropout(),
    }  # fmt: skip
    return Model(forward, **parts).eval(), x(2, 3, 8, 8)


@TABLE("""
    input_1 = input.ids
    embedding_1_1 <- input_1
    einsum_1_2 <- embedding_1_1
    scaleddotproductattention_1_3 <- einsum_1_2, embedding_1_1
    output_1 = output <- scaleddotproductattention_1_3
""")
def attention_einsum_embedding() -> Any:
    def forward(self: Any, ids: Tensor) -> Tensor:
        h = self.table(ids)
        q = torch.einsum("btd,de->bte", h, self.w)
        return F.scaled_dot_product_attention(q, h, h)

    return Model(forward, table=nn.Embedding(7, 4), w=nn.Parameter(torch.randn(4, 4))), torch.tensor([[1, 2, 3]])


@TABLE("""
    input_1 = input.input
    zeros_1_1
    gru_1_2 <- input_1, zeros_1_1
    gru_2_3 <- input_1, zeros_1_1
    output_1 = output.0 <- gru_1_2
    output_2 = output.1 <- gru_2_3
""")
def gru() -> Any:
    """Three outputs of one call, in torch's container; the initial state is made inside."""
    return nn.GRU(4, 3), x(5, 2, 4)


@TABLE("""
    input_1 = input.x
    zeros_1_1
    zeros_2_2
    lstm_1_3 <- input_1, zeros_1_1, zeros_2_2
    lstm_2_4 <- input_1, zeros_1_1, zeros_2_2
    lstm_3_5 <- input_1, zeros_1_1, zeros_2_2
    getitem_1_6 <- lstm_1_3
    getitem_2_7 <- lstm_2_4
    add_1_8 <- getitem_1_6, getitem_2_7
    getitem_3_9 <- lstm_3_5
    add_2_10 <- add_1_8, getitem_3_9
    output_1 = output <- add_2_10
""")
def lstm() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x)
        return out[-1] + h[0] + c[0]

    return Model(forward, lstm=nn.LSTM(4, 3)), x(5, 2, 4)


@TABLE("""
    input_1 = input.x
    linear_1_1 <- input_1
    unflatten_1_2 <- linear_1_1
    unsqueeze_1_3 <- unflatten_1_2
    transpose_1_4 <- unsqueeze_1_3
    squeeze_1_5 <- transpose_1_4
    contiguous_1_6 <- squeeze_1_5
    getitem_1_7 <- contiguous_1_6
    getitem_2_8 <- contiguous_1_6
    getitem_3_9 <- contiguous_1_6
    view_1_10 <- getitem_1_7
    transpose_2_11 <- view_1_10
    view_2_12 <- getitem_2_8
    transpose_3_13 <- view_2_12
    view_3_14 <- getitem_3_9
    transpose_4_15 <- view_3_14
    view_4_16 <- transpose_2_11
    view_5_17 <- transpose_3_13
    view_6_18 <- transpose_4_15
    scaleddotproductattention_1_19 <- view_4_16, view_5_17, view_6_18
    permute_1_20 <- scaleddotproductattention_1_19
    reshape_1_21 <- permute_1_20
    linear_2_22 <- reshape_1_21
    view_7_23 <- linear_2_22
    output_1 = output <- view_7_23
""")
def multi_head_attention_is_opened() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]

    return Model(forward, attention=nn.MultiheadAttention(8, 2)), x(3, 1, 8)


@TABLE("""
    input_1 = input.src
    transpose_1_1 <- input_1
    linear_1_2 <- transpose_1_1
    unflatten_1_3 <- linear_1_2
    unsqueeze_1_4 <- unflatten_1_3
    transpose_2_5 <- unsqueeze_1_4
    squeeze_1_6 <- transpose_2_5
    contiguous_1_7 <- squeeze_1_6
    getitem_1_8 <- contiguous_1_7
    getitem_2_9 <- contiguous_1_7
    getitem_3_10 <- contiguous_1_7
    view_1_11 <- getitem_1_8
    transpose_3_12 <- view_1_11
    view_2_13 <- getitem_2_9
    transpose_4_14 <- view_2_13
    view_3_15 <- getitem_3_10
    transpose_5_16 <- view_3_15
    view_4_17 <- transpose_3_12
    view_5_18 <- transpose_4_14
    view_6_19 <- transpose_5_16
    scaleddotproductattention_1_20 <- view_4_17, view_5_18, view_6_19
    permute_1_21 <- scaleddotproductattention_1_20
    reshape_1_22 <- permute_1_21
    linear_2_23 <- reshape_1_22
    view_7_24 <- linear_2_23
    transpose_6_25 <- view_7_24
    dropout_1_26 <- transpose_6_25
    add_1_27 <- input_1, dropout_1_26
    layernorm_1_28 <- add_1_27
    linear_3_29 <- layernorm_1_28
    relu_1_30 <- linear_3_29
    dropout_2_31 <- relu_1_30
    linear_4_32 <- dropout_2_31
    dropout_3_33 <- linear_4_32
    add_2_34 <- layernorm_1_28, dropout_3_33
    layernorm_2_35 <- add_2_34
    output_1 = output <- layernorm_2_35
""")
def transformer_encoder_layer_in_eval_mode() -> Any:
    """No fast path: the operations are those of the layer's own forward."""
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), x(1, 3, 8)


# -- inputs ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    tokens: Tensor
    mask: Tensor


Pair = namedtuple("Pair", "left right")


@TABLE("""
    input_1 = input.x
    input_2 = input.batch.tokens
    input_3 = input.batch.mask
    input_4 = input.rest.0
    input_5 = input.rest.1
    input_6 = input.pair.left
    input_7 = input.pair.right
    input_8 = input.table.a
    input_9 = input.table.b.0
    add_1_1 <- input_1, input_2
    add_2_2 <- add_1_1, input_3
    add_3_3 <- add_2_2, input_4
    add_4_4 <- add_3_3, input_5
    add_5_5 <- add_4_4, input_6
    add_6_6 <- add_5_5, input_7
    add_7_7 <- add_6_6, input_8
    add_8_8 <- add_7_7, input_9
    output_1 = output <- add_8_8
""")
def inputs_by_name_and_path() -> Any:
    def forward(self: Any, x: Tensor, batch: Batch, *rest: Tensor, pair: Pair, table: dict[str, Any]) -> Tensor:
        total = x + batch.tokens + batch.mask + rest[0] + rest[1]
        return total + pair.left + pair.right + table["a"] + table["b"][0]

    kwargs = {"pair": Pair(x(4), x(4)), "table": {"a": x(4), "b": [x(4), 3]}}
    return Setup(Model(forward), (x(4), Batch(x(4), x(4)), x(4), x(4)), kwargs)


@TABLE("""
    input_1 = input.x
    input_2 = input.unused
    add_1_1 <- input_1
    output_1 = output <- add_1_1
""")
def an_input_that_is_not_used() -> Any:
    return lambda x, unused: x + 1, x(), x()


# -- outputs -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    logits: Tensor
    count: int
    hidden: tuple[Tensor, ...]


class ModelOutput(OrderedDict[str, Any]):
    """As transformers has it: a dict whose entries are attributes too."""


@TABLE("""
    input_1 = input.x
    add_1_1 <- input_1
    mul_1_2 <- input_1
    output_1 = output.logits <- add_1_1
    output_2 = output.nested.0 <- mul_1_2
    output_3 = output.nested.1.0 <- add_1_1
    output_4 = output.data.logits <- mul_1_2
    output_5 = output.data.hidden.0 <- add_1_1
    output_6 = output.pair.left <- add_1_1
    output_7 = output.pair.right <- mul_1_2
""")
def outputs_by_path() -> Any:
    def forward(x: Tensor) -> Any:
        a, b = x + 1, x * 2
        return {"logits": a, "nested": (b, [a, None, 3]), "data": Result(b, 2, (a,)), "pair": Pair(a, b)}

    return forward, x()


@TABLE("""
    input_1 = input.x
    sum_1_1 <- input_1
    mul_1_2 <- input_1
    output_1 = output.loss <- sum_1_1
    output_2 = output.logits <- mul_1_2
""")
def output_of_a_model_output_class() -> Any:
    return lambda x: ModelOutput(loss=x.sum(), logits=x * 2), x()


@TABLE("""
    input_1 = input.x
    add_1_1 <- input_1
    output_1 = output.0 <- add_1_1
    output_2 = output.1 <- input_1
""")
def an_input_returned_beside_a_result() -> Any:
    return lambda x: (x + 1, x), x()


# -- several outputs ---------------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    chunk_1_1 <- input_1
    chunk_2_2 <- input_1
    max_1_3 <- chunk_1_1
    max_2_4 <- chunk_1_1
    unbind_1_5 <- chunk_2_2
    unbind_2_6 <- chunk_2_2
    add_1_7 <- max_1_3, max_2_4
    add_2_8 <- add_1_7, unbind_1_5
    add_3_9 <- add_2_8, unbind_2_6
    output_1 = output <- add_3_9
""")
def operations_with_several_outputs() -> Any:
    def forward(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        values, indices = torch.max(a, dim=1)
        first, second = b
        return values + indices + first + second

    return forward, x()


# -- arrays made inside ------------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    arange_1_1
    mul_1_2 <- arange_1_1
    add_1_3 <- input_1, mul_1_2
    zeros_1_4
    add_2_5 <- add_1_3, zeros_1_4
    tensor_1_6
    add_3_7 <- add_2_5, tensor_1_6
    rand_1_8
    add_4_9 <- add_3_7, rand_1_8
    output_1 = output <- add_4_9
""")
def arrays_made_inside() -> Any:
    def forward(x: Tensor) -> Tensor:
        steps = torch.arange(4) * 0.5
        return x + steps + torch.zeros(4) + torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.rand(4)

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_3 <- input_1
    output_1 = output <- mul_1_3
""")
def orphans_are_numbered_and_hidden() -> Any:
    def forward(x: Tensor) -> Tensor:
        torch.ones(3).sum()
        return x * 2

    return forward, x()


@TABLE(
    """
    input_1 = input.x
    ones_1_1
    sum_1_2 <- ones_1_1
    mul_1_3 <- input_1
    output_1 = output <- mul_1_3
""",
    keep_orphans=True,
)
def orphans_shown_when_asked_for() -> Any:
    return orphans_are_numbered_and_hidden()


@TABLE("""
    input_1 = input.x
    ones_1_1
    sum_1_2 <- ones_1_1
    gt_1_3 <- sum_1_2
    add_1_4 <- input_1
    output_1 = output <- add_1_4
""")
def a_predicate_counts_as_an_output() -> Any:
    def forward(x: Tensor) -> Tensor:
        if torch.ones(()).sum() > 0:
            return x + 1
        return x

    return forward, x()


# -- what is no Op -----------------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    add_1_1 <- input_1
    output_1 = output <- add_1_1
""")
def reads_are_no_ops() -> Any:
    def forward(x: Tensor) -> Tensor:
        assert x.shape == x.size() and x.dim() == x.ndim == 2 and len(x) == 2 and x.numel() == 8
        assert x.dtype == torch.float32 and not x.is_cuda and x.stride(0) == 4 and x.is_contiguous()
        assert x.requires_grad is False and x.grad_fn is None and not torch.is_complex(x)
        return x + x.shape[0]

    return forward, x()


@TABLE("""
    input_1 = input.x
    add_1_1 <- input_1
    mul_1_2 <- add_1_1
    output_1 = output <- mul_1_2
""")
def numbers_and_closed_over_arrays_are_arguments() -> Any:
    closed = x(4)
    return lambda x: torch.add(x, closed, alpha=2) * 3.5, x()


# -- pass-through operations -------------------------------------------------------------------------------------------


@TABLE("""
    input_1 = input.x
    to_1_1 <- input_1
    mul_1_2 <- input_1
    mul_2_3 <- to_1_1
    add_1_4 <- mul_1_2, mul_2_3
    output_1 = output <- add_1_4
""")
def to_that_changes_nothing() -> Any:
    """Both the argument and the result are read later; each reader has its own parent."""

    def forward(x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        return (x * 2) + (y * 3)

    return forward, x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    contiguous_1_2 <- mul_1_1
    add_1_3 <- mul_1_1, contiguous_1_2
    output_1 = output <- add_1_3
""")
def contiguous_of_what_is_contiguous() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        z = y.contiguous()
        return y + z

    return forward, x()


@TABLE("""
    input_1 = input.x
    dropout_1_1 <- input_1
    add_1_2 <- input_1, dropout_1_1
    output_1 = output <- add_1_2
""")
def dropout_in_eval_mode() -> Any:
    return Model(lambda self, x: x + self.drop(x), drop=nn.Dropout()).eval(), x()


@TABLE("""
    input_1 = input.x
    identity_1_1 <- input_1
    identity_2_2 <- input_1
    add_1_3 <- identity_1_1, identity_2_2
    output_1 = output <- add_1_3
""")
def identity_module() -> Any:
    return Model(lambda self, x: self.skip(x) + self.same(x), skip=nn.Identity(), same=nn.Identity()), x()


@TABLE("""
    input_1 = input.input
    identity_1_1 <- input_1
    output_1 = output <- identity_1_1
""")
def a_model_that_returns_its_input() -> Any:
    return nn.Identity(), x()


@TABLE("""
    input_1 = input.x
    double_1_1 <- input_1
    half_1_2 <- double_1_1
    to_1_3 <- half_1_2
    cpu_1_4 <- to_1_3
    typeas_1_5 <- cpu_1_4, input_1
    output_1 = output <- typeas_1_5
""")
def type_conversions_that_convert() -> Any:
    return lambda x: x.double().half().to(torch.float32).cpu().type_as(x), x()


# -- what an Op knows --------------------------------------------------------------------------------------------------


def test_outputs_of_one_call_share_its_id() -> None:
    trace = traced(operations_with_several_outputs)
    left, right = trace["chunk_1"], trace["chunk_2"]
    assert left.func_call_id == right.func_call_id != trace["max_1"].func_call_id
    assert [(op.output_index, op.in_multi_output, op.container_path) for op in (left, right)] == [
        (0, True, (0,)), (1, True, (1,)),
    ]  # fmt: skip
    assert [trace[name].output_name for name in ("max_1", "max_2")] == ["values", "indices"]
    assert trace[tl.func("max") & tl.output("indices")].label == "max_2_4:1"
    assert trace[tl.func("chunk", output=1)].label == "chunk_2_2:1"
    assert trace["add_1"].in_multi_output is False


def test_sources_and_sinks() -> None:
    trace = traced(arrays_made_inside)
    inside = [op.layer_label for op in trace.compute_ops if op.is_internal_source]
    assert inside == ["arange_1_1", "zeros_1_4", "tensor_1_6", "rand_1_8"]
    assert trace["mul_1"].has_input_ancestor is False
    assert trace["add_1"].has_input_ancestor is True

    def with_a_sink(x: Tensor) -> Tensor:
        x.mean()
        return x * 2

    sink = traced(lambda: (with_a_sink, x()))
    assert [op.layer_label for op in sink.compute_ops if op.is_internal_sink] == ["mean_1_1"]


def test_orphans_are_kept_apart() -> None:
    trace = traced(orphans_are_numbered_and_hidden)
    assert [op.layer_label for op in trace.orphans] == ["ones_1_1", "sum_1_2"]
    assert (trace.num_ops, trace.num_edges, len(trace)) == (1, 2, 3)
    assert trace["sum_1_2"].is_orphan
    shown = traced(orphans_are_numbered_and_hidden, keep_orphans=True)
    assert (shown.num_ops, shown.num_edges, len(shown)) == (3, 3, 5)


READS: dict[str, tuple[Any, Any]] = {
    "bool": (lambda y: bool(y), "bool"),
    "if": (lambda y: 1 if y else 0, "bool"),
    "not": (lambda y: not y, "bool"),
    "int": (lambda y: int(y), "int"),
    "float": (lambda y: float(y), "float"),
    "item": (lambda y: y.item(), "item"),
    "tolist": (lambda y: y.tolist(), "tolist"),
    "index": (lambda y: [1, 2, 3][y.long()], "index"),
    "range": (lambda y: list(range(y.long())), "index"),
    "is_nonzero": (lambda y: torch.is_nonzero(y), "bool"),
}


@pytest.mark.parametrize("name", READS)
def test_an_array_read_as_a_python_value_is_an_event_and_no_op(name: str) -> None:
    read, kind = READS[name]

    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            y = x.sum()
            read(y)
            return x + 1

        return forward, torch.ones(2)

    trace = traced(make)
    (event,) = trace.program.events
    assert event.kind == kind
    assert event.value is True if kind == "bool" else event.value == 2
    assert trace.graph.node_of[event.vid] in (trace["sum_1"].raw_index, trace["sum_1"].raw_index + 1)
    assert {op.type for op in trace.compute_ops} <= {"sum", "to", "long", "add"}


def test_a_comparison_reads_both_arrays() -> None:
    trace = traced(lambda: ((lambda x: x + 1 if torch.allclose(x * 2, torch.zeros(4) + 1) else x), x()))
    assert [op.type for op in trace.compute_ops] == ["mul", "zeros", "add"]
    assert trace["mul_1"].bool_value is False
    assert not trace["zeros_1"].is_orphan
    assert trace.num_conditionals == 1


def test_numbers_given_to_an_operation() -> None:
    trace = traced(numbers_and_closed_over_arrays_are_arguments)
    op = trace["add_1"]
    assert [str(value) for value in op.args] == ["<array>", "<array>"]
    assert dict(op.kwargs) == {"alpha": 2}
    assert trace["mul_1"].args[1] == 3.5


def test_a_view_of_the_transformer_block_by_modules() -> None:
    trace = traced(transformer_encoder_layer_in_eval_mode)
    assert trace["scaleddotproductattention_1"].modules == ["self_attn:1"]
    assert trace["linear_1"].param_addresses == ["self_attn.in_proj_weight", "self_attn.in_proj_bias"]
    assert trace["linear_2"].param_addresses == ["self_attn.out_proj.weight", "self_attn.out_proj.bias"]
    assert trace["linear_3"].output_of_module_calls == ["linear1:1"]


def test_a_whole_transformer() -> None:
    def make() -> Any:
        return nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval(), x(1, 3, 8), x(1, 2, 8)

    trace = traced(make)
    types = [op.type for op in trace.compute_ops]
    assert types.count("scaleddotproductattention") == 3
    assert types.count("linear") == 11
    assert types.count("layernorm") == 7
    assert not trace.is_recurrent
    assert trace["output_1"].input_ancestors == ["input_1", "input_2"]
