"""An action: a pure function of a value, with its name and settings, so that it prints and can be written down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError
from ..selectors import Selector

if TYPE_CHECKING:
    from ..backend import Arrays
    from .when import When


@dataclass(frozen=True, slots=True)
class Moment:
    """What an action is told beside the value.

    Attributes:
        arrays: the framework's array verbs.
        site: the Op whose value it is: a live one while the model runs, an Op in a replay.
        number: how often the same intervention has acted before in this run, from 0.
        values: the latest value of each site of the run that an action reads (``Action.reads``).
        when: the intervention.
    """

    arrays: Arrays
    site: Any
    number: int
    values: Mapping[Selector, Any] = field(default_factory=dict)
    when: When | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """What to put in the place of a value: ``function(value, moment, **settings)`` gives it, and changes nothing.

    Attributes:
        name: ``'scale'``; a Python function's own name for one that a user wrote.
        settings: keyword arguments of ``function``: numbers, strings and arrays.
        is_backward: acts on the gradient at the Op, and not on its value.
        is_named: stands in the table of named actions, so that a plan with it can be written to a file.
        reads: sites that have to run earlier in the same run, whose values it takes: ``moment.values``.
    """

    name: str
    function: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_backward: bool = False
    is_named: bool = False
    reads: tuple[Selector, ...] = ()

    def __call__(self, value: Any, moment: Moment) -> Any:
        """The value that takes the place of another."""
        return self.function(value, moment, **self.settings)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={_shown(value)}' for name, value in self.settings.items())})"


def as_action(action: Any) -> Action:
    """An Action as it is; a user's ``f(value)``, ``f(value, op)`` or ``f(value, *, hook)`` as one.

    ``op`` and ``hook`` are the site: its ``func_name``, ``type``, ``modules``, ``shape``.
    """
    if isinstance(action, Action):
        return action
    if not callable(action):
        raise InterventionError(
            f"An intervention is an action, such as tl.zero_ablate() or tl.scale(0.5), or a function of the value; got "
            f"{action!r}. To put a value there use tl.replace_with(value)."
        )
    return Action(getattr(action, "__name__", type(action).__name__), _calling(action))


def _calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the value, or of value and site, as a function of value and moment."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of functions written in C
        return lambda value, moment: function(value)
    if "hook" in parameters:
        return lambda value, moment: function(value, hook=moment.site)
    required = [
        parameter
        for parameter in parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    if len(required) >= 2:
        return lambda value, moment: function(value, moment.site)
    return lambda value, moment: function(value)


def _shown(value: Any) -> str:
    """A setting in a line: of arrays the shape, of modules and functions the class or name."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<array {tuple(shape)}>"
    if callable(value) and not isinstance(value, Selector):
        return f"<{getattr(value, '__name__', type(value).__name__)}>"
    return repr(value)
