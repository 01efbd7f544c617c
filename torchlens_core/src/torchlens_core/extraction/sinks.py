"""Where rows go: into memory, or into the files of a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..backend import Arrays
from ..dtypes import numpy_dtype
from ..file.storage import Array
from .loading import Extraction, ShardFiles, open_extraction
from .manifest import write_manifest
from .schema import LayerRecord, Manifest, ShardRecord, StimulusId
from .shards import Rows, Shard, write_shard


class Sink(ABC):
    """Takes rows of all layers, in the order of the stimuli."""

    @abstractmethod
    def add(self, rows: Mapping[str, Array], ids: Sequence[StimulusId] | None) -> None:
        """Take the next rows. They are the sink's from then on."""

    @abstractmethod
    def finish(self) -> Extraction:
        """All rows have been added."""


class MemorySink(Sink):
    """Keeps rows in main memory."""

    def __init__(self, arrays: Arrays, layers: Sequence[LayerRecord]) -> None:
        self._arrays = arrays
        self._layers = layers
        self._rows: dict[str, list[Array]] = {layer.key: [] for layer in layers}
        self._ids: list[StimulusId] = []
        self._count = 0

    def add(self, rows: Mapping[str, Array], ids: Sequence[StimulusId] | None) -> None:
        """Take the next rows."""
        for key, array in rows.items():
            self._rows[key].append(array)
        self._count += len(next(iter(rows.values())))
        self._ids += ids or ()

    def finish(self) -> Extraction:
        """Everything stacked, as arrays of the framework in main memory."""
        values: dict[str, Any] = {}
        for layer in self._layers:
            if layer.shape is None:
                rows = (row for chunk in self._rows.pop(layer.key) for row in chunk)
                values[layer.key] = [self._arrays.from_numpy(row) for row in rows]
            else:
                stacked = np.concatenate(self._rows.pop(layer.key))  # lets go of the parts before the next copy
                values[layer.key] = self._arrays.from_numpy(stacked)
        places = {layer.key: layer.place for layer in self._layers}
        return Extraction(values, self._ids or range(self._count), places)


class FolderSink(Sink):
    """Writes a file each time that ``shard_size`` rows are there. Of memory it takes those of one file.

    Args:
        folder: prepared and locked.
        manifest: written already.
        done: how many files are finished.
    """

    def __init__(self, folder: Path, manifest: Manifest, done: int) -> None:
        self._folder = folder
        self._manifest = manifest
        self._number = done
        self._filled = 0
        self._ids: list[StimulusId] = []
        self._rows: dict[str, Rows] = {layer.key: _empty(layer, manifest.shard_size) for layer in manifest.layers}

    def add(self, rows: Mapping[str, Array], ids: Sequence[StimulusId] | None) -> None:
        """Take the next rows, and write what files they fill."""
        count = len(next(iter(rows.values())))
        taken = 0
        while taken < count:
            part = min(self._manifest.shard_size - self._filled, count - taken)
            for key, array in rows.items():
                self._put(key, array[taken : taken + part])
            self._ids += ids[taken : taken + part] if ids is not None else ()
            self._filled += part
            taken += part
            if self._filled == self._manifest.shard_size:
                self._write()

    def _put(self, key: str, rows: Array) -> None:
        buffer = self._rows[key]
        if isinstance(buffer, list):
            buffer += [np.array(row) for row in rows]
        else:
            buffer[self._filled : self._filled + len(rows)] = rows

    def _write(self) -> None:
        rows = {key: buffer[: self._filled] for key, buffer in self._rows.items()}
        write_shard(self._folder, self._number, self._manifest, rows, self._ids if self._manifest.has_ids else None)
        self._number += 1
        self._filled = 0
        self._ids = []
        for buffer in self._rows.values():
            if isinstance(buffer, list):
                buffer.clear()

    def finish(self) -> Extraction:
        """Write the last file, and note that all are there."""
        if self._filled:
            self._write()
        return completed(self._folder, self._manifest, self._number)


def completed(folder: Path, manifest: Manifest, count: int) -> Extraction:
    """Note in the manifest that all files are there, and open the extraction."""
    records = [
        ShardRecord(stimuli=shard.stimuli, bytes=shard.file_bytes, header_sha256=shard.header_sha256())
        for shard in (Shard(folder, number, manifest) for number in range(count))
    ]
    done = msgspec.structs.replace(
        manifest, num_stimuli=sum(record.stimuli for record in records), shards=tuple(records)
    )
    write_manifest(folder, done)
    return open_extraction(ShardFiles(folder, done))


def _empty(layer: LayerRecord, count: int) -> Rows:
    if layer.shape is None:
        return []
    return np.empty((count, *layer.shape), numpy_dtype(layer.dtype))
