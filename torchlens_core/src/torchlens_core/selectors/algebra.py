"""Selectors made of selectors: ``&``, ``|``, ``~`` and ``nth``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import SelectorError
from .selector import Names, Selector


@dataclass(frozen=True, eq=True)
class _Pair(Selector):
    left: Selector
    right: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.left.reads | self.right.reads)

    def check(self, names: Names) -> None:
        self.left.check(names)
        self.right.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.left.parts()
        yield from self.right.parts()


class AllOf(_Pair):
    """``left & right``."""

    def matches(self, site: Any) -> bool | None:
        left = self.left.matches(site)
        if left is False:
            return False
        right = self.right.matches(site)
        return False if right is False else None if left is None or right is None else True

    def __repr__(self) -> str:
        return f"({self.left!r} & {self.right!r})"


class AnyOf(_Pair):
    """``left | right``."""

    def matches(self, site: Any) -> bool | None:
        left = self.left.matches(site)
        if left is True:
            return True
        right = self.right.matches(site)
        return True if right is True else None if left is None or right is None else False

    def __repr__(self) -> str:
        return f"({self.left!r} | {self.right!r})"


@dataclass(frozen=True)
class Not(Selector):
    """``~inner``."""

    inner: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.inner.reads)

    def matches(self, site: Any) -> bool | None:
        result = self.inner.matches(site)
        return None if result is None else not result

    def check(self, names: Names) -> None:
        self.inner.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.inner.parts()

    def __repr__(self) -> str:
        return f"~{self.inner!r}"


@dataclass(frozen=True)
class Nth(Selector):
    """The ``number``-th match of ``inner``, from 1."""

    inner: Selector
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise SelectorError(f"nth() counts from 1; got {self.number}.")
        if late := self.inner.reads & {"label", "children", "output_of"}:
            raise SelectorError(
                f"{self.inner!r} is answered too late to be counted as the model runs ({sorted(late)})."
            )
        object.__setattr__(self, "reads", self.inner.reads | {"count"})

    def matches(self, site: Any) -> bool | None:
        number = site.number_among(self.inner)
        return None if number is None else bool(number == self.number)

    def check(self, names: Names) -> None:
        self.inner.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.inner.parts()

    def __repr__(self) -> str:
        return f"{self.inner!r}.nth({self.number})"


def counted(selectors: Iterable[Selector]) -> list[Selector]:
    """The selectors whose matches have to be counted (``nth``) to answer these, each once."""
    parts = (part for selector in selectors for part in selector.parts())
    return list(dict.fromkeys(part.inner for part in parts if isinstance(part, Nth)))
