"""A target: the Ops that a selector matches, or a part of the array of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import SelectorError
from ..selectors import Selector

if TYPE_CHECKING:
    from ..backend import Arrays
    from .at import Parts


class View(Protocol):
    """A part of an array that can be read, and written back without touching the rest."""

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The part."""

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """A new array: the old one with the part replaced."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an intervention acts: an Op's whole array, or a view of a view of ... it."""

    selector: Selector
    views: tuple[View, ...] = ()

    @property
    def at(self) -> Parts:
        """A part of that part: ``tl.func('relu').at[:, 3].at[0]``."""
        from .at import Parts

        return Parts(self)

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The part of an Op's array that is meant."""
        for view in self.views:
            array = view.get(array, arrays)
        return array

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """The Op's array with that part replaced."""
        if not self.views:
            return part
        wholes = [array]
        for view in self.views[:-1]:
            wholes.append(view.get(wholes[-1], arrays))
        for view, whole in zip(reversed(self.views), reversed(wholes), strict=True):
            part = view.put(whole, part, arrays)
        return part

    def __repr__(self) -> str:
        return repr(self.selector) + "".join(map(repr, self.views))


def as_target(target: Any) -> Target:
    """A selector, or a part of what it selects, as a target."""
    if isinstance(target, Target):
        return target
    if isinstance(target, Selector):
        return Target(target)
    raise SelectorError(
        f"An intervention acts on a selector, such as tl.func('relu') or tl.module('layer1'); got {target!r}."
    )
