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
    bwd: int = 0  # of a gradient: number of the backward pass


@dataclass(frozen=True, slots=True)
class Ready:
    """An array to be written."""

    item: Item
    array: Array
    fidelity: Fidelity


def items(trace: Trace) -> Iterator[Item]:
    """Everything that is kept: values, constants, what values were before interventions, gradients by pass."""
    yield from (Item("value", vid, trace.nbytes(vid)) for vid in sorted(trace.values))
    yield from (Item("constant", vid, trace.nbytes(vid)) for vid in sorted(trace.program.constants))
    yield from (Item("clean", vid, trace.nbytes(vid)) for vid in sorted(trace.values.clean_ids()))
    for done in trace.gradient_store.passes if trace.gradient_store is not None else ():
        yield from (Item("gradient", vid, trace.nbytes(vid), done.index) for vid in sorted(done))


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
    if item.role == "gradient" and not isinstance(found, np.ndarray):
        why = f"a transform made a {type(found).__name__} of it, and a trace file holds gradients as arrays"
        return NotStored(name=name, value=item.value, why=why)
    if not isinstance(found, np.ndarray):
        return number_record(item.value, found, name)
    if found.dtype.name not in STORAGE:
        why = f"elements of type {found.dtype} have no place in a trace file"
        return NotStored(name=name, value=item.value, why=why)
    return Ready(item, found, _fidelity(trace, item, found))


def _numpy(trace: Trace, item: Item) -> Any:
    if item.role == "value":
        return trace.values.numpy(item.value)
    if item.role == "gradient":
        return _gradient(trace, item)
    array = trace.values.clean(item.value) if item.role == "clean" else trace.program.constants[item.value]
    return array if trace.backend is None else trace.backend.arrays.to_numpy(array)


def _gradient(trace: Trace, item: Item) -> Any:
    store, backend = trace.gradient_store, trace.backend
    assert store is not None
    array = store.get(item.value, store.passes[item.bwd - 1])
    if backend is None or not backend.arrays.is_array(array):
        return array
    return backend.arrays.to_numpy(backend.arrays.detach(array))


def _fidelity(trace: Trace, item: Item, array: Array) -> Fidelity:
    if item.role == "value" and trace.values.is_transformed(item.value):
        return "transformed"
    store = trace.gradient_store
    if item.role == "gradient" and store is not None and item.value in store.passes[item.bwd - 1].results:
        return "transformed"
    return "own" if array.dtype.name == trace.dtype_name(trace.program.metas[item.value].dtype) else "converted"


def number_record(vid: int, value: Any, name: str) -> NumberRecord:
    """The record of what a transform made of a value.

    Raises:
        SaveError: it is nothing that a file can hold.
    """
    encoder = Encoder(lambda value: None)
    number = encoder.encode(value)
    if encoder.opaque:
        raise SaveError(
            f"A transform made {encoder.opaque[0]} of the value of {name}; a trace file holds arrays and numbers.",
            advice="Let the transform return an array or numbers, or save with include_values=False.",
        )
    return NumberRecord(value=vid, number=number)
