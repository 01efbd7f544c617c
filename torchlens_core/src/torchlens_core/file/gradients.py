"""Backward passes and the gradient graph: to records of a file, and from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..gradients.store import GradientStore, Pass
from ..gradients.tape import GradientMeta, TapeCall, TapeNode
from ..plan import PLAIN
from . import schema
from .values import Convert, StoredArrays

if TYPE_CHECKING:
    from ..records.trace import Trace
    from .shard_file import ShardFile


def encode_gradients(trace: Trace) -> schema.GradientsRecord | None:
    """What a trace knows of its backward passes; None where no gradient was asked for."""
    store = trace.gradient_store
    if store is None:
        return None
    return schema.GradientsRecord(
        watched=tuple(sorted(store.keeps)),
        passes=tuple(map(_pass, store.passes)),
        grad_fns=tuple(map(_grad_fn, store.nodes)),
    )


def _pass(done: Pass) -> schema.BackwardPassRecord:
    return schema.BackwardPassRecord(
        loss=done.loss,
        order=done.order,
        recorded=done.was_recorded,
        duration_ns=done.duration_ns,
        grad_fns=done.nodes,
        calls=tuple(
            schema.GradFnCallRecord(
                grad_fn=call.node,
                grad_outputs=_metas(call.grad_outputs),
                grad_inputs=_metas(call.grad_inputs),
                duration_ns=call.duration_ns,
            )
            for call in done.calls
        ),
    )


def _metas(metas: Iterable[GradientMeta | None]) -> tuple[tuple[tuple[int, ...], str] | None, ...]:
    return tuple(None if meta is None else (meta.shape, meta.dtype) for meta in metas)


def _grad_fn(node: TapeNode) -> schema.GradFnRecord:
    return schema.GradFnRecord(
        name=node.name,
        type=node.type,
        custom=node.is_custom,
        values=node.vids,
        pairing=node.pairing,
        leaf=node.leaf,
        next=node.next,
        order=node.order,
        origin=node.origin,
    )


def decode_gradients(
    record: schema.GradientsRecord | None,
    placed: Sequence[tuple[schema.ArrayRecord, int]],
    shards: Sequence[ShardFile],
    convert: Convert | None,
) -> LoadedGradients | None:
    """The gradients of a loaded trace; their arrays are read when they are asked for."""
    if record is None:
        return None
    arrays: list[list[tuple[schema.ArrayRecord, int]]] = [[] for _ in record.passes]
    for array, begin in placed:
        if array.role == "gradient" and 1 <= array.bwd <= len(arrays):
            arrays[array.bwd - 1].append((array, begin))
    passes = []
    for index, (each, found) in enumerate(zip(record.passes, arrays, strict=True), start=1):
        own = [item for item in found if item[0].fidelity != "transformed"]
        results = [item for item in found if item[0].fidelity == "transformed"]
        passes.append(
            Pass(
                index,
                held=cast("MutableMapping[int, Any]", StoredArrays(own, shards, convert)),  # nobody adds to it
                results=cast("MutableMapping[int, Any]", StoredArrays(results, shards, convert)),
                loss=each.loss,
                order=each.order,
                was_recorded=each.recorded,
                duration_ns=each.duration_ns,
                nodes=each.grad_fns,
                calls=[
                    TapeCall(call.grad_fn, _read(call.grad_outputs), _read(call.grad_inputs), call.duration_ns)
                    for call in each.calls
                ],
            )
        )
    nodes = [
        TapeNode(
            node.name, node.type, node.custom, node.values, node.pairing, node.leaf, node.next, node.order, node.origin
        )
        for node in record.grad_fns
    ]
    return LoadedGradients(record.watched, passes, nodes)


def _read(metas: Iterable[tuple[tuple[int, ...], str] | None]) -> tuple[GradientMeta | None, ...]:
    return tuple(None if meta is None else GradientMeta(*meta) for meta in metas)


class LoadedGradients(GradientStore):
    """The gradients in a file. No more arrive."""

    def __init__(self, watched: Iterable[int], passes: list[Pass], nodes: list[TapeNode]) -> None:
        super().__init__(None)
        self.keeps = dict.fromkeys(watched, PLAIN)
        self.passes = passes
        self.nodes = nodes

    def get(self, vid: int, found: Pass) -> Any:
        """A gradient of a pass."""
        return found.held[vid] if vid in found.held else found.results[vid]


def gradient_breaches(records: schema.Records) -> Iterator[tuple[str, str]]:
    """Rule G1: where backward passes and the gradient graph refer to what there is not."""
    record = records.gradients
    if record is None:
        return
    number, values = len(record.grad_fns), len(records.values)
    referring: list[tuple[str, str, Iterable[int], int]] = [("$.gradients.watched", "value", record.watched, values)]
    for index, each in enumerate(record.passes):
        path = f"$.gradients.passes[{index}]"
        referring.append((path, "grad_fn", (*each.grad_fns, *(call.grad_fn for call in each.calls)), number))
    for index, node in enumerate(record.grad_fns):
        path = f"$.gradients.grad_fns[{index}]"
        referring += [(path, "value", (*node.values, node.leaf), values), (path, "grad_fn", node.next, number)]
        referring.append((path, "backward pass", (node.origin - 1,), len(record.passes)))
    for path, what, positions, there in referring:
        for position in positions:
            if position >= there:
                yield path, f"it names {what} {position}, and there are {there}"
