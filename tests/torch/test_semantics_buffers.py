"""Semantics, section 5: buffers and their versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Case, Model, Table, graph, traced, x

TABLE = Table()


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_graph(case: Case) -> None:
    assert graph(traced(case.make, **case.options)) == case.expected


@TABLE("""
    input_1 = input.input
    add_1_1 <- buffer_1
    batchnorm_1_2 <- input_1, buffer_3, buffer_4
    output_1 = output <- batchnorm_1_2
    buffer_3 = running_mean v1
    buffer_5 = running_mean v2 <- batchnorm_1_2
    buffer_4 = running_var v1
    buffer_6 = running_var v2 <- batchnorm_1_2
    buffer_1 = num_batches_tracked v1
    buffer_2 = num_batches_tracked v2 <- add_1_1
""")
def batch_norm_in_training() -> Any:
    return nn.BatchNorm1d(4), x()


@TABLE("""
    input_1 = input.input
    batchnorm_1_1 <- input_1, buffer_1, buffer_2
    output_1 = output <- batchnorm_1_1
    buffer_1 = running_mean v1
    buffer_2 = running_var v1
""")
def batch_norm_in_eval_mode() -> Any:
    return nn.BatchNorm1d(4).eval(), x()


@TABLE("""
    input_1 = input.x
    add_1_1:1 <- buffer_1
    batchnorm_1_2:1 <- input_1, buffer_3, buffer_4
    add_1_1:2 <- buffer_2
    batchnorm_1_2:2 <- batchnorm_1_2:1, buffer_5, buffer_6
    output_1 = output <- batchnorm_1_2:2
    buffer_3 = bn.running_mean v1
    buffer_5 = bn.running_mean v2 <- batchnorm_1_2:1
    buffer_8 = bn.running_mean v3 <- batchnorm_1_2:2
    buffer_4 = bn.running_var v1
    buffer_6 = bn.running_var v2 <- batchnorm_1_2:1
    buffer_9 = bn.running_var v3 <- batchnorm_1_2:2
    buffer_1 = bn.num_batches_tracked v1
    buffer_2 = bn.num_batches_tracked v2 <- add_1_1:1
    buffer_7 = bn.num_batches_tracked v3 <- add_1_1:2
""")
def batch_norm_called_twice() -> Any:
    return Model(lambda self, x: self.bn(self.bn(x)), bn=nn.BatchNorm1d(4, momentum=0.3)), x()


@TABLE("""
    input_1 = input.input
    instancenorm_1_1 <- input_1, buffer_1, buffer_2
    output_1 = output <- instancenorm_1_1
    buffer_1 = running_mean v1
    buffer_3 = running_mean v2 <- instancenorm_1_1
    buffer_2 = running_var v1
    buffer_4 = running_var v2 <- instancenorm_1_1
""")
def instance_norm_with_running_statistics() -> Any:
    return nn.InstanceNorm1d(3, track_running_stats=True), x(2, 3, 5)


@TABLE("""
    input_1 = input.x
    mul_1_1 <- buffer_1
    mean_1_2 <- input_1
    mul_2_3 <- mean_1_2
    add_1_4 <- mul_1_1, mul_2_3
    sub_1_5 <- input_1, buffer_2
    output_1 = output <- sub_1_5
    buffer_1 = mean v1
    buffer_2 = mean v2 <- add_1_4
""")
def set_to_another_array() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean

    return Model(forward, mean=torch.zeros(4)), x()


@TABLE("""
    input_1 = input.x
    sub_1_1 <- input_1, buffer_1
    output_1 = output <- sub_1_1
    buffer_1 = mean v1
""")
def set_to_itself() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.mean = self.mean
        return x - self.mean

    return Model(forward, mean=torch.zeros(4)), x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    output_1 = output <- mul_1_1
    buffer_1 = last v1
    buffer_2 = last v2 <- input_1
""")
def set_to_an_input_without_being_read() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last = x
        return x * 2

    return Model(forward, last=torch.zeros(2, 4)), x()


@TABLE("""
    input_1 = input.x
    mul_1_1 <- input_1
    add_1_2 <- buffer_2
    add_2_3 <- buffer_3
    output_1 = output <- add_2_3
    buffer_1 = last v1
    buffer_2 = last v2 <- mul_1_1
    buffer_3 = last v3 <- add_1_2
""")
def set_and_then_written() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last = x * 2
        self.last.add_(1)
        return self.last + 1

    return Model(forward, last=torch.zeros(2, 4)), x()


