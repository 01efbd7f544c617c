"""The parts of a trace file as bytes: manifest, records, arrays; in a folder, or all in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from ..errors import BadMagic, LimitExceeded, SchemaError, Truncated
from .limits import Limits
from .opening import MANIFEST, RECORDS, find, is_folder, list_folder, open_plain, shard_name
from .recognise import looks_like
from .shard_file import ShardFile

MANIFEST_KEY: Final = "torchlens.manifest"  # in the metadata of the single file
RECORDS_KEY: Final = "torchlens.records"
ID_KEY: Final = "torchlens.id"  # in the metadata of each file of a folder

Form = Literal["folder", "single file"]


class Container:
    """A trace file whose parts have been found and whose bytes have not been understood.

    Attributes:
        path: the folder or file.
        form: which of the two.
        shard_names: of the files with arrays in a folder.
        manifest: text of the manifest.
        manifest_where, records_where: what to call the two in messages.
    """

    def __init__(self, path: str | os.PathLike[str], limits: Limits) -> None:
        self.path = find(path)
        self._limits = limits
        self.form: Form = "folder" if is_folder(self.path) else "single file"
        if self.form == "folder":
            self.shard_names = list_folder(self.path)
            if len(self.shard_names) > limits.max_shards:
                raise LimitExceeded(
                    f"{len(self.shard_names)} files, and the limit is {limits.max_shards} (max_shards).", str(path)
                )
            self.manifest_where, self.records_where = str(self.path / MANIFEST), str(self.path / RECORDS)
            self.manifest = _read_text(self.path / MANIFEST, limits.max_manifest_bytes, "max_manifest_bytes")
        else:
            self._single = ShardFile(self.path)
            self.manifest_where, self.records_where = f"{self.path} manifest", f"{self.path} records"
            self.manifest = self._text_of_single(MANIFEST_KEY, limits.max_manifest_bytes, "max_manifest_bytes")

    def records(self) -> bytes:
        """Text of the records."""
        if self.form == "folder":
            return _read_text(self.path / RECORDS, self._limits.max_records_bytes, "max_records_bytes")
        return self._text_of_single(RECORDS_KEY, self._limits.max_records_bytes, "max_records_bytes")

    def shards(self, number: int, id_: str) -> list[ShardFile]:
        """The files with arrays, opened, their headers read.

        Args:
            number: how many the manifest says.
            id_: of the trace.
        """
        if self.form == "single file":
            if number != 1:
                raise SchemaError(
                    f"the manifest of a single file lists {number} files.", f"{self.manifest_where} $.shards"
                )
            return [self._single]
        if number > len(self.shard_names):
            raise Truncated(
                f"{shard_name(len(self.shard_names))} is missing: the manifest lists {number} files.", str(self.path)
            )
        if number < len(self.shard_names):
            raise SchemaError(
                f"{shard_name(number)} is not in the manifest, which lists {number} files.", str(self.path)
            )
        opened = [ShardFile(self.path / name) for name in self.shard_names]
        for shard in opened:
            if shard.metadata != {ID_KEY: id_}:
                found = shard.metadata.get(ID_KEY, "none")
                raise SchemaError(
                    f"this file is of another trace: its id is {found}, the manifest's {id_}.", shard.where
                )
        return opened

    def _text_of_single(self, key: str, limit: int, name: str) -> bytes:
        text = self._single.metadata.get(key)
        if text is None:
            raise BadMagic(f"this is a safetensors file without a trace: it has no {key!r}.", str(self.path))
        data = text.encode()
        if len(data) > limit:
            raise LimitExceeded(f"{len(data)} bytes, and the limit is {limit} ({name}).", f"{self.path} {key}")
        return data


def _read_text(path: Path, limit: int, name: str) -> bytes:
    descriptor = open_plain(path)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise LimitExceeded(f"{size} bytes, and the limit is {limit} ({name}).", str(path))
        data = file.read(size)
    if len(data) < size:
        raise Truncated(f"it ended after {len(data)} of {size} bytes while it was read.", str(path))
    if not data.lstrip().startswith(b"{"):
        if not data:
            raise Truncated("it is empty.", str(path))
        raise BadMagic(f"this is no part of a trace, but {looks_like(data[:512])}.", str(path))
    return data
