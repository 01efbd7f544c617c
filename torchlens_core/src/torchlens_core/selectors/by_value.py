"""Selectors by a predicate of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .selector import NotYetKnown, Selector


@dataclass(frozen=True)
class Where(Selector):
    """``tl.where(predicate)``."""

    predicate: Callable[[Any], Any]
    name_hint: str | None = None
    reads = frozenset({"value"})

    def matches(self, site: Any) -> bool | None:
        try:
            return bool(self.predicate(site))
        except NotYetKnown:
            return None

    def __repr__(self) -> str:
        return f"where({self.name_hint or getattr(self.predicate, '__name__', self.predicate)!r})"


def where(predicate: Callable[[Any], Any], name_hint: str | None = None) -> Selector:
    """Ops for which ``predicate(op)`` is true. It may read ``op.out``; what only a finished run knows is asked then."""
    return Where(predicate, name_hint)
