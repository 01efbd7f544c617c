"""The arguments of an operation by name: what its equations say, in the words of the functions that people call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from torchlens_core.program import HOLE, Func, Row


def settings_of(equations: Sequence[Any], name: str) -> dict[str, Any]:
    """The arguments of the operation that some equations make up, as plain data."""
    found: dict[str, Any] = {}
    for equation in equations:
        read = _READ.get(equation.primitive.name)
        if read is not None and (len(equations) == 1 or equation.primitive.name in _TELLING):
            for key, value in read(equation).items():
                found.setdefault(key, value)
    if not found and len(equations) == 1 and not _is_call(equations[0]):
        found = dict(equations[0].params)
    return {key: data for key, value in found.items() if (data := as_data(value)) is not _NO_DATA}


def settings(row: Row, func: Func) -> Mapping[str, Any]:
    """The arguments of a recorded call: its arrays by number, and its settings."""
    from .functions import JaxFunc

    if not isinstance(func, JaxFunc):
        return {f"arg_{number}": value for number, value in enumerate(row.args)}
    given = {f"arg_{number}": HOLE for number in range(len(row.ins))}
    return {**given, **func.settings}


def _is_call(equation: Any) -> bool:
    """Whether an equation calls a function, whose own parameters say nothing of what it was called with."""
    return any("jaxpr" in name for name in equation.params)


_NO_DATA = object()


def as_data(value: Any) -> Any:
    """A value as numbers, strings and tuples of them; what is none of these is left out."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.dtype):
        return str(value)
    if isinstance(value, type) and issubclass(value, np.generic):
        return str(np.dtype(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        items = tuple(map(as_data, value))
        return _NO_DATA if any(item is _NO_DATA for item in items) else items
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and type(value).__module__.startswith("jax") else _NO_DATA


def _axis(axes: Any) -> Any:
    axes = tuple(axes)
    return axes[0] if len(axes) == 1 else axes


def _reduction(equation: Any) -> dict[str, Any]:
    return {"axis": _axis(equation.params["axes"])}


def _product(equation: Any) -> dict[str, Any]:
    (left, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return {"contracted": math.prod(shape[axis] for axis in left)}


def _convolution(equation: Any) -> dict[str, Any]:
    params = equation.params
    numbers = params["dimension_numbers"]
    out_channels = equation.invars[1].aval.shape[numbers.rhs_spec[0]]
    return {
        "stride": tuple(params["window_strides"]),
        "padding": tuple(map(tuple, params["padding"])),
        "dilation": tuple(params["rhs_dilation"]),
        "groups": params["feature_group_count"],
        "out_channels": out_channels,
    }


def _window(equation: Any) -> dict[str, Any]:
    params = equation.params
    return {
        "kernel_size": tuple(params["window_dimensions"]),
        "stride": tuple(params["window_strides"]),
        "padding": tuple(map(tuple, params["padding"])),
    }


def _taking(**names: str) -> Callable[[Any], dict[str, Any]]:
    return lambda equation: {name: equation.params[key] for name, key in names.items() if key in equation.params}


_READ: dict[str, Callable[[Any], dict[str, Any]]] = {
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"), _reduction),
    **dict.fromkeys(("argmax", "argmin"), _reduction),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum", "reduce_window_min", "reduce_window"), _window),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _taking(axis="axis", reverse="reverse")),
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "transpose": _taking(axes="permutation"),
    "reshape": _taking(shape="new_sizes"),
    "broadcast_in_dim": _taking(shape="shape"),
    "convert_element_type": _taking(dtype="new_dtype"),
    "concatenate": _taking(axis="dimension"),
    "integer_pow": _taking(exponent="y"),
    "iota": _taking(dtype="dtype", shape="shape", axis="dimension"),
    "sort": _taking(axis="dimension"),
    "split": _taking(sizes="sizes", axis="axis"),
    "squeeze": _taking(axis="dimensions"),
    "rev": _taking(axis="dimensions"),
    "slice": _taking(start="start_indices", stop="limit_indices", step="strides"),
    "dynamic_slice": _taking(sizes="slice_sizes"),
    "gather": _taking(sizes="slice_sizes", mode="mode"),
    "top_k": _taking(k="k", axis="axis"),
    "select_n": lambda equation: {},
    "pad": lambda equation: {"padding": tuple(map(tuple, equation.params["padding_config"]))},
}
# Of an operation of several equations, those that say what the function was asked for.
_TELLING = frozenset(
    {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "dot_general", "conv_general_dilated"}
    | {"reduce_window_max", "reduce_window_sum", "cumsum", "concatenate", "sort", "top_k", "split"}
)
