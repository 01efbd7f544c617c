"""What views and computed facets ask of arrays, for the numpy arrays of a loaded trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..program import Meta

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..records.trace import Trace


class NumpyVerbs:
    """Those of the verbs of ``Arrays`` that reading takes."""

    def meta(self, array: Any) -> Meta:
        """Shape and element type."""
        return Meta(array.shape, array.dtype, "cpu")

    def reshape(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements in another shape."""
        return array.reshape(tuple(shape))

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """The axes in another order."""
        return array.transpose(tuple(axes))

    def get_at(self, array: Any, index: tuple[Any, ...]) -> Any:
        """``array[index]``."""
        return array[index]

    def mean(self, array: Any, axes: Sequence[int]) -> Any:
        """Mean over axes, which stay with length 1."""
        return array.mean(tuple(axes), keepdims=True)

    def attention_weights(
        self, query: Any, key: Any, *, mask: Any = None, scale: float | None = None, is_causal: bool = False
    ) -> Any:
        """See :meth:`torchlens_core.backend.Arrays.attention_weights`."""
        return attention_weights(query, key, mask=mask, scale=scale, is_causal=is_causal)


def attention_weights(
    query: Any, key: Any, *, mask: Any = None, scale: float | None = None, is_causal: bool = False
) -> Any:
    """See :meth:`torchlens_core.backend.Arrays.attention_weights`; here on numpy arrays, computed in float64."""
    q, k = query.astype(np.float64), key.astype(np.float64)
    if q.ndim > 3 and q.shape[-3] != k.shape[-3]:
        k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask.astype(np.float64)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
    highest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0))  # of a row that may look nowhere, all 0
    total = weights.sum(axis=-1, keepdims=True)
    return (weights / np.where(total == 0, 1, total)).astype(query.dtype)


def verbs_for(trace: Trace, value: Any) -> Arrays:
    """The verbs for a value of a trace: the framework's, or numpy's where the trace was loaded as numpy arrays."""
    backend = trace.backend
    if backend is not None and backend.arrays.is_array(value):
        return backend.arrays
    return cast("Arrays", NumpyVerbs())
