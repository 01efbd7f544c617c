"""Metrics and tolerances: against numpy's own, on special values, and on every element type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchlens_core.bundle.metrics import METRICS, Metric, Undefined, cka, cosine, metric_of, metrics_of, relative_error
from torchlens_core.bundle.tolerance import Tolerance, tolerance
from torchlens_core.bundle.values import in_float64
from torchlens_core.errors import OptionError

NAN, INF = float("nan"), float("inf")


@st.composite
def two(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two arrays of one shape, of numbers that squares can be taken of."""
    shape = draw(st.sampled_from([(), (0,), (1,), (5,), (3, 4), (2, 0, 3), (4, 2, 2)]))
    numbers = st.floats(-1e6, 1e6, width=32)
    size = int(np.prod(shape))
    arrays = (np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape) for _ in range(2))
    return tuple(arrays)  # type: ignore[return-value]


def read(name: str, a: Any, b: Any) -> float | None:
    return METRICS[name].read(in_float64(np.asarray(a)), in_float64(np.asarray(b))).value


class TestProperties:
    @given(two())
    def test_of_equal_arrays(self, arrays: tuple[Any, Any]) -> None:
        for metric in METRICS.values():
            value = metric.read(arrays[0], arrays[0].copy()).value
            assert value is None or value == pytest.approx(metric.same, abs=1e-12)

    @given(two())
    def test_symmetric_ones_are_symmetric(self, arrays: tuple[Any, Any]) -> None:
        a, b = arrays
        for metric in METRICS.values():
            if metric.symmetric:
                value, turned = metric.read(a, b).value, metric.read(b, a).value
                assert value == turned or value == pytest.approx(turned, rel=1e-9, abs=1e-12)

    @given(two())
    def test_are_what_numpy_says(self, arrays: tuple[Any, Any]) -> None:
        a, b = arrays
        difference = np.abs(a - b)
        assert read("max_abs", a, b) == difference.max(initial=0.0)
        if a.size:
            assert read("mean_abs", a, b) == pytest.approx(difference.mean())
            assert read("mse", a, b) == pytest.approx((difference**2).mean())
        if np.linalg.norm(a) > 1e-100 and np.linalg.norm(b) > 1e-100:
            assert read("relative_error", a, b) == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-9)
            flat = a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b))
            assert read("cosine", a, b) == pytest.approx(flat, abs=1e-9)

    @given(two(), st.floats(1e-150, 1e150))
    def test_ratios_do_not_depend_on_the_scale(self, arrays: tuple[Any, Any], scale: float) -> None:
        a, b = arrays
        if np.abs(a).max(initial=0) < 1e-3 or np.abs(b).max(initial=0) < 1e-3:
            return
        for name in ("relative_error", "cosine"):
            assert read(name, a * scale, b * scale) == pytest.approx(read(name, a, b), rel=1e-6, abs=1e-9)

    @given(two())
    def test_agreement_is_symmetric_and_reflexive(self, arrays: tuple[Any, Any]) -> None:
        a, b = arrays
        assert tolerance(a, a).allows(a, a.copy())
        assert tolerance(a, b).allows(a, b) == tolerance(b, a).allows(b, a)


