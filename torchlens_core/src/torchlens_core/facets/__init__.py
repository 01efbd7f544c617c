"""Facets: parts of what modules compute that have a name, and the recipes that say which modules have which.

``tl.facets``: what recipes are made of, and the registry of recipes.
"""

from .arguments import argument, argument_op, setting
from .directly import directly
from .facet import Computed, Facet
from .registry import Recipe, info, list, register, reset, snapshot, using
from .tree import ModuleNode
from .views import Flatten, Permute, RepeatHeads, SplitBatch, Unflatten, split_heads

__all__ = [
    "Computed", "Facet", "Flatten", "ModuleNode", "Permute", "Recipe", "RepeatHeads", "SplitBatch", "Unflatten",
    "argument", "argument_op", "directly", "info", "list", "register", "reset", "setting", "snapshot",
    "split_heads", "using",
]  # fmt: skip
