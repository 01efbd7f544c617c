"""What is derived from a run takes work in proportion to it: steps are counted, not seconds."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from torchlens_core.derived import recurrence
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array, relu, tanh
from torchlens_core.tracing import trace


def chain(rows: int) -> Tape:
    """One input and ``rows`` operations with two parents each, half of them at one of ten places."""
    tape = Tape()
    x = y = tape.input()
    for number in range(rows):
        place = number % 10 if number % 20 < 10 else number
        x, y = tape.op("add" if number % 3 else "relu", x, y, at=place), x
    tape.output(x)
    return tape


def calls_of(function: Callable[[], Any]) -> int:
    """How many Python functions are entered, ours and others."""
    count = 0

    def seen(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def label_and_index(made: Trace) -> None:
    assert made.labels.by_name
    assert made.num_edges
    assert made.structure.step
    assert isinstance(made.is_recurrent, bool)
    assert made.graph.distances_from_input
    assert made.graph.orphans is not None


@pytest.fixture(scope="module")
def large() -> Trace:
    return chain(100_000).trace()


def test_100_000_ops_are_labelled_and_indexed(large: Trace) -> None:
    label_and_index(large)
    assert large.num_ops == 100_000
    assert large.num_layers == 50_020
    assert large.num_edges == 200_000
    assert large["relu_1_1"].num_passes == 1_667  # every sixtieth
    assert large["relu_1_1:1667"].step_index == 60 * 1_666 + 1
    assert large[-1].parent_ops() == [large[100_000]]


def test_the_work_grows_with_the_number_of_ops() -> None:
    small, big = (calls_of(partial(label_and_index, chain(rows).trace())) for rows in (1_000, 8_000))
    assert big < 8.5 * small


def test_columns_take_few_bytes_an_op(large: Trace) -> None:
    graph, labels = large.graph, large.labels
    columns = [graph.kinds, graph.refs, graph.out_index, graph.vids, graph.node_of, graph.rows_first, *graph.edges]
    columns += [graph.parent_start, graph.child_start, graph.children, labels.layer_of, labels.pass_of]
    assert all(isinstance(column, array | bytearray) for column in columns)
    assert sum(map(sys.getsizeof, columns)) < 180 * 100_000


def test_is_recurrent_lets_go_of_what_it_no_longer_needs() -> None:
    """2,000 layers of two passes each that reach no second pass: the sets of all nodes together would be 1 MB."""
    tape = Tape()
    for half in range(2):
        x = tape.input(f"x{half}")
        for number in range(2_000):
            x = tape.op("relu", x, at=number)
        tape.output(x)
    made = tape.trace()
    assert made.labels.num_passes(2) == 2
    held: list[int] = []

    class Watched(dict[int, int]):
        def __setitem__(self, key: int, value: int) -> None:
            super().__setitem__(key, value)
            held.append(len(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "dict", Watched, raising=False)
        assert not made.is_recurrent
    assert max(held, default=1) <= 4


@pytest.mark.parametrize("selected", ["nothing", "few"])
def test_a_run_asks_the_plan_once_for_each_function_in_each_module(selected: str, x: Array) -> None:
    from torchlens_core.plan import Plan
    from torchlens_core.selectors import func

    asked = 0
    original = Plan.decide

    def counting(self: Plan, site: Any) -> Any:
        nonlocal asked
        asked += 1
        return original(self, site)

    def model(x: Array) -> Any:
        for _ in range(500):
            x = tanh(relu(x))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "decide", counting)
        trace(model, x, save=False if selected == "nothing" else func("tanh"))
    assert asked <= 4  # two functions, the input and the output
