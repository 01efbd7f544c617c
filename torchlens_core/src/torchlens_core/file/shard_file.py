"""One safetensors file, read strictly: eight bytes of length, a header in JSON, the bytes of arrays without gaps."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ..errors import BadMagic, LimitExceeded, SchemaError, TraceFileError, Truncated
from . import strict_json
from .limits import MAX_HEADER_BYTES
from .opening import open_plain
from .recognise import looks_like
from .schema import ArrayRecord
from .storage import STORAGE, Array, stored_shape

METADATA: Final = "__metadata__"
_HEADER_DEPTH: Final = 4


class ShardFile:
    """An open file with arrays. Its header has been read, its arrays have not.

    Attributes:
        where: its path, for messages.
        metadata: the texts under ``__metadata__``.
        entries: the other entries of the header, by name.
        data_bytes: how many bytes follow the header.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        descriptor = open_plain(path)
        try:
            size = os.fstat(descriptor).st_size
            header = self._read_header(descriptor, size)
            self._start = 8 + len(header)
            self.data_bytes = size - self._start
            self.metadata, self.entries = self._parse(header)
            self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)

    def _read_header(self, descriptor: int, size: int) -> bytes:
        beginning = _read(descriptor, min(size, 512))
        length = int.from_bytes(beginning[:8], "little")
        if size < 8 or length > MAX_HEADER_BYTES or beginning[8:9] != b"{":
            if size > 8 and beginning[8:9] == b"{":
                raise LimitExceeded(
                    f"the header claims {length} bytes, and safetensors allows {MAX_HEADER_BYTES}.", self.where, ""
                )
            if 0 < size <= 8 and looks_like(beginning) == looks_like(b"?"):
                raise Truncated(f"it ends after {size} bytes, within the length of its header.", self.where)
            raise BadMagic(f"this is no trace file, but {looks_like(beginning)}.", self.where)
        if length < 2:
            raise SchemaError(f"the header claims {length} bytes.", self.where)
        if length > size - 8:
            raise Truncated(f"the header claims {length} bytes, and the file ends after {size}.", self.where)
        os.lseek(descriptor, 8, os.SEEK_SET)
        return _read(descriptor, length)

    def _parse(self, header: bytes) -> tuple[dict[str, str], dict[str, Any]]:
        value = strict_json.parse(header, f"{self.where} header", max_depth=_HEADER_DEPTH, max_text=MAX_HEADER_BYTES)
        if not isinstance(value, dict):
            raise SchemaError("the header is no JSON object.", self.where)
        metadata = value.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise SchemaError(f"{METADATA} is no table of texts.", self.where)
        return metadata, value

    def layout_problems(self, arrays: Sequence[ArrayRecord], data_bytes: int) -> Iterator[TraceFileError]:
        """Where the file differs from what the manifest says of its arrays, in order and without gaps."""
        if self.data_bytes < data_bytes:
            yield Truncated(f"its arrays take {data_bytes} bytes, and {self.data_bytes} are there.", self.where)
        if self.data_bytes > data_bytes:
            yield SchemaError(f"{self.data_bytes - data_bytes} bytes follow the last array.", self.where)
        begin = 0
        for array in arrays:
            end = begin + array.bytes
            storage = STORAGE[array.dtype]
            expected = {
                "dtype": storage.code,
                "shape": list(stored_shape(storage, array.shape)),
                "data_offsets": [begin, end],
            }
            entry = self.entries.get(array.name)
            where = f"{self.where} header $[{array.name!r}]"
            if entry is None:
                yield SchemaError("the manifest lists this array, and it is not here.", where)
            elif entry != expected:
                yield SchemaError(f"it is {entry}, and by the manifest {expected}.", where)
            begin = end
        for name in sorted(self.entries.keys() - {array.name for array in arrays}):
            yield SchemaError("this array is not in the manifest.", f"{self.where} header $[{name!r}]")

    def header(self) -> bytes:
        """The header as it is in the file, its length in front."""
        return self._map[: self._start]

    def raw(self, begin: int, end: int) -> Array:
        """The stored bytes of one array, mapped into memory and not yet read."""
        return np.frombuffer(self._map, np.uint8, end - begin, self._start + begin)


def header_bytes(arrays: Sequence[ArrayRecord], metadata: dict[str, str], room: int = 0) -> bytes:
    """The header of a file with these arrays, its length in front, padded so that arrays begin at a multiple of 8.

    It takes ``room`` bytes at least, so that it can be written again with longer names.
    """
    entries: dict[str, Any] = {METADATA: metadata}
    begin = 0
    for array in arrays:
        storage = STORAGE[array.dtype]
        end = begin + array.bytes
        entries[array.name] = {
            "dtype": storage.code,
            "shape": stored_shape(storage, array.shape),
            "data_offsets": (begin, end),
        }
        begin = end
    text = msgspec.json.encode(entries)
    text = text.ljust(room)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read(descriptor: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.read(descriptor, size)
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
