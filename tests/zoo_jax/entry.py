"""What the catalogue says about one model: how it is built, and what it is called with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Built:
    """A model with random weights, and the arguments of one call.

    Attributes:
        model: a module, or a function whose first argument holds the parameters.
        args, kwargs: what it is called with.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        system: of modules: ``'Equinox'``, ``'Flax NNX'``, ``'Flax Linen'``, ``'Haiku'``, ``'Penzai'`` or ``'plain'``.
        package: where it comes from; ``''`` for those written here.
        recurrent: whether a layer is passed again with what an earlier pass of it computed.
    """

    name: str
    system: str
    package: str
    build: Callable[[], Built]
    recurrent: bool = False


def floats(*shape: int, seed: int = 1) -> jax.Array:
    """Normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def tokens(*shape: int, below: int = 64) -> jax.Array:
    """Token numbers."""
    return jax.random.randint(jax.random.key(2), shape, 0, below)


def waken(tree: Any) -> Any:
    """Parameters that start at zero get small random values: they would cut branches off, and no test could tell."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    woken = [
        0.1 * jax.random.normal(key, leaf.shape, leaf.dtype)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating) and not leaf.any()
        else leaf
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, woken)
