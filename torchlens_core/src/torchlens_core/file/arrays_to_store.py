"""What of a trace becomes arrays in a file, what becomes a number, and what cannot be stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import NotSupported, SaveError, ValueOverwritten
from ..records.trace import Trace
from .arguments import Encoder
from .schema import Fidelity, NotStored, NumberRecord, Role
from .storage import STORAGE, Array


@dataclass(frozen=True, slots=True)
class Item:
    """One array that a trace holds, before it is looked at."""

    role: Role
    value: int
    nbytes: int  # by shape and dtype; what a transform made of it may take more or less


@dataclass(frozen=True, slots=True)
class Ready:
    """An array to be written."""

    item: Item
    array: Array
    fidelity: Fidelity


def items(trace: Trace) -> Iterator[Item]:
    """Everything that is kept: values first, then constants."""
    yield from (Item("value", vid, trace.nbytes(vid)) for vid in sorted(trace.values))
    yield from (Item("constant", vid, trace.nbytes(vid)) for vid in sorted(trace.program.constants))


def groups(trace: Trace, max_bytes: int | None) -> Iterator[list[Item]]:
    """The items, so many together as ``max_bytes`` holds, and at least one."""
    group: list[Item] = []
    total = 0
    for item in items(trace):
        if group and max_bytes is not None and total + item.nbytes > max_bytes:
            yield group
            group, total = [], 0
        group.append(item)
        total += item.nbytes
    if group:
        yield group


def value_labels(trace: Trace) -> dict[int, str]:
    """Value id -> label of the first op that has it."""
    labels: dict[int, str] = {}
    for node, vid in enumerate(trace.graph.vids):
        if vid not in labels:
            labels[vid] = trace.labels.op(node)
    return labels


def make_ready(trace: Trace, item: Item, name: str) -> Ready | NumberRecord | NotStored:
    """The array of an item; the number where a transform made one of it; why not, where it cannot be stored.

    Args:
        trace: that holds it.
        item: what to make ready.
        name: of the array in the file.

    Raises:
        SaveError: something has overwritten the array since the run, or a transform made of it what no file holds.
    """
    try:
        found = _numpy(trace, item)
    except ValueOverwritten as error:
        raise SaveError(f"The value of {name} has been overwritten since the run.", advice=str(error)) from error
    except (NotSupported, TypeError, RuntimeError) as error:
        return NotStored(name=name, value=item.value, why=str(error).split("\n")[0][:500])
    if not isinstance(found, np.ndarray):
        return _number(item, found, name)
    if found.dtype.name not in STORAGE:
        why = f"elements of type {found.dtype} have no place in a trace file"
        return NotStored(name=name, value=item.value, why=why)
    return Ready(item, found, _fidelity(trace, item, found))


def _numpy(trace: Trace, item: Item) -> Any:
    if item.role == "value":
        return trace.values.numpy(item.value)
    constant = trace.program.constants[item.value]
    return constant if trace.backend is None else trace.backend.arrays.to_numpy(constant)


def _fidelity(trace: Trace, item: Item, array: Array) -> Fidelity:
    if item.role == "value" and trace.values.is_transformed(item.value):
        return "transformed"
    return "own" if array.dtype.name == trace.dtype_name(trace.program.metas[item.value].dtype) else "converted"


def _number(item: Item, value: Any, name: str) -> NumberRecord:
    encoder = Encoder(lambda value: None)
    number = encoder.encode(value)
    if encoder.opaque:
        raise SaveError(
            f"A transform made {encoder.opaque[0]} of the value of {name}; a trace file holds arrays and numbers.",
            advice="Let the transform return an array or numbers, or save with include_values=False.",
        )
    return NumberRecord(value=item.value, number=number)