@TABLE("""
    input_1 = input.x
    getitem_1_1 <- buffer_1
    copy_1_2 <- getitem_1_1, input_1
    setitem_1_3 <- buffer_2
    sum_1_4 <- buffer_3
    add_1_5 <- sum_1_4, input_1
    output_1 = output <- add_1_5
    buffer_1 = cache v1
    buffer_2 = cache v2 <- copy_1_2
    buffer_3 = cache v3 <- setitem_1_3
""")
def written_through_a_view() -> Any:
    """A cache, as decoders keep it: a slice of the buffer is copied into, the whole is read."""

    def forward(self: Any, x: Tensor) -> Tensor:
        self.cache[:2].copy_(x)
        self.cache[2] = 1
        return self.cache.sum(0) + x

    return Model(forward, cache=torch.zeros(3, 4)), x()


@TABLE("""
    input_1 = input.x
    data_1_1 <- buffer_1
    mul_1_2 <- data_1_1
    mean_1_3 <- input_1
    add_1_4 <- mul_1_2, mean_1_3
    sub_1_5 <- input_1, buffer_3
    output_1 = output <- sub_1_5
    buffer_1 = mean v1
    buffer_2 = mean v2 <- mul_1_2
    buffer_3 = mean v3 <- add_1_4
""")
def written_through_data() -> Any:
    """As vector quantisers keep their moving averages."""

    def forward(self: Any, x: Tensor) -> Tensor:
        self.mean.data.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return x - self.mean

    return Model(forward, mean=torch.ones(4)), x()


@TABLE("""
    input_1 = input.x
    copy_1_1 <- buffer_1, input_1
    mul_1_2 <- input_1
    output_1 = output <- mul_1_2
    buffer_1 = last v1
    buffer_2 = last v2 <- copy_1_1
""")
def written_and_not_read() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last.copy_(x)
        return x * 2

    return Model(forward, last=torch.zeros(2, 4)), x()


@TABLE("""
    input_1 = input.x
    abs_1_1 <- input_1
    amax_1_2 <- abs_1_1
    div_1_3 <- input_1, buffer_1
    output_1 = output <- div_1_3
    buffer_1 = scale v1 <- amax_1_2
""")
def registered_while_running() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.register_buffer("scale", x.abs().amax())
        return x / self.scale

    return Model(forward), x()


@TABLE("""
    input_1 = input.input
    flatten_1_1
    mv_1_2 <- flatten_1_1, buffer_1
    normalize_1_3 <- mv_1_2, buffer_2
    h_1_4 <- flatten_1_1
    mv_2_5 <- h_1_4, buffer_3
    normalize_2_6 <- mv_2_5, buffer_1
    clone_1_7 <- buffer_3
    clone_2_8 <- buffer_4
    mv_3_9 <- flatten_1_1, clone_2_8
    vdot_1_10 <- clone_1_7, mv_3_9
    div_1_11 <- vdot_1_10
    linear_1_12 <- input_1, div_1_11
    output_1 = output <- linear_1_12
    buffer_2 = parametrizations.weight.0._u v1
    buffer_3 = parametrizations.weight.0._u v2 <- normalize_1_3
    buffer_1 = parametrizations.weight.0._v v1
    buffer_4 = parametrizations.weight.0._v v2 <- normalize_2_6
""")
def spectral_norm_in_training() -> Any:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), x()


def test_records() -> None:
    trace = traced(batch_norm_in_training)
    assert trace.buffers.keys() == ["running_mean", "running_var", "num_batches_tracked"]
    mean = trace.buffers["running_mean"]
    assert (mean.shape, mean.dtype, mean.num_versions, mean.module_address) == ((4,), torch.float32, 2, "self")
    assert mean.written_by == ["batchnorm_1_2"]
    assert [op.buffer_version for op in mean.versions] == [1, 2]
    assert mean.versions[0].out.tolist() == [0, 0, 0, 0]
    assert mean.versions[1].out.tolist() != [0, 0, 0, 0]


def test_values_of_buffers_are_copies() -> None:
    model = Model(lambda self, x: x + self.shift, shift=torch.ones(4))
    trace = tl.trace(model, x())
    model.shift.zero_()
    assert trace["buffer_1"].out.tolist() == [1, 1, 1, 1]


def test_a_buffer_under_two_names() -> None:
    def make() -> Any:
        shared = torch.ones(4)
        return Model(lambda self, x: x + self.a + self.b, a=shared, b=shared), x()

    trace = traced(make)
    assert trace.buffers.keys() == ["a"]
    assert trace.buffers["b"].aliases == ("b",)
    assert [op.parents for op in trace.compute_ops] == [["input_1", "buffer_1"], ["add_1_1", "buffer_1"]]


def test_buffers_are_no_entries_of_the_trace() -> None:
    trace = traced(lambda: (Model(lambda self, x: x + self.shift, shift=torch.ones(4)), x()))
    assert [op.label for op in trace] == ["input_1:1", "add_1_1:1", "output_1:1"]
    assert trace["buffer_1"].is_buffer
    assert trace["shift"].address == "shift"
    assert trace["add_1"].parents == ["input_1", "buffer_1"]
    assert trace.num_edges == 2
