"""Values whose axes stand in another order: found where it can be explained, and never to explain a wrong value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchlens_core.bundle import Bundle, bundle
from torchlens_core.bundle.axes import Axes, any_order, as_they_are, inherited, regrouped, reordered, repeated
from torchlens_core.derived.structure import Structure
from torchlens_core.program import Program
from torchlens_core.records.trace import Trace
from torchlens_core.testing.strategies import programs
from torchlens_core.testing.toy import ToyArrays
from torchlens_core.testing.toy_framework import (
    Array,
    Module,
    Parameter,
    exp,
    linear,
    matmul,
    relu,
    reshape,
    sin,
    tanh,
    total,
)
from torchlens_core.testing.toy_framework import operation as toy_operation
from torchlens_core.testing.toy_layers import Linear
from torchlens_core.tracing import trace
from torchlens_core.values import LiveValues

transpose = toy_operation("transpose", lambda x, axes: x.transpose(axes))
softmax = toy_operation("softmax", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True))
flatten = toy_operation("flatten", lambda x: x.reshape(len(x), -1))
layer_norm = toy_operation(
    "layer_norm", lambda x, eps=1e-5: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
)
STEPS: dict[str, Callable[[Any], Any]] = {"relu": relu, "tanh": tanh, "sin": sin, "exp": exp, "twice": lambda x: x + x}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def of(model: Callable[..., Any], *arrays: np.ndarray, framework: str = "toy") -> Trace:
    """A trace; under the name of another framework where two are meant."""
    made = trace(model, tuple(Array(array) for array in arrays))
    made.program.backend = framework
    return made


def axes_of(made: Bundle) -> dict[str, str | None]:
    table = made.diff()
    return dict(zip(table["site"], table["axes"] if "axes" in table.columns else [None] * len(table), strict=True))


distinct = st.lists(st.integers(2, 6), min_size=2, max_size=4, unique=True)
shapes = st.lists(st.integers(2, 4), min_size=1, max_size=4)


class TestOrders:
    @given(distinct, st.data())
    def test_sizes_that_differ_leave_one(self, shape: list[int], data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(shape))))
        array = numbers(*shape)
        found = list(reordered(tuple(shape), array.transpose(order).shape))
        assert len(found) == (list(order) != sorted(order))
        for axes in found:
            np.testing.assert_array_equal(axes.apply(array.transpose(order)), array)

    @given(shapes, st.data())
    def test_every_order_makes_the_shape(self, shape: list[int], data: st.DataObject) -> None:
        other = tuple(data.draw(st.permutations(shape)))
        for axes in [*reordered(tuple(shape), other), *any_order(tuple(shape), other)]:
            assert axes.apply(numbers(*other)).shape == tuple(shape)
            assert not axes.is_identity and str(axes)

    @given(shapes, st.data())
    def test_axes_of_size_one_are_no_order(self, shape: list[int], data: st.DataObject) -> None:
        longer = list(shape)
        longer.insert(data.draw(st.integers(0, len(shape))), 1)
        array = numbers(*longer)
        axes = as_they_are(tuple(shape), tuple(longer))
        assert axes is not None and axes.is_identity and str(axes) == ""
        np.testing.assert_array_equal(axes.apply(array).ravel(), array.ravel())

    @pytest.mark.parametrize("rank", [3, 4, 5])
    def test_channels_come_first(self, rank: int) -> None:
        """Of several orders that fit, the one in which channels moved from the end to the second place."""
        last, first = (2, *[8] * (rank - 1)), (2, *[8] * (rank - 1))
        assert next(reordered(first, last)).order == (0, rank - 1, *range(1, rank - 1))

    def test_other_sizes_have_none(self) -> None:
        assert list(reordered((2, 3), (2, 4))) == [] and as_they_are((2, 3), (3, 2)) is None
        assert repeated((2, 3), (2,)) is None

    def test_a_batch_axis_is_added(self) -> None:
        axes = repeated((4, 3), (3,))
        assert axes is not None and str(axes) == "repeated along axis 0"
        assert axes.apply(numbers(3)).shape == (4, 3)

    @given(st.lists(st.sampled_from([2, 3, 5, 7]), min_size=3, max_size=4, unique=True), st.data())
    def test_axes_grouped_into_one(self, shape: list[int], data: st.DataObject) -> None:
        """A batch and time in one axis, in either order: what a linear layer is given."""
        array = numbers(*shape)
        source, target = data.draw(st.tuples(*[st.integers(0, len(shape) - 1)] * 2))
        moved = np.moveaxis(array, source, target)
        grouped = moved.reshape(moved.shape[0] * moved.shape[1], *moved.shape[2:])
        for left, right in ((grouped, array), (array, grouped)):
            found = list(regrouped(left.shape, right.shape))
            assert all(axes.apply(right).shape == left.shape for axes in found)
            assert sum(np.array_equal(axes.apply(right), left) for axes in found) == 1
        assert list(regrouped(array.shape, array.shape)) == [] and list(regrouped((4, 3), (2, 5))) == []

    def test_behind_a_flatten(self) -> None:
        parent = Axes((2, 4, 5, 3), (0, 3, 1, 2), (2, 3, 4, 5))
        image = numbers(2, 4, 5, 3)
        found = list(inherited(parent, ((2, 3, 4, 5), (2, 4, 5, 3)), (2, 60), (2, 60)))
        assert len(found) == 1 and found[0].is_flattened
        np.testing.assert_array_equal(found[0].apply(image.reshape(2, 60)), image.transpose(0, 3, 1, 2).reshape(2, 60))


@settings(max_examples=60, deadline=None)
@given(distinct, st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5), st.data())
def test_any_order_of_axes_is_found(shape: list[int], steps: list[str], data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    array = numbers(*shape)

    def model(x: Any) -> Any:
        for name in steps:
            x = STEPS[name](x)
        return x

    made = bundle([of(model, array), of(model, array.transpose(order))])
    assert made.first_divergence() is None
    back = tuple(int(axis) for axis in np.argsort(order))
    wanted = None if back == tuple(range(len(back))) else f"({', '.join(map(str, back))})"
    assert set(axes_of(made).values()) == {wanted}


@settings(max_examples=60, deadline=None)
@given(distinct, st.integers(2, 5), st.data())
def test_a_wrong_value_is_found_in_any_order(shape: list[int], length: int, data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    wrong = data.draw(st.integers(0, length - 1))
    array = numbers(*shape)

    off = toy_operation("sin", lambda x: np.sin(x) + 0.01 * np.arange(x.size).reshape(x.shape))

    def other(x: Any) -> Any:
        for n in range(length):
            x = off(x) if n == wrong else sin(x)
        return x

    def model(x: Any) -> Any:
        for _ in range(length):
            x = sin(x)
        return x

    found = bundle([of(model, array), of(other, array.transpose(order))]).first_divergence()
    assert found is not None and found.ops[0].step_index == wrong + 1 and found.inputs_agree


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 99))
def test_other_numbers_are_never_explained(rows: int, columns: int, seed: int) -> None:
    """Whatever the order of axes: numbers that are not the same stay a divergence."""
    left, right = numbers(rows, columns, seed=seed), numbers(columns, rows, seed=seed + 1000)
    found = bundle([of(relu, left), of(relu, right)]).first_divergence()
    assert found is not None and found.ops[0].is_input


# -- where an order may begin ------------------------------------------------------------------------------------------


def test_a_square_is_not_turned() -> None:
    """Shapes that are the same go together as they are: a value that only agrees transposed is a mistake."""
    square = numbers(5, 5)
    made = bundle({"a": of(tanh, square), "b": of(tanh, square.T, framework="other")})
    found = made.first_divergence()
    assert found is not None and found.ops[0].is_input
    assert found.hints == ("the values agree with the axes of 'b' in the order (1, 0): a transpose is missing",)


def test_square_images_with_channels_last() -> None:
    image = numbers(8, 8, 8, 8)
    made = bundle({"a": of(tanh, image), "b": of(tanh, image.transpose(0, 2, 3, 1), framework="other")})
    assert made.first_divergence() is None
    assert set(axes_of(made).values()) == {"(0, 3, 1, 2)"}
    assert made.diff()["note"][0] == "sizes are alike: the values decided"


def test_height_and_width_are_not_exchanged_in_an_image() -> None:
    image = numbers(2, 3, 8, 8)
    wrong = image.transpose(0, 3, 2, 1)  # channels last, and turned
    made = bundle({"a": of(tanh, image), "b": of(tanh, wrong, framework="other")})
    found = made.first_divergence()
    assert found is not None and found.ops[0].is_input


def test_a_missing_transpose_is_found_where_it_matters() -> None:
    weight = Array(numbers(4, 4))
    x = numbers(4, 4, seed=1)
    with_one = of(lambda x: tanh(linear(transpose(x, (1, 0)), weight)), x)
    without = of(lambda x: tanh(linear(x, weight)), x)
    found = bundle({"with": with_one, "without": without}).first_divergence()
    assert found is not None and found.ops[0].type == "linear"
    assert any("transpose_1_1 ran in one alone before" in hint for hint in found.hints)


def test_a_missing_transpose_at_the_end_is_found_at_the_output() -> None:
    x = numbers(3, 4)
    made = bundle({"with": of(lambda x: transpose(tanh(x), (1, 0)), x), "without": of(lambda x: tanh(x), x)})
    found = made.first_divergence()
    assert found is not None and found.ops[0].is_output


def test_another_place_of_the_batch() -> None:
    """What ``vmap`` may do: the batch last, and a transpose that one alone has."""
    weight = numbers(5, 3)
    x = numbers(5, 3, seed=1)
    usual = of(lambda x, w: tanh(matmul(x, w)), x, weight.T)
    mapped = of(lambda x, w: tanh(transpose(matmul(w, transpose(x, (1, 0))), (1, 0))), x, weight, framework="other")
    made = bundle({"usual": usual, "mapped": mapped})
    assert made.first_divergence() is None
    assert axes_of(made)["matmul_1_1"] == "(1, 0)" and axes_of(made)["tanh_1_2"] is None


def test_metrics_are_of_matched_axes() -> None:
    image = numbers(2, 3, 4, 5)
    made = bundle({"a": of(tanh, image), "b": of(lambda x: tanh(x + 0.1), image.transpose(0, 2, 3, 1))})
    error = made.compare_at("tanh_1").matrix[0, 1]
    wanted = np.tanh(image + 0.1) - np.tanh(image)
    assert error == pytest.approx(np.linalg.norm(wanted) / np.linalg.norm(np.tanh(image)))
    assert made.stack("tanh_1").shape == (2, 2, 3, 4, 5)
    assert made.table("tanh_1")["tanh_1_1"] == [0, error]


# -- flattening --------------------------------------------------------------------------------------------------------

IMAGE, HEAD = numbers(2, 3, 4, 5), numbers(7, 60)


class Flattened(Module):
    """An image, flattened, and a head."""

    def __init__(self, flatten: Callable[[Any], Any], head: np.ndarray) -> None:
        super().__init__()
        self.flatten = flatten
        self.weight = Parameter(head)

    def forward(self, x: Array) -> Any:
        return linear(self.flatten(relu(x)), self.weight)


def channels_first(head: np.ndarray) -> Trace:
    return of(Flattened(lambda x: reshape(x, (2, 60)), head), IMAGE)


def channels_last(head: np.ndarray) -> Trace:
    return of(Flattened(flatten, head), IMAGE.transpose(0, 2, 3, 1), framework="other")


def test_a_flatten_of_another_layout_is_explained() -> None:
    head = HEAD.reshape(7, 3, 4, 5).transpose(0, 2, 3, 1).reshape(7, 60)
    made = bundle({"first": channels_first(HEAD), "last": channels_last(head)})
    assert made.first_divergence() is None
    assert axes_of(made)["reshape_1_2"] == "(2, 4, 5, 3) in the order (0, 3, 1, 2), flattened"


def test_weights_in_the_order_of_the_other_flatten() -> None:
    found = bundle({"first": channels_first(HEAD), "last": channels_last(HEAD)}).first_divergence()
    assert found is not None and found.ops[0].type == "linear" and found.inputs_agree
    assert found.hints[0].startswith("what it took was flattened in another order: (2, 4, 5, 3)")


# -- operations that are several ---------------------------------------------------------------------------------------


class Normed(Module):
    """A normalisation as one operation, or as several."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.norm = Step(run)

    def forward(self, x: Array) -> Any:
        return tanh(self.norm(self.fc(x)))


