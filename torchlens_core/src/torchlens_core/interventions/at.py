"""``selector.at[index]``: one head, one position, one channel of the arrays that a selector means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import InterventionError, SelectorError
from .target import Target, as_target

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..selectors import Selector

Entry: TypeAlias = int | slice | EllipsisType | tuple[int, ...]
"""One axis of an index: a position, a range, several positions; ``...`` for all axes that are not named."""


@dataclass(frozen=True, slots=True)
class At:
    """The view ``array[index]``, as numpy means it.

    Attributes:
        index: one entry for each axis, from the first; positions on one axis, or on several together, are tuples.
    """

    index: tuple[Entry, ...]

    def __hash__(self) -> int:
        return hash(repr(self))  # a range has no hash of its own before Python 3.12

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The part. Raises InterventionError where the index does not fit the array's shape."""
        return arrays.get_at(array, self.fitted(arrays.meta(array).shape))

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """A new array: the old one with the part replaced."""
        return arrays.set_at(array, self.fitted(arrays.meta(array).shape), part)

    def fitted(self, shape: Sequence[int]) -> tuple[int | slice | EllipsisType | list[int], ...]:
        """The index for an array of this shape, with positions counted from 0."""
        named = [entry for entry in self.index if entry is not ...]
        if len(named) > len(shape):
            raise InterventionError(
                f"{self!r} names {len(named)} axes, and the array has {len(shape)}: its shape is {tuple(shape)}."
            )
        made: list[Any] = []
        axis = 0
        for entry in self.index:
            if entry is ...:
                made.append(...)
                axis += len(shape) - len(named)
            else:
                made.append(self._on_axis(entry, axis, shape))
                axis += 1
        return tuple(made)

    def _on_axis(self, entry: Any, axis: int, shape: Sequence[int]) -> int | slice | list[int]:
        length = shape[axis]
        if isinstance(entry, slice):
            return slice(*entry.indices(length))
        positions = [entry] if isinstance(entry, int) else entry
        for position in positions:
            if not -length <= position < length:
                raise InterventionError(
                    f"{self!r} asks for position {position} on axis {axis}, which has {length}: the array's shape is "
                    f"{tuple(shape)}."
                )
        found = [position % length for position in positions]
        return found[0] if isinstance(entry, int) else found

    def __repr__(self) -> str:
        return f".at[{', '.join(map(_shown, self.index)) or '()'}]"


class Parts:
    """Takes an index, and gives the target that it means."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Selector | Target) -> None:
        self._whole = whole

    def __getitem__(self, index: Any) -> Target:
        target = as_target(self._whole)
        return Target(target.selector, (*target.views, At(as_index(index))))

    def __repr__(self) -> str:
        return f"{self._whole!r}.at"


def as_index(index: Any) -> tuple[Entry, ...]:
    """What was written in the brackets, checked. Raises SelectorError for what is no such index."""
    entries = tuple(_entry(entry, index) for entry in (index if isinstance(index, tuple) else (index,)))
    if entries.count(...) > 1:
        raise SelectorError(f"An index has one '...' at most; got {index!r}.")
    several = [entry for entry in entries if isinstance(entry, tuple)]
    if len({len(entry) for entry in several} - {1}) > 1:
        raise SelectorError(f"Positions on several axes go together, one of each, as in numpy; got {index!r}.")
    together = list(zip(*(entry for entry in several if len(entry) > 1), strict=True))
    if len(set(together)) < len(together):
        raise SelectorError(f"An index that is written to names each position once; got {index!r}.")
    return entries


def _entry(entry: Any, index: Any) -> Entry:
    if entry is None:
        raise SelectorError(f"None makes a new axis, and a part of an array has no other axes; got {index!r}.")
    if entry is ...:
        return ...
    if isinstance(entry, slice):
        if entry.step is not None and _position(entry.step, index) < 1:
            raise SelectorError(f"The step of a range is 1 or more; got {index!r}.")
        return slice(
            *(None if part is None else _position(part, index) for part in (entry.start, entry.stop, entry.step))
        )
    if isinstance(entry, list | tuple | range) or len(getattr(entry, "shape", [])):
        positions = np.asarray(entry)
        if not positions.size:
            return ()
        if positions.dtype == bool and positions.ndim == 1:
            positions = np.flatnonzero(positions)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise SelectorError(
                f"Several positions on an axis are a list of whole numbers, or of True and False; got {index!r}."
            )
        return tuple(positions.tolist())
    return _position(entry, index)


def _position(value: Any, index: Any) -> int:
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise SelectorError(f"Positions are whole numbers, ranges, '...' or lists of numbers; got {index!r}.")
    return int(value.__index__())


def _shown(entry: Entry) -> str:
    if isinstance(entry, slice):
        start, stop, step = ("" if part is None else str(part) for part in (entry.start, entry.stop, entry.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return "..." if entry is ... else str(list(entry)) if isinstance(entry, tuple) else str(entry)
