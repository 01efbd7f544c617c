"""The arrays inside what a model takes and returns: every pytree that JAX knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from .calls.structure import is_array, path_part


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a pytree, with their paths: ``'logits'``, ``'pair.0'``, ``''`` for a bare array."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        if is_array(leaf):
            yield ".".join(map(path_part, path)), leaf


def replaced(value: Any, arrays: Mapping[int, Any]) -> Any:
    """A pytree with other arrays in the place of some, by the id of those; what holds none stays as it is."""
    found, tree = jax.tree.flatten(value)
    if not any(id(leaf) in arrays for leaf in found):
        return value
    return jax.tree.unflatten(tree, [arrays.get(id(leaf), leaf) for leaf in found])
