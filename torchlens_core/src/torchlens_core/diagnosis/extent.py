"""What is in an array, in four numbers: its range, and how much of it is NaN or infinite."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Which = Literal["nan", "inf", "nonfinite"]  # what is looked for: NaN, infinities, or both


class Extent(NamedTuple):
    """The range of an array's finite elements, and how many elements are not finite.

    Attributes:
        low, high: least and greatest finite element (of a complex array, of its real and imaginary parts); None where
            there is none.
        num_nan, num_inf: elements that are NaN; that are infinite, of either sign. A complex element with a NaN in it
            is NaN.
    """

    low: float | None
    high: float | None
    num_nan: int = 0
    num_inf: int = 0

    def count(self, which: Which) -> int:
        """How many elements are NaN, infinite, or either."""
        return self.num_nan * (which != "inf") + self.num_inf * (which != "nan")

    def __str__(self) -> str:
        wrong = [f"{n} {word}" for n, word in ((self.num_nan, "NaN"), (self.num_inf, "inf")) if n]
        if self.low is None or self.high is None:
            return " and ".join(wrong) + ", nothing finite" if wrong else "empty"
        return f"{' and '.join(wrong) or 'finite'}, from {self.low:.4g} to {self.high:.4g}"


def extent_of(array: Any) -> Extent | None:
    """The extent of a numpy array (dtypes of ml_dtypes included); None for element types that are always finite.

    >>> extent_of(np.array([1.0, np.nan, -np.inf, 3.0]))
    Extent(low=1.0, high=3.0, num_nan=1, num_inf=1)
    >>> extent_of(np.arange(3)) is None
    True
    """
    array = np.asarray(array)
    if array.dtype.kind != "c":
        if array.dtype.kind != "f" and not array.dtype.name.startswith(("float", "bfloat")):
            return None
        if array.dtype.kind != "f":
            array = array.astype(np.float32)
    is_nan, is_inf = np.isnan(array), np.isinf(array)
    finite = array[~(is_nan | is_inf)]
    if array.dtype.kind == "c":
        finite = np.concatenate([finite.real, finite.imag])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return Extent(low, high, int(is_nan.sum()), int((is_inf & ~is_nan).sum()))
