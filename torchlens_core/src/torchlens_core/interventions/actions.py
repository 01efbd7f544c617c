"""The named actions: what stands in a plan, by name, and what plugins add to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..errors import InterventionError, nearest
from .action import Action
from .arithmetic import add, clamp, noise, scale
from .directions import project_off, project_onto, steer
from .gradients import bwd_hook, grad_clamp, grad_clip, grad_noise, grad_scale, grad_zero
from .replacing import mean_ablate, replace_with, resample_ablate, splice_module, swap_with, zero_ablate

__all__ = [
    "add", "bwd_hook", "clamp", "grad_clamp", "grad_clip", "grad_noise", "grad_scale", "grad_zero", "mean_ablate",
    "named_action", "noise", "project_off", "project_onto", "register_action", "replace_with", "resample_ablate",
    "scale", "splice_module", "steer", "swap_with", "zero_ablate",
]  # fmt: skip

Maker: TypeAlias = Callable[..., Action]
"""Makes an action of its settings; its arguments have the names of the settings."""

_MAKERS: dict[str, Maker] = {
    make.__name__: make
    for make in (
        zero_ablate, mean_ablate, resample_ablate, replace_with, swap_with, splice_module, scale, add, clamp, noise,
        steer, project_onto, project_off, grad_zero, grad_scale, grad_clip, grad_noise, grad_clamp,
    )
}  # fmt: skip


def register_action(name: str, make: Maker) -> None:
    """Add a named action.

    Args:
        name: of the action, as it stands in files.
        make: gives the action. It takes the settings of the action by their names, and checks them: they may come from
            a file.

    Raises:
        InterventionError: there is another action of this name.
    """
    if _MAKERS.setdefault(name, make) is not make:
        raise InterventionError(f"There is an action {name!r} already.")


def named_action(name: str) -> Maker:
    """What makes the actions of a name. Raises InterventionError, with the nearest names, where there is none."""
    from ..plugins import registry

    registry()  # loads the plugins
    if name not in _MAKERS:
        raise InterventionError(
            f"No action is called {name!r}.{nearest(name, _MAKERS)} There are {', '.join(sorted(_MAKERS))}."
        )
    return _MAKERS[name]