class TestSpecialValues:
    @pytest.mark.parametrize("name", ["relative_error", "cosine", "max_abs", "mean_abs", "mse"])
    def test_the_same_nan_or_infinity_is_left_out(self, name: str) -> None:
        a, b = [1.0, NAN, INF, -INF, 4.0], [1.5, NAN, INF, -INF, 4.0]
        assert read(name, a, b) == pytest.approx(read(name, [1.0, 4.0], [1.5, 4.0]))

    @pytest.mark.parametrize("name", list(METRICS))
    @pytest.mark.parametrize("other", [NAN, INF, -INF])
    def test_one_sided_ones_make_it_nan(self, name: str, other: float) -> None:
        a, b = [[1.0, 2.0], [3.0, 5.0]], [[1.0, 2.0], [3.0, other]]
        assert np.isnan(read(name, a, b))  # type: ignore[arg-type]
        assert np.isnan(read(name, b, a))  # type: ignore[arg-type]
        assert METRICS[name].change(NAN) == INF

    def test_opposite_infinities_differ(self) -> None:
        assert np.isnan(read("max_abs", [INF], [-INF]))  # type: ignore[arg-type]
        assert np.isnan(read("max_abs", [INF], [NAN]))  # type: ignore[arg-type]

    def test_zeros(self) -> None:
        zero, one = [0.0, 0.0], [0.0, 1.0]
        assert (read("relative_error", zero, zero), read("relative_error", one, zero)) == (0.0, 1.0)
        assert read("relative_error", zero, one) == INF
        assert (read("cosine", zero, zero), read("cosine", zero, one)) == (1.0, 0.0)
        assert (read("cosine", one, [0.0, -1.0]), read("relative_error", one, [0.0, -1.0])) == (-1.0, 2.0)

    def test_complex(self) -> None:
        a, b = np.array([1 + 1j, 2.0]), np.array([1 - 1j, 2.0])
        assert read("max_abs", a, b) == 2.0
        assert read("relative_error", a, b) == pytest.approx(2 / np.sqrt(6))
        assert read("cosine", a, b) == pytest.approx(4 / 6)
        assert read("mse", a, b) == 2.0

    def test_booleans_and_integers(self) -> None:
        assert read("mean_abs", [True, False], [True, True]) == 0.5
        assert read("max_abs", np.array([3], np.uint8), np.array([5], np.uint8)) == 2.0
        assert read("max_abs", np.array([-128], np.int8), np.array([127], np.int8)) == 255.0

    @pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "float4_e2m1fn"])
    def test_narrow_types(self, name: str) -> None:
        dtype = getattr(ml_dtypes, name)
        a, b = np.array([1.0, 2.0, -4.0]).astype(dtype), np.array([1.0, 3.0, -4.0]).astype(dtype)
        assert read("max_abs", a, b) == 1.0
        assert read("relative_error", a, b) == pytest.approx(1 / np.sqrt(21))
        assert tolerance(a, a).allows(a, a.copy())

    def test_unlike_shapes_have_a_reason(self) -> None:
        reading = METRICS["mse"].read(np.zeros((2, 3)), np.zeros((3, 2)))
        assert reading == (None, "shapes (2, 3) and (3, 2)")


class TestCka:
    def test_is_the_formula_of_the_paper(self) -> None:
        draw = np.random.default_rng(0)
        for examples, features in ((5, 3), (4, 30), (20, 7)):
            x, y = draw.normal(size=(examples, features)), draw.normal(size=(examples, features + 2))
            centred_x, centred_y = x - x.mean(0), y - y.mean(0)
            own = np.linalg.norm(centred_x.T @ centred_x) * np.linalg.norm(centred_y.T @ centred_y)
            assert cka(x, y) == pytest.approx(np.linalg.norm(centred_y.T @ centred_x) ** 2 / own)

    def test_sees_no_rotation_scale_or_shift(self) -> None:
        draw = np.random.default_rng(1)
        x = draw.normal(size=(6, 4))
        rotation = np.linalg.qr(draw.normal(size=(4, 4)))[0]
        assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0)
        assert cka(x, draw.normal(size=(6, 4))) < 0.9

    def test_takes_all_axes_but_the_first_as_features(self) -> None:
        x = np.random.default_rng(2).normal(size=(5, 2, 3))
        assert cka(x, x.reshape(5, 6)) == pytest.approx(1.0)

    def test_takes_complex(self) -> None:
        x = np.random.default_rng(3).normal(size=(5, 3)) + 1j
        assert cka(x, x * 1j) == pytest.approx(1.0)
        assert cka(x[:, :2], x[:, :2] * 1j) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("a", "b", "why"),
        [
            (np.ones((3, 2)), np.ones((4, 2)), "as many examples"),
            (np.ones(()), np.ones(()), "as many examples"),
            (np.ones((1, 2)), np.ones((1, 2)), "two examples"),
            (np.full((3, 2), 0.1), np.arange(6.0).reshape(3, 2), "all examples are the same"),
        ],
    )
    def test_says_why_it_has_no_value(self, a: Any, b: Any, why: str) -> None:
        reading = METRICS["cka"].read(a, b)
        assert reading.value is None and why in reading.why


