"""Recipes: which modules have which facets. Plugins and users register them; of several, the last one wins."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import FacetError, nearest
from .facet import Facet
from .tree import ModuleNode


@dataclass(frozen=True, slots=True)
class Recipe:
    """The facets of one kind of module.

    Attributes:
        name: by which it is known; registering another of this name replaces it.
        matches: whether a module is of that kind: by its class, its attributes, the modules in it.
        facets: the facets of such a module, by name.
        backend: name of the framework whose modules it is about; None for all.
    """

    name: str
    matches: Callable[[ModuleNode], bool]
    facets: Callable[[ModuleNode], Mapping[str, Facet]]
    backend: str | None = None


_brought: dict[str, Recipe] = {}  # by plugins
_recipes: dict[str, Recipe] = {}  # in the order in which they are asked


def bring(recipe: Recipe) -> None:
    """Register the recipe of a plugin: what ``reset`` goes back to. A recipe that a user registered stays after it."""
    own = {name: each for name, each in _recipes.items() if _brought.get(name) is not each}
    _brought.pop(recipe.name, None)
    _brought[recipe.name] = recipe
    _recipes.clear()
    _recipes.update(_brought)
    for name, each in own.items():
        _recipes.pop(name, None)
        _recipes[name] = each


def register(recipe: Recipe) -> Recipe:
    """Add a recipe. Where several have a facet of one name for a module, that of the recipe registered last counts.

    >>> from torchlens_core.facets import Facet, Recipe, register, reset
    >>> from torchlens_core.selectors import module
    >>> def normed(node):
    ...     return {"normed": Facet(("batch", "feature"), "what the norm gives", module(node.path("norm")))}
    >>> _ = register(Recipe("my block", lambda node: node.cls == "MyBlock", normed))
    >>> reset()
    """
    _recipes.pop(checked(recipe).name, None)
    _recipes[recipe.name] = recipe
    return recipe


def reset() -> None:
    """Forget the recipes that were registered by hand."""
    _recipes.clear()
    _recipes.update(_brought)


@contextmanager
def using(*recipes: Recipe) -> Iterator[None]:
    """Recipes for the time of a ``with`` block."""
    before = dict(_recipes)
    try:
        for recipe in recipes:
            register(recipe)
        yield
    finally:
        _recipes.clear()
        _recipes.update(before)


def snapshot() -> tuple[Recipe, ...]:
    """All recipes, in the order in which they are asked."""
    from ..plugins import registry

    registry()  # plugins register theirs when they are loaded
    return tuple(_recipes.values())


def list() -> builtins.list[str]:
    """Names of all recipes, in the order in which they are asked."""
    return [recipe.name for recipe in snapshot()]


def info(name: str) -> Recipe:
    """A recipe by its name."""
    found = {recipe.name: recipe for recipe in snapshot()}
    if name not in found:
        raise FacetError(f"No recipe is called {name!r}.{nearest(name, found)} tl.facets.list() names all.")
    return found[name]


def facets_of(module: ModuleNode) -> dict[str, Facet]:
    """The facets that recipes give a module, by name."""
    made: dict[str, Facet] = {}
    for recipe in snapshot():
        if recipe.backend not in (None, module.tree.backend) or not recipe.matches(module):
            continue
        for name, facet in recipe.facets(module).items():
            if not isinstance(facet, Facet):
                raise FacetError(
                    f"The recipe {recipe.name!r} gives {module.address} a facet {name!r} that is no Facet: {facet!r}."
                )
            made.pop(name, None)
            made[name] = facet
    return made


def checked(recipe: Recipe) -> Recipe:
    """The recipe; FacetError for what is none."""
    if not isinstance(recipe, Recipe):
        raise FacetError(f"A recipe is a tl.facets.Recipe(name, matches, facets); got {recipe!r}.")
    return recipe
