"""Generators that a model holds: the keys and counters of Flax NNX, which are state of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from torchlens_core.backend import Call

from ..of_flax import set_value, value_of
from .prepare import Prepared, prepare
from .structure import is_nnx, kind_of_variable, variables_of


def generators_of(prepared: Prepared, described: Any) -> dict[str, Any]:
    """Keys and counters of a model as they are, by address."""
    pairs = zip(described, prepared.arrays, strict=True)
    return {each.address: array for each, array in pairs if each.kind == "const"}


def restart(model: Any, state: Any, seed: int | None) -> None:
    """Set the keys and counters of a model: to those of an address each, or to what follows from a seed."""
    roots = prepare(Call(model, (), {})).roots
    found = [pair for name, root in roots if is_nnx(root) for pair in variables_of(root, name)]
    generators = [(address, variable) for address, variable in found if kind_of_variable(variable) == "const"]
    for number, (address, variable) in enumerate(generators):
        value = value_of(variable)
        if seed is None:
            value = state.get(address, value) if isinstance(state, Mapping) else value
        elif jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            fresh = jax.random.fold_in(jax.random.key(seed, impl=jax.random.key_impl(value)), number)
            value = jax.numpy.broadcast_to(fresh, value.shape)
        else:
            value = value * 0
        set_value(variable, value)
