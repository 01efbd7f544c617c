"""Where the Ops of a trace stand in the program, in words that two traces of like models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from ..derived.graph import Kind
from ..errors import OptionError, nearest
from ..live_site import module_calls
from ..records.trace import Trace
from .levels import levelled, levelled_buffer

Rename = Callable[[str], str]
RenameSpec = Mapping[str, str] | Rename | Literal["auto"]
_GROUPS: dict[Kind, Literal["input", "buffer", "output"]] = {
    Kind.INPUT: "input",
    Kind.BUFFER: "buffer",
    Kind.OUTPUT: "output",
}


class Place(NamedTuple):
    """Where one Op stands.

    Attributes:
        group: what it is; only Ops of one group are aligned.
        calls: labels of the module calls around it, outermost first, under the names that the traces share.
        token: what it is called there: an operation's type, with the number of the output where it has several; of
            inputs, outputs and buffers the address.
        parents: positions of its parents in the list of places that it stands in.
    """

    group: Literal["input", "buffer", "output", "op"]
    calls: tuple[str, ...]
    token: str
    parents: tuple[int, ...]


def places(trace: Trace, rename: Rename, *, is_levelled: bool = False) -> dict[int, Place]:
    """Node -> place, in the order of the run, for all that lists show and for buffers.

    Args:
        is_levelled: whether words of frameworks for nearly the same operation are made one (:mod:`.levels`).
    """
    graph, labels, hidden = trace.graph, trace.labels, trace.structure.hidden
    around: dict[int, tuple[str, ...]] = {-1: ()}  # scope -> calls
    found: dict[int, Place] = {}
    position: dict[int, int] = {}
    for node, (kind, ref) in enumerate(zip(graph.kinds, graph.refs, strict=True)):
        if hidden[node]:
            continue
        position[node] = len(position)
        parents = tuple(position[parent] for parent in graph.parents_of(node) if parent in position)
        if kind in _GROUPS:
            found[node] = Place(_GROUPS[Kind(kind)], (), _address(trace, Kind(kind), ref, rename, is_levelled), parents)
            continue
        scope = trace.program.rows[ref].scope if kind == Kind.COMPUTE else None
        index = -1 if scope is None else scope.index
        if index not in around:
            around[index] = tuple(_renamed_call(label, rename) for label in module_calls(scope))
        output = graph.out_index[node]
        type_ = labels.types[labels.layer_of[node]]
        type_ = levelled(type_) if is_levelled else type_
        found[node] = Place("op", around[index], f"{type_}#{output}" if output else type_, parents)
    return found


def _address(trace: Trace, kind: Kind, ref: int, rename: Rename, is_levelled: bool) -> str:
    if kind == Kind.OUTPUT:
        return trace.program.outputs[ref].path
    source = trace.program.sources[ref]
    if kind != Kind.BUFFER:
        return source.address
    address = rename(source.address)
    return f"{levelled_buffer(address) if is_levelled else address} {source.version}"


def _renamed_call(label: str, rename: Rename) -> str:
    address, _, number = label.rpartition(":")
    return f"{rename(address)}:{number}"


def renaming(spec: Mapping[str, str] | Rename, trace: Trace) -> Rename:
    """The function that gives an address of a trace the name by which it is aligned.

    A mapping is of beginnings: ``{'encoder': 'enc', 'model': ''}`` makes ``enc.0`` of ``encoder.0`` and ``fc`` of
    ``model.fc``, and ``{'': 'model'}`` makes ``model.fc`` of ``fc``; the longest that fits counts.

    Raises:
        OptionError: no address of the trace begins so.
    """
    if not isinstance(spec, Mapping):
        return spec
    known = trace.modules.addresses()
    for old in spec:
        if not any(begins(address, old) for address in known):
            raise OptionError(f"No module of {trace.model_name} is called {old!r}.{nearest(old, known)}")
    return ByBeginning(spec)


class ByBeginning:
    """Turns addresses that begin so into others."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = sorted(names.items(), key=lambda item: -len(item[0]))

    def __call__(self, address: str) -> str:
        """The other address; the same where none of the beginnings fits."""
        for old, new in self._names:
            if begins(address, old):
                return ".".join(filter(None, (new, address[len(old) :].strip("."))))
        return address


def begins(address: str, beginning: str) -> bool:
    """Whether a module or state of this address is in the module of that one, or is it; all are in ``''``."""
    return not beginning or address == beginning or address.startswith(f"{beginning}.")
