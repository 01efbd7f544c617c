"""Settings of actions: checked when an action is made, and fitted to the array that it acts on."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from ..dtypes import is_floating
from ..errors import InterventionError, NotSupported
from .action import Moment

# -- when an action is made --------------------------------------------------------------------------------------------


def number(name: str, value: Any, *, low: float = -math.inf, nan: bool = False) -> Any:
    """A real number, not below ``low``. Raises InterventionError."""
    if isinstance(value, np.generic) and not isinstance(value, np.bool_):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InterventionError(f"{name} is a number; got {value!r}.")
    if math.isnan(value) and not nan:
        raise InterventionError(f"{name} is NaN.")
    if value < low:
        raise InterventionError(f"{name} is {low:g} or more; got {value!r}.")
    return value


def values(name: str, value: Any, *, nan: bool = False) -> Any:
    """A number, or an array of numbers: numpy's, a framework's, a list, or the value of an Op of a trace."""
    value = value_of(value)
    if is_array(value):
        return value
    if isinstance(value, list | tuple):
        made = np.array(value)
        if made.dtype.kind not in "biufc":
            raise InterventionError(f"{name} is a number, or an array or list of numbers; got {value!r}.")
        return made
    if isinstance(value, bool | complex):
        return value
    try:
        return number(name, value, nan=nan)
    except InterventionError:
        if isinstance(value, str):
            raise InterventionError(
                f"{name} is a number or an array; got {value!r}. A label means nothing before the run is over: take "
                f"trace[{value!r}].out of a trace that you have."
            ) from None
        raise


def value_of(value: Any) -> Any:
    """The saved value of an Op of a trace; anything else as it is."""
    from ..records.op import Op

    return value.out if isinstance(value, Op) else value


def is_array(value: Any) -> bool:
    """Whether this is an array of numpy or of a framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic)


def direction(value: Any) -> Any:
    """A vector that is not zero. Raises InterventionError."""
    made = values("direction", value)
    if not is_array(made) or not len(made.shape):
        raise InterventionError(f"direction is a vector: an array or a list of numbers; got {value!r}.")
    known = as_numpy(made)
    if known is not None and not np.any(known):
        raise InterventionError(f"direction is zero everywhere ({known.size} elements): it points nowhere.")
    return made


def as_numpy(array: Any) -> np.ndarray[Any, Any] | None:
    """An array of any framework as numpy; None where it has no data, or no backend knows it."""
    if isinstance(array, np.ndarray):
        return array
    from ..plugins import get_backend, registry

    for name, backend in registry().backends.items():
        if backend.claims(None, [array]):
            arrays = get_backend(name).arrays
            try:
                return np.asarray(arrays.to_numpy(arrays.detach(array)))
            except NotSupported:
                return None
    return None


# -- when it acts ------------------------------------------------------------------------------------------------------


def need_floating(value: Any, moment: Moment) -> None:
    """Raise InterventionError for an array of whole numbers or truth values, of which an action makes no sense."""
    name = _dtype(value, moment)
    if not is_floating(name):
        raise InterventionError(
            f"it acts on floating-point numbers, and this array holds {name}: act on another site, or put values there "
            "with tl.replace_with(...)."
        )


def fitted(setting: Any, value: Any, moment: Moment) -> Any:
    """A setting for arithmetic with an array: a number, or an array of its element type that broadcasts to its shape.

    Raises:
        InterventionError: the setting has fractions and the array whole numbers; or its shape does not fit.
    """
    setting = converted(setting, value, moment)
    if not moment.arrays.is_array(setting):
        return setting
    own, other = _shape(value, moment), _shape(setting, moment)
    try:
        fits = np.broadcast_shapes(own, other) == own
    except ValueError:
        fits = False
    if not fits:
        raise InterventionError(f"its array has shape {other}, which does not broadcast to {own}.")
    return setting


def converted(setting: Any, value: Any, moment: Moment) -> Any:
    """A setting in the element type of an array; a number stays a number."""
    name = _dtype(value, moment)
    if not is_floating(name) and _has_fractions(setting, moment):
        shown = "an array with fractions" if is_array(setting) else repr(setting)
        raise InterventionError(f"{shown} does not fit an array of {name}: give whole numbers, or act on another site.")
    if isinstance(setting, complex) and not name.startswith("complex"):
        raise InterventionError(f"{setting!r} does not fit an array of {name}, which are real numbers.")
    if is_array(setting):
        try:
            return moment.arrays.as_like(setting, value)
        except (TypeError, ValueError) as error:
            raise InterventionError(
                f"a {type(setting).__name__} is no array of this framework and does not become one ({error}); give a "
                "numpy array."
            ) from None
    return int(setting) if isinstance(setting, float) and not is_floating(name) else setting


def _has_fractions(setting: Any, moment: Moment) -> bool:
    if is_array(setting):
        name = _dtype(setting, moment) if moment.arrays.is_array(setting) else str(setting.dtype)
        return is_floating(name)
    return not isinstance(setting, bool | int) and not (isinstance(setting, float) and setting.is_integer())


def need_numbers(value: Any, moment: Moment) -> None:
    """Raise InterventionError for an array of truth values."""
    if _dtype(value, moment) == "bool":
        raise InterventionError("it acts on numbers, and this array holds bool: tl.replace_with(True) sets one.")


def _dtype(array: Any, moment: Moment) -> str:
    return moment.arrays.dtype_name(moment.arrays.meta(array)[1])


def _shape(array: Any, moment: Moment) -> tuple[int, ...]:
    return tuple(moment.arrays.meta(array)[0])