class Step(Module):
    """A module of one function."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.run_ = run

    def forward(self, x: Array) -> Any:
        return self.run_(x)


def by_hand(eps: float) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        centred = x - reshape(x.mean(axis=-1), (3, 1))
        variance = reshape((centred * centred).mean(axis=-1), (3, 1))
        return centred * toy_rsqrt(variance + eps)

    return run


toy_rsqrt = toy_operation("rsqrt", lambda x: 1 / np.sqrt(x))


def test_a_module_that_is_several_operations_is_known_by_its_last() -> None:
    x = numbers(3, 4)
    made = bundle({"a": of(Normed(layer_norm), x), "b": of(Normed(by_hand(1e-5)), x, framework="other")})
    assert made.first_divergence() is None
    assert made.at("norm")["b"].type == "mul"
    wrong = bundle({"a": of(Normed(layer_norm), x), "b": of(Normed(by_hand(1e-2)), x, framework="other")})
    found = wrong.first_divergence()
    assert found is not None and found.module == "norm:1"
    assert any("a different epsilon" in hint for hint in found.hints)


def test_a_function_that_is_several_operations_is_known_by_its_values() -> None:
    def by_parts(x: Any) -> Any:
        raised = exp(x)
        return tanh(raised / reshape(total(raised, axis=-1), (3, 1)))

    x = numbers(3, 4)
    made = bundle({"a": of(lambda x: tanh(softmax(x)), x), "b": of(by_parts, x, framework="other")})
    assert made.at("softmax_1")["b"].type == "div"
    assert made.unmatched["a"].labels() == []
    assert made.unmatched["b"].labels() == ["b/exp_1_1", "b/sum_1_2", "b/reshape_1_3"]
    assert made.first_divergence() is None


# -- any two programs --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(programs(), programs())
def test_between_frameworks_every_op_has_one_site(first: Program, second: Program) -> None:
    logs = [Trace(each, LiveValues(ToyArrays(), {}, {}), Structure(each)) for each in (first, second)]
    logs[1].program.backend = "other"
    made = bundle({"a": logs[0], "b": logs[1]})
    for column, log in zip(made.alignment.nodes, logs, strict=True):
        shown = [node for node, hidden in enumerate(log.structure.hidden) if not hidden]
        assert sorted(node for node in column if node >= 0) == shown
    assert all(max(nodes) >= 0 for nodes in zip(*made.alignment.nodes, strict=True))
    for site in made.sites:
        axes = made.pair(site, "a", "b").read().axes
        assert axes is None or axes.shape == site["a"].shape  # type: ignore[union-attr]
    made.relationship()
    bundle(logs, rename="auto")
