"""Values on their way to the disk while a model runs: at most one file's worth of them waits in memory."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from ..backend import Arrays
from ..errors import NotSupported, SaveError
from ..file.container import ID_KEY
from ..file.opening import FILE_SUFFIX, shard_name, target
from ..file.replace import Replacement
from ..file.schema import ArrayRecord, Fidelity, Shard
from ..file.shard_file import ShardFile, header_bytes
from ..file.storage import STORAGE, Array, stored_bytes, to_bytes
from ..file.values import read_array
from ..plan import Keep
from ..values import Values

SHARD_BYTES: Final = 64 * 2**20
_RESERVED: Final = 160  # bytes of a header for each array whose name is known only when the run is over

Key = tuple[int, int]  # step, value id


@dataclass(frozen=True, slots=True)
class ToDisk:
    """``storage=tl.to_disk(path)``: where kept values go as the model runs.

    Attributes:
        path: of the folder; ``.tlspec`` is added to a name without it.
        retain_in_memory: whether the values stay in memory too.
        overwrite: replace a trace file or recording that is there, when the new one is complete.
        max_shard_bytes: about how many bytes of arrays one file holds, and so how many may wait in memory.
    """

    path: str | os.PathLike[str]
    retain_in_memory: bool = False
    overwrite: bool = False
    max_shard_bytes: int = SHARD_BYTES


def to_disk(
    path: str | os.PathLike[str],
    *,
    retain_in_memory: bool = False,
    overwrite: bool = False,
    max_shard_bytes: int = SHARD_BYTES,
) -> ToDisk:
    """Where the values of a trace or a recording are written while the model runs: ``storage=tl.to_disk("acts")``.

    Args:
        path: of a folder; ``.tlspec`` is added. It is there, under its name, when it is complete.
        retain_in_memory: keep the values in memory too.
        overwrite: replace what is there.
        max_shard_bytes: about how many bytes one file holds; so many may wait in memory.

    Raises:
        SaveError: the path asks for a single file, which cannot be written piece by piece.
    """
    if Path(path).suffix == FILE_SUFFIX:
        raise SaveError(
            "a single file cannot be written while the model runs.", str(path), "Give a path without '.safetensors'."
        )
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is a number of bytes, from 1; got {max_shard_bytes}.")
    return ToDisk(path, retain_in_memory, overwrite, max_shard_bytes)


class _Waiting(NamedTuple):
    """An array that has not been written yet."""

    key: Key
    array: Array
    fidelity: Fidelity
    type: str  # of elements, as the framework has them


@dataclass(slots=True)
class Written:
    """An array on the disk."""

    key: Key
    record: ArrayRecord
    begin: int  # number of its first byte among those of its file


@dataclass
class Stream:
    """A context in which a folder is filled with arrays. Left without an exception, and finished, it takes its place.

    Attributes:
        folder: where it is written, under a temporary name until then.
        numbers: what transforms made of values where that is no array, by step and value id.
        not_stored: why, of values that no file can hold.
    """

    storage: ToDisk
    arrays: Arrays
    late_names: bool = False
    step: int = 0
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    numbers: dict[Key, Any] = field(default_factory=dict)
    not_stored: dict[Key, str] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.destination = target(self.storage.path)
        self._replacement = Replacement(self.destination, overwrite=self.storage.overwrite)
        self._waiting: dict[Key, _Waiting] = {}
        self._bytes = 0
        self._written: dict[Key, Written] = {}
        self._kept: dict[int, dict[int, None]] = {}  # step -> value ids, in the order in which they were kept
        self._dropped: set[Key] = set()  # written, and not wanted after all
        self._open: dict[int, ShardFile] = {}

    def __enter__(self) -> Self:
        self.folder = self._replacement.__enter__()
        self.folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replacement.__exit__(kind, error, trace)
        self.folder = self.destination

    # -- while the model runs --------------------------------------------------------------------------------------

    def keep(self, vid: int, array: Any, keep: Keep) -> None:
        """Take what is to be kept of an array; it may be overwritten from here on."""
        key = (self.step, vid)
        self._kept.setdefault(self.step, {})[vid] = None
        arrays = self.arrays
        has_result = keep.transform is not None or keep.dtype is not None or keep.device is not None
        value = keep.result(array, arrays) if has_result else arrays.detach(array)
        if not arrays.is_array(value):
            self.numbers[key] = value
            return
        own = arrays.dtype_name(arrays.meta(value)[1])
        try:
            found = np.array(arrays.to_numpy(value))
        except (NotSupported, TypeError, RuntimeError) as error:
            self.not_stored[key] = str(error).split("\n")[0][:500]
            return
        if found.dtype.name not in STORAGE:
            self.not_stored[key] = f"elements of type {found.dtype} have no place in a file"
            return
        fidelity: Fidelity = "transformed" if has_result else "own" if found.dtype.name == own else "converted"
        self._waiting[key] = _Waiting(key, found, fidelity, own)
        self._bytes += found.nbytes
        if self._bytes >= self.storage.max_shard_bytes:
            self.flush()

    def drop(self, vid: int) -> None:
        """A value is not wanted after all."""
        key = (self.step, vid)
        self._kept.get(self.step, {}).pop(vid, None)
        if key in self._waiting:
            self._bytes -= self._waiting.pop(key).array.nbytes
        elif key in self._written:
            self._dropped.add(key)
        self.numbers.pop(key, None)
        self.not_stored.pop(key, None)

    def kept(self, step: int) -> list[int]:
        """Value ids of what was kept in a step, in that order; without what no file can hold."""
        return [vid for vid in self._kept.get(step, ()) if (step, vid) not in self.not_stored]

    def __contains__(self, vid: object) -> bool:
        return vid in self._kept.get(self.step, ())

    def flush(self) -> None:
        """Write what waits, as one file."""
        if not self._waiting:
            return
        number = len(self.shards)
        waiting = sorted(self._waiting.values(), key=lambda each: -STORAGE[each.array.dtype.name].itemsize)
        records = [self._record(each, number) for each in waiting]
        begin = 0
        for each, record in zip(waiting, records, strict=True):
            self._written[each.key] = Written(each.key, record, begin)
            begin += record.bytes
        header = header_bytes(records, {ID_KEY: self.id}, _RESERVED * len(records) if self.late_names else 0)
        with open(self.folder / shard_name(number), "xb") as file:
            file.write(header)
            for each in waiting:
                file.write(to_bytes(each.array).data)
            _flush(file)
        self.shards.append(Shard(arrays=len(records), bytes=begin))
        self._waiting.clear()
        self._bytes = 0

    def _record(self, each: _Waiting, shard: int) -> ArrayRecord:
        dtype = each.array.dtype.name
        return ArrayRecord(
            name=f"{each.key[0]}.{each.key[1]}",
            role="value",
            value=each.key[1],
            dtype=dtype,
            storage=STORAGE[dtype].code,
            shape=each.array.shape,
            bytes=stored_bytes(STORAGE[dtype], each.array.shape),
            shard=shard,
            sha256=hashlib.sha256(to_bytes(each.array).data).hexdigest(),
            fidelity=each.fidelity,
        )

    # -- reading back ----------------------------------------------------------------------------------------------

    def read(self, key: Key) -> Any:
        """A value as numpy, or the number that stands for it."""
        if key in self.numbers:
            return self.numbers[key]
        if key in self._waiting:
            return self._waiting[key].array
        written = self._written[key]
        number = written.record.shard
        if number not in self._open:
            self._open[number] = ShardFile(self.folder / shard_name(number))
        return read_array(written.record, self._open[number], written.begin)

    def is_transformed(self, key: Key) -> bool:
        """Whether what is kept is a function of the value, and not the value itself."""
        if key in self.numbers:
            return True
        found = self._waiting.get(key)
        return (found.fidelity if found is not None else self._written[key].record.fidelity) == "transformed"

    # -- the end ---------------------------------------------------------------------------------------------------

    def named(self, names: dict[Key, tuple[str, int]]) -> list[ArrayRecord]:
        """Give the arrays their names and numbers, in the files too. What was dropped is taken out of its file."""
        self.flush()
        for number in range(len(self.shards)):
            self._rename(number, names)
        ordered = sorted(self._written.values(), key=lambda each: (each.record.shard, each.begin))
        return [each.record for each in ordered]

    def _rename(self, number: int, names: dict[Key, tuple[str, int]]) -> None:
        here = [each for each in self._written.values() if each.record.shard == number]
        here.sort(key=lambda each: each.begin)
        wanted = [each for each in here if each.key not in self._dropped]
        for each in wanted:
            name, value = names[each.key]
            each.record = msgspec.structs.replace(each.record, name=name, value=value)
        path = self.folder / shard_name(number)
        with open(path, "r+b") as file:
            size = int.from_bytes(file.read(8), "little")
            header = header_bytes([each.record for each in wanted], {ID_KEY: self.id}, size)
            if len(wanted) == len(here) and len(header) == 8 + size:
                file.seek(0)
                file.write(header)
                _flush(file)
                self._open.pop(number, None)
                return
        self._write_anew(path, number, wanted, 8 + size)
        for each in here:
            if each not in wanted:
                del self._written[each.key]

    def _write_anew(self, path: Path, number: int, wanted: list[Written], start: int) -> None:
        """A file without what was dropped, or with a header for which too little room was left."""
        self._open.pop(number, None)
        beside = path.with_suffix(".new")
        with open(path, "rb") as old, open(beside, "xb") as new:
            new.write(header_bytes([each.record for each in wanted], {ID_KEY: self.id}))
            begin = 0
            for each in wanted:
                old.seek(start + each.begin)
                new.write(old.read(each.record.bytes))
                each.begin, begin = begin, begin + each.record.bytes
            _flush(new)
        os.replace(beside, path)
        self.shards[number] = Shard(arrays=len(wanted), bytes=begin)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


class StreamedValues:
    """Values of one step that were written to the disk, read back when they are asked for."""

    def __init__(self, stream: Stream, step: int, order: Iterable[int], in_memory: Values) -> None:
        self._stream = stream
        self._step = step
        self._order = dict.fromkeys(order)
        self._in_memory = in_memory  # for values as they were before interventions

    def __contains__(self, vid: object) -> bool:
        return vid in self._order

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, vid: int) -> Any:
        found = self._stream.read((self._step, vid))
        return self._stream.arrays.from_numpy(found) if isinstance(found, np.ndarray) else found

    def numpy(self, vid: int) -> Any:
        """The value as a numpy array, or the number that stands for it."""
        return self._stream.read((self._step, vid))

    def clean(self, vid: int) -> Any | None:
        """The value as it was before an intervention, where that was kept; None elsewhere."""
        return self._in_memory.clean(vid)

    def clean_ids(self) -> Iterable[int]:
        """Value ids of what was kept as it was before interventions."""
        return self._in_memory.clean_ids()

    def is_transformed(self, vid: int) -> bool:
        """Whether what is stored is a function of the value, and not the value itself."""
        return self._stream.is_transformed((self._step, vid))
