"""The changes of one run: which arrays were put in the place of which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..plan import Decision
from ..program import Change, Row
from .action import Moment
from .when import READ, When, read_into

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..selectors import Selector


class Steering:
    """Carries out the interventions of one run, and writes down what was changed.

    Attributes:
        changes: in the order in which they were made.
        gradient_changes: of gradients, in the order in which the Ops ran.
        clean: vid -> what was held of a value before it was changed, where that was asked for.
    """

    def __init__(self, arrays: Arrays, rows: Sequence[Row]) -> None:
        self._arrays = arrays
        self._rows = rows
        self.changes: list[Change] = []
        self.gradient_changes: list[Change] = []
        self.clean: dict[int, Any] = {}
        self._read: dict[Selector, Any] = {}  # latest values of the sites that actions read
        self._acted: Counter[When] = Counter()
        self._applied: dict[int, tuple[When, ...]] = {}  # vid -> what has acted on it already
        self._before: dict[int, int] = {}  # vid of what a module returned in place of an array -> that array's

    def forward(self, vid: int, decision: Decision) -> list[When]:
        """What is still to act on the value of an array: each intervention acts on an Op once."""
        applied = self._applied.get(vid, ())
        return [each for each in decision.changes if not each.action.is_backward and each not in applied]

    def backward(self, vid: int, decision: Decision) -> list[When]:
        """What is still to act on the gradient at an array."""
        applied = self._applied.get(vid, ())
        return [each for each in decision.changes if each.action.is_backward and each not in applied]

    def apply(self, vid: int, array: Any, whens: list[When], site: Any) -> Any:
        """The array that takes the place of another. The caller then tells ``changed`` or ``replaced``.

        Where all that is to be done is to read it, it is the same array.
        """
        arrays = self._arrays
        if vid not in self.clean and any(each.keep_clean for each in whens):
            self.clean[vid] = arrays.hold(arrays.copy(array))
        for each in whens:
            if (
                each.action is READ and each.target.views
            ):  # another part of the array may be read for one that is changed
                read_into(self._read, each, array, arrays)
        for each in whens:
            if each.action is READ:
                read_into(self._read, each, array, arrays)
            else:
                array = each.apply(array, Moment(arrays, site, self._acted[each], self._read))
                self._acted[each] += 1
        return array

    def replaces(self, vid: int, whens: list[When]) -> bool:
        """Whether these put another array in the place of one; else it is noted that they have read it."""
        if any(when.action is not READ for when in whens):
            return True
        self._applied[vid] = (*self._applied.get(vid, ()), *whens)
        return False

    def gradient_action(self, when: When, site: Any) -> Any:
        """A function of the gradient at an Op, which gives the one to go on with."""

        def act(gradient: Any) -> Any:
            self._acted[when] += 1
            return when.apply(gradient, Moment(self._arrays, site, self._acted[when] - 1, self._read))

        return act

    def changed(self, vid: int, whens: list[When]) -> None:
        """The array of the row just appended is another now; nothing has read the old one."""
        self._applied[vid] = (*self._applied.get(vid, ()), *whens)
        self.changes.append(Change(len(self._rows), vid, vid, _without_reads(whens)))

    def watched(self, vid: int, whens: list[When]) -> None:
        """The gradient at an array will be another."""
        self._applied[vid] = (*self._applied.get(vid, ()), *whens)
        self.gradient_changes.append(Change(len(self._rows), vid, vid, tuple(whens)))

    def replaced(self, old: int, new: int, whens: list[When]) -> None:
        """A module returned another array (``new``) than it had made; what ran inside has read the old one."""
        self._applied[new] = (*self._applied.get(old, ()), *whens)
        self._before[new] = old
        self.changes.append(Change(len(self._rows), old, new, _without_reads(whens)))

    def made_as(self, vid: int) -> int:
        """The value id under which a row made the array that was changed to this one."""
        while vid in self._before:
            vid = self._before[vid]
        return vid


def _without_reads(whens: list[When]) -> tuple[When, ...]:
    return tuple(when for when in whens if when.action is not READ)
