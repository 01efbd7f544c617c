"""NaNs and infinities: where they came up, in a finished trace and while the model runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from torchlens_core.diagnosis.extent import Extent, extent_of
from torchlens_core.diagnosis.undefined import Undefined
from torchlens_core.errors import CaptureError, NonFiniteError, OptionError, ValueNotSaved
from torchlens_core.file import load
from torchlens_core.program import HOLE, Func, Row, Scope
from torchlens_core.records.trace import Trace
from torchlens_core.testing.toy_framework import Array, Module, relu
from torchlens_core.testing.toy_layers import Linear, Sequential
from torchlens_core.tracing import trace


@pytest.fixture(autouse=True)
def numpy_says_nothing() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def dividing(x: Array) -> Any:
    positive = relu(x)
    return (positive / (positive - positive)) * 0.5 + x


class TestExtent:
    def test_finite(self) -> None:
        assert extent_of(np.array([[1.0, -2.0], [0.5, 3.0]])) == Extent(-2.0, 3.0)

    def test_counts(self) -> None:
        found = extent_of(np.array([np.nan, np.inf, -np.inf, 2.0]))
        assert found == Extent(2.0, 2.0, num_nan=1, num_inf=2)
        assert (found.count("nan"), found.count("inf"), found.count("nonfinite")) == (1, 2, 3)
        assert str(found) == "1 NaN and 2 inf, from 2 to 2"

    def test_nothing_finite_and_empty(self) -> None:
        assert str(extent_of(np.array([np.nan]))) == "1 NaN, nothing finite"
        assert str(extent_of(np.zeros((0, 3)))) == "empty"

    def test_complex_elements_are_counted_once(self) -> None:
        array = np.array([1 + 2j, complex(np.nan, np.inf), complex(0, np.inf)])
        assert extent_of(array) == Extent(1.0, 2.0, num_nan=1, num_inf=1)

    @pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16"])
    def test_low_precision(self, name: str) -> None:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        assert extent_of(np.array([1.0, float("nan"), -2.0]).astype(dtype)) == Extent(-2.0, 1.0, num_nan=1)

    @pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", ml_dtypes.int4])
    def test_types_that_are_always_finite(self, dtype: Any) -> None:
        assert extent_of(np.ones(3).astype(dtype)) is None


class TestFinishedTrace:
    def test_nothing_found(self, x: Array) -> None:
        made = trace(relu, x)
        assert made.first_nonfinite() is None
        assert made.nonfinite() == []
        assert str(made.nonfinite()) == "Nothing that was kept is NaN or infinite."

    def test_the_first(self, x: Array) -> None:
        found = trace(dividing, x).first_nonfinite()
        assert found is not None and found.op.label == "div_1_3:1"
        assert (found.num_nan, found.num_inf) == (4, 4)
        assert [taken.name for taken in found.taken] == ["relu_1_1", "sub_1_2"]
        assert found.is_born_here is True
        assert "dividing" not in str(found) and "positive / (positive - positive)" in str(found)
        assert "it came up here" in str(found)

    def test_all_and_what_was_looked_for(self, x: Array) -> None:
        made = trace(dividing, x)
        assert [each.op.type for each in made.nonfinite()] == ["div", "mul", "add"]
        assert [each.is_born_here for each in made.nonfinite()] == [True, False, False]
        assert [each.op.type for each in trace(lambda x: x + np.inf, x).nonfinite("inf")] == ["add"]
        assert trace(lambda x: x + np.inf, x).nonfinite("nan") == []
        with pytest.raises(OptionError, match="which is 'nan', 'inf' or 'nonfinite'"):
            made.first_nonfinite("NaN")  # type: ignore[arg-type]

    def test_the_table(self, x: Array) -> None:
        lines = str(trace(dividing, x).nonfinite()).splitlines()
        assert [line.split()[1] for line in lines[3:-1]] == ["div_1_3:1", "mul_1_4:1", "add_1_5:1"]

    def test_an_input(self) -> None:
        found = trace(relu, Array([1.0, float("nan")])).first_nonfinite()
        assert found is not None and found.op.is_input and found.is_born_here is True
        assert "it came into the model so" in str(found)

    def test_a_parameter_is_told_apart(self, x: Array) -> None:
        model = Sequential(Linear(4, 3), Linear(3, 2))
        model.layers[1].weight.data = np.full((2, 3), np.nan)
        made = trace(model, x)
        found = made.first_nonfinite()
        assert found is not None and found.op.label == "linear_2_2:1" and found.is_born_here is False
        assert "layers.1.weight: 6 NaN, nothing finite" in str(found)
        assert "it did not come up here" in str(found)

    def test_a_parameter_that_is_gone(self, x: Array) -> None:
        def made() -> Trace:
            model = Linear(4, 3)
            model.weight.data = np.full((3, 4), np.nan)
            return trace(model, x)

        found = made().first_nonfinite()
        assert found is not None and found.is_born_here is None
        assert "weight: not kept" in str(found) and "is not known" in str(found)

    def test_what_was_not_kept(self, x: Array) -> None:
        made = trace(dividing, x, save="add_1_5")
        found = made.first_nonfinite()
        assert found is not None and found.op.label == "add_1_5:1"
        assert found.num_unchecked == 5 and found.is_born_here is None
        with pytest.raises(ValueNotSaved, match="raise_on_nan=True"):
            trace(dividing, x, save=False).first_nonfinite()

    def test_whole_numbers_are_left_out(self) -> None:
        assert trace(lambda a: a + 1, Array(np.arange(3))).first_nonfinite() is None

    def test_a_loaded_trace(self, x: Array, tmp_path: Any) -> None:
        trace(dividing, x).save(tmp_path / "t.tlspec")
        found = load(tmp_path / "t.tlspec").first_nonfinite()
        assert found is not None and found.op.label == "div_1_3:1" and found.is_born_here is True

    def test_data_frame(self, x: Array) -> None:
        pd = pytest.importorskip("pandas")
        frame = trace(dividing, x).nonfinite().to_pandas()
        assert isinstance(frame, pd.DataFrame)
        assert list(frame["label"]) == ["div_1_3:1", "mul_1_4:1", "add_1_5:1"]
        assert list(frame["num_nan"]) == [4, 4, 4]


class TestWhileItRuns:
    def test_stops_there(self, x: Array) -> None:
        with pytest.raises(NonFiniteError) as caught:
            trace(dividing, x, raise_on_nan=True)
        partial = caught.value.partial_trace
        assert [op.type for op in partial.compute_ops] == ["relu", "sub", "div"] and partial.is_partial
        assert caught.value.found.op.label == "div_1_3:1" and caught.value.found.is_born_here is True
        assert "div_1_3:1 (div): 4 NaN and 4 inf" in str(caught.value)
        assert "- takes sub_1_2: finite, from 0 to 0" in str(caught.value)
        assert isinstance(caught.value, CaptureError)

    @pytest.mark.parametrize("save", [True, False])
    def test_knows_what_was_taken_whatever_is_kept(self, x: Array, save: bool) -> None:
        model = Sequential(Linear(4, 3), Linear(3, 2))
        model.layers[1].weight.data = np.full((2, 3), np.nan)
        with pytest.raises(NonFiniteError, match=r"layers.1:1: 4 NaN.*") as caught:
            trace(model, x, raise_on_nan=True, save=save)
        assert caught.value.found.is_born_here is False
        assert "layers.1.weight: 6 NaN" in str(caught.value)

    def test_what_counts(self, x: Array) -> None:
        def infinite(x: Array) -> Any:
            return x + np.inf

        assert trace(infinite, x, raise_on_nan=True).num_ops == 1
        assert trace(infinite, x, raise_on_nan="nan").num_ops == 1
        for which in ("inf", "nonfinite"):
            with pytest.raises(NonFiniteError):
                trace(infinite, x, raise_on_nan=which)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="raise_on_nan is True"):
            trace(relu, x, raise_on_nan="NaN")  # type: ignore[arg-type]

    def test_an_input_stops_before_the_model_runs(self) -> None:
        with pytest.raises(NonFiniteError, match=r"input_1:1 \(input.x\): 1 NaN"):
            trace(relu, Array([1.0, float("nan")]), raise_on_nan=True)

    def test_a_model_that_catches_errors_does_not_hide_it(self, x: Array) -> None:
        def catching(x: Array) -> Any:
            try:
                return dividing(x)
            except Exception:
                return relu(x)

        with pytest.raises(NonFiniteError) as caught:
            trace(catching, x, raise_on_nan=True)
        assert caught.value.found.op.type == "div"

    def test_without_a_finding_the_trace_is_the_same(self, x: Array) -> None:
        model = Sequential(Linear(4, 3), Linear(3, 2))
        plain, watched = trace(model, x), trace(model, x, raise_on_nan="nonfinite")
        assert [op.label for op in watched] == [op.label for op in plain]
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(plain, watched, strict=True))
        assert watched.options == {"raise_on_nan": "nonfinite"}

    def test_a_buffer_does_not_stop_it_but_who_reads_it_does(self, x: Array) -> None:
        class Masked(Module):
            def __init__(self) -> None:
                super().__init__()
                self.mask: Array
                self.register_buffer("mask", Array(np.full(4, np.nan)))

            def forward(self, x: Array) -> Any:
                return relu(x) + self.mask

        with pytest.raises(NonFiniteError) as caught:
            trace(Masked(), x, raise_on_nan=True)
        assert caught.value.found.op.type == "add"
        assert "- takes mask: 4 NaN" in str(caught.value)


class TestUndefined:
    """Memory that nobody has written is no finding."""

    def follow(self, *steps: tuple[Func, tuple[int, ...], int]) -> Undefined:
        scope = Scope(0, "module", "", "Model", None, -1, 1)
        rows = [Row(func, (HOLE,) * len(ins), {}, ins, out, scope, -1, 0, 0, None) for func, ins, out in steps]
        return Undefined(rows, {})

    def test_empty_views_and_partial_writes(self) -> None:
        def written(args: Any, kwargs: Any) -> Any:
            return args[:1]

        empty = Func(None, "empty", "empty", undefined=True)
        view = Func(None, "__getitem__", "getitem")
        setitem = Func(None, "__setitem__", "setitem", writes=written)
        copy = Func(None, "copy_", "copy", writes=written)
        add = Func(None, "add", "add")
        found = self.follow(
            (empty, (), 1),
            (view, (1,), 2),
            (setitem, (1, 0), 3),
            (add, (0, 1), 4),
            (copy, (1, 0), 5),
            (setitem, (0, 1), 6),
        )
        assert [vid for vid in range(7) if vid in found] == [1, 2, 3]
