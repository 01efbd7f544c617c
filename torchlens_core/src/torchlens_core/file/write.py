"""``tl.save``: a trace as a trace file, whole or not at all.

Everything is written under another name in the same folder, forced to the disk, and renamed at the end. Arrays go from
where they are to the file, hashed on the way; at most one file's worth of them is brought to main memory at a time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import secrets
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from ..errors import SaveError, SaveWarning
from ..records.trace import Trace
from . import schema
from .agreement import array_name, count, required
from .arrays_to_store import Item, Ready, groups, make_ready, number_record, value_labels
from .collector import collection_put_off
from .container import ID_KEY, MANIFEST_KEY, RECORDS_KEY
from .encode import encode
from .limits import MAX_HEADER_BYTES
from .opening import FILE_SUFFIX, MANIFEST, RECORDS, shard_name, target
from .replace import Replacement
from .rules import breaches
from .shard_file import header_bytes
from .storage import STORAGE, stored_bytes, to_bytes

MAX_SHARD_BYTES: Final = 2 * 2**30
_NO_DIGEST: Final = "0" * 64
_WORTH_A_THREAD: Final = 2**20  # bytes from which hashing beside writing pays
_AHEAD: Final = 4  # arrays that may be written and not yet hashed


def save(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    include_values: bool = True,
    include_source: bool = True,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write a trace file, and return its path.

    Args:
        trace: live or loaded.
        path: ends in ``.safetensors`` for a single file; anything else is a folder, and gets ``.tlspec`` at its end.
        overwrite: replace a trace file that is there; only when the new one is complete, the old one goes.
        include_values: whether kept arrays (and constants, kept by ``replay_ready=True``) are written.
        include_source: whether source file names, lines and call sites are written. Names are relative, to a package or
            to the working directory.
        max_shard_bytes: of a folder, about how many bytes of arrays one file holds.

    Raises:
        SaveError: the path is taken or cannot be written to; the trace holds what no trace file can.
    """
    destination = target(path)
    replacement = Replacement(destination, overwrite=overwrite)
    job = TraceJob(trace, include_values, include_source)
    with collection_put_off(), replacement as temporary:
        if destination.suffix == FILE_SUFFIX:
            job.write_file(temporary)
        else:
            job.write_folder(temporary, max_shard_bytes)
    job.warn()
    return destination


