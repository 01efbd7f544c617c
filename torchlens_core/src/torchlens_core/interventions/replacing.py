"""Actions that put something else in the place of a value: zeros, a mean, another value, what a module makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InterventionError
from ..selectors import Selector
from .action import Action, Moment
from .randomness import as_seed, seed_at
from .settings import converted, fitted, is_array, need_floating, value_of, values


def zero_ablate() -> Action:
    """Put 0 there. Nothing flows back through the Op then."""
    return Action("zero_ablate", _zeroed, is_named=True)


def replace_with(value: Any) -> Action:
    """Put a value there: a number, or an array that broadcasts to the shape of what it replaces."""
    return Action("replace_with", _replaced, {"value": values("value", value, nan=True)}, is_named=True)


def mean_ablate(source: Any = None, over: str | int | tuple[int, ...] = "self") -> Action:
    """Put a mean there.

    Args:
        source: of what: an array (the values that the site had on other inputs, say), or an Op of a trace. None: of
            the value itself.
        over: ``'self'``: all elements, one number; ``'batch'``: axis 0, so that each example gets the mean of all; or
            the axes, numbered from 0.

    Raises:
        InterventionError: when it acts, for a mean whose shape does not fit, and for an array that is not
            floating-point.
    """
    given: dict[str, Any] = {"over": _over(over)}
    if source is not None:
        made = values("source", source)
        if not is_array(made):
            raise InterventionError(f"source is an array of values to take the mean of; got {source!r}.")
        given = {"source": made} | given
    return Action("mean_ablate", _averaged, given, is_named=True)


def resample_ablate(source: Any = None, from_: Any = None, seed: int | None = None) -> Action:
    """Put the value of another example there.

    Args:
        source: values to draw from, an array whose first axis counts examples, or an Op of a trace; also ``from_``.
            None: the examples of the batch itself, shuffled so that each gets the value of another one.
        seed: repeats the draw; None: one is drawn when the action is made, and kept as its setting. See ``noise``.

    Raises:
        InterventionError: when it acts, for a batch of one example without a source, and for one whose examples have
            another shape.
    """
    if source is not None and from_ is not None:
        raise InterventionError("source and from_ mean the same: give one of them.")
    given: dict[str, Any] = {"seed": as_seed(seed)}
    chosen = source if source is not None else from_
    if chosen is not None:
        made = values("source", chosen)
        if not is_array(made) or not len(made.shape):
            raise InterventionError(f"source is an array of examples along its first axis; got {chosen!r}.")
        given = {"source": made} | given
    return Action("resample_ablate", _resampled, given, is_named=True)


def swap_with(other: Any) -> Action:
    """Put the value of another site there.

    Args:
        other: an Op of a trace (another run's, say), an array, or a selector of a site that runs earlier in the same
            run: then its latest value, as interventions left it, to which gradients flow.

    Raises:
        InterventionError: for a label, which means nothing before the run is over; when it acts, for a site that has
            not run yet, or whose value has another shape.
    """
    if isinstance(other, Selector):
        return Action("swap_with", _swapped, {"other": other}, is_named=True, reads=(other,))
    value = value_of(other)
    if isinstance(value, str):
        raise InterventionError(
            f"swap_with({value!r}): a label means nothing before the run is over. Give trace[{value!r}] of a trace "
            "that you have, or a selector of a site that runs earlier, such as tl.func('relu').nth(1)."
        )
    if not is_array(value):
        raise InterventionError(f"swap_with takes an Op, an array or a selector; got {other!r}.")
    return Action("swap_with", _swapped, {"other": value}, is_named=True)


def splice_module(
    module: Callable[..., Any],
    input: str | Callable[[Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
) -> Action:
    """Let the value go through a module of yours, such as a sparse autoencoder; its calls are no part of the trace.

    Args:
        module: called with the value; gradients flow through it, and to its parameters.
        input: the name of the argument that takes the value, or a function that makes the argument of it.
        output: which part of what it returns goes on: a name, a position, or a function that picks it. None: what it
            returns is the array.
    """
    if not callable(module):
        raise InterventionError(f"splice_module takes a module, or any function of the value; got {module!r}.")
    if not (input is None or isinstance(input, str) or callable(input)):
        raise InterventionError(f"input is the name of an argument, or a function of the value; got {input!r}.")
    if not (output is None or isinstance(output, str | int) or callable(output)):
        raise InterventionError(f"output is a name, a position, or a function of what it returns; got {output!r}.")
    given = {"module": module, "input": input, "output": output}
    return Action(
        "splice_module", _spliced, {name: each for name, each in given.items() if each is not None}, is_named=True
    )


def _over(over: Any) -> str | tuple[int, ...]:
    if over in ("self", "batch"):
        return str(over)
    axes = (over,) if not isinstance(over, tuple | list) else tuple(over)
    if isinstance(over, str) or not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
        raise InterventionError(f"over is 'self', 'batch', an axis or several axes; got {over!r}.")
    return axes


# -- what they do ------------------------------------------------------------------------------------------------------


def _zeroed(value: Any, moment: Moment) -> Any:
    return moment.arrays.full_like(value, 0)


def _replaced(old: Any, moment: Moment, /, *, value: Any) -> Any:
    made = fitted(value, old, moment)
    if moment.arrays.is_array(made):
        return moment.arrays.expand(made, tuple(moment.arrays.meta(old)[0]))
    return moment.arrays.full_like(old, made)


def _averaged(value: Any, moment: Moment, *, over: str | tuple[int, ...], source: Any = None) -> Any:
    need_floating(value, moment)
    arrays = moment.arrays
    examples = value if source is None else converted(source, value, moment)
    rank = len(arrays.meta(examples)[0])
    axes = over if isinstance(over, tuple) else tuple(range(rank)) if over == "self" else (0,)
    if any(not -rank <= axis < rank for axis in axes):
        raise InterventionError(f"over={over!r}, and the array has shape {tuple(arrays.meta(examples)[0])}.")
    mean = arrays.mean(examples, axes)
    if over in ("self", "batch"):  # what was averaged over broadcasts from nothing
        mean = arrays.reshape(mean, arrays.meta(mean)[0][len(axes) :])
    return arrays.expand(fitted(mean, value, moment), tuple(arrays.meta(value)[0]))


def _resampled(value: Any, moment: Moment, *, seed: int, source: Any = None) -> Any:
    arrays = moment.arrays
    shape = tuple(arrays.meta(value)[0])
    draw = np.random.default_rng(seed_at(seed, moment))
    if source is None:
        if not shape or shape[0] < 2:
            raise InterventionError(
                f"there is no other example to take a value of: the array has shape {shape}. Give source=, an array of "
                "examples, or a batch of several."
            )
        order = draw.permutation(shape[0])
        rows = np.empty_like(order)
        rows[order] = np.roll(order, 1)  # one round through all of them: nobody keeps the own value
        return arrays.get_at(value, (rows.tolist(),))
    examples = converted(source, value, moment)
    other = tuple(arrays.meta(examples)[0])
    if not shape or other[1:] != shape[1:] or not other[0]:
        raise InterventionError(f"its source has examples of shape {other[1:]}, and the array has shape {shape}.")
    return arrays.get_at(examples, (draw.integers(0, other[0], shape[0]).tolist(),))


def _swapped(value: Any, moment: Moment, *, other: Any) -> Any:
    arrays = moment.arrays
    if isinstance(other, Selector):
        if other not in moment.values:
            raise InterventionError(f"no operation that {other!r} selects has run yet; it has to run earlier.")
        other = moment.values[other]
    made = converted(other, value, moment)
    own, theirs = tuple(arrays.meta(value)[0]), tuple(arrays.meta(made)[0])
    if own != theirs:
        raise InterventionError(f"the other value has shape {theirs}, and this one {own}.")
    return made if made is not other else arrays.expand(made, own)


def _spliced(
    value: Any,
    moment: Moment,
    *,
    module: Callable[..., Any],
    input: str | Callable[[Any], Any] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
) -> Any:
    returned = module(**{input: value}) if isinstance(input, str) else module(input(value) if input else value)
    if callable(output):
        return output(returned)
    if output is None:
        return returned
    if isinstance(output, str) and hasattr(returned, output):
        return getattr(returned, output)
    return returned[output]