class TestMetric:
    def test_by_name(self) -> None:
        assert metric_of("cosine") is METRICS["cosine"]
        assert [metric.name for metric in metrics_of("mse")] == ["mse"]
        assert [metric.name for metric in metrics_of([cosine, "mse"])] == ["cosine", "mse"]

    def test_an_unknown_one_is_an_error_with_the_nearest(self) -> None:
        with pytest.raises(OptionError, match=r"No metric is called 'cosin'. Did you mean 'cosine'. There are rel"):
            metric_of("cosin")
        with pytest.raises(OptionError, match="a name, a function"):
            metric_of(3)  # type: ignore[arg-type]

    def test_any_function_of_two_arrays(self) -> None:
        assert metric_of(lambda a, b: (a - b).sum()).read(np.ones(3), np.zeros(3)).value == 3.0
        flips = Metric("flips", lambda a, b: np.sum(np.sign(a) != np.sign(b)), same_shape=False)
        assert flips.read(np.ones((2, 3)), -np.ones(3)).value == 6.0

    def test_that_returns_no_number_is_an_error(self) -> None:
        with pytest.raises(OptionError, match=r"'<lambda>' returned .* a metric returns a number"):
            metric_of(lambda a, b: a - b).read(np.ones(3), np.zeros(3))

    def test_that_raises_says_in_which(self) -> None:
        def broken(a: Any, b: Any) -> float:
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine") as raised:
            metric_of(broken).read(np.ones(3), np.zeros(3))
        assert "the metric 'broken', for arrays of shapes (3,) and (3,)" in raised.value.__notes__[0]

    def test_may_have_no_value(self) -> None:
        def undefined(a: Any, b: Any) -> float:
            raise Undefined("not today")

        assert metric_of(undefined).read(np.ones(3), np.zeros(3)) == (None, "not today")

    def test_change_is_the_distance_from_equal(self) -> None:
        assert METRICS["cosine"].change(0.25) == 0.75
        assert METRICS["mse"].change(0.25) == 0.25
        assert METRICS["mse"].change(None) < 0

    def test_arguments_are_left_as_they_were(self) -> None:
        a, b = np.array([[1.0, NAN], [2.0, 4.0]]), np.array([[1.0, NAN], [3.0, INF]])
        before = a.copy(), b.copy()
        for metric in METRICS.values():
            metric.read(a, b)
        assert np.array_equal(a, before[0], equal_nan=True) and np.array_equal(b, before[1], equal_nan=True)


class TestTolerance:
    @pytest.mark.parametrize(
        ("dtype", "rtol"),
        [(np.float64, 3.7e-11), (np.float32, 2.4e-5), (np.float16, 9.8e-3), (ml_dtypes.bfloat16, 0.039),
         (ml_dtypes.float8_e4m3fn, 0.25), (np.complex64, 2.4e-5), (np.int32, 0), (np.bool_, 0), (ml_dtypes.int4, 0)],
    )  # fmt: skip
    def test_is_by_type(self, dtype: Any, rtol: float) -> None:
        array = np.ones(3).astype(dtype)
        assert tolerance(array, array).rtol == pytest.approx(rtol, rel=0.02)

    def test_is_that_of_the_coarser_type(self) -> None:
        single, half = np.ones(3, np.float32), np.ones(3, np.float16)
        assert tolerance(single, half) == tolerance(half, single) == tolerance(half, half)
        assert tolerance(single, half).allows(single, np.float16(1.002) * half)

    def test_can_be_given(self) -> None:
        a, b = np.array([1.0, 10.0]), np.array([1.1, 10.0])
        assert tolerance(a, b, rtol=0.02).allows(a, b)
        assert not tolerance(a, b, rtol=0.005).allows(a, b)
        assert tolerance(a, b, atol=0.2) == Tolerance(tolerance(a, b).rtol, 0.2)

    def test_small_values_count_as_much_as_large_ones(self) -> None:
        a = np.array([1e-12, 2e-12], np.float32)
        assert not tolerance(a, a * 2).allows(a, a * 2)
        assert tolerance(a, a * 2, atol=1e-9).allows(a, a * 2)

    def test_integers_are_compared_exactly(self) -> None:
        a = np.array([2**60, 1])
        assert not tolerance(a, a + 1).allows(a, a + 1)
        assert tolerance(a, a + 1, atol=2).allows(a, a + 1)

    @pytest.mark.parametrize(
        ("a", "b", "agrees"),
        [
            ([NAN, 1.0], [NAN, 1.0], True), ([INF, 1.0], [INF, 1.0], True), ([NAN, 1.0], [0.0, 1.0], False),
            ([INF, 1.0], [-INF, 1.0], False), ([INF, 1.0], [1e30, 1.0], False), ([], [], True),
            ([1.0], [[1.0]], False), ([0.0], [-0.0], True),
        ],
    )  # fmt: skip
    def test_of_special_values(self, a: Any, b: Any, agrees: bool) -> None:
        left, right = np.array(a), np.array(b)
        assert tolerance(left, right).allows(left, right) is agrees


def test_relative_error_takes_the_first_as_the_reference() -> None:
    assert relative_error(np.array([2.0]), np.array([1.0])) == 0.5
    assert relative_error(np.array([1.0]), np.array([2.0])) == 1.0
