"""``tl.verify``: everything that is wrong with a trace file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import TraceFileError
from .container import Container
from .limits import Limits
from .manifest import manifest_problems, parse_manifest
from .read import Report, build, by_shard, check_agreement, check_rules, open_shards, read_records
from .schema import RECORDING_FORMAT, Manifest
from .shard_file import ShardFile
from .values import offsets, read_array


def verify(path: str | os.PathLike[str], *, limits: Limits | None = None) -> list[TraceFileError]:
    """All that is wrong with a trace file, in the order in which ``load`` would come upon it; empty where nothing is.

    Every byte is read: each array is held against its hash. Only what the rest hangs on hides it, such as a manifest
    that is no JSON.
    """
    limits = limits or Limits()
    problems: list[TraceFileError] = []
    report = problems.append
    try:
        container = Container(path, limits)
        manifest = parse_manifest(container.manifest, container.manifest_where, limits)
    except TraceFileError as error:
        return [error]
    shards: list[ShardFile] = []
    if any(manifest_problems(manifest, container.manifest_where, limits)):
        problems += manifest_problems(manifest, container.manifest_where, limits)
    else:
        try:
            shards = open_shards(container, manifest, limits, report)
        except TraceFileError as error:
            report(error)
    try:
        if manifest.format == RECORDING_FORMAT:
            from ..recording.stored import load_recording  # which reads files by what is here

            load_recording(container, manifest, limits, None)
            _read_all(manifest, shards, report)
            return problems
        records = read_records(container, manifest, limits)
        check_agreement(container, manifest, records, report)
        if check_rules(container, records, report):
            build(container, manifest, records, shards, None, report)
    except TraceFileError as error:
        report(error)
    _read_all(manifest, shards, report)
    return problems


def _read_all(manifest: Manifest, shards: Sequence[ShardFile], report: Report) -> None:
    """Hold each array against its hash, in the files whose layout is as it should be."""
    arrays = by_shard(manifest) if shards else {}
    sound = {n for n in arrays if not any(shards[n].layout_problems(arrays[n], manifest.shards[n].bytes))}
    for array, begin in offsets(manifest.arrays) if shards else ():
        if array.shard in sound:
            try:
                read_array(array, shards[array.shard], begin)
            except TraceFileError as error:
                report(error)
