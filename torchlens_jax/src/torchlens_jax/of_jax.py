"""What differs between the versions of JAX that are supported, by what they have."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Any

import jax

_numbers = itertools.count()
_context: Any = jax.make_user_context() if hasattr(jax, "make_user_context") else None


_JITTED = type(jax.jit(lambda x: x))


def is_jitted(value: Any) -> bool:
    """Whether a value is a function that JAX compiles: one of ``jax.jit`` or ``jax.pmap``.

    Not asked as ``jax.stages.Wrapped``, which looks for attributes: some objects have, or raise at, any at all.
    """
    if isinstance(value, _JITTED):
        return True
    held = getattr(value, "__dict__", {}) if type(value).__name__ in ("function", "PmapFunction") else {}
    return "__wrapped__" in held and (type(value).__name__ == "PmapFunction" or "lower" in held)


def fresh_context() -> AbstractContextManager[Any]:
    """A context in which JAX finds nothing in its caches: what is staged inside is new, and is used nowhere else.

    Before ``jax.make_user_context`` (0.7.2) metadata of XLA are what does that; they change no result.
    """
    if _context is not None:
        return _context(object())  # type: ignore[no-any-return]
    from jax.experimental.xla_metadata import set_xla_metadata

    return set_xla_metadata(torchlens=str(next(_numbers)))  # type: ignore[no-any-return]


def usual_context() -> AbstractContextManager[Any]:
    """Inside a fresh context, one in which JAX's caches are those of plain calls: what runs there is compiled once."""
    if _context is not None:
        return _context(None)  # type: ignore[no-any-return]
    from jax.experimental.xla_metadata import set_xla_metadata

    return set_xla_metadata(torchlens=None)  # type: ignore[no-any-return]


def unnamed(info: Any) -> Any:
    """What is known of the function that a jaxpr was staged from, for a part of it with other arguments and results."""
    known = getattr(info, "with_unknown_names", None)  # 0.8
    return info._replace(arg_names=(), result_paths=()) if known is None else known()
