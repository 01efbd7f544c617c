"""Actions on gradients: they change what flows back through an Op, and leave its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InterventionError
from .action import Action, Moment, as_action
from .arithmetic import clamped, ends, noised, scaled
from .randomness import as_seed
from .settings import number, values


def grad_zero() -> Action:
    """Let nothing flow back: the gradient becomes 0."""
    return Action("grad_zero", _zeroed, {}, is_backward=True, is_named=True)


def grad_scale(factor: Any) -> Action:
    """``gradient * factor``: a number, or an array that broadcasts to its shape."""
    return Action("grad_scale", scaled, {"factor": values("factor", factor)}, is_backward=True, is_named=True)


def grad_clip(max_norm: float, norm_type: float = 2) -> Action:
    """The gradient made shorter where it is longer than ``max_norm``.

    ``gradient * min(1, max_norm / (norm + 1e-6))``, as optimizers clip; the norm is ``(sum |g| ** p) ** (1 / p)`` of
    all its elements, with ``p = norm_type``; the largest element for infinity.
    """
    if norm_type <= 0:
        raise InterventionError(f"norm_type is above 0; got {norm_type!r}.")
    given = {"max_norm": number("max_norm", max_norm, low=0.0), "norm_type": number("norm_type", norm_type)}
    return Action("grad_clip", _clipped, given, is_backward=True, is_named=True)


def grad_noise(std: float, seed: int | None = None) -> Action:
    """The gradient plus noise of standard deviation ``std``; ``seed`` as for ``noise``."""
    given = {"std": number("std", std, low=0.0), "seed": as_seed(seed)}
    return Action("grad_noise", noised, given, is_backward=True, is_named=True)


def grad_clamp(min: Any = None, max: Any = None) -> Action:
    """The gradient with its elements moved into the range from ``min`` to ``max``; None for no end."""
    return Action("grad_clamp", clamped, ends(min, max), is_backward=True, is_named=True)


def bwd_hook(fn: Callable[..., Any]) -> Action:
    """A function of the gradient, ``fn(gradient)`` or ``fn(gradient, op)``, that returns the one to go on with."""
    action = as_action(fn)
    return Action(action.name, action.function, action.settings, is_backward=True)


def _zeroed(gradient: Any, moment: Moment) -> Any:
    return moment.arrays.full_like(gradient, 0)


def _clipped(gradient: Any, moment: Moment, *, max_norm: float, norm_type: float) -> Any:
    arrays = moment.arrays
    return gradient * arrays.clip(max_norm / (arrays.norm(gradient, norm_type) + 1e-6), None, 1.0)
