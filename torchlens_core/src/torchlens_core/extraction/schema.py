"""What the files of an extraction hold, field by field: ``extraction.json``, and the texts in the header of a shard."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..file.schema import Digest, Identifier, Natural, Positive, Producer, Wire

FORMAT = "torchlens extraction"
VERSION = 1
StimulusId = str | int


class LayerRecord(Wire, frozen=True, kw_only=True):
    """One layer: what it is called here, and what of each stimulus is stored."""

    key: Annotated[str, Meta(min_length=1)]
    place: str  # label of the Op, or of the module call, in the first run
    what: str = ""  # tells the operation that a label stands for from others; none for modules
    dtype: str  # by the name of numpy or ml_dtypes
    shape: tuple[Natural, ...] | None  # of one stimulus; None where each has a shape of its own


class Settings(Wire, frozen=True, kw_only=True):
    """What has to be the same for an extraction to be continued."""

    layers: tuple[tuple[str, str], ...]  # name in the result ('' for that of the Ops), and how it was asked for
    backend: str
    batch_size: Positive | None
    dtype: str | None
    ragged: Literal["error", "list"]
    transform: str | None  # functions by name
    collate: str | None
    pool: str | None
    shard_size: Positive | None  # as asked for
    num_stimuli: Natural | None  # where that was known before the run


class ShardRecord(Wire, frozen=True, kw_only=True):
    """One finished file."""

    stimuli: Positive
    bytes: Natural  # of the file
    header_sha256: Digest  # of its header, which holds the hashes of its arrays


class Manifest(Wire, frozen=True, kw_only=True):
    """``extraction.json``. Written when the first activations are there, and again when all are."""

    format: Literal["torchlens extraction"]
    version: Positive
    id: Identifier  # made from the settings and the model: the same extraction has the same
    producer: Producer
    settings: Settings
    model: dict[str, str]  # see fingerprint.py
    layers: tuple[LayerRecord, ...]
    shard_size: Positive  # stimuli in each file but the last
    has_ids: bool  # whether stimuli have ids of their own; without, they are known by number
    num_stimuli: Natural | None = None  # when all are there
    shards: tuple[ShardRecord, ...] | None = None  # when all are there


class ShardFacts(Wire, frozen=True, kw_only=True):
    """In the header of each file with activations."""

    id: Identifier  # of the extraction
    first: Natural  # number of its first stimulus
    stimuli: Positive
    sha256: dict[str, Digest]  # by the name of the array
    # Of layers whose shape varies, that of each stimulus.
    shapes: dict[str, list[tuple[Natural, ...]]] = msgspec.field(default_factory=dict)
    stimulus_ids: tuple[StimulusId, ...] | None = None


def encode(record: Any) -> bytes:
    """A record as JSON."""
    return msgspec.json.encode(record)
