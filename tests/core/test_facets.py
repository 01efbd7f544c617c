"""Facets of the modules of a finished trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.facet_models import BATCH, HEAD_DIM, HEADS, POSITIONS, RECIPE, WIDTH, Model, by_head, pattern_of
from torchlens_core.errors import FacetError, MissingFacet, MultiPassError, ValueNotSaved
from torchlens_core.facets import using
from torchlens_core.file import load, save
from torchlens_core.plan import keep
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, module
from torchlens_core.testing.toy_framework import Array
from torchlens_core.tracing import trace


@pytest.fixture(autouse=True)
def recipe() -> Iterator[None]:
    with using(RECIPE):
        yield


@pytest.fixture
def x() -> Array:
    return Array(np.random.default_rng(5).normal(size=(BATCH, POSITIONS, WIDTH)))


@pytest.fixture
def traced(x: Array) -> Trace:
    return trace(Model(), [x])


def by_hand(x: Any) -> dict[str, Any]:
    """The facets of the first block, without a trace."""
    block = Model().blocks[0]
    q, k, v = (by_head(part) for part in np.split(x.data @ block.qkv.weight.data.T, 3, -1))
    weights = pattern_of(q, k)
    return {"q": q, "k": k, "v": v, "pattern": weights, "z": weights @ v, "k_twice": np.repeat(k, 2, axis=1)}


@pytest.mark.parametrize("name", ["q", "k", "v", "z", "pattern", "k_twice"])
def test_values(traced: Trace, x: Array, name: str) -> None:
    value = traced.modules["blocks.0"].facets[name]
    assert isinstance(value, Array)
    np.testing.assert_allclose(value.data, by_hand(x)[name], atol=1e-12)


@pytest.mark.parametrize("name", ["q", "z", "pattern", "k_twice"])
def test_one_head(traced: Trace, x: Array, name: str) -> None:
    facets = traced.modules["blocks.0"].facets
    wanted = by_hand(x)[name][:, 2]
    np.testing.assert_allclose(facets[name, 2].data, wanted, atol=1e-12)
    np.testing.assert_allclose(facets.head(2)[name].data, wanted, atol=1e-12)
    np.testing.assert_allclose(facets.heads[2][name].data, wanted, atol=1e-12)
    if name != "k_twice":
        np.testing.assert_allclose(facets[name, -1].data, wanted, atol=1e-12)


def test_as_a_mapping(traced: Trace, x: Array) -> None:
    facets = traced.modules["blocks.0"].facets
    assert list(facets) == list(facets.keys()) == ["q", "k", "v", "z", "k_twice", "pattern", "given", "out"]
    assert "q" in facets and facets.has("q") and not facets.has("never") and len(facets) == 8
    assert facets.get("never", 5) == 5
    assert facets.get("q").shape == (BATCH, HEADS, POSITIONS, HEAD_DIM)
    assert facets.num_heads == HEADS and len(facets.heads) == HEADS
    np.testing.assert_array_equal(facets["given"].data, x.data)
    np.testing.assert_array_equal(facets["out"].data, traced[module("blocks.0")].out.data)
    assert list(facets.head(1)) == ["q", "k", "v", "z", "k_twice", "pattern"]


def test_the_menu_says_what_can_be_done(traced: Trace) -> None:
    facets = traced.modules["blocks.0"].facets
    lines = str(facets).splitlines()
    assert lines[0] == "blocks.0:1 (Attention)"
    row = next(line for line in lines if line.startswith("| k_twice"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    label = traced[module("blocks.0.qkv")].label
    assert cells == [
        "k_twice", "batch, head, position, head_dim", "(4, 6, 5, 2)", label, "read-only", "keys, twice"
    ]  # fmt: skip
    assert "k_twice read-only: they are there twice." in lines
    assert "pattern computed: no operation makes it." in lines
    assert any(line.startswith("given read-only: which operation holds it") for line in lines)
    assert "| q       | batch, position, head_dim | (4, 5, 2)" in facets.head(0).menu()
    assert repr(facets) == "<Facets of blocks.0:1: q, k, v, z, k_twice, pattern, given, out>"
    assert repr(facets.head(1)) == "<Facets of blocks.0:1, head 1: q, k, v, z, k_twice, pattern>"


def test_a_module_that_runs_several_times(traced: Trace) -> None:
    with pytest.raises(MultiPassError, match=r"called 2 times: .*trace.module_calls\['blocks.1:1'\].facets"):
        _ = traced.modules["blocks.1"].facets
    first, second = (call.facets["q"].data for call in traced.modules["blocks.1"].calls)
    given = [call.facets["given"].data for call in traced.modules["blocks.1"].calls]
    weight = Model().blocks[1].qkv.weight.data
    for value, array in zip((first, second), given, strict=True):
        np.testing.assert_allclose(value, by_head(np.split(array @ weight.T, 3, -1)[0]), atol=1e-12)
    assert not np.allclose(first, second)


def test_what_is_not_there(traced: Trace) -> None:
    facets = traced.modules["blocks.0"].facets
    with pytest.raises(
        MissingFacet, match=r"no facet 'kk' of blocks.0:1 \(Attention\). Did you mean 'k'.*It has q, k, v"
    ):
        _ = facets["kk"]
    with pytest.raises(MissingFacet, match=r"can have a facet 'never' and did not in this run"):
        _ = facets["never"]
    with pytest.raises(FacetError, match=r"'both' of blocks.0:1 should be one operation, and .*attend_1.* are meant"):
        _ = facets["both"]
    with pytest.raises(MissingFacet, match=r"blocks.0:1 has 3 heads here, and no head 3"):
        _ = facets["q", 3]
    with pytest.raises(MissingFacet, match=r"no facet 'out' of head 1 of blocks.0:1"):
        _ = facets["out", 1]
    with pytest.raises(FacetError, match=r"facets of head 1 already"):
        facets.head(1).head(2)
    with pytest.raises(MissingFacet, match=r"unused \(Attention\) was not called"):
        _ = traced.modules["unused"].facets
    with pytest.raises(MissingFacet, match=r"No facet of blocks.0.qkv:1 has heads. It has out"):
        _ = traced.modules["blocks.0.qkv"].facets.num_heads


def test_a_facet_that_was_not_saved_says_how_to_save_it(x: Array) -> None:
    made = trace(Model(), [x], save=func("add"))
    facets = made.modules["blocks.0"].facets
    with pytest.raises(ValueNotSaved, match=r"save=tl.module\('blocks.0'\).facet\('q'\) or save=True"):
        _ = facets["q"]
    with pytest.raises(ValueNotSaved, match=r"facet\('pattern'\) .*The q that attend_1_\d+:1 took was not saved"):
        _ = facets["pattern"]
    assert "| q       | batch, head, position, head_dim | (4, 3, 5, 2)" in facets.menu()


def test_a_transformed_value_has_no_facets(x: Array) -> None:
    made = trace(Model(), [x], save=keep(module("blocks.0.qkv"), transform=lambda array: array.mean()))
    with pytest.raises(FacetError, match=r"is the result of a transform"):
        _ = made.modules["blocks.0"].facets["q"]


def test_computed_facets_have_no_gradient(traced: Trace) -> None:
    with pytest.raises(FacetError, match=r"'pattern' of blocks.0:1 is computed from what attend_1"):
        traced.modules["blocks.0"].facets.grad("pattern")


def test_a_recipe_that_does_not_fit_says_so(traced: Trace) -> None:
    from torchlens_core.facets import Facet, Recipe, Unflatten

    wrong = Recipe(
        "wrong", lambda node: node.cls == "Attention",
        lambda node: {"q": Facet((), "", module(node.path("qkv")), (Unflatten(-1, (4, -1)),))},
    )  # fmt: skip
    message = r"Facet 'q' of blocks.0:1: Axis 2 of an array of shape \(4, 5, 18\) is not 4 x -1"
    with using(wrong), pytest.raises(FacetError, match=message):
        _ = traced.modules["blocks.0"].facets["q"]
    with using(wrong):
        assert "| does not fit" in traced.modules["blocks.0"].facets.menu()


def test_in_a_file(traced: Trace, x: Array, tmp_path: Path) -> None:
    save(traced, tmp_path / "t.tl")
    loaded = load(tmp_path / "t.tl")
    facets = loaded.modules["blocks.0"].facets
    assert list(facets) == list(traced.modules["blocks.0"].facets)
    for name, wanted in by_hand(x).items():
        assert isinstance(facets[name], np.ndarray)
        np.testing.assert_allclose(facets[name], wanted, atol=1e-12)
        np.testing.assert_allclose(facets[name, 1], wanted[:, 1], atol=1e-12)
    assert facets.menu() == traced.modules["blocks.0"].facets.menu()
