"""Actions along a direction in the space of features: steer, project onto it, project it off."""

from __future__ import annotations

from typing import Any

from ..errors import InterventionError
from . import settings
from .action import Action, Moment
from .settings import fitted, need_floating, number


def steer(direction: Any, magnitude: float = 1.0, coef: float | None = None, feature_axis: int | None = None) -> Action:
    """``value + magnitude * direction``, at every position.

    Args:
        direction: a vector with an element for each feature, as long as it is (it is not normalised); or an array of
            several axes that broadcasts to the value's shape.
        magnitude: how far; also ``coef``.
        feature_axis: which axis of the value has the features. None: the last one where its length fits, else axis 1
            (the channels of a convolution); in an array of four axes or more where both fit it has to be said.

    Raises:
        InterventionError: when it acts, for a direction of another length, and for an array that is not floating-point.
    """
    if coef is not None and magnitude != 1.0:
        raise InterventionError(f"magnitude ({magnitude!r}) and coef ({coef!r}) mean the same: give one of them.")
    given = {
        "direction": settings.direction(direction),
        "magnitude": number("magnitude", magnitude if coef is None else coef),
    }
    return Action("steer", _steered, given | _axis(feature_axis), is_named=True)


def project_onto(direction: Any, feature_axis: int | None = None) -> Action:
    """What of the value lies along a direction: ``(value . d) / (d . d) * d`` at every position, all else removed.

    Args:
        direction: a vector with an element for each feature, of any length but 0.
        feature_axis: as for ``steer``.

    Raises:
        InterventionError: the direction is zero; when it acts, one of another length, or an array that is not
            floating-point.
    """
    return Action("project_onto", _onto, _vector(direction) | _axis(feature_axis), is_named=True)


def project_off(direction: Any, feature_axis: int | None = None) -> Action:
    """The value without what lies along a direction: ``value - (value . d) / (d . d) * d`` at every position.

    Arguments and errors are those of ``project_onto``.
    """
    return Action("project_off", _off, _vector(direction) | _axis(feature_axis), is_named=True)


def _vector(direction: Any) -> dict[str, Any]:
    made = settings.direction(direction)
    if len(made.shape) != 1:
        raise InterventionError(f"direction is a vector; got an array of shape {tuple(made.shape)}.")
    return {"direction": made}


def _axis(feature_axis: Any) -> dict[str, Any]:
    if feature_axis is None:
        return {}
    if isinstance(feature_axis, bool) or not hasattr(feature_axis, "__index__"):
        raise InterventionError(f"feature_axis is the number of an axis, or None; got {feature_axis!r}.")
    return {"feature_axis": int(feature_axis.__index__())}


# -- what they do ------------------------------------------------------------------------------------------------------


def _steered(value: Any, moment: Moment, *, direction: Any, magnitude: float, feature_axis: int | None = None) -> Any:
    need_floating(value, moment)
    return value + magnitude * _along(direction, value, moment, feature_axis)[0]


def _onto(value: Any, moment: Moment, *, direction: Any, feature_axis: int | None = None) -> Any:
    need_floating(value, moment)
    along, axis = _along(direction, value, moment, feature_axis)
    arrays = moment.arrays
    return arrays.sum(value * along, (axis,)) / arrays.sum(along * along, (axis,)) * along


def _off(value: Any, moment: Moment, *, direction: Any, feature_axis: int | None = None) -> Any:
    return value - _onto(value, moment, direction=direction, feature_axis=feature_axis)


def _along(direction: Any, value: Any, moment: Moment, feature_axis: int | None) -> tuple[Any, int]:
    """The direction in a shape that broadcasts along the axis of the features, and that axis."""
    shape = tuple(moment.arrays.meta(value)[0])
    if len(direction.shape) != 1:
        return fitted(direction, value, moment), -1
    (length,) = direction.shape
    axis = _chosen_axis(int(length), shape, feature_axis)
    like = settings.converted(direction, value, moment)
    return moment.arrays.reshape(like, tuple(length if each == axis else 1 for each in range(len(shape)))), axis


def _chosen_axis(length: int, shape: tuple[int, ...], feature_axis: int | None) -> int:
    if feature_axis is not None:
        if not -len(shape) <= feature_axis < len(shape):
            raise InterventionError(f"feature_axis is {feature_axis}, and the array has shape {shape}.")
        axis = feature_axis % len(shape)
        if shape[axis] != length:
            raise InterventionError(
                f"the direction has {length} elements, and axis {feature_axis} of the array {shape[axis]}: its shape "
                f"is {shape}."
            )
        return axis
    fitting = [axis for axis in (len(shape) - 1, 1) if 0 <= axis < len(shape) and shape[axis] == length]
    if not fitting:
        raise InterventionError(
            f"the direction has {length} elements, and the last axis of the array {shape[-1] if shape else 0}: its "
            f"shape is {shape}. feature_axis= says which axis has the features."
        )
    if len(shape) >= 4 and len(set(fitting)) > 1:
        raise InterventionError(
            f"the direction has {length} elements, and so have axis 1 and the last axis of the array, of shape "
            f"{shape}: say feature_axis=1 or feature_axis=-1."
        )
    return fitting[0]
