"""Numbers that say how far two arrays are apart. All are computed in float64 (complex128 for complex arrays).

``a`` is the reference (the baseline), ``b`` what is compared with it. Where both hold the same infinity, or both NaN,
a position counts as equal and is left out of norms and means; a NaN or infinity that only one of them holds makes the
result NaN. Of empty arrays all differences are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from ..errors import OptionError, nearest

Array = np.ndarray[Any, Any]


class Reading(NamedTuple):
    """The value of a metric, or why it has none."""

    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Metric:
    """A number that compares two arrays.

    Attributes:
        name: under which it stands in tables.
        func: takes two numpy arrays, of float64 or complex128, and returns a number.
        same: what it is of equal arrays: 0 for differences, 1 for similarities.
        same_shape: whether the arrays must have one shape; where they have not, there is no value.
        symmetric: whether swapped arrays give the same.
    """

    name: str
    func: Callable[[Array, Array], Any]
    same: float = 0.0
    same_shape: bool = True
    symmetric: bool = True

    def read(self, a: Array, b: Array) -> Reading:
        """Its value for two arrays. What ``func`` raises is passed on, with a note that says in which metric.

        Raises:
            OptionError: ``func`` returned something else than a number.
        """
        if self.same_shape and a.shape != b.shape:
            return Reading(None, f"shapes {a.shape} and {b.shape}")
        try:
            with np.errstate(all="ignore"):
                value = self.func(a, b)
        except Undefined as error:
            return Reading(None, str(error))
        except Exception as error:
            error.add_note(f"(raised by the metric {self.name!r}, for arrays of shapes {a.shape} and {b.shape})")
            raise
        try:
            return Reading(float(value))
        except (TypeError, ValueError):
            raise OptionError(f"The metric {self.name!r} returned {value!r:.80}; a metric returns a number.") from None

    def change(self, value: float | None) -> float:
        """How far a value is from that of equal arrays: what is most changed has most of it. NaN is infinitely far."""
        return -1.0 if value is None else float("inf") if np.isnan(value) else abs(value - self.same)


class Undefined(Exception):
    """Raised by the function of a metric that has no value for two arrays; the message says why."""


# -- the metrics -------------------------------------------------------------------------------------------------------


def relative_error(a: Array, b: Array) -> float:
    """``||a - b|| / ||a||``, Euclidean norms over all elements; 0 where both are zero, infinite where only ``a`` is."""
    a, b = _paired(a, b)
    scale = _largest(a, b)
    if not scale > 0:
        return scale  # 0, or NaN
    a, b = a / scale, b / scale  # so that no square overflows, or vanishes
    change, size = np.linalg.norm(a - b), np.linalg.norm(a)
    return float(change / size) if size else float("inf")


def cosine(a: Array, b: Array) -> float:
    """``Re <a, b> / (||a|| ||b||)`` over all elements, from -1 to 1; 1 where both are zero, 0 where one of them is."""
    a, b = (x / (_largest(x) or 1.0) for x in _paired(a, b))
    sizes = np.linalg.norm(a), np.linalg.norm(b)
    if not all(sizes):
        return float(not any(sizes))
    return float(np.clip(np.vdot(a, b).real / (sizes[0] * sizes[1]), -1.0, 1.0))


def max_abs(a: Array, b: Array) -> float:
    """``max |a - b|`` over all elements."""
    return _largest(np.subtract(*_paired(a, b)))


def mean_abs(a: Array, b: Array) -> float:
    """``mean |a - b|`` over all elements."""
    return _mean(np.abs(_differences(a, b)))


def mse(a: Array, b: Array) -> float:
    """``mean |a - b|^2`` over all elements."""
    return _mean(np.abs(_differences(a, b)) ** 2)


def cka(a: Array, b: Array) -> float:
    """Linear centred kernel alignment: how alike two representations of the same examples are, from 0 to 1.

    The first axis of both arrays is that of the examples (at least two, as many in both); all others are features, of
    which the two may have different numbers. With ``X`` and ``Y`` the arrays as examples times features, each feature
    centred: ``||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)``.

    Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019, section 3.
    """
    if not a.ndim or not b.ndim or len(a) != len(b):
        raise Undefined(f"shapes {a.shape} and {b.shape}: cka needs as many examples (first axis) in both")
    if len(a) < 2:
        raise Undefined("cka needs two examples (first axis) or more")
    x, y = _centred(a), _centred(b)
    if len(a) < max(x.shape[1], y.shape[1]):  # the same from the smaller matrices, examples times examples
        own_x, own_y = x @ x.conj().T, y @ y.conj().T
        shared, own = np.vdot(own_x, own_y).real, (np.linalg.norm(own_x), np.linalg.norm(own_y))
    else:
        shared = np.linalg.norm(y.conj().T @ x) ** 2
        own = np.linalg.norm(x.conj().T @ x), np.linalg.norm(y.conj().T @ y)
    if not all(own):
        raise Undefined("all examples are the same in one of them")
    return float(shared / (own[0] * own[1]))


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("relative_error", relative_error, symmetric=False),
        Metric("cosine", cosine, same=1.0),
        Metric("cka", cka, same=1.0, same_shape=False),
        Metric("max_abs", max_abs),
        Metric("mean_abs", mean_abs),
        Metric("mse", mse),
    )
}
MetricSpec = str | Metric | Callable[[Array, Array], Any]


def metric_of(spec: MetricSpec) -> Metric:
    """The metric of a name; a function becomes one.

    Raises:
        OptionError: there is none of this name.
    """
    if isinstance(spec, Metric):
        return spec
    if isinstance(spec, str):
        if spec not in METRICS:
            raise OptionError(
                f"No metric is called {spec!r}.{nearest(spec, METRICS)} There are {', '.join(METRICS)}; "
                "any function of two arrays that returns a number will do too."
            )
        return METRICS[spec]
    if not callable(spec):
        raise OptionError(f"A metric is a name, a function of two arrays or a tl.Metric; got {spec!r:.80}.")
    return Metric(getattr(spec, "__name__", type(spec).__name__), spec, symmetric=False)


def metrics_of(specs: MetricSpec | Iterable[MetricSpec]) -> list[Metric]:
    """The metrics of several names or functions, or of one."""
    if isinstance(specs, str | Metric) or callable(specs):
        return [metric_of(specs)]
    return [metric_of(spec) for spec in specs]


# -- parts -------------------------------------------------------------------------------------------------------------


def _paired(a: Array, b: Array) -> tuple[Array, Array]:
    """Both, with 0 where they hold the same infinity or NaN, and NaN where only one of them holds such."""
    odd = ~(np.isfinite(a) & np.isfinite(b))
    if not odd.any():
        return a, b
    same = odd & ((a == b) | (np.isnan(a) & np.isnan(b)))
    filling = np.where(same, 0.0, np.nan)
    return np.where(odd, filling, a), np.where(odd, filling, b)


def _differences(a: Array, b: Array) -> Array:
    """``a - b`` at the positions that are not left out."""
    left, right = _paired(a, b)
    kept = np.isfinite(a) | np.isfinite(b) | np.isnan(left)
    return (left - right)[kept]


def _largest(*arrays: Array) -> float:
    return float(np.max([np.abs(array).max(initial=0.0) for array in arrays]))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0


def _centred(array: Array) -> Array:
    """Examples times features, each feature centred, scaled to a largest element of 1; zeros where nothing varies."""
    x: Array = array.reshape(len(array), -1)
    x = x / (_largest(x) or 1.0)
    x -= x.mean(axis=0, keepdims=True)
    largest = _largest(x)
    return x * 0 if largest < 1e-14 else x / largest  # below that it is the rounding of the mean
