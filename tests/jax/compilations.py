"""Counting what JAX stages and compiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "staged",
    "/jax/core/compile/backend_compile_duration": "compiled",
}
_listening: list[list[str]] = []


def _note(event: str, duration: float, **facts: Any) -> None:
    for events in _listening:
        if event in _EVENTS:
            events.append(_EVENTS[event])


jax.monitoring.register_event_duration_secs_listener(_note)  # for good: JAX 0.7 cannot take one out again


@contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that gets ``"staged"`` or ``"compiled"`` for each time that JAX does so inside."""
    events: list[str] = []
    _listening.append(events)
    try:
        yield events
    finally:
        _listening.remove(events)
