"""Comparing members: at sites, along the depth, and the first difference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.core.bundled import Loop, Net, Normalised, WithFunctions, WithoutSecondRelu, X, add_to, net
from torchlens_core.bundle import METRICS, Bundle, Metric, bundle
from torchlens_core.errors import BundleError, LabelError, OptionError, UnlikeGraphs, ValueNotSaved
from torchlens_core.plan import keep
from torchlens_core.selectors import func, in_module, where
from torchlens_core.testing.toy_framework import Array, Module, dropout, operation
from torchlens_core.tracing import trace


@pytest.fixture
def pair() -> Bundle:
    return bundle({"clean": net(), "patched": net(second=0.5)}, baseline="clean")


@pytest.fixture
def three() -> Bundle:
    members = {"clean": net(), "small": net(second=0.01), "large": net(second=1.0)}
    return bundle(members, baseline="clean", facts={"small": {"by": 0.01}, "large": {"by": 1.0}})


@pytest.fixture
def unlike() -> Bundle:
    return bundle({"clean": net(), "without": trace(WithoutSecondRelu(), X)})


class TestOneSite:
    def test_is_a_matrix_of_members(self, pair: Bundle) -> None:
        found = pair.compare_at("linear_2_3")
        clean, patched = (pair[name]["linear_2_3"].numpy() for name in pair)
        error = np.linalg.norm(clean - patched)
        expected = [[0, error / np.linalg.norm(clean)], [error / np.linalg.norm(patched), 0]]
        assert np.allclose(found.matrix, expected)
        assert found.matrix.shape == (2, 2) and found.matrix.dtype == np.float64
        assert found["patched"] == [found.matrix[0, 1], 0.0]

    def test_prints_with_the_names(self, pair: Bundle) -> None:
        assert repr(pair.compare_at("first", metric="cosine")) == "\n".join(
            [
                "cosine at linear_1_1",
                "+---------+-------+---------+",
                "| member  | clean | patched |",
                "+---------+-------+---------+",
                "| clean   | 1     | 1       |",
                "| patched | 1     | 1       |",
                "+---------+-------+---------+",
            ]
        )

    def test_of_several_members(self, three: Bundle) -> None:
        matrix = three.compare_at("head", metric="max_abs").matrix
        assert matrix.shape == (3, 3)
        assert np.array_equal(matrix, matrix.T) and not matrix.diagonal().any()
        assert 0 < matrix[0, 1] < matrix[0, 2]

    @pytest.mark.parametrize("metric", [*METRICS, lambda a, b: abs(a - b).max(), Metric("one", lambda a, b: 1)])
    def test_by_any_metric(self, three: Bundle, metric: Any) -> None:
        found = three.compare_at("head", metric=metric)
        assert not np.isnan(found.matrix).any()

    def test_where_one_lacks_it_has_a_reason(self, unlike: Bundle) -> None:
        more = bundle({**unlike.members, "twin": unlike["clean"]})
        found = more.compare_at("relu_2_4")
        assert np.isnan(found.matrix[:, 1]).all() and np.isnan(found.matrix[1]).all()
        assert found.matrix[0, 2] == found.matrix[2, 0] == 0.0
        assert found["note"] == ["not in without"] * 3

    def test_that_one_member_alone_has_is_an_error(self, unlike: Bundle) -> None:
        with pytest.raises(UnlikeGraphs, match=r"relu_2_4 there are not two values .*: not in without\. .* part where"):
            unlike.compare_at("relu_2_4")

    def test_unlike_shapes_have_a_reason(self) -> None:
        made = bundle([trace(Net(), X), trace(Net(), Array(X.data[:2]))])
        found = made.compare_at("head")
        assert np.isnan(found.matrix[0, 1]) and found.matrix[0, 0] == 0
        assert found["note"][0] == "shapes (3, 2) and (2, 2)"

    def test_that_was_not_saved_names_the_option(self) -> None:
        made = bundle({"clean": net(), "patched": net(save=func("relu"))})
        message = r"not saved in patched\. Run the trace of 'patched' again with save=True, save=tl.func\('linear'\)"
        with pytest.raises(ValueNotSaved, match=message):
            made.compare_at("linear_1_1")
        assert made.compare_at("relu_1_2").matrix.shape == (2, 2)

    def test_of_one_member_is_an_error(self) -> None:
        with pytest.raises(BundleError, match="one member: there is nothing to compare"):
            bundle({"only": net()}).compare_at("head")

    def test_of_kept_numbers(self) -> None:
        plan = keep(func("linear"), transform=lambda x: x.mean().item())
        made = bundle([net(save=plan), net(save=plan, head=1.0)])
        assert made.compare_at("head", metric="max_abs").matrix[0, 1] > 0

    def test_of_what_is_no_number_has_a_reason(self) -> None:
        plan = keep(func("linear"), transform=lambda x: "text")
        with pytest.raises(ValueNotSaved, match=r"no array of numbers \(str\)"):
            bundle([net(save=plan), net(save=plan)]).compare_at("head")


class TestManySites:
    def test_of_a_selector_have_a_row_each(self, pair: Bundle) -> None:
        found = pair.compare_at(func("relu"))
        assert found.columns == ("site", "where", "patched")
        assert found["site"] == ["relu_1_2", "relu_2_4"]
        assert found["where"] == ["act:1", "act:2"]
        assert found["patched"] == [0.0, pair.compare_at("relu_2").matrix[0, 1]]
        assert [site.key for site in found.sites] == found["site"]
        assert "relative_error against 'clean', at 2 sites" in repr(found)

    def test_where_one_member_lacks_one(self, unlike: Bundle) -> None:
        found = unlike.compare_at(func("relu"))
        assert found["without"] == [0.0, None]
        assert found["note"] == [None, "not in without"]
        turned = bundle(unlike.members, baseline="without").compare_at(func("relu"))
        assert turned["clean"] == [0.0, None]
        assert turned["site"] == ["relu_1_2", "clean/relu_2_4"]

    def test_that_only_another_member_has(self) -> None:
        made = bundle({"clean": net(), "more": trace(WithFunctions(), X)})
        with pytest.raises(UnlikeGraphs, match="not in clean"):
            made.compare_at(func("tanh"))
        assert made.compare_at([func("tanh"), "head"])["more"] == [None, 0.0]

    def test_of_a_list_of_names(self, three: Bundle) -> None:
        found = three.compare_at(["head", "act:1", func("relu")])
        assert found["site"] == ["linear_3_5", "relu_1_2", "relu_2_4"]
        assert found.columns == ("site", "where", "small", "large")

    def test_every_pair_is_in_the_matrices(self, three: Bundle) -> None:
        found = three.compare_at(func("linear"))
        assert found.matrices.shape == (3, 3, 3)
        assert np.array_equal(found.matrices[:, 0, 1], found["small"])
        assert np.array_equal(found.matrices[2], three.compare_at("head").matrix)
        with pytest.raises(BundleError, match="3 sites, each with a matrix of its own"):
            _ = found.matrix

    def test_of_passes_of_a_layer(self) -> None:
        made = bundle([trace(Loop(3), X), trace(Loop(3), X)])
        assert len(made.compare_at("relu_1")) == 3

    def test_none_saved_is_an_error(self) -> None:
        made = bundle([net(save=func("relu")), net(save=func("relu"))])
        with pytest.raises(ValueNotSaved, match=r"save=True, save=tl.func"):
            made.compare_at(func("linear"))
        assert made.compare_at([func("linear"), func("relu")])["1"] == [None, None, None, 0.0, 0.0]

    def test_by_value(self, pair: Bundle) -> None:
        found = pair.compare_at(where(lambda op: op.shape == (3, 6)))
        assert len(found) == 4

    def test_become_a_data_frame(self, pair: Bundle) -> None:
        frame = pair.compare_at(in_module("self")).to_pandas()
        assert list(frame.columns) == ["site", "where", "patched"]
        assert frame["patched"].dtype == np.float64

    def test_index_and_iterate(self, pair: Bundle) -> None:
        found = pair.compare_at(func("relu"))
        assert len(found) == 2 and [row["site"] for row in found] == found["site"]
        assert found[0]["patched"] == 0.0 and len(found[:1]) == 1
        with pytest.raises(OptionError, match=r"no column 'pached'. Did you mean 'patched'"):
            found["pached"]
        assert "<td>relu_1_2</td>" in found._repr_html_()


class TestDiff:
    def test_has_every_site(self, pair: Bundle) -> None:
        found = pair.diff()
        assert found.columns == ("site", "where", "relative_error", "cosine", "max_abs", "agrees")
        assert found["site"] == pair.sites.labels()
        assert found["agrees"] == [True, True, True, False, False, False, False]
        assert (found.a, found.b) == ("clean", "patched")
        assert found.changed["site"] == ["linear_2_3", "relu_2_4", "linear_3_5", "output_1"]

    def test_says_what_is_not_compared(self, unlike: Bundle) -> None:
        found = unlike.diff()
        row = found[found["site"].index("relu_2_4")]
        assert row["note"] == "not in without" and row["agrees"] is None and row["cosine"] is None
        assert found.unmatched["site"] == ["relu_2_4"]
        assert found["label in without"][-2] == "linear_3_4"

    def test_of_partly_saved_values(self) -> None:
        made = bundle({"clean": net(), "patched": net(save=func("relu"), second=0.5)})
        found = made.diff()
        assert found["note"][1] == "not saved in patched"
        assert found.changed["site"] == ["relu_2_4"]

    def test_of_nothing_saved_is_an_error(self) -> None:
        made = bundle({"clean": net(), "patched": net(save=False)})
        for call in (made.diff, made.first_divergence, made.divergence, made.most_changed):
            with pytest.raises(ValueNotSaved, match="Run the trace of 'patched' again with save=True"):
                call()

    def test_of_values_saved_at_different_sites_names_both(self) -> None:
        made = bundle({"a": net(save=func("linear")), "b": net(save=func("relu"))})
        with pytest.raises(ValueNotSaved, match="the trace of 'a' and 'b' again"):
            made.diff()

    def test_by_other_metrics(self, pair: Bundle) -> None:
        found = pair.diff(metrics=["cka", "mse"])
        assert found.columns == ("site", "where", "cka", "mse", "agrees")
        assert pair.diff(metrics="mse").columns == ("site", "where", "mse", "agrees")

    def test_the_tolerance_can_be_given(self, pair: Bundle) -> None:
        assert len(pair.diff(atol=1e3).changed) == 0

    def test_of_three_has_to_say_which(self, three: Bundle) -> None:
        with pytest.raises(BundleError, match=r"3 members: say which .* with 'clean' \(small, large\)"):
            three.diff()
        assert (three.diff("large").a, three.diff("large").b) == ("clean", "large")
        assert three.diff(b="large").rows == three.diff("clean", "large").rows
        assert (three.diff("small", "large").a, three.diff("small", "large").b) == ("small", "large")
        with pytest.raises(BundleError, match="say which"):
            three.diff("clean")

    def test_of_one_is_an_error(self) -> None:
        with pytest.raises(BundleError, match="one member, 'only'"):
            bundle({"only": net()}).diff()

    def test_without_a_baseline_the_first_is_the_reference(self) -> None:
        made = bundle([net(), net(head=1.0)])
        assert made.diff().a == "0"

    def test_leaves_out_what_neither_has(self, unlike: Bundle) -> None:
        more = bundle({**unlike.members, "again": trace(WithoutSecondRelu(), X)})
        assert len(more.diff("without", "again")) == 6


class TestMostChanged:
    def test_is_in_order_of_change(self, pair: Bundle) -> None:
        found = pair.most_changed(2)
        errors = pair.diff()["relative_error"]
        assert found["relative_error"] == sorted(errors, reverse=True)[:2]
        assert [site.key for site in found.sites] == found["site"]

    def test_leaves_out_what_is_the_same(self, pair: Bundle) -> None:
        assert len(pair.most_changed(100)) == 4

    def test_of_a_similarity_takes_the_smallest(self, pair: Bundle) -> None:
        found = pair.diff(metrics=["cosine"]).most_changed(1)
        assert found["cosine"] == [min(pair.diff()["cosine"])]
        assert pair.diff().most_changed(3, metric="cosine")["cosine"][0] == found["cosine"][0]

    def test_an_unmeasured_metric_is_an_error(self, pair: Bundle) -> None:
        with pytest.raises(OptionError, match=r"no metric 'cka'.* has relative_error, cosine, max_abs"):
            pair.diff().most_changed(metric="cka")

    def test_nan_on_one_side_comes_first(self) -> None:
        made = bundle([net(), net(head=float("nan"), first=1.0)])
        assert set(made.most_changed(2)["site"]) == {"linear_3_5", "output_1"}


class TestDivergence:
    def test_is_a_table_along_the_depth(self, pair: Bundle) -> None:
        found = pair.divergence()
        assert found.columns == ("site", "where", "depth", "relative_error", "cosine", "agrees")
        assert found["site"] == ["linear_1_1", "relu_1_2", "linear_2_3", "relu_2_4", "linear_3_5"]
        assert found["depth"] == [1, 2, 3, 4, 5]
        assert found["cosine"][:2] == [1.0, 1.0] and found["cosine"][2] < 1

    def test_has_only_what_both_have_saved(self, unlike: Bundle) -> None:
        assert "relu_2_4" not in unlike.divergence()["site"]
        made = bundle([net(save=func("relu")), net()])
        assert made.divergence()["site"] == ["relu_1_2", "relu_2_4"]


class TestFirstDivergence:
    def test_names_the_op(self, pair: Bundle) -> None:
        found = pair.first_divergence()
        assert found is not None
        assert found.site.key == "linear_2_3" and found.module == "second:1"
        assert [op.trace for op in found.ops] == [pair["clean"], pair["patched"]]
        assert found.inputs == {"relu_1_2": True} and found.inputs_agree
        assert found.readings["relative_error"].value == pair.compare_at("second").matrix[0, 1]
        assert all("hidden = self.act(self.second(hidden))" in line for line in found.source_lines)
        assert found.not_compared == 0 and not found.unmatched and not found.settings

    def test_reads_as_a_report(self, pair: Bundle) -> None:
        text = str(pair.first_divergence())
        lines = text.splitlines()
        assert lines[0] == "'clean' and 'patched' first differ at linear_2_3, in second:1"
        assert lines[1].startswith("  relative_error 1.15, cosine 0.732, max_abs 0.")
        assert lines[2].startswith("  clean: linear_2_3 [3,6] float64, ")
        assert "bundled.py:" in lines[2] and "Net.forward: hidden = self.act(self.second(hidden))" in lines[2]
        assert lines[4:] == ["  took relu_1_2 (agrees)", "  uses the parameters second.weight, second.bias"]
        assert repr(pair.first_divergence()) == "<Divergence at linear_2_3: 'clean' against 'patched'>"

    def test_is_none_where_nothing_differs(self) -> None:
        assert bundle([net(), net()]).first_divergence() is None

    def test_allows_for_rounding(self) -> None:
        made = bundle([net(), net(second=1e-13)])
        assert made.first_divergence() is None
        found = made.first_divergence(rtol=0.0, atol=0.0)
        assert found is not None and found.site.key == "linear_2_3"
        assert bundle([net(), net(second=0.5)]).first_divergence(rtol=10.0) is None

    def test_of_other_inputs_is_the_input(self) -> None:
        made = bundle([trace(Net(), X), trace(Net(), Array(X.data * 2))])
        found = made.first_divergence()
        assert found is not None and found.site.key == "input_1"
        assert found.inputs == {} and found.inputs_agree is True
        assert "first differ at input_1\n" in str(found)

    def test_finds_another_buffer(self) -> None:
        other = Normalised()
        other.norm.center = Array(np.ones(4))
        models = Normalised(), other
        for model in models:
            model.norm.training = False
        made = bundle([trace(model, X) for model in models])
        found = made.first_divergence()
        assert found is not None and found.site.where == "norm.center"

    def test_finds_another_setting(self) -> None:
        class Scaled(Module):
            def __init__(self, by: float) -> None:
                super().__init__()
                self.by = by

            def forward(self, x: Array) -> Any:
                return x * self.by

        found = bundle([trace(Scaled(1.0), X), trace(Scaled(1.5), X)]).first_divergence()
        assert found is not None
        assert found.settings == {"y": (1.0, 1.5)}
        assert "  y is 1.0 in '0' and 1.5 in '1'" in str(found).splitlines()

    def test_says_what_is_random(self) -> None:
        made = bundle([trace(lambda x: dropout(x, 0.5), X) for _ in range(2)])
        found = made.first_divergence()
        assert found is not None and "  draws random numbers" in str(found).splitlines()

    def test_passes_over_what_one_alone_ran(self, unlike: Bundle) -> None:
        found = unlike.first_divergence()
        assert found is not None
        assert found.site.key == "linear_3_5"
        assert [site.key for site in found.unmatched] == ["relu_2_4"]
        assert found.inputs == {"relu_2_4": None} and found.inputs_agree is None
        assert "  in one alone, before: relu_2_4" in str(found).splitlines()
        assert "  took relu_2_4 (not compared)" in str(found).splitlines()

    def test_says_what_was_not_saved(self) -> None:
        made = bundle([net(), net(save=func("relu"), second=0.5)])
        found = made.first_divergence()
        assert found is not None and found.site.key == "relu_2_4"
        assert found.inputs == {"linear_2_3": None} and found.inputs_agree is None
        assert found.not_compared == 3
        assert "before it 3 shared sites were not saved in both" in str(found)

    def test_of_unlike_shapes_is_a_difference(self) -> None:
        found = bundle([trace(Net(), X), trace(Net(), Array(X.data[:2]))]).first_divergence()
        assert found is not None and found.site.key == "input_1"
        assert str(found).splitlines()[1] == "  shapes (3, 4) and (2, 4)"

    def test_goes_by_the_order_of_the_first_named(self) -> None:
        class Two(Module):
            def __init__(self, turned: bool, change: float) -> None:
                super().__init__()
                self.a, self.b = Net(), Net()
                self.turned = turned
                add_to(self.a.head.weight, change)
                add_to(self.b.head.weight, change)

            def forward(self, x: Array) -> Any:
                if self.turned:
                    b = self.b(x)
                    return self.a(x) + b
                a = self.a(x)
                return a + self.b(x)

        made = bundle({"ab": trace(Two(False, 0.0), X), "ba": trace(Two(True, 1.0), X)})
        first, second = made.first_divergence(), made.first_divergence(a="ba", b="ab")
        assert first is not None and second is not None
        assert (first.module, second.module) == ("a.head:1", "b.head:1")
        assert len(made.shared) == len(made.sites)

    def test_a_write_in_place_is_named(self) -> None:
        def model(by: float) -> Any:
            def run(x: Array) -> Any:
                y = x * 1.0
                y += by
                return y * 2.0

            return run

        found = bundle([trace(model(0.0), X), trace(model(1.0), X)]).first_divergence()
        assert found is not None and found.site.type == "add" and found.inputs_agree

    def test_several_outputs_of_one_call(self) -> None:
        halves = operation("halves_for_bundles", lambda x, by: (x[:, :2], x[:, 2:] + by), outputs=("left", "right"))
        made = bundle([trace(lambda x, by=by: halves(x, by), X) for by in (0.0, 1.0)])
        found = made.first_divergence()
        assert found is not None and found.ops[0].output_name == "right"


class TestTable:
    def test_has_facts_and_what_is_asked(self, three: Bundle) -> None:
        found = three.table("head", logit=lambda made: made["head"].numpy()[0, 0])
        assert found.columns == ("member", "by", "linear_3_5", "logit")
        assert found["member"] == ["clean", "small", "large"]
        assert found["by"] == [None, 0.01, 1.0]
        assert found["linear_3_5"] == list(three.compare_at("head").matrix[0])
        assert found["logit"][0] == three["clean"]["head"].numpy()[0, 0]

    def test_takes_functions_and_selectors(self, three: Bundle) -> None:
        def num_ops(made: Any) -> int:
            return int(made.num_ops)

        found = three.table(num_ops, change=func("relu").nth(2), metric="max_abs")
        assert found.columns == ("member", "by", "num_ops", "change")
        assert found["num_ops"] == [5, 5, 5]
        assert found["change"][0] == 0.0 < found["change"][1]

    def test_without_anything_has_the_facts(self, three: Bundle) -> None:
        assert three.table().columns == ("member", "by")
        assert "| large  | 1    |" in repr(three.table())

    def test_of_an_unknown_site_is_an_error(self, three: Bundle) -> None:
        with pytest.raises(LabelError, match="No member has a site"):
            three.table("nothing_like_it")

    def test_becomes_a_data_frame(self, three: Bundle) -> None:
        frame = three.table("head").to_pandas()
        assert frame["by"].isna().tolist() == [True, False, False]


def test_values_of_narrow_and_other_types_are_compared() -> None:
    cast = operation("cast_for_bundles", lambda x, dtype: x.astype(dtype))
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.complex64, np.int64, np.bool_, ml_dtypes.int4):
        made = bundle([trace(lambda x, f=f, dtype=dtype: cast(x * f, dtype), X) for f in (1.0, 1.0)])
        assert made.first_divergence() is None
        other = bundle([trace(lambda x, f=f, dtype=dtype: cast(x - f, dtype), X) for f in (0.0, 1.0)])
        assert other.compare_at(func("cast_for_bundles"), metric="max_abs").matrix[0, 1] == pytest.approx(1.0, rel=0.1)


def test_comparing_leaves_the_traces_as_they_were(pair: Bundle) -> None:
    before = {name: [op.numpy().copy() for op in made] for name, made in pair.items()}
    pair.diff(metrics=list(METRICS))
    pair.first_divergence()
    for name, made in pair.items():
        assert all(np.array_equal(op.numpy(), kept) for op, kept in zip(made, before[name], strict=True))
