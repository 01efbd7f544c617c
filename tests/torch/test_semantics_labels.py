"""Semantics, section 2: labels, types, and looking up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Model, traced, x
from torchlens_core.errors import AmbiguousLabel, LabelError, MultiPassError, SelectorError, SelectorWarning

# -- types -------------------------------------------------------------------------------------------------------------

TYPES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "max_pool2d": (lambda x: F.max_pool2d(x[None], 2), "maxpool2d"),
    "max_pool2d_with_indices": (lambda x: F.max_pool2d_with_indices(x[None], 2), "maxpool2d"),
    "add_": (lambda x: (x * 1).add_(1), "add"),
    "__iadd__": (lambda x: (x * 1).__iadd__(1), "add"),
    "__add__": (lambda x: x + 1, "add"),
    "__rsub__": (lambda x: 1 - x, "sub"),
    "__truediv__": (lambda x: x / 2, "div"),
    "true_divide": (lambda x: torch.true_divide(x, 2), "div"),
    "__rdiv__": (lambda x: x.__rdiv__(2), "div"),
    "__eq__": (lambda x: x == 1, "eq"),
    "__ne__": (lambda x: x != 1, "ne"),
    "__lt__": (lambda x: x < 1, "lt"),
    "greater_equal": (lambda x: torch.greater_equal(x, 1), "ge"),
    "__getitem__": (lambda x: x[0], "getitem"),
    "__matmul__": (lambda x: x @ x.mT, "matmul"),
    "__mod__": (lambda x: x % 2, "remainder"),
    "__neg__": (lambda x: -x, "neg"),
    "__invert__": (lambda x: ~(x > 0), "invert"),
    "__and__": (lambda x: (x > 0) & (x < 1), "and"),
    "__floordiv__": (lambda x: x // 2, "floordiv"),
    "__abs__": (lambda x: abs(x), "abs"),
    "linalg_vector_norm": (lambda x: torch.linalg.vector_norm(x), "vectornorm"),
    "fft": (lambda x: torch.fft.fft(x), "fft"),
    "special_expit": (lambda x: torch.special.expit(x), "sigmoid"),
    "log_softmax": (lambda x: F.log_softmax(x, 0), "logsoftmax"),
    "_softmax": (lambda x: torch.ops.aten._softmax(x, 0, False), "softmax"),
    "T": (lambda x: x.T, "t"),
    "real": (lambda x: torch.complex(x, x).real, "real"),
    "relu_": (lambda x: torch.relu_(x * 1), "relu"),
    "scaled_dot_product_attention": (
        lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
        "scaleddotproductattention",
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name: str) -> None:
    function, type_ = TYPES[name]
    op = traced(lambda: (function, x(4, 4))).compute_ops[-1]
    assert op.type == type_
    assert op.layer_label_short == f"{type_}_{op.type_index}"


def test_func_name_keeps_the_original() -> None:
    trace = tl.trace(lambda x: (1 - F.max_pool2d(x.add_(1)[None], 2)[0]).T, torch.randn(4, 4))
    names = [op.func_name for op in trace.compute_ops]
    assert names == ["add_", "__getitem__", "max_pool2d", "__getitem__", "__rsub__", "T"]
    assert trace["maxpool2d_1"].func_path == "torch.nn.functional.max_pool2d"


# -- labels ------------------------------------------------------------------------------------------------------------


def net() -> Any:
    """Two convolutions and a loop: layers of one pass and of three."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.features(x)).flatten(1)
        for _ in range(3):
            x = torch.tanh(self.core(x))
        return self.head(x)

    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    return Model(forward, features=features, core=nn.Linear(4, 4), head=nn.Linear(4, 2)), x(2, 1, 6, 6)


LABELS = [
    "input_1:1", "conv2d_1_1:1", "relu_1_2:1", "conv2d_2_3:1", "relu_2_4:1", "flatten_1_5:1", "linear_1_6:1",
    "tanh_1_7:1", "linear_1_6:2", "tanh_1_7:2", "linear_1_6:3", "tanh_1_7:3", "linear_2_8:1", "output_1:1",
]  # fmt: skip


def test_labels_count_layers_by_type_and_in_all_in_the_order_of_their_first_pass() -> None:
    trace = traced(net)
    assert [op.label for op in trace] == LABELS
    op = trace["linear_1_6:2"]
    assert (op.layer_label, op.layer_label_short, op.label_short) == ("linear_1_6", "linear_1", "linear_1:2")
    assert (op.type, op.type_index, op.pass_index, op.num_passes) == ("linear", 1, 2, 3)


def test_step_index_counts_computations_with_repeats() -> None:
    trace = traced(net)
    assert [op.step_index for op in trace] == [None, *range(1, 13), None]
    assert (trace.num_ops, trace.num_layers) == (12, 8)
    assert f"operation {trace['linear_1_6:2'].step_index}/{trace.num_ops}" == "operation 8/12"
    assert "operation 8/12" in str(trace["linear_1_6:2"])


