"""Selectors by what ran: a function, one output of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import SelectorError, nearest
from ..vocabulary import canonical_type
from .selector import Names, Selector


@dataclass(frozen=True)
class OfFunction(Selector):
    """``tl.func(name, output=...)``."""

    name: str
    output: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", frozenset({"func"} if self.output is None else {"func", "index"}))
        object.__setattr__(self, "_type", canonical_type(self.name))

    def matches(self, site: Any) -> bool | None:
        if site.type != self._type and site.func_name != self.name:  # type: ignore[attr-defined]
            return False
        return self.output is None or bool(site.output_index == self.output)

    def check(self, names: Names) -> None:
        if not names.has_function(self.name):
            raise SelectorError(
                f"No function is called {self.name!r} here.{nearest(self.name, names.functions())} "
                "Use an operation's type ('conv2d', 'maxpool2d') or the framework's own name ('max_pool2d')."
            )

    def __repr__(self) -> str:
        return f"func({self.name!r})" if self.output is None else f"func({self.name!r}, output={self.output})"


@dataclass(frozen=True)
class NthOutput(Selector):
    """``tl.output(key)``."""

    key: int | str

    reads = frozenset({"index"})

    def matches(self, site: Any) -> bool | None:
        if not site.in_multi_output:
            return False
        return bool((site.output_index if isinstance(self.key, int) else site.output_name) == self.key)

    def __repr__(self) -> str:
        return f"output({self.key!r})"


def func(name: str, *, output: int | None = None) -> Selector:
    """Ops of one function, by type (``'maxpool2d'``) or by the framework's name (``'max_pool2d'``).

    ``output`` picks one array of a function that returns several.
    """
    return OfFunction(name, output)


def output(key: int | str) -> Selector:
    """One output, by position or name, of functions that return several arrays."""
    return NthOutput(key)
