"""What is in a tensor: the range of its finite elements, and how many are NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

import torch
from torch import Tensor

from torchlens_core.diagnosis.extent import Extent


def extent_of_dense(array: Tensor) -> Extent:
    """The extent of a plain dense array of a floating-point or complex type, worked out on its device."""
    if not array.numel():
        return Extent(None, None)
    if array.is_complex():
        num_nan, num_finite = int(array.isnan().sum()), int(array.isfinite().sum())
        finite = torch.view_as_real(array[array.isfinite()])
        return _counted(finite, num_nan, array.numel() - num_nan - num_finite)
    if array.itemsize == 1:  # there is no arithmetic on float8
        array = array.float()
    low, high = map(float, array.aminmax())  # one pass over the memory, and all there is to do for most arrays
    if isfinite(low) and isfinite(high):
        return Extent(low, high)
    return _counted(array, int(array.isnan().sum()), int(array.isinf().sum()))


def _counted(array: Tensor, num_nan: int, num_inf: int) -> Extent:
    finite = array[array.isfinite()]
    low, high = map(float, finite.aminmax()) if finite.numel() else (None, None)
    return Extent(low, high, num_nan, num_inf)


def joined(extents: Iterable[Extent]) -> Extent:
    """The extent of several arrays together."""
    extents = list(extents)
    lows = [each.low for each in extents if each.low is not None]
    highs = [each.high for each in extents if each.high is not None]
    return Extent(
        min(lows, default=None),
        max(highs, default=None),
        sum(e.num_nan for e in extents),
        sum(e.num_inf for e in extents),
    )
