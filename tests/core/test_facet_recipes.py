"""The registry of recipes, and what a recipe sees of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from tests.core.facet_models import BATCH, POSITIONS, RECIPE, WIDTH, Model
from torchlens_core import facets
from torchlens_core.errors import FacetError
from torchlens_core.facets import Facet, ModuleNode, Recipe
from torchlens_core.facets.registry import bring
from torchlens_core.facets.tree import ModuleTree
from torchlens_core.selectors import func, module
from torchlens_core.testing.toy_framework import Array
from torchlens_core.tracing import trace


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with facets.using():
        yield


@pytest.fixture
def x() -> Array:
    return Array(np.ones((BATCH, POSITIONS, WIDTH)))


def named(name: str, doc: str = "", **facets: Facet) -> Recipe:
    def made(node: ModuleNode) -> Mapping[str, Facet]:
        return facets or {"q": Facet((), doc, module(node.path("out")))}

    return Recipe(name, lambda node: node.cls == "Attention", made)


def test_the_last_one_wins(x: Array) -> None:
    facets.register(RECIPE)
    made = trace(Model(), [x]).modules["blocks.0"]
    assert made.facets["q"].shape == (4, 3, 5, 2)
    facets.register(named("mine"))
    assert made.facets["q"].shape == (4, 5, 6)
    assert made.facets["k"].shape == (4, 3, 5, 2)  # what it says nothing of stays
    facets.register(RECIPE)
    assert made.facets["q"].shape == (4, 3, 5, 2)
    assert facets.list()[-2:] == ["mine", "toy attention"]


def test_one_name_one_recipe() -> None:
    facets.register(named("mine", "first"))
    second = facets.register(named("mine", "second"))
    assert facets.list().count("mine") == 1 and facets.info("mine") is second
    assert facets.snapshot()[-1] is second
    facets.reset()
    assert "mine" not in facets.list()
    with pytest.raises(FacetError, match=r"No recipe is called 'mine'"):
        facets.info("mine")


def test_for_a_while(x: Array) -> None:
    made = trace(Model(), [x]).modules["blocks.0"]
    with pytest.raises(RuntimeError, match=r"user"), facets.using(RECIPE, named("mine")):
        assert "q" in made.facets and "mine" in facets.list()
        raise RuntimeError("user")
    assert list(made.facets) == ["out"]


def test_recipes_of_plugins_stay() -> None:
    before = facets.list()
    facets.register(named("own"))
    bring(named("brought"))
    try:
        assert facets.list() == [*before, "brought", "own"]  # what a user registers counts more
        facets.reset()
        assert facets.list() == [*before, "brought"]
    finally:
        from torchlens_core.facets import registry

        del registry._brought["brought"]
        facets.reset()


def test_of_another_framework(x: Array) -> None:
    made = trace(Model(), [x]).modules["blocks.0"]
    with facets.using(Recipe("other", RECIPE.matches, RECIPE.facets, "another framework")):
        assert "q" not in made.facets
    with facets.using(Recipe("other", RECIPE.matches, RECIPE.facets, "toy")):
        assert "q" in made.facets


@pytest.mark.parametrize("bad", [None, "attention", lambda node: True, Recipe])
def test_no_recipe(bad: Any) -> None:
    with pytest.raises(FacetError, match=r"A recipe is a tl.facets.Recipe"):
        facets.register(bad)


def test_no_facet(x: Array) -> None:
    made = trace(Model(), [x]).modules["blocks.0"]
    wrong: Any = Recipe("wrong", lambda node: True, lambda node: {"q": module("out")})
    with facets.using(wrong), pytest.raises(FacetError, match=r"'wrong' gives blocks.0 a facet 'q' that is no Facet"):
        _ = made.facets["q"]


def test_what_a_recipe_sees(x: Array) -> None:
    tree: ModuleTree = trace(Model(), [x]).modules.tree
    node = tree.find("blocks.0")
    assert node is not None and repr(node) == "<ModuleNode blocks.0 (Attention)>"
    assert (node.address, node.cls, node.path("qkv")) == ("blocks.0", "Attention", "blocks.0.qkv")
    assert node.qualname.endswith("facet_models.Attention")
    assert node.number("nothing", "heads") == 3 and node.number("nothing") is None
    assert node.has("qkv", "out") and not node.has("qkv", "proj")
    first = node.first("proj", "out")
    assert first is not None and first.address == "blocks.0.out"
    assert node.first("proj") is None and node.child("qkv.deeper") is None and tree.find("nothing") is None
    root = tree.find("self")
    assert root is not None and root.address == "self" and root.path("blocks.0") == "blocks.0"
    assert [each.address for each in tree][:2] == ["self", "blocks.0"]


def test_number_takes_numbers() -> None:
    from torchlens_core.program import ModuleInfo

    attributes = {"a": True, "b": 0, "c": "4", "d": 4.0, "e": 4}
    node = ModuleTree([ModuleInfo("", "M", facts={"attributes": attributes})], "toy").find("")
    assert node is not None and node.number(*"abcd") is None and node.number(*"abcde") == 4


def test_the_first_operation_of_a_type_in_each_call(x: Array) -> None:
    """Not of those in modules inside; counted anew in each call; the same as the model runs and afterwards."""

    def model(x: Array) -> Any:
        return block(block(x))

    block = Model()
    second = facets.directly("block", "add", 2)
    made = trace(model, [x], save=second)
    assert [op.label for op in made if op.has_saved_value] == [op.label for op in made.find_sites(second)]
    assert [op.module for op in made.find_sites(second)] == ["block:1", "block:2"]
    adds = [op for op in made.compute_ops if op.type == "add"]
    assert made.find_sites(second)[0] == adds[1] and made.find_sites(second)[1] == adds[4]
    assert not len(made.find_sites(facets.directly("block", "linear", 1)))
    assert len(made.find_sites(facets.directly("block.blocks.0", "attend") & func("attend"))) == 2
