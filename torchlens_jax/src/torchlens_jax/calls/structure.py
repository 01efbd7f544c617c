"""What a model is made of: its modules by address, its arrays by address, and which arrays are parameters."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from torchlens_core.reach import reachable

from ..of_flax import value_of
from ..of_jax import is_jitted

_BUILTIN_CONTAINERS = (dict, list, tuple, set, frozenset, str, bytes, type(None))


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX, or stands for one that has no elements."""
    return isinstance(value, jax.Array | jax.ShapeDtypeStruct)


def is_dynamic(value: Any) -> bool:
    """Whether a leaf is an array, and so no part of the program."""
    return isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def is_equinox(value: Any) -> bool:
    """Whether a value is an ``equinox.Module``."""
    equinox = sys.modules.get("equinox")
    return equinox is not None and isinstance(value, equinox.Module)


def is_nnx(value: Any) -> bool:
    """Whether a value is a ``flax.nnx.Module``."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Module)


def is_variable(value: Any) -> bool:
    """Whether a value is a ``flax.nnx.Variable``."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Variable)


def is_penzai(value: Any) -> bool:
    """Whether a value is a layer of Penzai, which holds variables of its own."""
    penzai = sys.modules.get("penzai.nn.layer")
    return penzai is not None and isinstance(value, penzai.Layer)


def is_penzai_variable(value: Any) -> bool:
    """Whether a value is a variable (or parameter) of Penzai."""
    variables = sys.modules.get("penzai.core.variables")
    return variables is not None and isinstance(value, variables.AbstractVariable)


def is_linen(value: Any) -> bool:
    """Whether a value is a ``flax.linen.Module``, which holds no arrays."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, linen.Module)


def is_bound_linen(value: Any) -> bool:
    """Whether a value is a ``flax.linen.Module`` that was bound to its variables."""
    return is_linen(value) and value.scope is not None


def is_module(value: Any) -> bool:
    """Whether a value is a module: of a library, or a callable class that is registered as a pytree."""
    if isinstance(value, _BUILTIN_CONTAINERS) or is_dynamic(value) or isinstance(value, type) or is_linen(value):
        return False
    if isinstance(value, functools.partial):  # that of JAX too, which is a pytree
        return False
    if type(value).__module__ in ("flax.nnx.rnglib", "equinox.nn._stateful"):  # what gives keys; states
        return False
    if is_equinox(value):
        return not type(value).__module__.startswith("equinox._")  # wrappers
    if is_nnx(value):
        return True
    return is_penzai(value) or (callable(value) and not is_variable(value) and _is_node(value))


def _is_node(value: Any) -> bool:
    """Whether a value is a pytree of other values."""
    return not jax.tree_util.all_leaves([value]) and not is_jitted(value)


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a module or a container of them holds, by name."""
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        yield from zip(names, value, strict=True)
    elif is_equinox(value):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield field.name, getattr(value, field.name)
    elif type(value).__module__.startswith("flax.nnx") and hasattr(value, "items") and not is_array(value):
        yield from ((str(key), item) for key, item in value.items())
    elif is_nnx(value):
        yield from ((str(name), item) for name, item in vars(value).items() if not str(name).startswith("_"))
    elif not is_dynamic(value) and not is_variable(value) and not is_penzai_variable(value) and _is_node(value):
        one_level, _ = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)
        yield from ((path_part(path[0]) if path else "", item) for path, item in one_level)


def path_part(key: Any) -> str:
    """One step of a path in a pytree, as a word."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key).strip(".[]'")


def modules_of(root: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The modules of a model, root first, each under every address that it has."""
    pending = [(prefix, root)]
    inside: set[tuple[int, str]] = set()
    while pending:
        address, value = pending.pop()
        if (id(value), address) in inside or len(address) > 2000:
            continue
        inside.add((id(value), address))
        if is_module(value):
            yield address, value
        dot = f"{address}." if address else ""
        pending += [(dot + name, item) for name, item in reversed(list(children(value)))]


def variables_of(root: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The variables of a module of NNX, each under its first address."""
    pending = [(prefix, root)]
    seen: set[int] = set()
    while pending:
        address, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_variable(value):
            yield address, value
            continue
        dot = f"{address}." if address else ""
        pending += [(dot + name, item) for name, item in reversed(list(children(value)))]


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """One array of a model's state, by name.

    Attributes:
        kind: ``'param'``, ``'buffer'``, or ``'const'`` for what is neither (the state of a generator).
    """

    address: str
    array: Any
    kind: str
    module: str


def state_of(root: Any, prefix: str = "", module: str | None = None) -> Iterator[Named]:
    """The arrays of a model, each under every address that it has."""
    pending = [(prefix, root, module if module is not None else "")]
    inside: set[tuple[int, str]] = set()
    while pending:
        address, value, holder = pending.pop()
        if is_variable(value):
            array = value_of(value)
            yield from (
                Named(*_at(address, path), leaf, kind_of_variable(value), holder) for path, leaf in _leaves(array)
            )
            continue
        if is_penzai_variable(value):
            kind = "param" if type(value).__name__.startswith("Parameter") else "buffer"
            yield from (Named(*_at(address, path), leaf, kind, holder) for path, leaf in _leaves(value.value))
            continue
        if is_dynamic(value):
            trainable = bool(jnp.issubdtype(value.dtype, jnp.inexact))
            yield Named(address, value, "param" if trainable else "buffer", holder)
            continue
        if (id(value), address) in inside or len(address) > 2000:
            continue
        inside.add((id(value), address))
        if is_module(value):
            holder = address
        dot = f"{address}." if address else ""
        pending += [(dot + name, item, holder) for name, item in reversed(list(children(value)))]


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    return [(path, leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0] if is_dynamic(leaf)]


def _at(address: str, path: Any) -> tuple[str]:
    """The address of a leaf inside a variable: a wrapper's only array is the variable itself."""
    words = [path_part(key) for key in path if path_part(key) != "data_array"]
    return (".".join([address, *words]) if words else address,)


def kind_of_variable(value: Any) -> str:
    """``param``, ``buffer``, or ``const`` for the state of generators."""
    nnx = sys.modules["flax.nnx"]
    if isinstance(value, nnx.Param):
        return "param"
    return "const" if isinstance(value, nnx.RngState) else "buffer"


def unwrapped(model: Any) -> Any:
    """The function or module inside ``jax.jit``, ``eqx.filter_jit`` and ``nnx.jit``."""
    while True:
        module = type(model).__module__
        is_wrapper = is_jitted(model) or module.startswith(("equinox._jit", "flax.nnx.transforms"))
        inner = getattr(model, "__wrapped__", None) if is_wrapper else None
        if inner is None:
            return model
        model = inner


def roots(model: Any) -> list[tuple[str, Any]]:
    """The modules that a callable is, is a method of, or reaches, by name; the model itself is named ''."""
    found: list[tuple[str, Any]] = []
    for name, value in reachable(unwrapped(model)):
        if is_module(value) and all(value is not other for _, other in found):
            found.append((name, value))
    return found[:1] if found and not found[0][0] else found


def training_mode(module: Any) -> bool | None:
    """Whether a module is in training mode; None where it does not say."""
    for name in ("deterministic", "use_running_average", "inference"):
        value = getattr(module, name, None)
        if isinstance(value, bool):
            return not value
    return None
