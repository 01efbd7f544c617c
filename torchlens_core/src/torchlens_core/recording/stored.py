"""Recordings on disk: a folder of the kind that holds a trace, with the records of a recording in it."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from ..backend import Backend
from ..errors import SchemaError
from ..file import strict_json
from ..file.agreement import check_hash
from ..file.arguments import Encoder
from ..file.container import Container
from ..file.decode import decode_numbers
from ..file.limits import Limits
from ..file.manifest import convert
from ..file.opening import MANIFEST, RECORDS
from ..file.read import open_shards
from ..file.schema import (
    RECORDING_FORMAT,
    VERSION,
    Counts,
    FrameworkRecord,
    Identifier,
    Manifest,
    Natural,
    NotStored,
    NumberRecord,
    Part,
    Producer,
    Reference,
    Wire,
)
from ..file.values import FileValues, StoredArrays, offsets
from ..file.write import producer_version, write_text
from .activation import Site
from .origin import Renamed
from .recording import Recording
from .streaming import Key, Stream

_CALL: Final = re.compile(r"[^\s:]+:[1-9]\d*")


class StepRecord(Wire, frozen=True, kw_only=True):
    """One run of the model."""

    start_time: float
    end_time: float
    n_ops: Natural = 0
    halted: Reference = -1  # position among the sites
    is_halted: bool = False
    error: str | None = None


class SiteRecord(Wire, frozen=True, kw_only=True):
    """One recorded array; its value is the array or number of the same position."""

    step: Natural
    type: str
    func: str = ""
    output_index: Natural = 0
    modules: tuple[str, ...] = ()
    returned_by: tuple[str, ...] = ()
    shape: tuple[Natural, ...]
    dtype: str
    device: str
    start_ns: int | None = None


class RecordingRecords(Wire, frozen=True, kw_only=True):
    """Everything but the arrays."""

    id: Identifier
    model: str
    backend: str
    is_one_run: bool  # of tl.record, and not of a Recorder
    steps: tuple[StepRecord, ...]
    sites: tuple[SiteRecord, ...]
    numbers: tuple[NumberRecord, ...] = ()


class RecordingFile:
    """Collects what a stream does not know of the arrays that it writes, and completes the folder.

    Args:
        stream: that the values go through.
        model: name of the model.
        backend: that runs it.
        is_one_run: whether it is the file of one run.
    """

    def __init__(self, stream: Stream, model: str, backend: Backend, *, is_one_run: bool) -> None:
        self._stream = stream
        self._model = model
        self._backend = backend
        self._is_one_run = is_one_run
        self._steps: list[StepRecord] = []
        self._sites: list[SiteRecord] = []
        self._numbers: dict[Key, tuple[str, int]] = {}  # step and value id -> name and position

    def add(self, recording: Recording) -> None:
        """Note a step that has ended."""
        facts, first = recording.facts, len(self._sites)
        halted = [n for n, site in enumerate(recording.sites) if site.vid == facts.get("halted")]
        self._steps.append(
            StepRecord(
                start_time=facts["start_time"],
                end_time=facts["end_time"],
                n_ops=facts["n_ops"],
                halted=first + halted[0] if halted else -1,
                is_halted="halted" in facts,
                error=facts.get("error"),
            )
        )
        for site in recording.sites:
            position = len(self._sites)
            self._numbers[(recording.step, site.vid)] = (f"value.{position}", position)
            self._sites.append(_site_record(recording, site))

    def complete(self) -> None:
        """Write the records and the manifest; the folder is whole then."""
        stream = self._stream
        arrays = stream.named(self._numbers)
        encoder = Encoder(lambda value: None)
        numbers = (
            NumberRecord(value=self._numbers[key][1], number=encoder.encode(value))
            for key, value in stream.numbers.items()
        )
        records = RecordingRecords(
            id=stream.id,
            model=self._model,
            backend=self._backend.name,
            is_one_run=self._is_one_run,
            steps=tuple(self._steps),
            sites=tuple(self._sites),
            numbers=tuple(numbers),
        )
        text = msgspec.json.encode(records)
        manifest = Manifest(
            format=RECORDING_FORMAT,
            version=VERSION,
            id=stream.id,
            producer=Producer(name="torchlens-core", version=producer_version()),
            model=self._model,
            backend=FrameworkRecord(name=self._backend.name, version=self._backend.version()),
            started_at=self._steps[0].start_time if self._steps else None,
            counts=_counts(len(self._sites), len(arrays), sum(array.bytes for array in arrays)),
            records=Part(bytes=len(text), sha256=hashlib.sha256(text).hexdigest()),
            shards=tuple(stream.shards),
            arrays=tuple(arrays),
            not_stored=tuple(
                NotStored(name=f"step {step}", value=0, why=why) for (step, _), why in stream.not_stored.items()
            ),
        )
        write_text(stream.folder / RECORDS, text)
        write_text(stream.folder / MANIFEST, msgspec.json.encode(manifest))


def _counts(sites: int, arrays: int, array_bytes: int) -> Counts:
    none = dict.fromkeys(("ops", "calls", "layers", "modules", "params", "buffers", "not_replayable"), 0)
    return Counts(**none, values=sites, arrays=arrays, array_bytes=array_bytes)


def _site_record(recording: Recording, site: Site) -> SiteRecord:
    return SiteRecord(
        step=recording.step,
        type=site.type,
        func=site.func_name,
        output_index=site.output_index,
        modules=site.modules,
        returned_by=site.returned_by,
        shape=site.shape,
        dtype=recording.dtype_name(site.dtype),
        device=str(site.device),
        start_ns=site.start_ns,
    )


def load_recording(
    container: Container, manifest: Manifest, limits: Limits, backend: Backend | None
) -> Recording | list[Recording]:
    """The recording in a folder: of one run as it is, of a Recorder the list of its steps."""
    where = container.records_where
    data = container.records()
    check_hash(data, manifest, where)
    value = strict_json.parse(data, where, max_depth=limits.max_depth, max_text=limits.max_text)
    records = convert(value, RecordingRecords, where)
    shards = open_shards(container, manifest, limits, _stop)
    _check(records, manifest, where)
    arrays = StoredArrays(offsets(manifest.arrays), shards, backend.arrays.from_numpy if backend is not None else None)
    values = FileValues(arrays, decode_numbers(records.numbers, where), StoredArrays([], shards, None))
    steps = [_step(records, number, values) for number in range(len(records.steps))]
    return steps[0] if records.is_one_run else steps


def _stop(error: Exception) -> None:
    raise error


def _check(records: RecordingRecords, manifest: Manifest, where: str) -> None:
    """Hold the records against each other and against the manifest."""
    if records.id != manifest.id:
        raise SchemaError("the records are those of another recording.", where)
    if records.is_one_run and len(records.steps) != 1:
        raise SchemaError(f"one run has one step, and there are {len(records.steps)}.", f"{where} $.steps")
    for index, site in enumerate(records.sites):
        path = f"{where} $.sites[{index}]"
        if site.step >= len(records.steps) or (index and site.step < records.sites[index - 1].step):
            raise SchemaError(f"there is no step {site.step} here.", f"{path}.step")
        if not all(_CALL.fullmatch(label) for label in (*site.modules, *site.returned_by)):
            raise SchemaError("a label of a module call is an address, a colon and a number.", path)
    for index, step in enumerate(records.steps):
        if step.halted >= len(records.sites):
            raise SchemaError(f"there is no site {step.halted}.", f"{where} $.steps[{index}].halted")
    found = [array.value for array in manifest.arrays] + [number.value for number in records.numbers]
    if sorted(found) != list(range(len(records.sites))):
        raise SchemaError(f"{len(records.sites)} sites, and the values are not one for each.", where)
    for index, array in enumerate(manifest.arrays):
        site = records.sites[array.value]
        if array.name != f"value.{array.value}" or (array.fidelity != "transformed" and array.shape != site.shape):
            raise SchemaError("the array is not that of its site.", f"{where} $.arrays[{index}]")


def _step(records: RecordingRecords, number: int, values: FileValues) -> Recording:
    step = records.steps[number]
    here = [(index, site) for index, site in enumerate(records.sites) if site.step == number]
    facts: dict[str, Any] = {"start_time": step.start_time, "end_time": step.end_time, "n_ops": step.n_ops}
    if step.is_halted:
        facts["halted"] = step.halted
    if step.error is not None:
        facts["error"] = step.error
    sites = [_site(index, site) for index, site in here]
    chosen = Renamed(values, {index: index for index, _ in here})
    return Recording(records.model, records.backend, lambda: sites, chosen, facts, step=number)


def _site(index: int, record: SiteRecord) -> Site:
    return Site(
        index, record.type, record.func, record.output_index, record.modules, record.returned_by, record.shape,
        record.dtype, record.device, record.start_ns,
    )  # fmt: skip
