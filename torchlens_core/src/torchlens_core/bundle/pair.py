"""Two members at one site: their Ops, their values, and how far these are apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ..errors import ValueNotSaved
from ..records.op import Op
from .axes import Axes
from .axes_matching import MatchedAxes
from .metrics import Array, Metric, Reading
from .sites import Site, label_of
from .tolerance import tolerance
from .values import Value, in_float64, value_of


class Pair:
    """What members ``a`` and ``b`` have at a site. Holds no values.

    Args:
        matched: what says how the axes of ``b`` go onto those of ``a``.
    """

    def __init__(self, site: Site, a: str, b: str, matched: MatchedAxes | None = None) -> None:
        self.site = site
        self.names = (a, b)
        self._matched = matched
        self.left, self.right = site[a], site[b]

    @property
    def ops(self) -> tuple[Op, Op] | None:
        """The two Ops; None where one of the members lacks the site."""
        return None if self.left is None or self.right is None else (self.left, self.right)

    @property
    def is_saved(self) -> bool:
        """Whether both have the site, and its value was saved in both."""
        return self.ops is not None and all(op.has_saved_value for op in self.ops)

    @property
    def other_label(self) -> str | None:
        """The label in ``b``, where that is not the name of the site."""
        label = None if self.right is None else label_of(self.right)
        return None if label == self.site.key else label

    def values(self) -> tuple[Value, Value]:
        """The two values as they were kept."""
        return value_of(self.left, self.names[0]), value_of(self.right, self.names[1])

    def read(self) -> TwoValues:
        """The two values, that of ``b`` with the axes of ``a``."""
        left, right = self.values()
        return TwoValues(left, right, None if self._matched is None else self._matched.of(self, left, right))


class TwoValues:
    """The values of two members at a site, or why there are not two.

    Attributes:
        axes: how the axes of the second go onto those of the first; None where they cannot.
    """

    def __init__(self, left: Value, right: Value, axes: Axes | None = None) -> None:
        self.axes = axes
        moved = right.array if axes is None or right.array is None else axes.apply(right.array)
        self._arrays = None if left.array is None or moved is None else (left.array, moved)
        self.why_not = left.why or right.why

    @property
    def arrays(self) -> tuple[Array, Array] | None:
        """The two arrays; None where there are not two."""
        return self._arrays

    @cached_property
    def _wide(self) -> tuple[Array, Array] | None:
        return None if self._arrays is None else (in_float64(self._arrays[0]), in_float64(self._arrays[1]))

    def measure(self, metric: Metric) -> Reading:
        """A metric, with the first as the reference."""
        return Reading(None, self.why_not) if self._wide is None else metric.read(*self._wide)

    def agree(self, rtol: float | None = None, atol: float | None = None) -> bool | None:
        """Whether they are equal within the tolerance of their types; None where there are not two."""
        return None if self._arrays is None else tolerance(*self._arrays, rtol, atol).allows(*self._arrays)


def check_saved(pairs: Sequence[Pair]) -> None:
    """Raise ValueNotSaved where two members share sites, and have both values at none of them."""
    shared = [pair for pair in pairs if pair.ops is not None]
    if not shared or any(pair.is_saved for pair in shared):
        return
    a, b = shared[0].names
    unsaved = [
        name
        for position, name in enumerate((a, b))
        if not all(pair.ops[position].has_saved_value for pair in shared if pair.ops is not None)
    ]
    raise ValueNotSaved(
        f"There is no site at which the values of both {a!r} and {b!r} were saved. Run the trace of "
        f"{' and '.join(map(repr, unsaved))} again with save=True, or with save= the sites to compare."
    )


def in_run_order(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs in the order in which ``a`` ran; what it lacks follows what it follows in the bundle."""
    keys: list[int] = []
    for pair in pairs:
        keys.append(pair.left.raw_index if pair.left is not None else keys[-1] if keys else -1)
    return [pairs[n] for n in sorted(range(len(pairs)), key=keys.__getitem__)]


def aligned_values(site: Site) -> dict[str, Value]:
    """The value of each member at a site, with the axes of the reference, or of the first member that has a value."""
    values = {name: value_of(op, name) for name, op in site.items()}
    bundle = site.bundle
    known = [name for name in (bundle.reference, *bundle) if values[name].array is not None]
    for name in known[1:]:
        axes = bundle.matched_axes(known[0], name).of(Pair(site, known[0], name), values[known[0]], values[name])
        array = values[name].array
        if axes is not None and array is not None and name != known[0]:
            values[name] = Value(axes.apply(array))
    return values
