"""Buffers: one Op for each version that was read or written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torchlens_core.testing.toy_framework import Array, Module, add_, relu, setitem, zeros
from torchlens_core.testing.toy_layers import RunningMean, Sequential
from torchlens_core.tracing import trace


class Counter(Module):
    """One buffer, and a forward that does something with it."""

    def __init__(self, use: Any) -> None:
        super().__init__()
        self.count: Array
        self.register_buffer("count", Array(np.ones(4)))
        self._use = use

    def forward(self, x: Array) -> Any:
        return self._use(self, x)


def versions(made: Any, address: str = "count") -> list[str]:
    return [op.label for op in made.buffers[address].versions]


def test_one_that_is_not_touched_is_no_op(x: Array) -> None:
    made = trace(Counter(lambda m, x: relu(x)), x)
    assert versions(made) == []
    assert not made.buffers["count"].was_read_or_written
    assert made.buffers["count"].shape == (4,)


def write_operator(m: Any, x: Array) -> Any:
    m.count += 1.0
    return x * m.count


def write_function(m: Any, x: Array) -> Any:
    add_(m.count, 1.0)
    return x * m.count


def bind(m: Any, x: Array) -> Any:
    m.count = m.count + 1.0
    return x * m.count


@pytest.mark.parametrize("use", [write_operator, write_function, bind])
def test_a_write_makes_the_next_version_with_the_writing_op_as_parent(use: Any, x: Array) -> None:
    model = Counter(use)
    made = trace(model, x)
    assert versions(made) == ["buffer_1:1", "buffer_2:1"]
    assert made["add_1"].parents == ["buffer_1"]
    assert made["buffer_2"].parents == ["add_1_1"]
    assert made["mul_1"].parents == ["input_1", "buffer_2"]
    assert made.buffers["count"].written_by == ["add_1_1"]
    assert [op.buffer_version for op in made.buffers["count"].versions] == [1, 2]
    assert [op.numpy()[0] for op in made.buffers["count"].versions] == [1.0, 2.0]
    assert np.array_equal(model.count.data, np.full(4, 2.0))


def test_each_write_makes_one(x: Array) -> None:
    def use(m: Any, x: Array) -> Any:
        for _ in range(3):
            m.count *= 2.0
        return x + m.count

    made = trace(Counter(use), x)
    assert versions(made) == ["buffer_1:1", "buffer_2:1", "buffer_3:1", "buffer_4:1"]
    assert made["mul_1"].num_passes == 3
    assert [op.parents for op in made.buffers["count"].versions] == [[], ["mul_1_1:1"], ["mul_1_1:2"], ["mul_1_1:3"]]
    assert [op.numpy()[0] for op in made.buffers["count"].versions] == [1.0, 2.0, 4.0, 8.0]


def test_setting_one_to_itself_makes_no_version(x: Array) -> None:
    def use(m: Any, x: Array) -> Any:
        m.count = m.count
        return x * m.count

    assert versions(trace(Counter(use), x)) == ["buffer_1:1"]


def test_one_that_is_written_unread(x: Array) -> None:
    def use(m: Any, x: Array) -> Any:
        m.count = relu(x[0])
        return x * 2.0

    made = trace(Counter(use), x)
    assert made.buffers["count"].num_versions == 2
    assert made["buffer_2"].parents == ["relu_1_2"]
    assert not made["relu_1"].is_orphan
    assert not made["relu_1"].has_output_descendant


def test_a_written_item(x: Array) -> None:
    def use(m: Any, x: Array) -> Any:
        setitem(m.count, 0, x[0, 0])
        return x * m.count

    made = trace(Counter(use), x)
    assert made["setitem_1"].parents == ["buffer_1", "getitem_1_1"]
    assert made["buffer_2"].parents == ["setitem_1_2"]


def test_one_set_to_an_array_of_the_model(x: Array) -> None:
    def use(m: Any, x: Array) -> Any:
        y = zeros((4,))
        m.count = y
        return x + y

    made = trace(Counter(use), x)
    assert made["add_1"].parents == ["input_1", "buffer_2"]
    assert made["buffer_2"].parents == ["zeros_1_1"]


def test_under_two_names(x: Array) -> None:
    model = Sequential(RunningMean(4), RunningMean(4))
    model.layers[1].register_buffer("center", model.layers[0].center)
    for layer in model.layers:
        layer.training = False
    made = trace(model, x)
    assert made.buffers.keys() == ["layers.0.center", "layers.0.steps", "layers.1.steps"]
    assert made.buffers["layers.1.center"].aliases == ("layers.1.center",)
    assert len(made.buffers["layers.0.center"].versions) == 1


def test_are_left_out_of_counts_and_lists(x: Array) -> None:
    made = trace(Counter(write_operator), x)
    assert [op.label for op in made] == ["input_1:1", "add_1_1:1", "mul_1_2:1", "output_1:1"]
    assert made.num_edges == 2
    assert made["add_1"].ordinal_index == 1
    assert made["buffer_2"].ordinal_index is None
    assert made["buffer_2"].is_buffer
    assert made["buffer_2"].address == "count"


def test_a_trace_leaves_the_model_as_one_plain_call_does(x: Array) -> None:
    traced, plain = RunningMean(4), RunningMean(4)
    trace(traced, x)
    plain(x)
    assert np.array_equal(traced.center.data, plain.center.data)
    assert traced.steps.data == plain.steps.data == 1
    assert traced.buffers["center"] is traced.center
