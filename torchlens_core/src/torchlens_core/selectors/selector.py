"""The base of all selectors, and what they are asked about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import SelectorError

if TYPE_CHECKING:
    from ..facets.tree import ModuleTree
    from ..interventions.at import Parts
    from ..records.selection import Selection
    from ..records.trace import Trace


STATIC: Final = frozenset({"func", "scope"})  # the same for all calls of a function in all calls of a module


class NotYetKnown(Exception):
    """Raised by a live site that is asked what only a finished trace knows."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a model can have, for checks before the run."""

    modules: frozenset[str]
    has_function: Callable[[str], bool]
    functions: Callable[[], frozenset[str]]
    tree: ModuleTree | None = None


class Selector(ABC):
    """Base of all selectors."""

    reads: frozenset[str]  # of: func, scope, call, index, count, value, parents, output_of, children, label
    is_facet: ClassVar[bool] = False  # stands for Ops that only the recipes of the modules know

    @abstractmethod
    def matches(self, site: Any) -> bool | None:
        """True, False, or None where the site cannot tell yet."""

    def check(self, names: Names) -> None:  # noqa: B027  (most selectors name nothing)
        """Raise SelectorError where the selector names what the model cannot have."""

    def parts(self) -> Iterator[Selector]:
        """This selector and all those it is made of."""
        yield self

    def __call__(self, site: Any) -> bool:
        """Whether one Op of a finished trace matches."""
        return bool(self.matches(site))

    def __and__(self, other: Selector) -> Selector:
        from ..facets.targets import joined
        from .algebra import AllOf

        other = as_selector(other)
        return joined(self, other) if self.is_facet or other.is_facet else AllOf(self, other)

    def __or__(self, other: Selector) -> Selector:
        from .algebra import AnyOf

        return AnyOf(self, as_selector(other))

    def __invert__(self) -> Selector:
        from .algebra import Not

        return Not(self)

    def __bool__(self) -> bool:
        raise SelectorError(f"{self!r} is neither true nor false: combine selectors with & | ~, not with and/or/not.")

    def nth(self, number: int) -> Selector:
        """The ``number``-th match in the order of the run, from 1; works while the model runs, where labels do not."""
        from .algebra import Nth

        return Nth(self, number)

    @property
    def written(self) -> Selector:
        """What the user wrote, of which this may be what it means in one model."""
        return self

    @property
    def at(self) -> Parts:
        """A part of each array that it selects, to act on: ``tl.func('relu').at[:, 3]``."""
        from ..interventions.at import Parts

        return Parts(self)

    def facet(self, name: str) -> Selector:
        """A facet of the module that it selects: ``tl.module('h.0.attn').facet('q')``."""
        from ..facets.targets import facet

        return self & facet(name)

    def head(self, number: int) -> Selector:
        """One head, from 0, of a facet; of a module, what the head gives to the output projection."""
        from ..facets.targets import head

        return self & head(number)

    def sites(self, trace: Trace) -> Selection:
        """The Ops of a trace that match."""
        return trace.find_sites(self)

    def count(self, trace: Trace) -> int:
        """How many Ops of a trace match."""
        return len(self.sites(trace))

    def show(self, trace: Trace) -> str:
        """A table of the matching Ops of a trace."""
        return self.sites(trace).show()


def as_selector(value: Any) -> Selector:
    """The selector, or a SelectorError that says how to make one."""
    if not isinstance(value, Selector):
        raise SelectorError(f"Selectors combine with selectors; got {value!r}. Wrap a function in tl.where(...).")
    return value
