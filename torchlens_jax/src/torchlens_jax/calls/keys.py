"""Settings of JAX, and what is known of arrays before a run: the part of a key that asks for no model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Any

import jax

_OPTIONS = [name for name in jax.config.values if hasattr(jax.config, name)]  # others cannot differ between calls
_options = attrgetter(*_OPTIONS)


def settings(arrays: Sequence[Any]) -> Hashable:
    """The settings of JAX, and what is known of arrays, as far as programs depend on them."""
    mesh = jax.sharding.get_abstract_mesh()
    avals = tuple(map(_aval, arrays)) if mesh.empty else tuple(map(jax.typeof, arrays))
    return (_options(jax.config), mesh, avals)


def _aval(array: Any) -> Hashable:
    return (array.shape, array.dtype, getattr(array, "weak_type", False))
