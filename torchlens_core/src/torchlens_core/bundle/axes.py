"""How the axes of one framework's array go onto those of another's: channels first or last, a batch axis elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np

from .metrics import Array

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """What makes an array of ``b`` one of the axes of ``a``: reshaped to ``split``, transposed by ``order``, reshaped.

    A plain order of axes has ``split`` the shape in ``b``, axes of size 1 left out or not. Where a convolution's output
    was flattened with the channels last, ``split`` is the shape before that.

    Attributes:
        split: shape to which the array of ``b`` is reshaped first.
        order: axes of that, in the order that they have in ``a``.
        shape: the result.
        new_axis: axis of ``a`` along which ``b`` has no numbers of its own, and is repeated: a batch axis that a
            framework left out of what does not depend on it.
        note: what is to be known of the choice.
    """

    split: Shape
    order: tuple[int, ...]
    shape: Shape
    new_axis: int | None = None
    note: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether the axes are in the same order, with no more between them than some of size 1."""
        return self.order == tuple(range(len(self.order))) and self.new_axis is None

    @property
    def is_flattened(self) -> bool:
        """Whether an axis of ``a`` holds several of ``b`` in another order: what a flatten makes of another layout."""
        return not self.is_identity and len(self.split) > len(_without_ones(self.shape))

    def apply(self, array: Array) -> Array:
        """The array of ``b`` with the axes of ``a``."""
        moved = array.reshape(self.split).transpose(self.order)
        if self.new_axis is not None:
            moved = np.broadcast_to(np.expand_dims(moved, self.new_axis), self.shape)
        return moved.reshape(self.shape)

    def __str__(self) -> str:
        """The order in words: ``'(0, 3, 1, 2)'``; empty where it is the same."""
        if self.new_axis is not None:
            return f"repeated along axis {self.new_axis}"
        if self.is_identity:
            return ""
        if self.is_flattened:
            return f"{_text(self.split)} in the order {_text(self.order)}, flattened"
        return _text(self.order)


def identity(shape: Shape) -> Axes:
    """The axes as they are."""
    return Axes(shape, tuple(range(len(shape))), shape)


def as_they_are(left: Shape, right: Shape) -> Axes | None:
    """The axes in the same order, if the shapes are the same but for axes of size 1."""
    if left == right:
        return identity(left)
    bare = _without_ones(right)
    return Axes(bare, tuple(range(len(bare))), left) if bare == _without_ones(left) else None


def reordered(left: Shape, right: Shape) -> Iterator[Axes]:
    """The orders of axes that make the shape ``right`` the shape ``left`` and are likely between two frameworks.

    If the sizes leave one order, it is that. Of several those that move one axis: channels to or from the end first,
    then the axis of a batch or a matrix to another place. The order as it is stands not among them.
    """
    wanted, given = _without_ones(left), _without_ones(right)
    if Counter(wanted) != Counter(given):
        return
    rank = len(given)
    same = tuple(range(rank))
    if len(set(given)) == rank:  # the sizes tell
        only = tuple(given.index(size) for size in wanted)
        if only != same:
            yield Axes(given, only, left)
        return
    fitting = [o for o in _moves_of_one_axis(rank) if tuple(given[axis] for axis in o) == wanted]
    note = "sizes are alike: the values decided" if len(fitting) > 1 or wanted == given else ""
    for order in fitting:
        yield Axes(given, order, left, note=note)


def regrouped(left: Shape, right: Shape) -> Iterator[Axes]:
    """What makes a ``right`` with other axes grouped into one a ``left``: ``(2, 7, 12)`` into ``(14, 12)``.

    In the order as it is, or with one axis moved: the batch first or last.
    """
    if prod(left) != prod(right) or Counter(_without_ones(left)) == Counter(_without_ones(right)):
        return
    rank = len(right)
    for order in [tuple(range(rank)), *_moves_of_one_axis(rank)]:
        if _groups(tuple(right[axis] for axis in order), left):
            yield Axes(right, order, left)
    for order in [tuple(range(len(left))), *_moves_of_one_axis(len(left))]:
        split = tuple(left[axis] for axis in order)
        if _groups(split, right):
            yield Axes(split, tuple(sorted(range(len(left)), key=order.__getitem__)), left)


def _groups(fine: Shape, coarse: Shape) -> bool:
    """Whether each axis of ``coarse`` is one or several of ``fine``, in a row."""
    axes = list(fine)
    for size in coarse:
        made = 1
        while axes and made < size:
            made *= axes.pop(0)
        if made != size:
            return False
    return all(size == 1 for size in axes)


def any_order(left: Shape, right: Shape, most: int = 120) -> Iterator[Axes]:
    """Every order of axes of these sizes but the one as it is: for words on a mistake, not for matching."""
    if Counter(left) == Counter(right) and len(left) <= 5:
        found = (o for o in permutations(range(len(right))) if tuple(right[axis] for axis in o) == left)
        for order, _ in zip(found, range(most), strict=False):
            if order != tuple(range(len(right))):
                yield Axes(right, order, left)


def repeated(left: Shape, right: Shape) -> Axes | None:
    """``right`` repeated along the one axis that it lacks, a batch axis; None where that does not make ``left``."""
    if len(left) != len(right) + 1 or left[1:] != right:
        return None
    return Axes(right, tuple(range(len(right))), left, new_axis=0)


def inherited(axes: Axes, parent: tuple[Shape, Shape], left: Shape, right: Shape) -> Iterator[Axes]:
    """What the axes of a parent say of those of a child: the same order, or what a reshape makes of it.

    Args:
        axes: of the parent.
        parent: its shapes in ``a`` and ``b``.
        left, right: the child's shapes.
    """
    if axes.is_identity or axes.new_axis is not None:
        return
    if right == parent[1] and left == parent[0]:
        yield axes
        return
    if len(right) == len(axes.order) and tuple(right[axis] for axis in axes.order) == left:
        yield Axes(right, axes.order, left)
    if prod(axes.split) == prod(right) == prod(left):
        yield Axes(axes.split, axes.order, left)  # both were reshaped, each in its own order


def _moves_of_one_axis(rank: int) -> list[tuple[int, ...]]:
    """Orders of axes in which one axis has changed places: the last to the second, the second to the last, others."""
    found: dict[tuple[int, ...], None] = {}
    layouts = [(rank - 1, 1), (1, rank - 1), (rank - 1, 0), (0, rank - 1)]
    for source, target in [*layouts, *((s, t) for s in range(rank) for t in range(rank))]:
        if 0 <= source < rank and 0 <= target < rank and source != target:
            order = [axis for axis in range(rank) if axis != source]
            order.insert(target, source)
            found[tuple(order)] = None
    return list(found)


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _text(numbers: Shape) -> str:
    return f"({', '.join(map(str, numbers))})"
