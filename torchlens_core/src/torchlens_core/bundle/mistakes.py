"""The classical mistakes of a port, in words: what the two values at the first divergence look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..records.op import Op
from .axes import Axes, any_order
from .axes_matching import TRANSPOSES
from .levels import levelled
from .metrics import METRICS, Array
from .tolerance import tolerance
from .values import in_float64, value_of

_NORMALISING: Final = frozenset({"batchnorm", "layernorm", "groupnorm", "rmsnorm", "instancenorm", "normalize"})
_WINDOWED: Final = ("conv", "maxpool", "avgpool", "lppool")
_SAMPLE: Final = 4096  # elements, where a formula is tried
_SLICES: Final = 4096  # along an axis, where their order is tried


@dataclass(frozen=True)
class Suspect:
    """The Ops at the first divergence, with their values.

    Attributes:
        names: of the members.
        ops: theirs.
        arrays: the two values, that of the second with the axes of the first where these are known; shapes may differ.
        taken: the array that both took and agree on, where there is one.
        axes_taken: how the axes of each array that they took were matched.
        unmatched: what one member alone ran before.
    """

    names: tuple[str, str]
    ops: tuple[Op, Op]
    arrays: tuple[Array, Array]
    taken: Array | None
    axes_taken: tuple[Axes, ...]
    unmatched: tuple[Op, ...]

    @property
    def type(self) -> str:
        """Type of the operation."""
        return levelled(self.ops[0].type)

    @property
    def has_one_shape(self) -> bool:
        """Whether the two values have one shape."""
        return bool(self.arrays[0].shape == self.arrays[1].shape)


def mistakes(suspect: Suspect) -> list[str]:
    """What it may be, each in a sentence; those that the values show first."""
    return [text for find in _FINDERS for text in find(suspect)]


def _agree(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.size < 2:
        return False
    return tolerance(a, b).allows(a, b)


# -- axes --------------------------------------------------------------------------------------------------------------


def _flattened_otherwise(suspect: Suspect) -> Iterator[str]:
    for axes in suspect.axes_taken:
        if axes.is_flattened:
            yield (
                f"what it took was flattened in another order: {axes} gives that of {suspect.names[0]!r}. "
                "Its weights have to be in that order too, or a transpose is missing before the flatten"
            )


def _missing_transpose(suspect: Suspect) -> Iterator[str]:
    a, b = suspect.arrays
    order = next((axes for axes in any_order(a.shape, b.shape) if _agree(a, axes.apply(b))), None)
    if order is not None:
        yield f"the values agree with the axes of {suspect.names[1]!r} in the order {order}: a transpose is missing"


def _transpose_before(suspect: Suspect) -> Iterator[str]:
    found = [op for op in suspect.unmatched if op.type in TRANSPOSES and op.has_input_ancestor]
    if found and suspect.taken is None:
        yield f"{found[-1].layer_label} ran in one alone before: a transpose may be missing in the other"


def _other_order_of_slices(suspect: Suspect) -> Iterator[str]:
    """The same heads, or channels, in another order."""
    a, b = suspect.arrays
    if not suspect.has_one_shape or a.size < 4:
        return
    for axis, size in enumerate(a.shape):
        if 1 < size <= _SLICES:
            order = _order_of_slices(a, b, axis)
            if order is not None and _agree(a, np.take(b, order, axis)):
                shown = ", ".join(map(str, order[:8].tolist())) + (", ..." if size > 8 else "")
                yield f"the slices along axis {axis} are the same in another order ({shown}): heads or channels swapped"
                return


def _order_of_slices(a: Array, b: Array, axis: int) -> Array | None:
    """Which slice of ``b`` is nearest to each of ``a``, told by a random projection; None if two are one."""
    rows = [in_float64(np.moveaxis(x, axis, 0)).real.reshape(a.shape[axis], -1) for x in (a, b)]
    direction = np.random.default_rng(0).normal(size=rows[0].shape[1])
    ranks = [np.argsort(row @ direction, kind="stable") for row in rows]
    order = np.empty_like(ranks[0])
    order[ranks[0]] = ranks[1]
    return None if (order == np.arange(len(order))).all() else order


def _split_otherwise(suspect: Suspect) -> Iterator[str]:
    shapes = suspect.ops[0].shape, suspect.ops[1].shape
    if suspect.type != "reshape":
        return
    if shapes[0] != shapes[1] and sorted(shapes[0]) == sorted(shapes[1]):
        yield (
            f"the same numbers were split into axes of {shapes[0]} in {suspect.names[0]!r} and of {shapes[1]} in "
            f"{suspect.names[1]!r}: heads and their features swapped"
        )


# -- windows, norms, activations ---------------------------------------------------------------------------------------


def _border(suspect: Suspect) -> Iterator[str]:
    a, b = suspect.arrays
    if not suspect.type.startswith(_WINDOWED):
        return
    if not suspect.has_one_shape:
        yield f"shapes {suspect.ops[0].shape} and {suspect.ops[1].shape}: another padding or stride"
        return
    for width in (1, 2, 3):
        inner = (slice(None), slice(None), *(slice(width, -width) for _ in a.shape[2:]))
        if a.ndim > 2 and _agree(a[inner], b[inner]):
            yield f"only the border differs, the {width} outermost of each spatial axis: another padding"
            return


def _epsilon(suspect: Suspect) -> Iterator[str]:
    if suspect.type not in _NORMALISING or not suspect.has_one_shape:
        return
    wide = [in_float64(array) for array in suspect.arrays]
    if METRICS["cosine"].func(*wide) > 0.99 and suspect.taken is not None:
        yield "it took the same and the values are nearly parallel: a different epsilon, or variance (n or n - 1)"


def _activation(suspect: Suspect) -> Iterator[str]:
    if suspect.type != "gelu" or suspect.taken is None or not suspect.has_one_shape:
        return
    if suspect.taken.shape != suspect.arrays[0].shape:
        return
    x, a, b = (in_float64(array).reshape(-1)[:_SAMPLE] for array in (suspect.taken, *suspect.arrays))
    forms = {
        "the exact one (erf)": np.array([0.5 * t * (1 + math.erf(t / math.sqrt(2))) for t in x.tolist()]),
        "the approximation by tanh": 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    }
    is_form = [[name for name, y in forms.items() if np.abs(y - value).max() < 1e-5] for value in (a, b)]
    if all(is_form) and is_form[0] != is_form[1]:
        yield f"{suspect.names[0]!r} computes {is_form[0][0]}, {suspect.names[1]!r} {is_form[1][0]}"


def _axis_of_softmax(suspect: Suspect) -> Iterator[str]:
    if suspect.type not in ("softmax", "logsoftmax"):
        return
    values = [np.exp(in_float64(x)) if suspect.type == "logsoftmax" else in_float64(x) for x in suspect.arrays]
    axes = [[n for n in range(x.ndim) if np.allclose(x.sum(n), 1, atol=1e-3)] for x in values]
    if all(axes) and axes[0][-1] != axes[1][-1]:
        first, second = axes[0][-1], axes[1][-1]
        yield f"it sums to 1 along axis {first} in {suspect.names[0]!r} and along axis {second} in {suspect.names[1]!r}"


def _factor(suspect: Suspect) -> Iterator[str]:
    """One is a multiple of the other: a scale that is missing, or a convention."""
    if not suspect.has_one_shape or suspect.arrays[0].dtype.kind in "biu" or suspect.arrays[0].size < 2:
        return
    if suspect.ops[0].is_buffer:  # more is known of these
        return
    a, b = (in_float64(array) for array in suspect.arrays)
    size = float(np.vdot(a, a).real)
    factor = float(np.vdot(a, b).real) / size if size else 0.0
    if factor and math.isfinite(factor) and _agree(suspect.arrays[1], (a * factor).astype(suspect.arrays[1].dtype)):
        yield f"the values of {suspect.names[1]!r} are those of {suspect.names[0]!r} times {factor:.6g}"


def _weights(suspect: Suspect) -> Iterator[str]:
    """A square matrix of weights that was loaded transposed: told by the values where there are rows enough."""
    if suspect.type != "linear" or suspect.taken is None or not suspect.has_one_shape:
        return
    a, b = (in_float64(array).reshape(-1, array.shape[-1]) for array in suspect.arrays)
    x = in_float64(suspect.taken).reshape(-1, suspect.taken.shape[-1])
    if len({len(x), len(a)}) > 1 or x.shape[1] != a.shape[1] or a.shape[1] > _SLICES:
        return
    with_bias = np.c_[x, np.ones(len(x))]
    weight, _, rank, _ = np.linalg.lstsq(with_bias, a, rcond=1e-6)
    if rank < with_bias.shape[1]:  # too few rows to tell
        if suspect.ops[0].trace.backend_name != suspect.ops[1].trace.backend_name:
            yield "its weights are square: they may be loaded transposed"
        return
    rest = b - x @ weight[:-1].T
    if np.abs(rest - rest.mean(0)).max() < 1e-3 * np.abs(b).max():
        yield "its weights are loaded transposed"


def _momentum(suspect: Suspect) -> Iterator[str]:
    """Running statistics that moved further on one side, by the same factor throughout."""
    op = suspect.ops[0]
    if not op.is_buffer or not suspect.has_one_shape or (op.buffer_version or 1) < 2:
        return
    versions = op.trace.buffers[str(op.address)].versions
    before = value_of(versions[(op.buffer_version or 1) - 2], suspect.names[0]).array
    if before is None:
        return
    a, b = (in_float64(array) - in_float64(before) for array in suspect.arrays)
    size = float(np.vdot(a, a).real)
    factor = float(np.vdot(a, b).real) / size if size else 0.0
    if factor > 0 and np.allclose(b, factor * a, rtol=1e-3, atol=1e-6):
        if abs(factor - 1) < 0.2:
            yield f"the statistics moved {factor:.6g} times as far: a variance by n in one and by n - 1 in the other"
        else:
            yield (
                f"the statistics moved {factor:.3g} times as far: the momentum, which is the share of the new value in "
                "some libraries and of the old one in others"
            )


_FINDERS: Final[tuple[Callable[[Suspect], Iterator[str]], ...]] = (
    _flattened_otherwise,
    _missing_transpose,
    _split_otherwise,
    _other_order_of_slices,
    _border,
    _axis_of_softmax,
    _activation,
    _factor,
    _epsilon,
    _transpose_before,
    _weights,
    _momentum,
)
