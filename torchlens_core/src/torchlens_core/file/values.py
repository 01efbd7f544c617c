"""The arrays of a loaded trace: mapped into memory, read when they are first asked for, and checked then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ChecksumMismatch, SchemaError
from .schema import ArrayRecord
from .shard_file import ShardFile
from .storage import Array, from_bytes

Convert = Callable[[Array], Any]


class StoredArrays(Mapping[int, Any]):
    """The arrays of one role, by value id.

    Args:
        arrays: their records, with the number of the first byte of each.
        shards: the files.
        convert: makes the framework's own array; None leaves numpy.
    """

    def __init__(
        self, arrays: Sequence[tuple[ArrayRecord, int]], shards: Sequence[ShardFile], convert: Convert | None
    ) -> None:
        self._arrays = {array.value: (array, begin) for array, begin in arrays}
        self._shards = shards
        self._convert = convert
        self._read: dict[int, Array] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, vid: object) -> bool:
        return vid in self._arrays

    def __getitem__(self, vid: int) -> Any:
        array = self.numpy(vid)
        return array if self._convert is None else self._convert(array)

    def record(self, vid: int) -> ArrayRecord:
        """What the manifest says of an array."""
        return self._arrays[vid][0]

    def numpy(self, vid: int) -> Array:
        """The array as numpy, read-only.

        Raises:
            ChecksumMismatch: its bytes are not those that were written.
        """
        found = self._read.get(vid)
        if found is None:
            array, begin = self._arrays[vid]
            shard = self._shards[array.shard]
            found = self._read[vid] = read_array(array, shard, begin)
        return found


def read_array(array: ArrayRecord, shard: ShardFile, begin: int) -> Array:
    """One array, its bytes checked against their hash."""
    where = f"{shard.where} {array.name!r}"
    raw = shard.raw(begin, begin + array.bytes)
    digest = hashlib.sha256(raw.data).hexdigest()
    if digest != array.sha256:
        raise ChecksumMismatch(
            f"its {array.bytes} bytes have the hash {digest[:12]}..., and {array.sha256[:12]}... was written.", where
        )
    try:
        made = from_bytes(raw, array.dtype, array.shape)
    except ValueError as error:
        raise SchemaError(f"{error}.", where) from None
    made.flags.writeable = False
    return made


def offsets(arrays: Sequence[ArrayRecord]) -> list[tuple[ArrayRecord, int]]:
    """Each array with the number of its first byte among those of its file."""
    begins: dict[int, int] = {}
    placed = []
    for array in arrays:
        begin = begins.get(array.shard, 0)
        placed.append((array, begin))
        begins[array.shard] = begin + array.bytes
    return placed


class FileValues:
    """The kept values of a loaded trace: arrays in the file, and numbers that transforms made.

    Args:
        arrays: those kept at Ops.
        numbers: what is no array, by value id.
        clean: values as they were before interventions.
    """

    def __init__(self, arrays: StoredArrays, numbers: Mapping[int, Any], clean: StoredArrays) -> None:
        self._arrays = arrays
        self._numbers = numbers
        self._clean = clean

    def __contains__(self, vid: object) -> bool:
        return vid in self._arrays or vid in self._numbers

    def __iter__(self) -> Iterator[int]:
        yield from self._arrays
        yield from self._numbers

    def __len__(self) -> int:
        return len(self._arrays) + len(self._numbers)

    def __getitem__(self, vid: int) -> Any:
        return self._numbers[vid] if vid in self._numbers else self._arrays[vid]

    def numpy(self, vid: int) -> Any:
        """The value as a numpy array, or the number that stands for it."""
        return self._numbers[vid] if vid in self._numbers else self._arrays.numpy(vid)

    def clean(self, vid: int) -> Any | None:
        """The value as it was before an intervention, where that was kept; None elsewhere."""
        return self._clean.get(vid)

    def clean_ids(self) -> Iterable[int]:
        """Value ids of what was kept as it was before interventions."""
        return self._clean

    def is_transformed(self, vid: int) -> bool:
        """Whether what is stored is a function of the value, and not the value itself."""
        return vid in self._numbers or self._arrays.record(vid).fidelity == "transformed"
