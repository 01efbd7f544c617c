"""Actions that compute with a value: scale, add, clamp, noise."""

from __future__ import annotations

from typing import Any

from ..errors import InterventionError
from .action import Action, Moment
from .randomness import as_seed, seed_at
from .settings import fitted, is_array, need_floating, need_numbers, number, values


def scale(factor: Any) -> Action:
    """``value * factor``: a number, or an array that broadcasts to the value's shape."""
    return Action("scale", scaled, {"factor": values("factor", factor)}, is_named=True)


def add(delta: Any) -> Action:
    """``value + delta``: a number, or an array that broadcasts to the value's shape."""
    return Action("add", _added, {"delta": values("delta", delta)}, is_named=True)


def clamp(min: Any = None, max: Any = None) -> Action:
    """The value with its elements moved into the range from ``min`` to ``max``.

    Args:
        min, max: a number, or an array that broadcasts to the value's shape; None for no end.

    Raises:
        InterventionError: neither is given, or ``min`` is above ``max``.
    """
    return Action("clamp", clamped, ends(min, max), is_named=True)


def noise(std: float, seed: int | None = None) -> Action:
    """``value + std * n``, where ``n`` is drawn from the standard normal distribution, anew for each Op.

    Args:
        std: standard deviation of the noise, in units of the value.
        seed: repeats the draws; None: one is drawn when the action is made, and kept as its setting. What is drawn
            depends on the seed, on where the intervention stands, and on how often it has acted in the run; the
            generators of the framework are neither used nor changed.

    Raises:
        InterventionError: ``std`` is negative; when it acts, for an array that is not floating-point.
    """
    return Action("noise", noised, {"std": number("std", std, low=0.0), "seed": as_seed(seed)}, is_named=True)


# -- what they do, to values and to gradients --------------------------------------------------------------------------


def scaled(value: Any, moment: Moment, *, factor: Any) -> Any:
    """The value times the factor."""
    need_numbers(value, moment)
    return value * fitted(factor, value, moment)


def _added(value: Any, moment: Moment, *, delta: Any) -> Any:
    need_numbers(value, moment)
    return value + fitted(delta, value, moment)


def ends(min: Any, max: Any) -> dict[str, Any]:
    """The ends of a range, checked."""
    if min is None and max is None:
        raise InterventionError("A range needs an end: give min=, max= or both.")
    given = {name: values(name, end) for name, end in (("min", min), ("max", max)) if end is not None}
    if len(given) == 2 and not any(map(is_array, given.values())) and given["min"] > given["max"]:
        raise InterventionError(f"min is {given['min']!r}, above max, which is {given['max']!r}.")
    return given


def clamped(value: Any, moment: Moment, *, min: Any = None, max: Any = None) -> Any:
    """The value with its elements in the range."""
    need_numbers(value, moment)
    low, high = (None if end is None else fitted(end, value, moment) for end in (min, max))
    if moment.arrays.is_array(low) != moment.arrays.is_array(high):  # some frameworks want both of one kind
        low, high = (
            moment.arrays.full_like(value, end) if isinstance(end, int | float) else end for end in (low, high)
        )
    return moment.arrays.clip(value, low, high)


def noised(value: Any, moment: Moment, *, std: float, seed: int) -> Any:
    """The value plus noise."""
    need_floating(value, moment)
    return value + std * moment.arrays.normal(value, seed_at(seed, moment))
