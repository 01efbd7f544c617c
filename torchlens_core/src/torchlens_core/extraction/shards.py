"""One file with activations: the rows of some consecutive stimuli, for every layer.

A safetensors file, laid out as those of traces are. Its header holds the hash of each array, the number of the first
stimulus and the ids, so that each file by itself tells what is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ..errors import ChecksumMismatch, SaveError, SchemaError, TraceFileError
from ..file import strict_json
from ..file.limits import MAX_HEADER_BYTES
from ..file.manifest import convert
from ..file.schema import ArrayRecord
from ..file.shard_file import ShardFile, header_bytes
from ..file.storage import STORAGE, Array, from_bytes, stored_bytes, to_bytes
from .folder import shard_name, write_whole
from .schema import LayerRecord, Manifest, ShardFacts, StimulusId, encode

_FACTS: Final = "torchlens.extraction"
_NO_DIGEST: Final = "0" * 64
_DEPTH: Final = 8
_ADVICE: Final = "Delete this file and those after it, and run the same extraction again: it continues there."

Rows = Array | list[Array]  # of one layer: stimuli along axis 0, or one array for each


def write_shard(
    folder: Path, number: int, manifest: Manifest, rows: Mapping[str, Rows], ids: Sequence[StimulusId] | None
) -> None:
    """Write one file, whole or not at all."""
    stimuli = len(next(iter(rows.values())))
    shapes = {layer.key: [a.shape for a in rows[layer.key]] for layer in manifest.layers if layer.shape is None}
    arrays = [_array(rows, layer, position) for layer, position in _places(manifest.layers, stimuli)]
    raw = [to_bytes(array).data for array in arrays]
    records = _records(manifest.layers, stimuli, shapes)
    facts = ShardFacts(
        id=manifest.id,
        first=number * manifest.shard_size,
        stimuli=stimuli,
        sha256={record.name: hashlib.sha256(data).hexdigest() for record, data in zip(records, raw, strict=True)},
        shapes=shapes,
        stimulus_ids=None if ids is None else tuple(ids),
    )
    header = header_bytes(records, {_FACTS: encode(facts).decode()})
    if len(header) > MAX_HEADER_BYTES:
        raise SaveError(
            f"the ids and shapes of {stimuli} stimuli take {len(header)} bytes, and the header of a file holds "
            f"{MAX_HEADER_BYTES}.", str(folder), "Pass a smaller shard_size=.",
        )  # fmt: skip
    write_whole(folder, shard_name(number), [header, *raw])


class Shard:
    """One file with activations, open: its header is read and agrees with the manifest, its arrays are not read.

    Attributes:
        first: number of its first stimulus.
        stimuli: how many it holds.
        stimulus_ids: theirs; None where they have none.
    """

    def __init__(self, folder: Path, number: int, manifest: Manifest) -> None:
        self._file = ShardFile(folder / shard_name(number))
        self.where = self._file.where
        facts = self._facts(manifest)
        first = number * manifest.shard_size
        if facts.first != first or facts.stimuli > manifest.shard_size:
            raise SchemaError(
                f"it holds {facts.stimuli} stimuli from {facts.first}, and should hold up to {manifest.shard_size} "
                f"from {first}.",
                self.where,
            )
        self._check_lengths(facts, manifest)
        self.first, self.stimuli, self.stimulus_ids = facts.first, facts.stimuli, facts.stimulus_ids
        self._layers = {layer.key: layer for layer in manifest.layers}
        self._records = {
            record.name: record for record in _records(manifest.layers, facts.stimuli, facts.shapes, facts.sha256)
        }
        size = sum(record.bytes for record in self._records.values())
        for problem in self._file.layout_problems(list(self._records.values()), size):
            raise type(problem)(problem.what, problem.where, _ADVICE)
        self._begins: dict[str, int] = {}
        begin = 0
        for name, record in self._records.items():
            self._begins[name] = begin
            begin += record.bytes

    def _facts(self, manifest: Manifest) -> ShardFacts:
        text = self._file.metadata.get(_FACTS)
        if text is None or len(self._file.metadata) != 1:
            raise SchemaError("this is no file of an extraction.", self.where)
        where = f"{self.where} {_FACTS}"
        value = strict_json.parse(text.encode(), where, max_depth=_DEPTH, max_text=MAX_HEADER_BYTES)
        facts = convert(value, ShardFacts, where)
        if facts.id != manifest.id:
            raise SchemaError(
                f"this file is of another extraction: its id is {facts.id}, the folder's {manifest.id}.", self.where, ""
            )
        return facts

    def _check_lengths(self, facts: ShardFacts, manifest: Manifest) -> None:
        """What the header lists stimulus by stimulus has an entry for each; hashes are there for every array."""
        lists = [facts.shapes.get(layer.key, []) for layer in manifest.layers if layer.shape is None]
        ids = facts.stimulus_ids
        if manifest.has_ids != (ids is not None):
            raise SchemaError("it has ids and the manifest says none, or the other way round.", self.where)
        if any(len(each) != facts.stimuli for each in (*lists, *([] if ids is None else [ids]))):
            raise SchemaError(f"it holds {facts.stimuli} stimuli and lists another number of them.", self.where)
        names = [_name(layer, position) for layer, position in _places(manifest.layers, facts.stimuli)]
        if set(names) != set(facts.sha256):
            raise SchemaError("its hashes are not those of the arrays that the manifest lists.", self.where)

    def rows(self, key: str) -> Array:
        """The rows of one layer, mapped into memory and not yet read."""
        return self._array(key)

    def row(self, key: str, position: int) -> Array:
        """What one stimulus gave, by its position in this file."""
        layer = self._layers[key]
        return self._array(key)[position] if layer.shape is not None else self._array(_name(layer, position))

    def shape(self, key: str, position: int) -> tuple[int, ...]:
        """The shape of what one stimulus gave."""
        layer = self._layers[key]
        return layer.shape if layer.shape is not None else self._records[_name(layer, position)].shape

    def _array(self, name: str) -> Array:
        record, begin = self._records[name], self._begins[name]
        try:
            return from_bytes(self._file.raw(begin, begin + record.bytes), record.dtype, record.shape)
        except ValueError as error:
            raise SchemaError(f"{error}.", f"{self.where} {name!r}") from None

    def header_sha256(self) -> str:
        """Hash of the header, and so of everything: it holds the hashes of the arrays."""
        return hashlib.sha256(self._file.header()).hexdigest()

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self._file.header()) + self._file.data_bytes

    def problems(self) -> Iterator[TraceFileError]:
        """Arrays whose bytes are not those that were written. Reads all of them."""
        for name, record in self._records.items():
            begin = self._begins[name]
            digest = hashlib.sha256(self._file.raw(begin, begin + record.bytes).data).hexdigest()
            if digest != record.sha256:
                yield ChecksumMismatch(
                    f"its bytes have the hash {digest[:12]}..., and {record.sha256[:12]}... was written.",
                    f"{self.where} {name!r}",
                    _ADVICE,
                )


def _places(layers: Sequence[LayerRecord], stimuli: int) -> list[tuple[LayerRecord, int | None]]:
    """The arrays of a file, in order: those with wide elements first, so that each is aligned."""
    ordered = sorted(layers, key=lambda layer: -STORAGE[layer.dtype].itemsize)
    places: list[tuple[LayerRecord, int | None]] = []
    for layer in ordered:
        places += [(layer, None)] if layer.shape is not None else [(layer, position) for position in range(stimuli)]
    return places


def _name(layer: LayerRecord, position: int | None) -> str:
    return layer.key if position is None else f"{layer.key}[{position}]"


def _array(rows: Mapping[str, Rows], layer: LayerRecord, position: int | None) -> Array:
    of_layer = rows[layer.key]
    made: Array = of_layer if position is None else of_layer[position]  # type: ignore[assignment]
    return made


def _records(
    layers: Sequence[LayerRecord],
    stimuli: int,
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    digests: Mapping[str, str] | None = None,
) -> list[ArrayRecord]:
    """The arrays of a file, as the reader and the writer of its header know them."""
    records = []
    for number, (layer, position) in enumerate(_places(layers, stimuli)):
        name = _name(layer, position)
        shape = (stimuli, *(layer.shape or ())) if position is None else tuple(shapes[layer.key][position])
        records.append(
            ArrayRecord(
                name=name,
                role="value",
                value=number,
                dtype=layer.dtype,
                storage=STORAGE[layer.dtype].code,
                shape=shape,
                bytes=stored_bytes(STORAGE[layer.dtype], shape),
                shard=0,
                sha256=_NO_DIGEST if digests is None else digests[name],
            )
        )
    return records


def row_bytes(layers: Sequence[LayerRecord]) -> int:
    """About how many bytes one stimulus takes; layers of varying shape not counted."""
    return sum(stored_bytes(STORAGE[layer.dtype], layer.shape or ()) for layer in layers)
