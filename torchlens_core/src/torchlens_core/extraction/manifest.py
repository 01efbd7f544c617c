"""``extraction.json``: made, written, read and checked."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..errors import BadMagic, LimitExceeded, ResumeError, SchemaError, VersionTooNew
from ..file import strict_json
from ..file.limits import Limits
from ..file.manifest import convert
from ..file.schema import Producer
from ..file.shard_file import METADATA
from ..file.storage import STORAGE
from .fingerprint import difference
from .folder import MANIFEST, read_whole, write_whole
from .schema import FORMAT, VERSION, LayerRecord, Manifest, Settings, encode
from .shards import row_bytes

_SHARD_BYTES: Final = 64 * 2**20
_SHARD_STIMULI: Final = 1024  # at most: what is computed and not yet written is lost when the process is killed


def new_manifest(
    settings: Settings, model: dict[str, str], layers: Sequence[LayerRecord], *, has_ids: bool, in_batch: int
) -> Manifest:
    """Of an extraction whose first batch, of ``in_batch`` stimuli, has just given its activations."""
    identity = encode([settings, model, list(layers), has_ids])
    return Manifest(
        format="torchlens extraction",
        version=VERSION,
        id=hashlib.sha256(identity).hexdigest()[:32],
        producer=Producer(name="torchlens-core", version=importlib.metadata.version("torchlens-core")),
        settings=settings,
        model=model,
        layers=tuple(layers),
        shard_size=settings.shard_size or _shard_size(layers, settings.batch_size or in_batch),
        has_ids=has_ids,
    )


def _shard_size(layers: Sequence[LayerRecord], batch_size: int) -> int:
    """As many whole batches as keep a file small enough; at least one."""
    fit = _SHARD_BYTES // max(1, row_bytes(layers))
    return max(1, min(fit, _SHARD_STIMULI) // batch_size) * batch_size


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, or replace it."""
    write_whole(folder, MANIFEST, [encode(manifest)])


def read_manifest(folder: Path, limits: Limits) -> Manifest:
    """The manifest of a folder, checked by itself."""
    path = folder / MANIFEST
    where = str(path)
    data = read_whole(path, limits.max_manifest_bytes)
    value = strict_json.parse(data, where, max_depth=limits.max_depth, max_text=limits.max_text)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BadMagic(f"this is no manifest of an extraction: its format is not {FORMAT!r}.", where, "")
    version = value.get("version")
    if version.__class__ is int and version > VERSION:
        raise VersionTooNew(f"the format has version {version}, and this TorchLens reads up to {VERSION}.", where)
    manifest = convert(value, Manifest, where)
    for problem in _problems(manifest, where, limits):
        raise problem
    return manifest


def _problems(manifest: Manifest, where: str, limits: Limits) -> Iterator[SchemaError | LimitExceeded]:
    keys = [layer.key for layer in manifest.layers]
    if not keys or len(set(keys)) != len(keys) or METADATA in keys:
        yield SchemaError(f"the names of its layers are {keys}.", f"{where} $.layers")
    for number, layer in enumerate(manifest.layers):
        if layer.dtype not in STORAGE:
            yield SchemaError(f"{layer.dtype!r} is no element type of the format.", f"{where} $.layers[{number}].dtype")
        if len(layer.shape or ()) >= limits.max_dims:
            yield LimitExceeded(
                f"{len(layer.shape or ())} dimensions, and the limit is {limits.max_dims} (max_dims).",
                f"{where} $.layers[{number}].shape",
            )
    if (manifest.shards is None) != (manifest.num_stimuli is None):
        yield SchemaError("num_stimuli and shards are there together, or neither is.", where)
    shards = manifest.shards or ()
    if len(shards) > limits.max_shards:
        yield LimitExceeded(
            f"{len(shards)} files, and the limit is {limits.max_shards} (max_shards).", f"{where} $.shards"
        )
    full = all(shard.stimuli == manifest.shard_size for shard in shards[:-1])
    total = sum(shard.stimuli for shard in shards)
    if shards and (not full or shards[-1].stimuli > manifest.shard_size or total != manifest.num_stimuli):
        yield SchemaError(
            f"files of {manifest.shard_size} stimuli and a last one make {manifest.num_stimuli}; these hold {total}.",
            f"{where} $.shards",
        )
    if sum(shard.bytes for shard in shards) > limits.max_total_bytes:
        yield LimitExceeded(f"more bytes than the limit of {limits.max_total_bytes} (max_total_bytes).", where)


def check_same(folder: Path, manifest: Manifest, settings: Settings, model: dict[str, str], *, has_ids: bool) -> None:
    """Raise ResumeError where what is in the folder is not what was asked for; the message says what differs."""
    before, now = msgspec.to_builtins(manifest.settings), msgspec.to_builtins(settings)
    found = [f"{_WORDS[name]} {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in _WORDS
             if before.get(name) != now.get(name)]  # fmt: skip
    if manifest.has_ids != has_ids:
        found.append(f"stimulus_ids= was {'given' if manifest.has_ids else 'not given'}")
    of_model = difference(manifest.model, model)
    if of_model is not None:
        found.append(of_model)
    if found:
        raise ResumeError(
            f"{folder} holds another extraction: {'; '.join(found)}. Take another output_dir, delete that folder, or "
            "ask for the same again."
        )


_WORDS: Final = {
    "layers": "layers= was", "backend": "the backend was", "batch_size": "batch_size= was", "dtype": "dtype= was",
    "ragged": "ragged= was", "transform": "transform= was", "collate": "collate= was", "pool": "pool= was",
    "shard_size": "shard_size= was", "num_stimuli": "the number of stimuli was",
}  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):  # of layers: names, and what they stand for where that is another
        names = [asked if key in ("", asked) else f"{key}={asked}" for key, asked in value]
        return f"[{', '.join(names)}]"
    return repr(value)
