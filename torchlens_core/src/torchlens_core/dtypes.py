"""Names and sizes of element types, as numpy and ml_dtypes know them."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np

_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "int1": 1, "uint1": 1, "float4_e2m1fn": 4, "complex32": 32,
         "qint8": 8, "quint8": 8, "qint32": 32, "quint4x2": 4, "quint2x4": 2}  # fmt: skip


@functools.cache
def itemsize(name: str) -> float:
    """Bytes of one element; a fraction for types narrower than a byte, 0 for one that nobody knows."""
    if name in _BITS:
        return _BITS[name] / 8
    dtype = numpy_dtype(name)
    return dtype.itemsize if dtype is not None else 0


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """The numpy dtype of this name, those of ml_dtypes included; None where there is none."""
    scalar = getattr(ml_dtypes, name, None)
    if isinstance(scalar, type) and issubclass(scalar, np.generic):
        return np.dtype(scalar)
    try:
        return np.dtype(name)
    except TypeError:
        return None


def is_floating(name: str) -> bool:
    """Whether elements of this type can be NaN or infinite: floating-point and complex types."""
    return name.startswith(("float", "bfloat", "complex"))
