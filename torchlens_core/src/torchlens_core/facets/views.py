"""Views of arrays that give a facet its axes. All but the last hold every element once, and can be written back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import FacetError

if TYPE_CHECKING:
    from ..backend import Arrays


@dataclass(frozen=True, slots=True)
class Unflatten:
    """One axis as several: ``Unflatten(-1, (3, -1, 64))`` shows (2, 5, 768) as (2, 5, 3, 4, 64).

    Attributes:
        axis: which one; negative from the last.
        sizes: what it becomes; one of them may be -1, for what remains.
    """

    axis: int
    sizes: tuple[int, ...]

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The array with more axes."""
        shape = tuple(arrays.meta(array).shape)
        axis = self.axis % len(shape)
        known = 1
        for size in self.sizes:
            known *= size if size > 0 else 1
        if shape[axis] % known or (-1 not in self.sizes and shape[axis] != known):
            raise FacetError(
                f"Axis {axis} of an array of shape {shape} is not {' x '.join(map(str, self.sizes))}: the recipe of "
                "this facet does not fit what the model does."
            )
        sizes = tuple(shape[axis] // known if size == -1 else size for size in self.sizes)
        return arrays.reshape(array, (*shape[:axis], *sizes, *shape[axis + 1 :]))

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """The part in the shape that the array had."""
        return arrays.reshape(part, tuple(arrays.meta(array).shape))


@dataclass(frozen=True, slots=True)
class Flatten:
    """Several neighbouring axes as one.

    Attributes:
        first, last: the axes, both included, negative: counted from the last.
    """

    first: int
    last: int

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The array with fewer axes."""
        shape = tuple(arrays.meta(array).shape)
        first, last = self.first % len(shape), self.last % len(shape)
        size = 1
        for length in shape[first : last + 1]:
            size *= length
        return arrays.reshape(array, (*shape[:first], size, *shape[last + 1 :]))

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """The part in the shape that the array had."""
        return arrays.reshape(part, tuple(arrays.meta(array).shape))


@dataclass(frozen=True, slots=True)
class Permute:
    """The axes in another order: the n-th of the view is the ``axes[n]``-th of the array."""

    axes: tuple[int, ...]

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The array with its axes in this order."""
        return arrays.permute(array, self._axes(array, arrays))

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """The part with its axes in the order of the array."""
        axes = self._axes(array, arrays)
        return arrays.permute(part, tuple(sorted(range(len(axes)), key=axes.__getitem__)))

    def _axes(self, array: Any, arrays: Arrays) -> tuple[int, ...]:
        dims = len(arrays.meta(array).shape)
        if dims != len(self.axes):
            raise FacetError(
                f"This facet is seen in an array of {len(self.axes)} axes, and here it has {dims}: the recipe does not "
                "fit what the model does."
            )
        return self.axes


@dataclass(frozen=True, slots=True)
class SplitBatch:
    """Heads that were folded into the batch: (batch * heads, ...) as (batch, heads, ...).

    An array that has an axis for the heads already, and so one dimension more, stays as it is. One of any other shape
    is an error.

    Attributes:
        heads: how many there are.
        shared: how many there can be instead where they have an axis: heads of keys that several queries share.
        dims: how many dimensions the array has where heads are folded in.
    """

    heads: int
    dims: int = 3
    shared: int = 0

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The array with an axis of heads."""
        shape = tuple(arrays.meta(array).shape)
        if len(shape) == self.dims:
            return Unflatten(0, (-1, self.heads)).get(array, arrays)
        if len(shape) != self.dims + 1 or shape[1] not in (self.heads, self.shared):
            raise FacetError(
                f"An array of shape {shape} has no {self.heads} heads: the recipe of this facet does not fit."
            )
        return array

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """The part in the shape that the array had."""
        return arrays.reshape(part, tuple(arrays.meta(array).shape))


@dataclass(frozen=True, slots=True)
class RepeatHeads:
    """Each head several times: the keys of grouped queries, one for each query head. It can only be read.

    Attributes:
        times: how often.
        axis: that of the heads.
    """

    times: int
    axis: int = 1

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The array with its heads repeated, each next to itself."""
        heads = arrays.meta(array).shape[self.axis]
        positions = [head for head in range(heads) for _ in range(self.times)]
        return arrays.get_at(array, (*[slice(None)] * self.axis, positions))

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """Refused: several heads of the view are one head of the array."""
        raise FacetError(f"{self.times} heads of this facet are one head of the array: act on that one.")


def split_heads(head_dim: int) -> tuple[Unflatten, Permute]:
    """(batch, position, heads * head_dim), as projections give it, as (batch, head, position, head_dim)."""
    return Unflatten(-1, (-1, head_dim)), Permute((0, 2, 1, 3))
