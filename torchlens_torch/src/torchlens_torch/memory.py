"""Which arrays share memory with which: writes, what they overwrite, and copies made just before.

Values are kept by reference. So before an operation writes, the kept values whose memory it is about to overwrite are
copied; and an array that is read after memory it shares was written through another array depends on that write.

Sharing a storage is not enough: ``q, k, v = qkv.chunk(3); q.mul_(s)`` leaves ``k`` as it was. Regions are compared by
offset, sizes and strides, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchlens_core.session import Session


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


def region_of(array: Tensor) -> Region:
    """What an array covers of its storage; of an array without one (sparse ...) all that there is."""
    if array.layout != torch.strided:
        return _WHOLE
    return Region(array.storage_offset(), tuple(array.shape), tuple(array.stride()), array.element_size())


def storage_of(array: Tensor) -> int:
    """An identifier of an array's storage while it lives; of the array itself where it has none (sparse ...)."""
    try:
        return array.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return -id(array)


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
        self._kept: dict[int, list[int]] = {}  # storage -> vids of kept references
        self._written: dict[int, list[tuple[int, int, Region]]] = {}  # storage -> (row, new vid, region)
        self._exposed: set[int] = set()
        self._beside: list[int] = []  # vids in the storage about to be written that the write leaves as they are

    # Kept values are looked up by storage only from the first write on: a model without writes pays nothing.

    def before_write(self, targets: list[Tensor]) -> None:
        """Copy the kept values that a write to these arrays would change."""
        self._index_kept()
        self._beside.clear()
        for target in targets:
            region = region_of(target)
            for vid in list(self._kept.get(storage_of(target), ())):
                held, version = self._values.get(vid, (None, None))
                if held is None or (version is not None and held._version != version):
                    continue  # let go, or written before without being seen: `release` says so
                if held is target or overlap(region_of(held), region):
                    self._copy(vid, held)
                else:
                    self._beside.append(vid)

    def _copy(self, vid: int, held: Tensor) -> None:
        copy = held.detach().clone()
        self._values[vid] = (copy, stamp(copy))
        self._kept[storage_of(held)].remove(vid)

    def _index_kept(self) -> None:
        order = self._session.kept_order
        for vid in order[self._indexed :]:
            entry = self._values.get(vid)
            if entry is not None:
                self._kept.setdefault(storage_of(entry[0]), []).append(vid)
        self._indexed = len(order)

    def after_write(self, target: Tensor, row: int, vid: int) -> None:
        """A row wrote this array; ``vid`` is its new value id."""
        storage = storage_of(target)
        self._written.setdefault(storage, []).append((row, vid, region_of(target)))
        for kept in self._beside:  # not overwritten: the version counter, which views share, moved all the same
            held, version = self._values.get(kept, (None, None))
            if held is not None and version is not None:
                self._values[kept] = (held, held._version)

    def overlapping(self, target: Tensor, arrays: Iterable[Tensor]) -> list[Tensor]:
        """Those of some arrays that share memory with another one."""
        storage, region = storage_of(target), region_of(target)
        return [array for array in arrays if storage_of(array) == storage and overlap(region_of(array), region)]

    def last_write(self, array: Tensor, vid: int) -> int | None:
        """The last row that overwrote memory of an array through another array, since the array became ``vid``."""
        entries = self._written.get(storage_of(array))
        if entries:
            region = region_of(array)
            for row, new, written in reversed(entries):
                if new <= vid:
                    break
                if overlap(written, region):
                    return row
        return None

    def expose(self, array: Any) -> None:
        """The memory is handed out to code that can write unseen: from here on its kept values are copies."""
        self.before_write([array])
        self._exposed.add(storage_of(array))

    @property
    def has_exposed(self) -> bool:
        return bool(self._exposed)

    def is_exposed(self, array: Tensor) -> bool:
        return storage_of(array) in self._exposed


def stamp(array: Tensor) -> int | None:
    """The version of an array's memory; None where torch keeps none (inference mode)."""
    return None if array.is_inference() else array._version
