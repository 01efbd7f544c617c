"""``tl.inspect``: what a trace file holds, without reading an array."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..show.quantities import bytes_text, count_text
from ..show.text import table
from ..show.untrusted import visible
from .container import Container, Form
from .limits import Limits
from .manifest import manifest_problems, parse_manifest
from .opening import MANIFEST, RECORDS
from .schema import ArrayRecord, Counts, Manifest, NotStored

_MOST: Final = 40  # arrays in the printed table


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the manifest of a trace file says. Print it, or ask for its parts.

    Attributes:
        path: the file or folder.
        form: ``'folder'`` or ``'single file'``.
        file_bytes: what it takes on the disk.
        manifest: all of it, as it is in the file.
    """

    path: Path
    form: Form
    file_bytes: int
    manifest: Manifest

    @property
    def model(self) -> str:
        """Name of the model's class, or of the function."""
        return self.manifest.model

    @property
    def backend(self) -> str:
        """Name of the backend that ran the model."""
        return self.manifest.backend.name

    @property
    def framework_version(self) -> str | None:
        """Version of the framework that ran the model."""
        return self.manifest.backend.version

    @property
    def producer(self) -> str:
        """What wrote the file, and its version."""
        return f"{self.manifest.producer.name} {self.manifest.producer.version}"

    @property
    def counts(self) -> Counts:
        """How many ops, layers, modules, arrays ... there are."""
        return self.manifest.counts

    @property
    def arrays(self) -> tuple[ArrayRecord, ...]:
        """The arrays: name, shape, dtype, size."""
        return self.manifest.arrays

    @property
    def not_stored(self) -> tuple[NotStored, ...]:
        """Kept values that are not in the file, each with the reason."""
        return self.manifest.not_stored

    def __str__(self) -> str:
        return "\n".join([*map(visible, self._facts()), *self._tables()])

    def _facts(self) -> Iterator[str]:
        manifest, counts = self.manifest, self.counts
        yield f"Trace file {self.path} ({self.form}, {bytes_text(self.file_bytes)})"
        framework = f"{self.backend} {self.framework_version}" if self.framework_version else self.backend
        when = ""
        if manifest.started_at is not None:
            when = f", {_date(manifest.started_at)}"
        yield f"Model: {self.model}, run by {framework}{when}"
        yield f"Format: version {manifest.version}, written by {self.producer}"
        yield (
            f"Records: {counts.ops} ops of {counts.calls} calls in {counts.layers} layers, {counts.modules} modules, "
            f"{counts.params} parameters, {counts.buffers} buffers ({bytes_text(manifest.records.bytes)})"
        )
        files = f" in {len(manifest.shards)} files" if len(manifest.shards) > 1 else ""
        yield f"Arrays: {counts.arrays}{files} ({bytes_text(counts.array_bytes)})"
        if manifest.left_out:
            yield f"Left out: {', '.join(manifest.left_out)}"
        if counts.not_replayable:
            yield f"Not replayable: {count_text(counts.not_replayable)} of {count_text(counts.calls)} calls"

    def _tables(self) -> Iterator[str]:
        if self.arrays:
            rows = [_row(array) for array in self.arrays[:_MOST]]
            yield table(["Array", "Shape", "Type", "Stored as", "Size"], rows)
            if len(self.arrays) > _MOST:
                yield f"... and {len(self.arrays) - _MOST} more: .arrays"
        if self.not_stored:
            yield table(["Not stored", "Why"], [[each.name, each.why] for each in self.not_stored[:_MOST]])

    def __repr__(self) -> str:
        return visible(f"<Inspection of {self.path}: {self.model} ({self.backend}), {self.counts.ops} ops>")


def inspect(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Inspection:
    """What a trace file holds: model, versions, counts, sizes and a table of its arrays; no array is read.

    Raises:
        TraceFileError: there is no such file, it is not a trace file, or its manifest is not sound.
    """
    limits = limits or Limits()
    container = Container(path, limits)
    manifest = parse_manifest(container.manifest, container.manifest_where, limits)
    for problem in manifest_problems(manifest, container.manifest_where, limits):
        raise problem
    return Inspection(container.path, container.form, _size(container), manifest)


def _size(container: Container) -> int:
    """What the files of a trace take on the disk, in bytes."""
    if container.form == "single file":
        return container.path.stat().st_size
    names = [MANIFEST, RECORDS, *container.shard_names]
    return sum((container.path / name).lstat().st_size for name in names)


def _row(array: ArrayRecord) -> list[str]:
    note = "" if array.fidelity == "own" else f" ({array.fidelity})"
    return [array.name, str(tuple(array.shape)), array.dtype + note, array.storage, bytes_text(array.bytes)]


def _date(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return f"at {seconds} s"
