"""``tl.load``: a trace from a file, its arrays left on the disk until they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from ..backend import Backend
from ..errors import TraceFileError
from ..plugins import get_backend
from ..records.trace import Trace
from . import strict_json
from .agreement import arrays_disagree, check_hash, manifest_disagrees, ops_disagree
from .collector import collection_put_off
from .container import Container
from .decode import decode, decode_numbers
from .gradients import decode_gradients
from .limits import Limits
from .manifest import convert, manifest_problems, parse_manifest
from .rules import breaches
from .schema import RECORDING_FORMAT, ArrayRecord, Manifest, Records
from .shard_file import ShardFile
from .values import FileValues, StoredArrays, offsets, read_array

Report = Callable[[TraceFileError], Any]


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | Backend | None = None,
    limits: Limits | None = None,
    verify: Literal["lazy", "eager"] = "lazy",
) -> Trace:
    """Read a trace file, or a recording. No array is read before it is asked for; a file holds no code that could run.

    Args:
        path: what ``save`` was given, or the file or folder itself.
        backend: name of a framework's backend: values are its arrays then, and calls can be replayed. Without it values
            are numpy arrays, read-only, and no framework is needed.
        limits: on sizes and numbers; raise them for files that you trust.
        verify: ``'lazy'``: the bytes of an array are held against their hash when it is first asked for; ``'eager'``:
            all of them now.

    Raises:
        TraceFileError: there is no such file, it is not a trace file, or it is not sound; the message says what is
            wrong, where, and what to do. ``tl.verify(path)`` lists all that is wrong.
    """
    if verify not in ("lazy", "eager"):
        raise ValueError(f"verify is 'lazy' or 'eager'; got {verify!r}.")
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    limits = limits or Limits()
    with collection_put_off():
        container = Container(path, limits)
        manifest = parse_manifest(container.manifest, container.manifest_where, limits)
        if manifest.format == RECORDING_FORMAT:
            from ..recording.stored import load_recording  # which reads files by what is here

            return load_recording(container, manifest, limits, chosen)  # type: ignore[return-value]
        shards = open_shards(container, manifest, limits, _stop)
        records = read_records(container, manifest, limits)
        check_rules(container, records, _stop)
        made = build(container, manifest, records, shards, chosen, _stop)
        check_agreement(container, manifest, records, _stop)
    if verify == "eager":
        for array, begin in offsets(manifest.arrays):
            read_array(array, shards[array.shard], begin)
    return made


def open_shards(container: Container, manifest: Manifest, limits: Limits, report: Report) -> list[ShardFile]:
    """Open the files with arrays, and hold their headers against the manifest."""
    _tell(manifest_problems(manifest, container.manifest_where, limits), report)
    shards = container.shards(len(manifest.shards), manifest.id)
    for number, arrays in by_shard(manifest).items():
        _tell(shards[number].layout_problems(arrays, manifest.shards[number].bytes), report)
    return shards


def by_shard(manifest: Manifest) -> dict[int, list[ArrayRecord]]:
    """The arrays of each file with arrays."""
    arrays: dict[int, list[ArrayRecord]] = {number: [] for number in range(len(manifest.shards))}
    for array in manifest.arrays:
        arrays[array.shard].append(array)
    return arrays


def read_records(container: Container, manifest: Manifest, limits: Limits) -> Records:
    """The records, typed."""
    data, where = container.records(), container.records_where
    check_hash(data, manifest, where)
    value = strict_json.parse(data, where, max_depth=limits.max_depth, max_text=limits.max_text)
    return convert(value, Records, where)


def check_rules(container: Container, records: Records, report: Report) -> bool:
    """Hold the records against the rules; whether they can be built upon."""
    return _tell(breaches(records, container.records_where), report)


def check_agreement(container: Container, manifest: Manifest, records: Records, report: Report) -> None:
    """Hold the records against the manifest."""
    _tell(manifest_disagrees(records, manifest, container.manifest_where), report)
    _tell(arrays_disagree(records, manifest, container.manifest_where), report)


def build(
    container: Container,
    manifest: Manifest,
    records: Records,
    shards: Sequence[ShardFile],
    backend: Backend | None,
    report: Report,
) -> Trace:
    """The trace that records tell of which have passed the rules."""
    where = container.records_where
    program, structure = decode(records, where, backend)
    _tell(ops_disagree(records, structure, where), report)
    placed = offsets(manifest.arrays)
    convert_array = backend.arrays.from_numpy if backend is not None else None
    values, constants, clean = (
        StoredArrays([(array, begin) for array, begin in placed if array.role == role], shards, convert_array)
        for role in ("value", "constant", "clean")
    )
    program.constants = constants
    made = Trace(program, FileValues(values, decode_numbers(records.numbers, where), clean), structure, backend)
    made.gradient_store = decode_gradients(records.gradients, placed, shards, convert_array)
    return made


def _tell(problems: Iterable[TraceFileError], report: Report) -> bool:
    """Report every problem; whether there was none."""
    is_sound = True
    for problem in problems:
        is_sound = False
        report(problem)
    return is_sound


def _stop(error: TraceFileError) -> None:
    raise error
