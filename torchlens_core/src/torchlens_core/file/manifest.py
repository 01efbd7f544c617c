"""The manifest: read in the order in which its parts can be trusted, and checked by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from ..errors import BadMagic, FeatureUnknown, LimitExceeded, SchemaError, TraceFileError, VersionTooNew
from . import strict_json
from .limits import Limits
from .recognise import OLDER
from .schema import FEATURES, FORMAT, RECORDING_FORMAT, VERSION, Manifest, Wire
from .storage import STORAGE, stored_bytes

W = TypeVar("W", bound=Wire)


def parse_manifest(data: bytes, where: str, limits: Limits) -> Manifest:
    """The manifest of this text: is it one, can this version read it, has it the right fields."""
    value = strict_json.parse(data, where, max_depth=limits.max_depth, max_text=limits.max_text)
    if isinstance(value, dict) and "tlspec_version" in value:
        raise BadMagic(f"this is {OLDER}.", where, "")
    if not isinstance(value, dict) or value.get("format") not in (FORMAT, RECORDING_FORMAT):
        raise BadMagic(f"this is no manifest of a trace: its format is not {FORMAT!r}.", where)
    version = value.get("version")
    if version.__class__ is not int or version < 1:
        raise SchemaError(f"the version is a number from 1; it is {version!r}.", f"{where} $.version")
    if version > VERSION:
        producer = value.get("producer")
        by = (
            f" It was written by {producer.get('name')!r}, version {producer.get('version')!r}."
            if isinstance(producer, dict)
            else ""
        )
        raise VersionTooNew(f"the format has version {version}, and this TorchLens reads up to {VERSION}.{by}", where)
    requires = value.get("requires", [])
    unknown = [name for name in requires if name not in FEATURES] if isinstance(requires, list) else []
    if unknown:
        raise FeatureUnknown(f"it needs {unknown[0]!r}, which this version does not know.", f"{where} $.requires")
    return convert(value, Manifest, where)


def convert(value: Any, record: type[W], where: str) -> W:
    """A JSON value as a typed record."""
    try:
        return msgspec.convert(value, record)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        raise SchemaError(f"{what}.", f"{where} {path.strip('`') or '$'}") from None


def manifest_problems(manifest: Manifest, where: str, limits: Limits) -> Iterator[TraceFileError]:
    """What is wrong with the list of arrays by itself."""
    if len(manifest.arrays) > limits.max_arrays:
        yield LimitExceeded(
            f"{len(manifest.arrays)} arrays, and the limit is {limits.max_arrays} (max_arrays).", f"{where} $.arrays"
        )
    total = sum(array.bytes for array in manifest.arrays)
    if total > limits.max_total_bytes:
        yield LimitExceeded(
            f"the arrays take {total} bytes, and the limit is {limits.max_total_bytes} (max_total_bytes).",
            f"{where} $.arrays",
        )
    last = 0
    for index, array in enumerate(manifest.arrays):
        path = f"{where} $.arrays[{index}]"
        if array.dtype not in STORAGE:
            yield SchemaError(f"{array.dtype!r} is no element type of the format.", f"{path}.dtype")
            continue
        storage = STORAGE[array.dtype]
        if array.storage != storage.code:
            yield SchemaError(f"{array.dtype} is stored as {storage.code}, not {array.storage!r}.", f"{path}.storage")
        if len(array.shape) > limits.max_dims:
            yield LimitExceeded(
                f"{len(array.shape)} dimensions, and the limit is {limits.max_dims} (max_dims).", f"{path}.shape"
            )
        elif stored_bytes(storage, array.shape) != array.bytes:
            expected = stored_bytes(storage, array.shape)
            yield SchemaError(
                f"shape {list(array.shape)} of {array.dtype} takes {expected} bytes, not {array.bytes}.",
                f"{path}.bytes",
            )
        if array.shard < last or array.shard >= len(manifest.shards):
            yield SchemaError(
                f"it is in file {array.shard}, after {last} and of {len(manifest.shards)}.", f"{path}.shard"
            )
        last = max(last, array.shard)
    yield from _shard_problems(manifest, where)
    for what, keys in (
        ("name", [array.name for array in manifest.arrays]),
        ("role, value and backward pass", [(array.role, array.value, array.bwd) for array in manifest.arrays]),
    ):
        for key, number in Counter(keys).items():
            if number > 1:
                yield SchemaError(f"{number} arrays have the {what} {key!r}.", f"{where} $.arrays")


def _shard_problems(manifest: Manifest, where: str) -> Iterator[TraceFileError]:
    arrays = Counter(array.shard for array in manifest.arrays)
    sizes: Counter[int] = Counter()
    for array in manifest.arrays:
        sizes[array.shard] += array.bytes
    for number, shard in enumerate(manifest.shards):
        if (shard.arrays, shard.bytes) != (arrays[number], sizes[number]):
            yield SchemaError(
                f"it has {shard.arrays} arrays in {shard.bytes} bytes, "
                f"and the list {arrays[number]} in {sizes[number]}.",
                f"{where} $.shards[{number}]",
            )
