"""``tl.bundle``: its members, and finding the sites that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.bundled import Loop, Net, Normalised, WithFunctions, WithoutSecondRelu, X, net
from torchlens_core.bundle import Bundle, bundle
from torchlens_core.errors import (
    AmbiguousLabel,
    BundleError,
    LabelError,
    SelectorError,
    TorchLensError,
    UnknownMember,
    UnlikeGraphs,
    ValueNotSaved,
)
from torchlens_core.file import load, save
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, label, module
from torchlens_core.testing.toy_framework import Array, sort, zeros
from torchlens_core.tracing import trace


@pytest.fixture
def pair() -> Bundle:
    return bundle({"clean": net(), "patched": net(second=0.5)}, baseline="clean")


@pytest.fixture
def unlike() -> Bundle:
    return bundle({"clean": net(), "without": trace(WithoutSecondRelu(), X)})


class TestMembers:
    def test_by_name_as_of_a_dict(self, pair: Bundle) -> None:
        assert list(pair) == pair.names == ["clean", "patched"]
        assert len(pair) == 2
        assert pair["clean"] is pair.members["clean"] is next(iter(pair.values()))
        assert "clean" in pair and "else" not in pair and 0 not in pair
        assert pair.baseline == pair.reference == "clean"

    def test_of_a_list_are_numbered(self) -> None:
        first = net()
        made = bundle([first, net()])
        assert made.names == ["0", "1"]
        assert made["0"] is first
        assert made.baseline is None and made.reference == "0"

    def test_of_pairs_have_names(self) -> None:
        assert bundle([("a", net()), ("b", net())]).names == ["a", "b"]

    def test_may_be_one_trace_twice(self) -> None:
        one = net()
        made = bundle({"a": one, "b": one})
        assert made.first_divergence() is None
        assert made.is_structurally_consistent

    def test_changing_what_members_gives_changes_nothing(self, pair: Bundle) -> None:
        pair.members.clear()
        assert len(pair) == 2

    @pytest.mark.parametrize("empty", [{}, [], ()])
    def test_none_is_an_error(self, empty: Any) -> None:
        with pytest.raises(BundleError, match="at least one member; got none"):
            bundle(empty)

    def test_two_of_one_name_are_an_error(self) -> None:
        with pytest.raises(BundleError, match="Two members are called 'a'"):
            bundle([("a", net()), ("a", net())])

    @pytest.mark.parametrize("name", ["", 3, None, "a/b"])
    def test_names_are_texts_without_slash(self, name: Any) -> None:
        with pytest.raises(BundleError, match="a text without '/'"):
            bundle({name: net()})

    @pytest.mark.parametrize("name", ["site", "member", "note", "where"])
    def test_names_are_not_those_of_columns(self, name: str) -> None:
        with pytest.raises(BundleError, match="cannot be called"):
            bundle({name: net()})

    def test_what_is_no_trace_is_named(self) -> None:
        with pytest.raises(BundleError, match=r"'model' is no Trace but of type Net\. tl\.trace"):
            bundle({"clean": net(), "model": Net()})  # type: ignore[dict-item]

    @pytest.mark.parametrize("wrong", [3, None])
    def test_one_thing_is_no_bundle(self, wrong: Any) -> None:
        with pytest.raises(BundleError, match="mapping of names to traces"):
            bundle(wrong)
        with pytest.raises(BundleError, match="mapping of names to traces"):
            bundle(net())  # type: ignore[arg-type]

    def test_an_unknown_one_is_an_error_with_the_nearest(self, pair: Bundle) -> None:
        with pytest.raises(UnknownMember, match=r"no member 'cleen'. Did you mean 'clean'"):
            pair["cleen"]
        with pytest.raises(UnknownMember, match="It has clean, patched"):
            pair.diff("clean", "other")
        with pytest.raises(KeyError):
            pair["cleen"]

    def test_an_unknown_baseline_is_an_error(self) -> None:
        with pytest.raises(UnknownMember, match="no member 'claen'"):
            bundle({"clean": net()}, baseline="claen")

    def test_facts_are_of_members(self) -> None:
        made = bundle({"a": net(), "b": net()}, facts={"b": {"layer": 3}})
        assert made.facts == {"a": {}, "b": {"layer": 3}}
        with pytest.raises(BundleError, match="facts on 'c', who is no member"):
            bundle({"a": net()}, facts={"c": {}})
        with pytest.raises(BundleError, match="are a mapping"):
            bundle({"a": net()}, facts={"a": 3})  # type: ignore[dict-item]
        with pytest.raises(BundleError, match="is called 'member'"):
            bundle({"a": net()}, facts={"a": {"member": 3}})


class TestShowing:
    def test_prints_as_a_table(self, pair: Bundle) -> None:
        assert str(pair).splitlines()[0] == "2 traces. One graph of 7 sites."
        assert "| clean (baseline) | Net   | toy     | 5   | 7     |" in str(pair)
        assert repr(pair) == "<Bundle of 2 traces: clean, patched>"

    def test_says_where_graphs_part(self, unlike: Bundle) -> None:
        head = str(unlike).splitlines()[0]
        assert head.startswith("2 traces. 6 shared sites of 7.")
        assert "'clean' ran relu_2_4 (relu of linear_2_3) in act:2" in head
        assert "'without' ran linear_3_4 (linear of linear_2_3) in head:1" in head

    def test_as_html(self, pair: Bundle) -> None:
        assert "<td>patched</td>" in pair._repr_html_()
        assert "<td>relu_1_2</td>" in pair.sites._repr_html_()

    def test_names_are_harmless(self) -> None:
        made = bundle({"<b>\n\x1b[2J": net(), "b": net()})
        assert "\x1b" not in str(made) and "\x1b" not in repr(made)
        assert "&lt;b&gt;" in made._repr_html_() and "<b>\\n" not in made._repr_html_()

    def test_facts_are_columns(self) -> None:
        made = bundle({"a": net(), "b": net()}, facts={"b": {"layer": 3}})
        assert made.summary()["layer"] == [None, 3]


class TestSites:
    def test_of_one_graph_have_its_labels(self, pair: Bundle) -> None:
        expected = ["input_1", "linear_1_1", "relu_1_2", "linear_2_3", "relu_2_4", "linear_3_5", "output_1"]
        assert pair.sites.labels() == pair.shared.labels() == expected
        assert pair.unmatched["clean"].labels() == pair.unmatched["patched"].labels() == []
        assert all(site.is_shared for site in pair.sites)

    def test_hold_the_ops_of_all_members(self, pair: Bundle) -> None:
        site = pair.at("relu_1_2")
        assert list(site) == ["clean", "patched"]
        assert site["clean"] == pair["clean"]["relu_1_2"]
        assert site["patched"] == pair["patched"]["relu_1_2"]
        assert (site.type, site.module, site.where) == ("relu", "act:1", "act:1")
        assert site.shapes == {"clean": (3, 6), "patched": (3, 6)}
        assert repr(site) == "<Site relu_1_2 (clean: relu_1_2, patched: relu_1_2)>"

    @pytest.mark.parametrize(
        "name",
        ["relu_2_4", "relu_2", "RELU_2", "act:2", "clean/relu_2_4", "patched/relu_2", 4, -3, func("relu").nth(2)],
    )
    def test_are_found_by_every_name(self, pair: Bundle, name: Any) -> None:
        assert pair.at(name).key == "relu_2_4"
        assert pair.node(name) == pair.at(name)

    def test_are_found_by_ops_and_sites(self, pair: Bundle) -> None:
        assert pair.at(pair["patched"]["head"]).key == "linear_3_5"
        assert pair.at(pair.sites[2]) == pair.sites[2]

    def test_keys_find_their_site(self, unlike: Bundle) -> None:
        turned = bundle({name: unlike[name] for name in ("without", "clean")})
        for made in (unlike, turned):
            assert [made.at(key) for key in made.sites.labels()] == list(made.sites)
        assert "clean/relu_2_4" in turned.sites.labels()

    def test_where_one_lacks_one(self, unlike: Bundle) -> None:
        assert unlike.sites.labels()[3:] == ["linear_2_3", "relu_2_4", "linear_3_5", "output_1"]
        assert unlike.at("relu_2_4")["without"] is None
        assert not unlike.at("relu_2_4").is_shared
        assert [site.key for site in unlike.unmatched["clean"]] == ["relu_2_4"]
        assert len(unlike.unmatched["without"]) == 0
        assert unlike.at("head")["without"] == unlike["without"]["linear_3_4"]

    def test_labels_are_those_of_the_baseline(self, unlike: Bundle) -> None:
        turned = bundle(unlike.members, baseline="without")
        assert unlike.at("linear_3_5") and turned.at("linear_3_4")
        assert turned.at("linear_3_4")["clean"] == unlike.at("linear_3_5")["clean"]
        assert turned.at("clean/relu_2_4")["without"] is None

    def test_of_a_layer_of_several_passes_have_their_pass(self) -> None:
        made = bundle({"three": trace(Loop(3), X), "two": trace(Loop(2), X)})
        assert made.sites.labels() == [
            "input_1", "linear_1_1:1", "relu_1_2:1", "linear_1_1:2", "relu_1_2:2", "linear_1_1:3", "relu_1_2:3",
            "output_1",
        ]  # fmt: skip
        assert [site.key for site in made.unmatched["three"]] == ["linear_1_1:3", "relu_1_2:3"]
        assert len(made.compare_at("linear_1").sites) == 3
        with pytest.raises(LabelError, match=r"'linear_1' is 3 sites: linear_1_1:1, .* Name one"):
            made.at("linear_1")

    def test_of_buffers_are_sites_too(self) -> None:
        made = bundle([trace(Normalised(), X), trace(Normalised(), X)])
        first, second = made.compare_at("norm.center").sites  # before and after training wrote it
        assert first.where == second.where == "norm.center"
        assert first["1"] == made["1"].buffers["norm.center"].versions[0]

    def test_print_as_a_table(self, unlike: Bundle) -> None:
        assert "| relu_2_4   | act:2    | relu_2_4   |            |" in str(unlike.sites)
        assert repr(unlike.sites[:2]) == "<2 sites>"
        assert len(unlike.sites[2:4]) == 2

    def test_become_a_data_frame(self, unlike: Bundle) -> None:
        frame = unlike.sites.to_pandas()
        assert list(frame.columns) == ["site", "where", "clean", "without"]
        assert len(frame) == 7

    def test_that_nobody_has_are_an_error(self, pair: Bundle) -> None:
        with pytest.raises(LabelError, match=r"No member has a site called 'rellu_1'. Did you mean 'relu_1"):
            pair.at("rellu_1")
        with pytest.raises(SelectorError, match=r"func\('tanh'\) matched nothing in any member \(clean, patched\)"):
            pair.compare_at(func("tanh"))
        with pytest.raises(LabelError, match="7 sites; got index 7"):
            pair.at(7)
        with pytest.raises(LabelError, match="A site is a label"):
            pair.at(2.5)  # type: ignore[arg-type]
        with pytest.raises(LabelError, match=r"'first.weight' is no site"):
            pair.at("first.weight")

    def test_of_others_are_an_error(self, pair: Bundle, unlike: Bundle) -> None:
        with pytest.raises(LabelError, match="of a trace that is no member"):
            pair.at(unlike["clean"][0])
        with pytest.raises(LabelError, match="of another bundle"):
            pair.at(unlike.sites[0])

    def test_that_several_names_could_be_are_an_error(self, pair: Bundle) -> None:
        with pytest.raises(AmbiguousLabel, match="could be any of 3"):
            pair.at("linear")

    def test_a_name_that_is_ambiguous_in_the_baseline_is_not_looked_up_elsewhere(self, unlike: Bundle) -> None:
        with pytest.raises(AmbiguousLabel):
            unlike.at("relu")  # 'without' has only one

    def test_orphans_are_none(self) -> None:
        def model(x: Array) -> Any:
            zeros((3,)) + 1.0
            return x * 2.0

        made = bundle([trace(model, X), trace(model, X)])
        assert made.sites.labels() == ["input_1", "mul_1_3", "output_1"]
        with pytest.raises(LabelError, match="is an orphan"):
            made.at(made["0"].orphans[0])

    def test_of_several_outputs_are_apart(self) -> None:
        made = bundle([trace(lambda x: sort(x), X), trace(lambda x: tuple(reversed(sort(x))), X)])
        assert all(site.is_shared for site in made.sites)
        indices = made.at(func("sort", output=1))
        assert {op.output_name for op in indices.ops.values()} == {"indices"}


class TestRelationship:
    def test_of_one_graph(self, pair: Bundle) -> None:
        found = pair.relationship()
        assert found.is_same_graph and found.parting is None
        assert (found.num_shared, found.num_only_a, found.num_only_b) == (7, 0, 0)
        assert str(found) == "'clean' and 'patched' have one graph of 7 sites."
        assert pair.assert_structurally_consistent() is pair

    def test_of_unlike_graphs(self, unlike: Bundle) -> None:
        found = unlike.relationship()
        assert not found.is_same_graph and found.parting is not None
        assert (found.num_shared, found.num_only_a, found.num_only_b) == (6, 1, 0)
        assert [op and op.label for op in found.parting] == ["relu_2_4:1", "linear_3_4:1"]
        assert not unlike.is_structurally_consistent
        with pytest.raises(UnlikeGraphs, match=r"part where 'clean' ran relu_2_4 \(relu .* 'without' ran linear_3_4"):
            unlike.assert_structurally_consistent()

    def test_where_one_ended_before(self) -> None:
        made = bundle({"whole": net(), "halted": trace(Net(), X, halt=func("relu"))})
        assert "'whole' ran linear_2_3 (linear of relu_1_2) in second:1 and 'halted' had ended" in str(
            made.relationship()
        )
        assert made.shared.labels() == ["input_1", "linear_1_1", "relu_1_2"]
        assert made.first_divergence() is None

    def test_with_other_edges_only(self) -> None:
        def straight(x: Array) -> Any:
            y = x * 2.0
            z = y + 1.0
            return z - 3.0 + y * 0.0

        def crossed(x: Array) -> Any:
            y = x * 2.0
            z = y + 1.0
            return y - 3.0 + z * 0.0

        made = bundle([trace(straight, X), trace(crossed, X)])
        assert not made.is_structurally_consistent
        assert len(made.shared) == len(made.sites)
        assert "sub of add_1_2" in str(made.relationship())

    def test_with_a_function_for_a_module(self) -> None:
        made = bundle({"modules": net(), "functions": trace(WithFunctions(), X)})
        assert made.unmatched["modules"].labels() == []
        assert made.unmatched["functions"].labels() == ["functions/tanh_1_6"]
        assert made.at("relu_2_4")["functions"] == made["functions"]["relu_2_4"]


class TestStack:
    def test_puts_values_side_by_side(self, pair: Bundle) -> None:
        stacked = pair.stack("head")
        assert stacked.shape == (2, 3, 2)
        assert np.array_equal(stacked[1], pair["patched"]["head"].numpy())

    def test_needs_the_site_in_all(self, unlike: Bundle) -> None:
        with pytest.raises(UnlikeGraphs, match=r"'without' lacks relu_2_4\. .* part where"):
            unlike.stack("relu_2_4")

    def test_needs_one_shape(self) -> None:
        made = bundle([trace(Net(), X), trace(Net(), Array(X.data[:2]))])
        with pytest.raises(UnlikeGraphs, match=r"several shapes: '0' \(3, 6\), '1' \(2, 6\)"):
            made.stack("act:1")

    def test_needs_saved_values(self) -> None:
        made = bundle([net(), net(save=func("relu"))])
        with pytest.raises(ValueNotSaved, match=r"linear_1_1 was not saved in '1'.*save=tl.func\('linear'\)"):
            made.stack("first")
        assert made.stack("act:1").shape == (2, 3, 6)


def test_loaded_traces_go_with_live_ones(tmp_path: Path, pair: Bundle) -> None:
    loaded = {}
    for name, made in pair.items():
        save(made, tmp_path / name)
        loaded[name] = load(tmp_path / name)
    mixed = bundle({"live": pair["clean"], "loaded": loaded["patched"]})
    assert isinstance(loaded["clean"], Trace)
    assert mixed.is_structurally_consistent
    assert repr(mixed.diff()).splitlines()[1:] == repr(pair.diff()).splitlines()[1:]
    assert bundle([pair["clean"], loaded["clean"]]).first_divergence() is None
    found = mixed.first_divergence()
    assert found is not None and found.site.key == "linear_2_3"


def test_every_error_is_ours() -> None:
    for error in (BundleError, UnknownMember, UnlikeGraphs):
        assert issubclass(error, TorchLensError)
        assert str(error("it says this")) == "it says this"


def test_label_and_module_selectors_ask_every_member(unlike: Bundle) -> None:
    assert [site.key for site in unlike.compare_at(module("act")).sites] == ["relu_1_2", "relu_2_4"]
    assert [site.key for site in unlike.compare_at(label("linear_3")).sites] == ["linear_3_5"]
