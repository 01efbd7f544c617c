"""``tl.when(selector, action)``: one intervention, and how it is carried out on one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError, SelectorError
from ..selectors import LABEL_PATTERN, Selector
from .action import Action, Moment, as_action
from .target import Target, as_target

if TYPE_CHECKING:
    from ..backend import Arrays


@dataclass(frozen=True, slots=True, eq=False)
class When:
    """Where to act, and what to do there.

    Attributes:
        keep_clean: also keep the value as it was before, ``op.clean_out``.
    """

    target: Target
    action: Action
    keep_clean: bool = False

    @property
    def selector(self) -> Selector:
        """Which Ops it acts on."""
        return self.target.selector

    def apply(self, value: Any, moment: Moment) -> Any:
        """What takes the place of the value.

        Raises:
            InterventionError: it has another shape or element type, or cannot be had; the message says where.
        """
        arrays = moment.arrays
        try:
            part = self.target.get(value, arrays)
            changed = self.action(part, Moment(arrays, moment.site, moment.number, moment.values, self))
        except InterventionError as error:
            raise InterventionError(f"{self!r} at {_name(moment.site)}: {error}") from None
        if changed is None:
            raise InterventionError(
                f"{self.action!r} at {_name(moment.site)} returned None: an action returns the value to go on with."
            )
        if not arrays.is_array(changed):
            raise InterventionError(
                f"{self.action!r} at {_name(moment.site)} returned {type(changed).__name__}, not an array. "
                "tl.replace_with(value) takes numbers too."
            )
        before, after = arrays.meta(part), arrays.meta(changed)
        if tuple(before[0]) != tuple(after[0]) or before[1] != after[1]:
            raise InterventionError(
                f"{self.action!r} at {_name(moment.site)} changes {_described(before, arrays)} to "
                f"{_described(after, arrays)}. What runs afterwards expects the former: cast or reshape inside the "
                "action, or act on another site."
            )
        return self.target.put(value, changed, arrays)

    def __repr__(self) -> str:
        return f"when({self.target!r}, {self.action!r}{', keep_clean=True' if self.keep_clean else ''})"


def when(target: Selector | Target | str, action: Any, *, keep_clean: bool = False) -> When:
    """Change the value of each Op that matches, as the model runs; everything downstream follows.

    Args:
        target: a selector (``tl.func('relu')``, ``tl.module('layer1')``), a part of what it selects
            (``tl.module('attn').at[:, :, 3]``), or a module's address.
        action: ``tl.zero_ablate()``, ``tl.scale(0.5)`` ..., or a function: ``f(value)`` or ``f(value, op)``. It returns
            the new value, of the same shape and element type.
        keep_clean: keep the value as it was before too, as ``op.clean_out``.

    Raises:
        SelectorError: for a label, or what else is known only after the run; the message says what to use.
    """
    made = When(as_target(_live(target)), as_action(action), keep_clean)
    for selector in made.action.reads:
        _live(selector)
    return made


def _live(target: Selector | Target | str) -> Selector | Target:
    """The target, where it can be told as the model runs."""
    if isinstance(target, str):
        match = LABEL_PATTERN.match(target)
        if match:
            raise SelectorError(
                f"{target!r} is a label, and labels are known only after the run. "
                f"tl.func({match['type']!r}).nth({match['pass'] or match['k']}) selects by number as the model runs, "
                "tl.module(address) what a module returns; trace.find_sites(label).live() gives the selector of an Op "
                "that has run."
            )
        from ..selectors import module

        return module(target)
    selector = target.selector if isinstance(target, Target) else target
    if isinstance(selector, Selector) and (late := selector.reads & {"label", "children"}):
        raise SelectorError(
            f"{selector!r} is known only after the run ({', '.join(sorted(late))}); an intervention acts during it. "
            "Use tl.func(name).nth(k), tl.module(address) or tl.in_module(address); "
            "trace.find_sites(label).live() gives the selector of an Op that has run."
        )
    if isinstance(selector, Selector):
        unmade = {getattr(part, "name", "") for part in selector.parts()} & _UNMADE
        if unmade:
            raise InterventionError(
                f"{selector!r} means {', '.join(sorted(unmade))} arrays, which no operation computes: give the model "
                "another one, or act on the first operation that takes it."
            )
    return target


_UNMADE = frozenset({"input", "buffer", "source"})


READ = Action("read", lambda value, moment: value)
"""Notes a value for the actions that read it, and leaves it."""


def read_into(values: dict[Selector, Any], when: When, array: Any, arrays: Arrays) -> None:
    """Note a value, in memory of its own, under the selector that the action names."""
    part = when.target.get(array, arrays)
    values[when.selector.written] = arrays.expand(part, tuple(arrays.meta(part)[0]))


def with_reads(whens: Iterable[When]) -> tuple[When, ...]:
    """Interventions, and after them those that note the values which they read."""
    whens = tuple(whens)
    read = dict.fromkeys(selector for when in whens for selector in when.action.reads)
    return (*whens, *(When(Target(selector), READ) for selector in read))


def as_whens(intervene: Any) -> tuple[When, ...]:
    """What ``intervene=`` takes, in order: one ``tl.when(...)``, several, or a plan of them."""
    if intervene is None:
        return ()
    if isinstance(intervene, When):
        return (intervene,)
    items = tuple(intervene) if isinstance(intervene, Iterable) and not isinstance(intervene, str | dict) else None
    if items is None or not all(isinstance(item, When) for item in items):
        raise InterventionError(f"intervene= takes tl.when(selector, action), or a list of them; got {intervene!r}.")
    return items


def _name(site: Any) -> str:
    """A site in words: its label, or what is known of it while the model runs."""
    if not getattr(site, "is_live", False):
        return str(getattr(site, "label", site))
    module = site.module
    return f"{site.func_name or 'the output'}{f' in {module}' if module else ''}"


def _described(meta: Any, arrays: Any) -> str:
    return f"shape {tuple(meta[0])} of {arrays.dtype_name(meta[1])}"
