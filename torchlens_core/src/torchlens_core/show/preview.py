"""The first few numbers of an array, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_ITEMS = 3


def preview(array: Any) -> str:
    """The beginning of an array's first row, numbers with four decimals; the same for all frameworks.

    >>> preview(np.full((1, 2, 4), 0.5)), preview(np.arange(3)), preview(np.float32(2))
    ('tensor([[0.5000, 0.5000, 0.5000, ...', 'tensor([0, 1, 2])', 'tensor(2.0000)')
    """
    array = np.asarray(array)
    total = array.size
    while array.ndim > 2 and array.size:
        array = array[0]
    if not array.size:
        return f"tensor([], shape={array.shape})"
    if array.ndim == 0:
        return f"tensor({_number(array[()])})"
    row = array if array.ndim == 1 else array[0]
    items = row[:MAX_ITEMS]
    rest = "]" * array.ndim + ")" if total == len(items) else ", ..."
    return f"tensor({'[' * array.ndim}{', '.join(map(_number, items))}{rest}"


def _number(item: Any) -> str:
    if np.issubdtype(type(item), np.complexfloating):
        return f"{_number(item.real)}{'+' if item.imag >= 0 else ''}{_number(item.imag)}j"
    if isinstance(item, np.bool_ | np.integer):
        return str(item)
    value = float(item)  # dtypes of ml_dtypes too
    is_plain = value == 0 or 1e-4 <= abs(value) < 1e5 or not np.isfinite(value)
    return f"{value:.4f}" if is_plain else f"{value:.4e}"
