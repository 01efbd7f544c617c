"""Whether the parts of a trace file agree: records with the manifest, arrays with values, ops with calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ..derived.structure import Structure
from ..errors import ChecksumMismatch, GraphError, SchemaError, TraceFileError, Truncated
from .ops import describe_ops
from .schema import GRADIENTS, INTERVENTIONS, ArrayRecord, Counts, Manifest, OpRecord, Records

OP_FIELDS = tuple(OpRecord.__struct_fields__)


def check_hash(data: bytes, manifest: Manifest, where: str) -> None:
    """Compare the text of the records with what the manifest says of it."""
    stated = manifest.records
    if len(data) < stated.bytes:
        raise Truncated(f"it has {len(data)} bytes, and the manifest says {stated.bytes}.", where)
    if len(data) > stated.bytes or hashlib.sha256(data).hexdigest() != stated.sha256:
        raise ChecksumMismatch(f"its {len(data)} bytes are not those that the manifest was written for.", where)


def count(records: Records, arrays: Iterable[ArrayRecord]) -> Counts:
    """How many there are of each."""
    arrays = tuple(arrays)
    return Counts(
        ops=len(records.ops),
        calls=len(records.calls),
        layers=len({op.layer for op in records.ops}),
        values=len(records.values),
        modules=len(records.modules),
        params=sum(source.kind == "param" for source in records.sources),
        buffers=len({source.address for source in records.sources if source.kind == "buffer"}),
        arrays=len(arrays),
        array_bytes=sum(array.bytes for array in arrays),
        not_replayable=sum(not call.replayable for call in records.calls),
    )


def manifest_disagrees(records: Records, manifest: Manifest, where: str) -> Iterator[TraceFileError]:
    """Where the manifest says something else than the records."""
    if records.id != manifest.id:
        yield SchemaError(f"the records are of another trace: their id is {records.id}.", f"{where} $.id")
    for name, stated, found in (
        ("model", manifest.model, records.model),
        ("backend.name", manifest.backend.name, records.backend),
    ):
        if stated != found:
            yield GraphError(f"rule M1: it is {stated!r}, and the records say {found!r}.", f"{where} $.{name}")
    needed = required(records)
    if manifest.requires != needed:
        yield GraphError(
            f"rule M3: it is {list(manifest.requires)}, and what the records hold takes {list(needed)}.",
            f"{where} $.requires",
        )
    counted = count(records, manifest.arrays)
    for name in Counts.__struct_fields__:
        stated, found = getattr(manifest.counts, name), getattr(counted, name)
        if stated != found:
            yield GraphError(f"rule M2: it is {stated}, and there are {found}.", f"{where} $.counts.{name}")


def arrays_disagree(records: Records, manifest: Manifest, where: str) -> Iterator[TraceFileError]:
    """Where an array is not what the records say of its value."""
    names = array_names(records)
    numbers = {number.value for number in records.numbers}
    changed = {change.old for change in records.changes}
    for index, array in enumerate(manifest.arrays):
        path = f"{where} $.arrays[{index}]"
        if array.value >= len(records.values):
            yield GraphError(f"rule A1: arrays belong to values; there is no value {array.value}.", f"{path}.value")
            continue
        name = array_name(array.role, array.value, names, array.bwd)
        if array.name != name:
            yield GraphError(f"rule A2: it is {array.name!r}, and the records call it {name!r}.", f"{path}.name")
        value = records.values[array.value]
        if array.fidelity != "transformed" and array.shape != value.shape:
            yield GraphError(
                f"rule A3: it is {array.shape}, and value {array.value} has {value.shape}.", f"{path}.shape"
            )
        if array.fidelity == "own" and array.dtype != value.dtype:
            yield GraphError(
                f"rule A3: it is {array.dtype}, and value {array.value} has {value.dtype}.", f"{path}.dtype"
            )
        if array.role == "clean" and array.value not in changed:
            yield GraphError(f"rule A5: no intervention changed value {array.value}.", f"{path}.value")
        if (array.bwd > 0) != (array.role == "gradient") or (array.bwd and not _is_gradient(array, records)):
            yield GraphError(
                f"rule A6: gradients are with respect to watched values, of a backward pass that there is; this is a "
                f"{array.role} of pass {array.bwd} and of value {array.value}.",
                f"{path}.bwd",
            )
        if array.role == "value" and array.value in numbers:
            yield GraphError(f"rule A4: value {array.value} is an array and a number.", f"{path}.value")


def _is_gradient(array: ArrayRecord, records: Records) -> bool:
    found = records.gradients
    return found is not None and array.bwd <= len(found.passes) and array.value in found.watched


def required(records: Records) -> tuple[str, ...]:
    """The features of the format that a reader of these records has to know."""
    features = {GRADIENTS: records.gradients is not None, INTERVENTIONS: bool(records.changes)}
    return tuple(name for name, is_needed in features.items() if is_needed)


def array_names(records: Records) -> dict[int, str]:
    """Value -> label of the first op that has it."""
    names: dict[int, str] = {}
    for op in records.ops:
        names.setdefault(op.value, op.label)
    return names


def array_name(role: str, value: int, labels: dict[int, str], bwd: int = 0) -> str:
    """The name of an array in its safetensors file."""
    if role == "gradient":
        return f"gradient.{value}.{bwd}"
    return labels.get(value, f"value.{value}") if role == "value" else f"{role}.{value}"


def ops_disagree(records: Records, structure: Structure, where: str) -> Iterator[TraceFileError]:
    """Where the ops are not what follows from the calls. The records have passed the rules."""
    nodes = len(structure.graph)
    if nodes != len(records.ops):
        yield GraphError(f"rule O3: there are {len(records.ops)}, and {nodes} follow from the calls.", f"{where} $.ops")
        return
    for index, (stated, found) in enumerate(zip(records.ops, describe_ops(structure, str), strict=True)):
        if stated != found:
            for name in OP_FIELDS:
                if getattr(stated, name) != getattr(found, name):
                    yield GraphError(
                        f"rule O3: it is {getattr(stated, name)!r}; {getattr(found, name)!r} follows from the calls.",
                        f"{where} $.ops[{index}].{name.rstrip('_')}",
                    )
