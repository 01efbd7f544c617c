"""Interventions as parts of a program that is compiled."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from torchlens_core.interventions.action import Moment
from torchlens_core.interventions.when import READ, When
from torchlens_core.live_site import LiveSite, row_site
from torchlens_core.selectors import Selector
from torchlens_core.selectors.algebra import AllOf, AnyOf, Not
from torchlens_core.selectors.by_value import Where
from torchlens_core.session import Session

from ..calls.freezing import Freezer


class Place:
    """What an action or a predicate may ask of an operation that is being compiled: what is known without a run."""

    is_live = True

    def __init__(self, site: LiveSite, out: Any = None) -> None:
        for name in ("type", "func_name", "output_index", "module", "modules", "shape", "dtype", "device"):
            setattr(self, name, getattr(site, name))
        self.out = out

    def with_value(self, out: Any) -> Place:
        """The same place, with its value."""
        made = object.__new__(Place)
        made.__dict__.update(vars(self), out=out)
        return made


class Applied:
    """What acts on one value: always, or where a condition on the value holds."""

    def __init__(self, whens: tuple[When, ...], maybe: tuple[When, ...], site: Any) -> None:
        self.whens = whens
        self.maybe = maybe
        self.place = Place(site)

    def acted(self, facts: Mapping[Any, Any], slot: int, at: tuple[int, ...]) -> list[When]:
        """The interventions that acted, in order; what was only read does not count."""
        sure = list(self.whens)
        for number, when in enumerate(self.maybe):
            flag = facts.get(("acted", slot, number))
            if flag is not None and bool(flag[at] if at else flag):
                sure.append(when)
        return sure


def undecided(session: Session, vid: int) -> tuple[When, ...]:
    """Interventions that act on an array or not, depending on its value."""
    site = row_site(session, len(session.rows) - 1, vid)
    return tuple(
        when
        for when in session.plan.whens
        if "value" in when.selector.reads and when.selector.matches(site) is None and not when.action.is_backward
    )


# -- settings as arguments ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The numbers and arrays among the settings of a plan's actions, which are arguments of the compiled program.

    Attributes:
        whens: the interventions, in the plan's order.
        names: of each, the settings that are arguments.
        key: what is left, of which the program is made.
    """

    whens: tuple[When, ...]
    names: tuple[tuple[str, ...], ...]
    key: Hashable

    @staticmethod
    def of(whens: Sequence[When], freeze: Freezer) -> Settings:
        """The settings of interventions."""
        names = tuple(
            tuple(name for name, value in when.action.settings.items() if _is_argument(name, value)) for when in whens
        )
        key = tuple(
            (
                repr(when.target),
                when.action.name,
                freeze(when.action.function),
                given,
                freeze({name: value for name, value in when.action.settings.items() if name not in given}),
                when.keep_clean,
                when.action.reads,
            )
            for when, given in zip(whens, names, strict=True)
        )
        return Settings(tuple(whens), names, key)

    def values(self, whens: Sequence[When]) -> list[Any]:
        """The arguments, of the same or of other interventions like these."""
        whens = whens[: len(self.whens)]  # none, where nothing acts
        return [when.action.settings[name] for when, names in zip(whens, self.names, strict=True) for name in names]

    def filled(self, values: Sequence[Any]) -> dict[When, When]:
        """The interventions, with these arguments in the place of their own."""
        rest = iter(values)
        made = {}
        for when, names in zip(self.whens, self.names, strict=True):
            given = {name: next(rest) for name in names}
            made[when] = replace(when, action=replace(when.action, settings={**when.action.settings, **given}))
        return made


def _is_argument(name: str, value: Any) -> bool:
    if isinstance(value, jax.Array | np.ndarray):
        return True
    return isinstance(value, float) and name not in ("seed", "order")


# -- one value ---------------------------------------------------------------------------------------------------------


class Acting:
    """Changes values as a program is compiled.

    Args:
        arrays: the array verbs.
        filled: intervention -> the one with its settings.
    """

    def __init__(self, arrays: Any, filled: Mapping[When, When]) -> None:
        self._arrays = arrays
        self._filled = filled
        self._counts: dict[When, int] = {}
        self.read: dict[Selector, Any] = {}  # latest values of the sites that actions read

    def change(
        self, slot: int, value: Any, applied: Mapping[tuple[int, ...], Applied], counters: tuple[Any, ...], facts: Any
    ) -> Any:
        """What takes the place of a value, in the iteration that the counters tell."""
        groups: dict[tuple[Any, Any], list[tuple[int, ...]]] = {}
        first: dict[tuple[Any, Any], Applied] = {}
        for at, each in applied.items():
            groups.setdefault((each.whens, each.maybe), []).append(at)
            first.setdefault((each.whens, each.maybe), each)
        result = value
        for group, places in groups.items():
            changed = self._apply(slot, value, first[group], counters, facts)
            if counters and () not in places:
                here = jnp.any(jnp.stack([_is_at(counters, place) for place in places]))
                result = jnp.where(here, changed, result) if changed is not value else result
            else:
                result = changed
        return result

    def _apply(self, slot: int, value: Any, applied: Applied, counters: tuple[Any, ...], facts: Any) -> Any:
        place = applied.place
        arrays = self._arrays.at(counters)
        for when in applied.whens:
            if when.action is READ:
                self.read[when.selector] = value
            else:
                value = self._act(when, value, place, arrays)
        for number, when in enumerate(applied.maybe):
            holds = truth(when.selector, place.with_value(value))
            holds = jnp.asarray(holds).reshape(()).astype(bool)
            if facts is not None:
                facts["acted", slot, number] = holds
            value = jnp.where(holds, self._act(when, value, place, arrays), value)
        return value

    def _act(self, when: When, value: Any, place: Place, arrays: Any) -> Any:
        number = self._counts.get(when, 0)
        self._counts[when] = number + 1
        made = self._filled.get(when, when)
        return made.apply(value, Moment(arrays, place.with_value(value), number, self.read))


def _is_at(counters: tuple[Any, ...], at: tuple[int, ...]) -> Any:
    """Whether this is one iteration of the loops around."""
    holds = jnp.bool_(True)
    for counter, index in zip(counters, at, strict=False):
        holds = holds & (counter == index)
    return holds


def truth(selector: Selector, place: Place) -> Any:
    """Whether a selector that asks for the value matches: a bool, or an array of one where the value decides."""
    if isinstance(selector, Where):
        return selector.predicate(place)
    if isinstance(selector, AllOf | AnyOf):
        left, right = truth(selector.left, place), truth(selector.right, place)
        if isinstance(left, bool | None) and isinstance(right, bool | None):
            return bool(left) and bool(right) if isinstance(selector, AllOf) else bool(left) or bool(right)
        both = jnp.logical_and if isinstance(selector, AllOf) else jnp.logical_or
        return both(left, right)
    if isinstance(selector, Not):
        return jnp.logical_not(truth(selector.inner, place))
    return bool(selector.matches(place))
