"""Which axes of two members belong together, at each of their sites: a choice that is explained, not the best fit.

- Shapes that are the same go together as they are.
- What the parents of an Op say comes first: behind a convolution with the channels last, everything has them last.
- An order of axes begins where shapes differ (two layouts), at an input, or beside a transpose that one of the two
  alone ran. Nowhere else: a value that agrees only in another order of its axes is a transpose that is missing.
- Outputs have the axes of the inputs: where all inputs are in one order, so are the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from ..records.op import Op
from .axes import Axes, Shape, as_they_are, inherited, regrouped, reordered, repeated
from .metrics import Array, relative_error
from .tolerance import tolerance
from .values import Value, in_float64

if TYPE_CHECKING:
    from .pair import Pair
    from .sites import Site

TRANSPOSES: Final = frozenset(
    {"transpose", "permute", "permutedims", "movedim", "t", "mt", "rollaxis", "adjoint", "matrixtranspose", "rearrange"}
)
_FURTHEST: Final = 32  # how many Ops without counterpart are looked through


class MatchedAxes:
    """The axes of ``b`` in the order of ``a``, at each site that both have, found in the order in which ``a`` ran."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = [pair for pair in pairs if pair.ops is not None]
        self._alone = [op for pair in pairs if pair.ops is None for op in (pair.left, pair.right) if op is not None]
        self._found: dict[Site, Axes | None] = {}
        self._next = 0

    @cached_property
    def _may_differ(self) -> bool:
        """Whether the two may have other layouts: other frameworks, other shapes, or a transpose that one alone ran."""
        return any(op.type in TRANSPOSES for op in self._alone) or any(
            left.shape != right.shape or left.trace.backend_name != right.trace.backend_name
            for left, right in (pair.ops for pair in self._pairs if pair.ops is not None)
        )

    @cached_property
    def _position(self) -> dict[Site, int]:
        return {pair.site: n for n, pair in enumerate(self._pairs)}

    def of(self, pair: Pair, left: Value, right: Value) -> Axes | None:
        """The axes at a site; None where no order of them makes the two shapes one."""
        if pair.ops is None:
            return None
        if not self._may_differ or _is_transformed(pair, left, right):
            given = zip(pair.ops, (left.array, right.array), strict=True)
            return as_they_are(*(op.shape if array is None else array.shape for op, array in given))
        position = self._position[pair.site]
        while self._next < position:
            before = self._pairs[self._next]
            self._find(before, *before.values())
        if pair.site not in self._found:
            self._find(pair, left, right)
        return self._found[pair.site]

    def _find(self, pair: Pair, left: Value, right: Value) -> None:
        self._next = max(self._next, self._position[pair.site] + 1)
        choices = list(self._choices(pair))
        is_known = not _is_transformed(pair, left, right)
        fitting = (axes for axes in choices if not is_known or _fits(axes, left.array, right.array))
        found = next(fitting, None)
        if found is None and choices:  # the values differ: what is nearest shows best by how much
            found = min(choices, key=lambda axes: _distance(axes, left.array, right.array))
        self._found[pair.site] = found

    # -- candidates ------------------------------------------------------------------------------------------------

    def _choices(self, pair: Pair) -> Iterator[Axes]:
        """The axes that can be explained, the likeliest first."""
        assert pair.ops is not None
        shapes = pair.ops[0].shape, pair.ops[1].shape
        same = as_they_are(*shapes)
        if pair.ops[0].is_output and self._inputs_are_as_they_are:
            yield from filter(None, [same])
            return
        parents = _Parents(self, pair)
        told = list(dict.fromkeys(axes for each in parents.axes() for axes in inherited(*each, *shapes)))
        yield from told
        if same is not None:
            yield same
        if pair.ops[0].is_input:
            others = [*reordered(*shapes)]
            yield from others if same is None else (axes for axes in others if _is_layout(axes.order))
        elif (same is None and not told) or parents.is_beside_a_transpose:
            yield from reordered(*shapes)
            yield from regrouped(*shapes)
        yield from filter(None, [repeated(*shapes)])

    @property
    def _inputs_are_as_they_are(self) -> bool:
        inputs = [pair.site for pair in self._pairs if pair.left is not None and pair.left.is_input]
        found = [self._found.get(site) for site in inputs]
        return bool(inputs) and all(axes is not None and axes.is_identity for axes in found)


def _distance(axes: Axes, left: Array | None, right: Array | None) -> float:
    assert left is not None and right is not None  # else it would fit
    distance = relative_error(in_float64(left), in_float64(axes.apply(right)))
    return float("inf") if math.isnan(distance) else distance


def _is_transformed(pair: Pair, left: Value, right: Value) -> bool:
    """Whether what was kept is something else than the array, of another shape."""
    values = zip(pair.ops or (), (left.array, right.array), strict=True)
    return any(array is not None and array.shape != op.shape for op, array in values)


def _is_layout(order: tuple[int, ...]) -> bool:
    """Whether an order only moves the channels: from the end to the second place, or back."""
    rank = len(order)
    last = rank - 1
    return order in ((0, last, *range(1, last)), (0, *range(2, rank), 1))


def _fits(axes: Axes, left: Array | None, right: Array | None) -> bool:
    if left is None or right is None:
        return True  # nothing speaks against it
    moved = axes.apply(right)
    return tolerance(left, moved).allows(left, moved)


class _Parents:
    """What stands before and behind two Ops."""

    def __init__(self, matched: MatchedAxes, pair: Pair) -> None:
        self._matched = matched
        self._pair = pair
        assert pair.ops is not None
        self._before = [through(op, pair, side, back=True) for side, op in enumerate(pair.ops)]

    def axes(self) -> Iterator[tuple[Axes, tuple[Shape, Shape]]]:
        """Axes of the sites that both come from, with their shapes, in the order of the arguments in ``a``."""
        b = self._pair.names[1]
        reached = [dict.fromkeys(found[0]) for found in self._before]
        for op in reached[0]:
            site = self._pair.site.bundle.at(op)
            axes, other = self._matched._found.get(site), site[b]
            if axes is not None and other in reached[1]:
                yield axes, (op.shape, other.shape)

    @property
    def is_beside_a_transpose(self) -> bool:
        """Whether one of the two alone has a transpose directly before it, or directly behind it."""
        assert self._pair.ops is not None
        behind = [through(op, self._pair, side, back=False) for side, op in enumerate(self._pair.ops)]
        return any(op.type in TRANSPOSES for _, passed in (*self._before, *behind) for op in passed)


def through(start: Op, pair: Pair, side: int, *, back: bool) -> tuple[list[Op], list[Op]]:
    """The nearest Ops that both members have, on the way from an Op, and those on the way that one alone has.

    Args:
        side: of the pair, 0 or 1: whose Op it is.
        back: whether to go to what it took, else to what took it.
    """
    bundle, other = pair.site.bundle, pair.names[1 - side]
    shared: dict[Op, None] = {}
    passed: dict[Op, None] = {}
    waiting: list[Iterable[Op]] = [start.parent_ops() if back else start.child_ops()]
    while waiting and len(passed) < _FURTHEST:
        for op in waiting.pop(0):
            if op in shared or op in passed:
                continue
            if bundle.at(op)[other] is not None:
                shared[op] = None
            else:
                passed[op] = None
                waiting.append(op.parent_ops() if back else op.child_ops())
    return list(shared), list(passed)
