"""The values of Ops as numpy arrays, whatever framework they are of, or why there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import NotSupported, ValueNotSaved, ValueOverwritten
from ..records.op import Op
from .metrics import Array


class Value(NamedTuple):
    """The value of one member at a site, or why it has none."""

    array: Array | None
    why: str = ""


def value_of(op: Op | None, member: str) -> Value:
    """The value of an Op as it was kept: a numpy array of its own element type."""
    if op is None:
        return Value(None, f"not in {member}")
    try:
        kept = op.numpy()
    except ValueNotSaved:
        return Value(None, f"not saved in {member}")
    except (ValueOverwritten, NotSupported) as error:
        return Value(None, f"in {member}: {str(error).partition('. ')[0].rstrip('.')}")
    array = kept if isinstance(kept, np.ndarray) else np.asarray(kept)
    if array.dtype.kind in "OSUMm":
        return Value(None, f"in {member}: what was kept is no array of numbers ({type(kept).__name__})")
    return Value(array)


def in_float64(array: Array) -> Array:
    """The array in float64, a complex one in complex128. Types of any width fit, integers beyond 2**53 are rounded."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)
