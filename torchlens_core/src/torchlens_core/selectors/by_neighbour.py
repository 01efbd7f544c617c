"""Selectors by what an Op takes, and by what takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .selector import Names, Selector, as_selector


@dataclass(frozen=True)
class PrecededBy(Selector):
    """``tl.preceded_by(selector)``."""

    selector: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.selector.reads | {"parents"})

    def matches(self, site: Any) -> bool | None:
        return _any(self.selector.matches(parent) for parent in site.parent_sites())

    def check(self, names: Names) -> None:
        self.selector.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.selector.parts()

    def __repr__(self) -> str:
        return f"preceded_by({self.selector!r})"


class FollowedBy(PrecededBy):
    """``tl.followed_by(selector)``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.selector.reads | {"children"})

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else _any(self.selector.matches(child) for child in site.child_sites())

    def __repr__(self) -> str:
        return f"followed_by({self.selector!r})"


def _any(answers: Iterator[bool | None]) -> bool | None:
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


def followed_by(selector: Selector) -> Selector:
    """Ops whose array an Op that matches ``selector`` takes. Known later: see ``lookback=`` of :func:`trace`."""
    return FollowedBy(as_selector(selector))


def preceded_by(selector: Selector) -> Selector:
    """Ops that take the array of an Op that matches ``selector``."""
    return PrecededBy(as_selector(selector))
