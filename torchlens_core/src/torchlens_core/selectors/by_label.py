"""Selectors by label, known only after the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ..errors import SelectorError, nearest
from .selector import Names, Selector

LABEL_PATTERN: Final = re.compile(r"(?P<type>[a-z0-9]+?)_(?P<k>\d+)(?:_(?P<total>\d+))?(?::(?P<pass>\d+))?$")


@dataclass(frozen=True)
class HasLabel(Selector):
    """``tl.label(name)``."""

    name: str
    reads = frozenset({"func", "label"})

    def matches(self, site: Any) -> bool | None:
        if site.is_live:
            match = LABEL_PATTERN.match(self.name)
            return None if match is None or match["type"] == site.type else False
        return self.name in (site.label, site.layer_label, site.label_short, site.layer_label_short)

    def check(self, names: Names) -> None:
        match = LABEL_PATTERN.match(self.name)
        if match is None:
            raise SelectorError(
                f"{self.name!r} is no label: labels look like 'relu_1_2', 'relu_1' or 'relu_1_2:1'. "
                "For a module use tl.module(address), for a function tl.func(name)."
            )
        if not names.has_function(match["type"]):
            raise SelectorError(
                f"No function is of type {match['type']!r}, so there can be no {self.name!r}."
                f"{nearest(match['type'], names.functions())}"
            )

    def __repr__(self) -> str:
        return f"label({self.name!r})"


@dataclass(frozen=True)
class LabelContains(Selector):
    """``tl.contains(text)``."""

    text: str
    reads = frozenset({"label"})

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else self.text.lower() in site.label.lower()

    def __repr__(self) -> str:
        return f"contains({self.text!r})"


@dataclass(frozen=True)
class LabelMatches(Selector):
    """``tl.regex(pattern)``."""

    pattern: str
    reads = frozenset({"label"})

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except re.error as error:
            raise SelectorError(f"{self.pattern!r} is no regular expression: {error}.") from None

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else self._compiled.search(site.label) is not None  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"regex({self.pattern!r})"


def label(name: str) -> Selector:
    """One Op or layer by its label. Labels are final only after the run: as ``save=`` its type is kept until then."""
    return HasLabel(name)


def contains(text: str) -> Selector:
    """Ops whose label contains ``text``, in any case. As ``save=`` it keeps every Op until the run is over."""
    return LabelContains(text)


def regex(pattern: str) -> Selector:
    """Ops whose label a regular expression finds. As ``save=`` it keeps every Op until the run is over."""
    return LabelMatches(pattern)