@dataclass
class TraceJob:
    """One trace that is being written."""

    trace: Trace
    include_values: bool
    include_source: bool
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    arrays: list[schema.ArrayRecord] = field(default_factory=list)
    numbers: list[schema.NumberRecord] = field(default_factory=list)
    not_stored: list[schema.NotStored] = field(default_factory=list)
    shards: list[schema.Shard] = field(default_factory=list)

    # -- the two forms ---------------------------------------------------------------------------------------------

    def write_folder(self, folder: Path, max_shard_bytes: int) -> None:
        """Make the folder, and write everything into it."""
        folder.mkdir()
        self.complete_folder(folder, groups(self.trace, max_shard_bytes) if self.include_values else ())

    def complete_folder(self, folder: Path, left: Iterable[Sequence[Item]]) -> None:
        """Write the arrays that are left, group by group, then the records, then the manifest."""
        for group in left:
            ready = self._make_ready(group)
            if ready:
                self._write_shard(folder, ready)
        records, text = self._records()
        write_text(folder / RECORDS, text)
        write_text(folder / MANIFEST, msgspec.json.encode(self._manifest(records, text)))

    def take_over(
        self,
        arrays: Sequence[schema.ArrayRecord],
        shards: Sequence[schema.Shard],
        numbers: Mapping[int, Any],
        not_stored: Mapping[int, str],
    ) -> None:
        """Values that are in the folder already, what transforms made of others, and why the rest is not there."""
        self.arrays += arrays
        self.shards += shards
        self.numbers += [
            number_record(vid, value, self._labels.get(vid, f"value.{vid}")) for vid, value in numbers.items()
        ]
        self.not_stored += [
            schema.NotStored(name=self._labels.get(vid, f"value.{vid}"), value=vid, why=why)
            for vid, why in not_stored.items()
        ]

    def _write_shard(self, folder: Path, ready: list[Ready]) -> None:
        number = len(self.shards)
        arrays = [self._array_record(each, number) for each in ready]
        with open(folder / shard_name(number), "xb") as file:
            file.write(header_bytes(arrays, {ID_KEY: self.id}))
            self._add_shard(arrays, _write_arrays(file, ready))

    def write_file(self, path: Path) -> None:
        """Write everything into one file."""
        ready = (
            self._make_ready([item for group in groups(self.trace, None) for item in group])
            if self.include_values
            else []
        )
        arrays = [self._array_record(each, 0) for each in ready]
        self._add_shard(arrays, [_NO_DIGEST] * len(arrays))
        records, text = self._records()
        header = self._header(records, text)
        with open(path, "xb") as file:
            file.write(header)
            digests = _write_arrays(file, ready)
            self.arrays, self.shards = [], []
            self._add_shard(arrays, digests)
            file.seek(0)
            file.write(self._header(records, text))  # as long as before: a hash is as long as another
            _flush(file)

    def _header(self, records: schema.Records, text: bytes) -> bytes:
        manifest = msgspec.json.encode(self._manifest(records, text))
        header = header_bytes(self.arrays, {MANIFEST_KEY: manifest.decode(), RECORDS_KEY: text.decode()})
        if len(header) - 8 > MAX_HEADER_BYTES:
            raise SaveError(
                f"The records of this trace take {len(header)} bytes, "
                f"and the header of a single file holds {MAX_HEADER_BYTES}.",
                advice="Save it as a folder: a path that does not end in '.safetensors'.",
            )
        return header

    # -- parts -----------------------------------------------------------------------------------------------------

    def _make_ready(self, group: Sequence[Item]) -> list[Ready]:
        """The arrays of a group, those with wide elements first, so that each is aligned in its file."""
        ready: list[Ready] = []
        for item in group:
            made = make_ready(self.trace, item, self._name(item))
            if isinstance(made, Ready):
                ready.append(made)
            elif isinstance(made, schema.NumberRecord):
                self.numbers.append(made)
            else:
                self.not_stored.append(made)
        return sorted(ready, key=lambda each: -STORAGE[each.array.dtype.name].itemsize)

    @cached_property
    def _labels(self) -> dict[int, str]:
        return value_labels(self.trace)

    def _name(self, item: Item) -> str:
        return array_name(item.role, item.value, self._labels, item.bwd)

    def _array_record(self, ready: Ready, shard: int) -> schema.ArrayRecord:
        dtype = ready.array.dtype.name
        return schema.ArrayRecord(
            name=self._name(ready.item),
            role=ready.item.role,
            value=ready.item.value,
            dtype=dtype,
            storage=STORAGE[dtype].code,
            shape=ready.array.shape,
            bytes=stored_bytes(STORAGE[dtype], ready.array.shape),
            shard=shard,
            sha256=_NO_DIGEST,
            fidelity=ready.fidelity,
            bwd=ready.item.bwd,
        )

    def _add_shard(self, arrays: list[schema.ArrayRecord], digests: list[str]) -> None:
        self.arrays += [msgspec.structs.replace(a, sha256=digest) for a, digest in zip(arrays, digests, strict=True)]
        self.shards.append(schema.Shard(arrays=len(arrays), bytes=sum(array.bytes for array in arrays)))

    def _records(self) -> tuple[schema.Records, bytes]:
        """The records, and their text."""
        numbers = tuple(self.numbers)
        records = encode(self.trace, id_=self.id, include_source=self.include_source, numbers=numbers)
        for breach in breaches(records, "this trace"):
            raise SaveError(f"The trace contradicts itself: {breach.what}", breach.where, "Please report it.")
        try:
            return records, msgspec.json.encode(records)
        except UnicodeEncodeError as error:
            name = error.object[max(error.start - 20, 0) : error.end + 20]
            raise SaveError(f"The name {name!r} holds half a character, which no UTF-8 text can.") from None

    def _manifest(self, records: schema.Records, text: bytes) -> schema.Manifest:
        trace = self.trace
        started_at = trace.facts.get("started_at")
        return schema.Manifest(
            format="torchlens trace",
            version=schema.VERSION,
            id=self.id,
            requires=required(records),
            producer=schema.Producer(name="torchlens-core", version=producer_version()),
            model=records.model,
            backend=schema.FrameworkRecord(name=records.backend, version=trace.facts.get("framework_version")),
            started_at=started_at,
            left_out=tuple(self._left_out()),
            counts=count(records, self.arrays),
            records=schema.Part(bytes=len(text), sha256=hashlib.sha256(text).hexdigest()),
            shards=tuple(self.shards),
            arrays=tuple(self.arrays),
            not_stored=tuple(self.not_stored),
        )

    def _left_out(self) -> list[str]:
        trace = self.trace
        holds_values = bool(len(trace.values) or len(trace.program.constants))
        left_out = {
            "rng": bool(trace.program.rng and trace.program.constants),  # of a run that was made ready for a replay
            "values": holds_values and not self.include_values,
            "source": bool(trace.program.sites) and not self.include_source,
        }
        return [name for name, is_left_out in left_out.items() if is_left_out]

    def warn(self) -> None:
        """Say which values are not in the file."""
        if self.not_stored:
            shown = "; ".join(f"{each.name}: {each.why}" for each in self.not_stored[:3])
            more = f" (and {len(self.not_stored) - 3} more)" if len(self.not_stored) > 3 else ""
            warnings.warn(
                f"{len(self.not_stored)} value(s) are not in the file: {shown}{more}.", SaveWarning, stacklevel=3
            )


def _write_arrays(file: BinaryIO, ready: list[Ready]) -> list[str]:
    """Write the bytes of arrays one after the other, to the disk; returns their hashes, which are made beside that."""
    digests: list[str | Future[str]] = []
    with ThreadPoolExecutor(1) as hasher:
        for each in ready:
            raw = to_bytes(each.array).data
            digests.append(hasher.submit(_hash, raw) if raw.nbytes >= _WORTH_A_THREAD else _hash(raw))
            file.write(raw)
            if len(digests) > _AHEAD:  # what is not contiguous was copied, and copies must not pile up
                digests[-_AHEAD] = _finished(digests[-_AHEAD])
        _flush(file)
        return [_finished(digest) for digest in digests]


def _hash(raw: memoryview) -> str:
    return hashlib.sha256(raw).hexdigest()


def _finished(digest: str | Future[str]) -> str:
    return digest if isinstance(digest, str) else digest.result()


def write_text(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def producer_version() -> str:
    """The version that stands in files as that of what wrote them."""
    try:
        return importlib.metadata.version("torchlens-core")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
