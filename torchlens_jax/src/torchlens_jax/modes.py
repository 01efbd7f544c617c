"""The ways in which a model can be run, and how a user asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

from torchlens_core.errors import nearest

Mode = Literal["compiled", "concrete", "dynamic"]

_asked: ContextVar[Mode | None] = ContextVar("torchlens_jax_mode", default=None)


@contextmanager
def mode(name: Mode) -> Iterator[None]:
    """Run models in one way, for as long as the context is open, in this thread.

    Without it a model is compiled; one that cannot be staged without values runs dynamically, and one with an action,
    a predicate or a halt that cannot be compiled runs concretely. ``trace.mode`` and ``trace.mode_reason`` tell.

    Args:
        name: ``'compiled'``: staged, and compiled as one program; what cannot be raises. ``'concrete'``: staged, and
            its operations called one by one, loops by Python, so that hooks are called with arrays that have values.
            ``'dynamic'``: never staged: Python drives, and may read values.
    """
    if name not in get_args(Mode):
        known = ", ".join(map(repr, get_args(Mode)))
        raise ValueError(f"mode is one of {known}; got {name!r}.{nearest(str(name), get_args(Mode))}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def asked() -> Mode | None:
    """The way that the user asked for; None leaves the choice to us."""
    return _asked.get()
