"""When two arrays count as equal: up to what rounding can have done to them."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

from .metrics import Array, max_abs
from .values import in_float64


class Tolerance(NamedTuple):
    """Arrays agree where ``max |a - b| <= atol + rtol * max(|a|, |b|)``, over all elements.

    It is the array's largest element that counts, not each for itself: rounding errors of a sum are as large as its
    terms, whatever is left of it.
    """

    rtol: float
    atol: float

    def allows(self, a: Array, b: Array) -> bool:
        """Whether two arrays, of one shape or not, agree. NaN agrees with NaN, an infinity with the same infinity."""
        if a.shape != b.shape:
            return False
        if np.array_equal(a, b):
            return True
        if a.dtype.kind in "biu" and b.dtype.kind in "biu" and not self.rtol and not self.atol:
            return False
        wide_a, wide_b = in_float64(a), in_float64(b)
        with np.errstate(all="ignore"):
            difference = max_abs(wide_a, wide_b)
            size = max(_largest_finite(wide_a), _largest_finite(wide_b))
        return bool(difference <= self.atol + self.rtol * size)  # never of NaN


def tolerance(a: Array, b: Array, rtol: float | None = None, atol: float | None = None) -> Tolerance:
    """The tolerance for two arrays: what was asked for, by default by the coarser of their element types.

    With ``eps`` the distance from 1 to the next number of the type, ``rtol`` is ``eps ** (2/3)``: 2.4e-5 for float32,
    0.0098 for float16, 0.039 for bfloat16, 3.7e-11 for float64, what a deep model's rounding may come to. ``atol`` is
    0, as the values of a sound model can be small throughout. Integers and booleans agree where they are equal.
    """
    eps = max(_eps(a), _eps(b))
    return Tolerance(eps ** (2 / 3) if rtol is None else rtol, 0.0 if atol is None else atol)


def _eps(array: Array) -> float:
    if array.dtype.kind in "biu":
        return 0.0
    try:
        return float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
    except ValueError:  # the narrow integers of ml_dtypes
        return 0.0


def _largest_finite(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
