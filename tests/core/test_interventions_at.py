"""``selector.at[index]``: the part that numpy means, read and written, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torchlens_core.errors import InterventionError, SelectorError
from torchlens_core.interventions.actions import add, replace_with, zero_ablate
from torchlens_core.interventions.at import At, as_index
from torchlens_core.interventions.when import when
from torchlens_core.selectors import func, module
from torchlens_core.testing.toy import ToyArrays
from torchlens_core.testing.toy_framework import Array, sin
from torchlens_core.tracing import trace

ARRAYS = ToyArrays()
SHAPE = (3, 4, 5)
VALUE = np.arange(60.0).reshape(SHAPE)


def forwards(index: Any) -> Any:
    """The same index, ranges that run backwards turned round."""
    if isinstance(index, tuple):
        return tuple(map(forwards, index))
    if isinstance(index, slice) and (index.step or 1) < 1:
        return slice(index.start, index.stop, -index.step if index.step else None)
    return index


@given(hnp.basic_indices(SHAPE, allow_newaxis=False).map(forwards))
def test_a_basic_index_reads_and_writes_what_numpy_does(index: Any) -> None:
    check(index)


@given(st.data())
def test_positions_read_and_write_what_numpy_does(data: st.DataObject) -> None:
    entries: list[Any] = [
        data.draw(
            st.integers(-size, size - 1)
            | st.slices(size).map(forwards)
            | st.lists(st.integers(0, size - 1), unique=True)
        )
        for size in SHAPE[: data.draw(st.integers(1, 3))]
    ]
    if sum(isinstance(entry, list) for entry in entries) > 1:  # numpy pairs them up: see below
        entries = [0 if isinstance(entry, list) else entry for entry in entries]
    check(tuple(entries))


@pytest.mark.parametrize(
    "index",
    [-1, slice(None, None, 2), (..., 0, slice(None)), ([0, 2], slice(None), [1, 3]), np.array([0, 2]), range(2),
     [True, False, True], (slice(None), np.array([True, False, True, False])), ()],
)  # fmt: skip
def test_an_index_reads_and_writes_what_numpy_does(index: Any) -> None:
    check(index)


def check(index: Any) -> None:
    expected = VALUE[list(index) if isinstance(index, range) else index]
    view = At(as_index(index))
    found = view.get(Array(VALUE), ARRAYS)
    np.testing.assert_array_equal(found.data, expected)
    written = VALUE.copy()
    written[list(index) if isinstance(index, range) else index] = -expected
    np.testing.assert_array_equal(view.put(Array(VALUE), Array(-expected), ARRAYS).data, written)


def test_only_the_part_is_changed_and_the_action_sees_nothing_else() -> None:
    seen: list[Any] = []

    def double(value: Any) -> Any:
        seen.append(value.data)
        return value * 2

    made = trace(sin, Array(VALUE), intervene=when(func("sin").at[:, 1, ::2], double))
    expected = np.sin(VALUE)
    np.testing.assert_array_equal(seen[0], expected[:, 1, ::2])
    expected[:, 1, ::2] *= 2
    np.testing.assert_array_equal(made["sin_1"].numpy(), expected)


def test_a_part_of_a_part() -> None:
    target = func("sin").at[1].at[:, 2:4].at[0, 0]
    made = trace(sin, Array(VALUE), intervene=when(target, replace_with(7)))
    assert np.argwhere(made["sin_1"].numpy() == 7).tolist() == [[1, 0, 2]]
    assert repr(target) == "func('sin').at[1].at[:, 2:4].at[0, 0]"


def test_two_parts_of_one_array() -> None:
    whens = [when(func("sin").at[0], zero_ablate()), when(func("sin").at[..., 0], add(1.0))]
    made = trace(sin, Array(VALUE), intervene=whens)
    expected = np.sin(VALUE)
    expected[0] = 0
    expected[..., 0] += 1
    np.testing.assert_array_equal(made["sin_1"].numpy(), expected)


@pytest.mark.parametrize(
    ("index", "text"),
    [(3, "[3]"), ((slice(None), 3), "[:, 3]"), ((..., 0, slice(1, None)), "[..., 0, 1:]"), ([0, 2], "[[0, 2]]"),
     (slice(0, 4, 2), "[0:4:2]"), (slice(None, -1), "[:-1]"), ((), "[()]")],
)  # fmt: skip
def test_it_prints_as_it_was_written(index: Any, text: str) -> None:
    assert repr(func("relu").at[index]) == f"func('relu').at{text}"
    assert repr(func("relu").at) == "func('relu').at"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "None makes a new axis"),
        (1.5, "Positions are whole numbers"),
        ("a", "Positions are whole numbers"),
        (True, "Positions are whole numbers"),
        (slice(None, None, 0), "step of a range is 1 or more"),
        (slice(None, None, -1), "step of a range is 1 or more"),
        (slice(0.5, None), "Positions are whole numbers"),
        ((..., ...), "one '...' at most"),
        ([0.5, 1.0], "list of whole numbers"),
        ([[0, 1], [1, 0]], "list of whole numbers"),
        ([0, 0], "each position once"),
        (([0, 1], [0, 1, 2]), "go together"),
    ],
)
def test_what_is_no_index_is_refused_when_it_is_written(index: Any, message: str) -> None:
    with pytest.raises(SelectorError) as raised:
        _ = func("relu").at[index]
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((slice(None), 4), "asks for position 4 on axis 1, which has 4: the array's shape is (3, 4, 5)"),
        (-4, "position -4 on axis 0, which has 3"),
        (([0, 3],), "position 3 on axis 0"),
        ((..., 5), "position 5 on axis 2"),
        ((0, 0, 0, 0), "names 4 axes, and the array has 3: its shape is (3, 4, 5)"),
    ],
)
def test_an_index_that_does_not_fit_names_the_shape_and_the_site(index: Any, message: str) -> None:
    with pytest.raises(InterventionError) as raised:
        trace(sin, Array(VALUE), intervene=when(func("sin").at[index], zero_ablate()))
    assert message in str(raised.value)
    assert "at sin" in str(raised.value)
    assert raised.value.partial_trace is not None


def test_an_action_on_a_part_keeps_the_shape_of_the_part() -> None:
    with pytest.raises(InterventionError, match=r"changes shape \(3, 5\) .* to shape \(5,\)"):
        trace(sin, Array(VALUE), intervene=when(func("sin").at[:, 0], lambda part: Array(part.data[0])))


def test_selectors_are_the_same_with_or_without_a_part() -> None:
    assert module("layers.0").at[0].selector == module("layers.0")
