"""The JAX backend: the contract's jobs, each in its module."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from torchlens_core.backend import Call, Discovery
from torchlens_core.program import Row
from torchlens_core.vocabulary import canonical_type

from .arrays import JaxArrays
from .calls.generators import restart
from .calls.prepare import prepare
from .calls.structure import is_array, is_linen, is_module, is_nnx, is_penzai, roots, state_of, unwrapped
from .calls.taking import holders, is_holder
from .containers import leaves, replaced
from .gradients.gradients import differentiate, grad
from .lowering.layers import LAYERS
from .lowering.naming import WORDS
from .lowering.settings import settings
from .recording import recording
from .running.run import capture
from .staging.discovery import StagedDiscovery, discover, find_modules, staged_discovery

arrays = JaxArrays()


def is_ours(model: Any, args: Sequence[Any]) -> bool:
    """Whether a model is, or reaches, a module of JAX, or one of its arguments holds an array of JAX."""
    if any(is_array(leaf) for leaf in jax.tree.leaves(list(args))) or any(map(is_module, args)):
        return True
    inner = unwrapped(model)
    return inner is not model or is_linen(getattr(inner, "__self__", None)) or bool(roots(inner)) or any(holders(inner))


@functools.cache
def function_names() -> frozenset[str]:
    """Names of the functions and primitives of JAX that operations are called by."""
    spaces = (jnp, jax.nn, jax.lax, jax.random, jnp.linalg, jnp.fft, jax.scipy.special)
    names = {name for space in spaces for name in dir(space) if not name.startswith("_")}
    names |= {*LAYERS.values(), *WORDS.values(), "identity", "getitem", "stack", "conv1d", "conv2d", "conv3d"}
    return frozenset(names | {canonical_type(name) for name in names})


def call(row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run one recorded operation on other arrays."""
    assert row.func.func is not None
    return row.func.func(*args, **kwargs)


@contextmanager
def preserve(call: Call, discovery: Discovery) -> Iterator[Call]:
    """Arrays never change, but may be given away (donated), and modules of NNX get others.

    The call to run inside has copies of all; and what the model holds is put back.
    """
    prepared = prepare(call)
    copies = {at: arrays.copy(array) for at, array in enumerate(prepared.arrays) if is_array(array)}
    try:
        yield prepared.with_state(copies)
    finally:
        prepared.finish(dict(enumerate(prepared.arrays[: prepared.num_state])))


@contextmanager
def with_state(call: Call, discovery: Discovery, values: Mapping[str, Any]) -> Iterator[Call]:
    """The same call of a model that has other arrays at these addresses."""
    known = discovery if isinstance(discovery, StagedDiscovery) else staged_discovery(call)
    positions = known.positions()
    new = {positions[address]: array for address, array in values.items() if address in positions}
    yield prepare(call).with_state(new) if new else call


def own_state(model: Any) -> Mapping[str, Any]:
    """State that a run is expected to write: buffers and generators. Arrays never change, so they are no copies."""
    model = unwrapped(model)
    held = [("", model)] if is_holder(model) else holders(model)
    return {
        each.address: each.array
        for name, holder in held
        if is_nnx(holder) or is_penzai(holder)  # all others never change
        for each in state_of(holder, name)
        if each.kind != "param"
    }


__all__ = [
    "arrays", "call", "capture", "differentiate", "discover", "find_modules", "function_names", "grad", "is_ours",
    "leaves", "own_state", "preserve", "recording", "replaced", "restart", "settings", "with_state",
]  # fmt: skip
