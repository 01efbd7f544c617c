"""Which arrays share memory with which: writes, what they overwrite, and copies made just before.

Values are kept by reference. So before an operation writes, the kept values whose memory it is about to overwrite are
copied; and an array that is read after memory it shares was written through another array depends on that write.

Sharing a storage is not enough: ``q, k, v = qkv.chunk(3); q.mul_(s)`` leaves ``k`` as it was. Regions are compared by
offset, sizes and strides, exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchlens_core.program import Meta
from torchlens_core.session import Session

from .kinds import shape_of


class Region(NamedTuple):
    """The elements of a storage that an array covers."""

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @property
    def end(self) -> int:
        """One past the last element, in elements of the array."""
        if 0 in self.sizes:
            return self.offset
        return self.offset + 1 + sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))


_WHOLE = Region(0, (), (), 1)


def storage_of(array: Tensor) -> int:
    """The first half of ``place_of``, at a fraction of its cost."""
    try:
        return place_of(array)[0] if array.is_nested else array.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError, ValueError):
        return place_of(array)[0]


def place_of(array: Tensor) -> tuple[int, Region]:
    """An identifier of an array's storage while it lives, and what the array covers of it.

    Arrays without a storage or a shape (sparse, nested) are their own; the place of a wrapper inside ``vmap`` is that
    of the array in it.
    """
    try:
        storage = array.untyped_storage()._cdata
        shape = tuple(array.shape)
    except (NotImplementedError, RuntimeError, ValueError):  # the last of a parameter that is yet to be initialised
        if torch._C._functorch.is_functorch_wrapped_tensor(array):
            return place_of(torch._C._functorch.get_unwrapped(array))
        return -id(array), _WHOLE
    return storage, Region(array.storage_offset(), shape, tuple(array.stride()), array.element_size())


def overlap(a: Region, b: Region) -> bool:
    """Whether two regions of one storage share a byte."""
    if 0 in a.sizes or 0 in b.sizes:
        return False
    if a.end * a.itemsize <= b.offset * b.itemsize or b.end * b.itemsize <= a.offset * a.itemsize:
        return False
    return a == b or _meet(a, b)


def _meet(a: Region, b: Region) -> bool:
    """Whether indices i, j and bytes within their elements exist such that a[i] and b[j] stand at one address.

    An equation in bounded integers: sum(i * strides of a) - sum(j * strides of b) = distance of the offsets, in bytes.
    """
    bounds: dict[int, list[int]] = {1: [1 - b.itemsize, a.itemsize - 1]}  # stride -> least and greatest multiple
    for region, side in ((a, 1), (b, 0)):
        for size, stride in zip(region.sizes, region.strides, strict=True):
            if stride and size > 1:
                bound = bounds.setdefault(stride * region.itemsize, [0, 0])
                bound[side] += size - 1 if side else 1 - size
    terms = sorted(((stride, low, high) for stride, (low, high) in bounds.items()), reverse=True)
    least, greatest = [0], [0]  # what the terms from each one on can add up to
    for stride, low, high in reversed(terms):
        least.append(least[-1] + stride * low)
        greatest.append(greatest[-1] + stride * high)
    least.reverse()
    greatest.reverse()

    def reaches(term: int, rest: int) -> bool:
        if term == len(terms):
            return rest == 0
        stride, low, high = terms[term]
        first = max(low, -((greatest[term + 1] - rest) // stride))
        last = min(high, (rest - least[term + 1]) // stride)
        return any(reaches(term + 1, rest - multiple * stride) for multiple in range(first, last + 1))

    return reaches(0, b.offset * b.itemsize - a.offset * a.itemsize)


class Memory:
    """What was written in one run, and which kept values are still references to live memory."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._values = session.values
        self._indexed = 0  # how many of session.kept_order are in _kept
        self._kept: dict[int, dict[int, Region]] = {}  # storage -> vid of a kept reference -> what it covers
        self._written: dict[int, list[tuple[int, int, Region]]] = {}  # storage -> (row, new vid, region)
        self._rebound: dict[int, tuple[int, int]] = {}  # id of an array -> (row, new vid)
        self._exposed: set[int] = set()
        self.beside: list[int] = []  # vids in the storage about to be written that the write leaves as they are

    # Kept values are looked up by storage only from the first write on: a model without writes pays nothing.

    def before_write(self, targets: list[Tensor]) -> None:
        """Copy the kept values that a write to these arrays would change."""
        self._index_kept()
        self.beside.clear()
        for target in targets:
            storage, region = place_of(target)
            for vid, covered in list(self._kept.get(storage, {}).items()):
                held, version = self._values.get(vid, (None, None))
                if held is None or (version is not None and held._version != version):
                    continue  # let go, or written before without being seen: `release` says so
                if overlap(covered, region):
                    copy = held.detach().clone()
                    self._values[vid] = (copy, stamp(copy))
                    del self._kept[storage][vid]
                else:
                    self.beside.append(vid)

    def _index_kept(self) -> None:
        order = self._session.kept_order
        for vid in order[self._indexed :]:
            entry = self._values.get(vid)
            if entry is not None:
                storage, region = place_of(entry[0])
                self._kept.setdefault(storage, {})[vid] = region
        self._indexed = len(order)

    def after_write(self, target: Tensor, row: int, vid: int) -> None:
        """A row wrote this array; ``vid`` is its new value id."""
        storage, region = place_of(target)
        self._written.setdefault(storage, []).append((row, vid, region))
        for kept in self.beside:  # not overwritten: the version counter, which views share, moved all the same
            held, version = self._values.get(kept, (None, None))
            if held is not None and version is not None:
                self._values[kept] = (held, held._version)

    def after_rebinding(self, target: Tensor, row: int, vid: int) -> None:
        """A row gave this array other memory, and wrote to none."""
        self._rebound[id(target)] = (row, vid)

    def last_write(self, array: Tensor, vid: int) -> int | None:
        """The last row that overwrote memory of an array through another array, since the array became ``vid``."""
        row, new = self._rebound.get(id(array), (-1, -1))
        if new > vid:
            return row
        entries = self._written.get(storage_of(array))
        if entries is None:
            return None
        region = place_of(array)[1]
        for row, new, written in reversed(entries):
            if new <= vid:
                break
            if overlap(written, region):
                return row
        return None

    def expose(self, array: Any) -> None:
        """The memory is handed out to code that can write unseen: from here on its kept values are copies."""
        self.before_write([array])
        self._exposed.add(place_of(array)[0])

    @property
    def has_exposed(self) -> bool:
        """Whether there is memory that others can write unseen."""
        return bool(self._exposed)

    def is_exposed(self, array: Tensor) -> bool:
        """Whether others can write an array's memory unseen."""
        return place_of(array)[0] in self._exposed


def stamp(array: Tensor) -> int | None:
    """The version of an array's memory; None where torch keeps none (inference mode)."""
    return None if array.is_inference() else array._version


def meta_of(array: Tensor) -> Meta:
    """Shape, dtype and device of an array, and the autograd node that made it.

    A nested tensor of unequal parts has no shape; its elements are counted.
    """
    node = array.grad_fn
    return Meta(shape_of(array), array.dtype, array.device, None if node is None else type(node).__name__)