def test_neighbours_are_named_with_their_pass_only_where_there_are_several() -> None:
    trace = traced(net)
    assert trace["linear_1_6:2"].parents == ["tanh_1_7:1"]
    assert trace["linear_1_6:1"].parents == ["flatten_1_5"]
    assert trace["flatten_1_5"].children == ["linear_1_6:1"]
    assert trace["linear_2_8"].children == ["output_1"]


def test_inputs_outputs_and_buffers_have_no_total_number() -> None:
    trace = tl.trace(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()).eval(), x())
    assert [op.layer_label for op in trace] == ["input_1", "batchnorm_1_1", "relu_1_2", "output_1"]
    assert trace["batchnorm_1_1"].parents == ["input_1", "buffer_1", "buffer_2"]


# -- looking up --------------------------------------------------------------------------------------------------------


def test_integers_and_slices_index_what_iteration_gives() -> None:
    trace = traced(net)
    ops = list(trace)
    assert len(trace) == len(ops) == 14
    assert [trace[index] for index in range(14)] == ops
    assert [trace[index] for index in range(-14, 0)] == ops
    assert trace[2:5] == ops[2:5]
    assert trace[::-1] == ops[::-1]
    assert trace[-1].label == "output_1:1"
    assert not any(op.is_buffer for op in trace)


LOOKED_UP = {
    "linear_1_6:2": "linear_1_6:2",  # an Op
    "relu_1_2": "relu_1_2:1",  # a layer of one pass gives its Op
    "relu_1": "relu_1_2:1",  # short
    "linear_1:3": "linear_1_6:3",
    "features.1:1": "relu_1_2:1",  # a module call
    "core:2": "linear_1_6:2",
    "features.2": "conv2d_2_3:1",  # a module: what it returned
    "features": "conv2d_2_3:1",
    "RELU_1_2": "relu_1_2:1",  # without regard to case
    "Features.2": "conv2d_2_3:1",
    "flat": "flatten_1_5:1",  # a unique part of a layer's label
    "conv2d_2_": "conv2d_2_3:1",
    "output_1": "output_1:1",
    "input_1": "input_1:1",
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a_name_finds_an_op(name: str) -> None:
    assert traced(net)[name].label == LOOKED_UP[name]


def test_a_name_finds_other_records() -> None:
    trace = traced(net)
    assert trace["linear_1_6"].num_passes == 3  # a layer of many passes gives the Layer
    assert trace["tanh_1"].layer_label == "tanh_1_7"
    assert trace["core"].call_labels == ["core:1", "core:2", "core:3"]  # a module called several times, its record
    assert trace["core.weight"].shape == (4, 4)
    assert trace["features.0.bias"].shape == (2,)


def test_a_selector_finds_its_one_site() -> None:
    trace = traced(net)
    assert trace[tl.func("flatten")].label == "flatten_1_5:1"
    with pytest.raises(SelectorError, match="should match 1"):
        trace[tl.func("conv2d")]
    with pytest.raises(SelectorError, match="matched 0"):
        trace[tl.func("gelu")]


ERRORS: dict[str, tuple[Any, type[Exception], str]] = {
    "ambiguous": ("conv2d", AmbiguousLabel, "'conv2d_1_1', 'conv2d_2_3'"),
    "unknown": ("conv3d_1", LabelError, "Did you mean 'conv2d_1'"),
    "nothing like it": ("zebra", LabelError, "Nothing here is called 'zebra'"),
    "out of range": (14, LabelError, "14 Ops"),
    "a number of another kind": (1.5, LabelError, "integer, a slice, a name or a selector"),
    "a pass that there is not": ("linear_1_6:4", LabelError, "linear_1_6:4"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_looking_up(name: str) -> None:
    key, error, text = ERRORS[name]
    with pytest.raises(error, match=text):
        traced(net)[key]


def test_a_layer_of_several_passes_has_no_one_value() -> None:
    with pytest.raises(MultiPassError, match="linear_1_6:1"):
        _ = traced(net)["linear_1_6"].out


# -- labels as save=, halt= --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["relu_1_2", "relu_1", "relu_1_2:1"])
def test_save_by_label_keeps_that_op_alone(label: str) -> None:
    trace = tl.trace(*net(), save=label)
    assert [op.label for op in trace.saved_ops] == ["relu_1_2:1"]
    full = tl.trace(*net())
    assert trace["relu_1_2"].out.shape == full["relu_1_2"].out.shape


def test_save_by_the_label_of_one_pass() -> None:
    trace = tl.trace(*net(), save="tanh_1_7:2")
    assert [op.label for op in trace.saved_ops] == ["tanh_1_7:2"]


def test_save_by_a_label_that_nothing_has_is_a_warning() -> None:
    with pytest.warns(SelectorWarning, match="matched nothing"):
        trace = tl.trace(*net(), save="relu_7")
    assert trace.saved_ops == []


def test_save_by_what_is_neither_label_nor_address() -> None:
    with pytest.raises(SelectorError, match=r"no module 'features\.7'"):
        tl.trace(*net(), save="features.7")


def test_halt_by_label_names_what_to_use_instead() -> None:
    with pytest.raises(SelectorError, match="nth"):
        tl.trace(*net(), halt="relu_1_2")
    with pytest.raises(SelectorError, match="nth"):
        tl.trace(*net(), halt=tl.label("relu_1_2"))
