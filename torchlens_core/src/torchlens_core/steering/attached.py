"""Changes prepared on a trace: what ``set`` and ``attach_hooks`` note, and ``replay`` and ``rerun`` carry out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError
from ..interventions.action import Action, as_action
from ..interventions.replacing import replace_with
from ..interventions.target import Target
from ..interventions.when import When
from .places import places, targets

if TYPE_CHECKING:
    from ..records.trace import Trace


@dataclass(frozen=True, eq=False)
class Attached:
    """What one call of ``set`` or ``attach_hooks`` prepared: a handle to take it off again.

    Attributes:
        whens: the interventions, in order.
    """

    trace: Trace
    whens: tuple[When, ...]

    def detach(self) -> None:
        """Take it off the trace."""
        self.trace.detach_hooks(handle=self)

    def __repr__(self) -> str:
        return f"<Attached: {', '.join(map(str, self.whens))}>"


def attach(trace: Trace, site: Any, actions: Iterable[Any]) -> Attached:
    """The interventions of some actions at a site, in order."""
    made = [as_action(action) for action in actions]
    if not made:
        raise InterventionError("There is nothing to attach: give an action, such as tl.scale(0.5), or a function.")
    return Attached(trace, tuple(When(target, action) for target in targets(trace, site) for action in made))


def setting(trace: Trace, site: Any, value: Any) -> Attached:
    """The interventions that put a value at a site; a callable is given the old value."""
    if isinstance(value, Action) or (callable(value) and not hasattr(value, "shape")):
        return attach(trace, site, [value])
    found = targets(trace, site)
    for target in found:
        _check_fits(trace, target, value)
    return Attached(trace, tuple(When(target, replace_with(value)) for target in found))


def _check_fits(trace: Trace, target: Target, value: Any) -> None:
    """A whole array has the shape, element type and device of what it replaces. Of parts that is seen when they are."""
    if isinstance(value, bool | int | float | complex) or target.views or trace.backend is None:
        return
    arrays = trace.backend.arrays
    if not arrays.is_array(value):
        raise InterventionError(
            f"A value is an array of {trace.backend_name} or a number; got {type(value).__name__} for {target!r}."
        )
    given = arrays.meta(value)
    for place in places(trace, target.selector):
        there = trace.program.metas[place.vid]
        same_place = str(given[2]) == str(there[2])
        if tuple(given[0]) != tuple(there[0]) or given[1] != there[1] or not same_place:
            raise InterventionError(
                f"{trace.labels.op(place.node)} is {_described(trace, there)}; the value to put there is "
                f"{_described(trace, given)}."
            )


def _described(trace: Trace, meta: Any) -> str:
    return f"an array of shape {tuple(meta[0])}, {trace.dtype_name(meta[1])}, on {meta[2]}"


def hooked(trace: Trace, hooks: Any) -> tuple[When, ...]:
    """The interventions that ``hooks=`` means: a mapping of sites to actions, pairs, or what ``tl.when`` made."""
    if hooks is None:
        return ()
    items = hooks.items() if isinstance(hooks, Mapping) else [hooks] if isinstance(hooks, When) else hooks
    if not isinstance(items, Iterable) or isinstance(items, str):
        raise InterventionError(f"{_HOOKS}; got {hooks!r:.80}.")
    return tuple(when for item in items for when in _hook(trace, item))


def _hook(trace: Trace, item: Any) -> tuple[When, ...]:
    if isinstance(item, When):
        return tuple(When(target, item.action, item.keep_clean) for target in targets(trace, item.target))
    if not isinstance(item, tuple) or len(item) != 2:
        raise InterventionError(f"{_HOOKS}; got {item!r:.80}.")
    site, actions = item
    return attach(trace, site, actions if isinstance(actions, list | tuple) else [actions]).whens


_HOOKS = "hooks= takes {site: action}, pairs of a site and an action, or tl.when(selector, action)"
