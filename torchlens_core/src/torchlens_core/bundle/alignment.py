"""Which Ops of several traces belong together: node by node where the graphs are one, by :mod:`.matching` elsewhere."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..records.op import Op
from ..records.trace import Trace
from .matching import match
from .places import Place, Rename, places
from .subsequence import Pairs

_NONE = -1


@dataclass(frozen=True)
class Alignment:
    """The sites of several traces.

    Attributes:
        nodes: of each trace, its node at each site; -1 where it has none.
        graph_of: of each trace, the position of one that stands for all with the same graph.
    """

    nodes: tuple[array[int], ...]
    graph_of: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.nodes[0])

    @cached_property
    def site_of(self) -> tuple[dict[int, int], ...]:
        """Of each trace, the site of each node that lists show, and of buffers."""
        return tuple({node: site for site, node in enumerate(column) if node != _NONE} for column in self.nodes)


def align(traces: Sequence[Trace], reference: int = 0, renames: Mapping[int, Rename] | None = None) -> Alignment:
    """Align traces.

    Args:
        traces: at least one.
        reference: position of the trace that gives the order; what it lacks follows what ran before it elsewhere.
        renames: position of a trace -> what makes of its module addresses those of the reference.
    """
    graph_of: dict[int, int] = {}
    for position in dict.fromkeys((reference, *range(len(traces)))):
        seen = dict.fromkeys(graph_of.values())
        graph_of[position] = next((p for p in seen if is_same_graph(traces[p], traces[position])), position)
    is_levelled = len({trace.backend_name for trace in traces}) > 1
    merged = _Merged(is_levelled)
    for position in dict.fromkeys(graph_of.values()):
        merged.add(position, places(traces[position], (renames or {}).get(position, str), is_levelled=is_levelled))
    first = tuple(graph_of[position] for position in range(len(traces)))
    return Alignment(tuple(merged.columns[position] for position in first), first)


class _Merged:
    """The sites of the traces added so far, each with the place that it has in the first trace that has it."""

    def __init__(self, is_levelled: bool) -> None:
        self._is_levelled = is_levelled
        self.places: list[Place] = []
        self.columns: dict[int, array[int]] = {}  # trace -> its node at each site

    def add(self, trace: int, found: Mapping[int, Place]) -> None:
        """Match the places of one more trace with the sites, and put what has no counterpart between them."""
        nodes, places = list(found), list(found.values())
        pairs = match(self.places, places, decomposed=self._is_levelled) if self.places else []
        order = _merged_order(len(self.places), len(places), pairs)
        self.columns = {
            other: array("q", (column[site] if site >= 0 else _NONE for site, _ in order))
            for other, column in self.columns.items()
        }
        self.columns[trace] = array("q", (nodes[position] if position >= 0 else _NONE for _, position in order))
        old, new = ({pair[side]: n for n, pair in enumerate(order)} for side in (0, 1))
        self.places = [
            _moved(self.places[site], old) if site >= 0 else _moved(places[position], new) for site, position in order
        ]


def _merged_order(num_sites: int, num_places: int, pairs: Pairs) -> list[tuple[int, int]]:
    """(old site, position) of each site that there will be, -1 where there is none.

    A place without a site is put behind what comes before it.
    """
    site_of = {position: site for site, position in pairs}
    position_at = dict(pairs)
    following: dict[int, list[int]] = {}  # site (-1: the beginning) -> positions of what is put behind it
    last = _NONE
    for position in range(num_places):
        if position in site_of:
            last = site_of[position]
        else:
            following.setdefault(last, []).append(position)
    order = [(_NONE, position) for position in following.get(_NONE, ())]
    for site in range(num_sites):
        order.append((site, position_at.get(site, _NONE)))
        order += [(_NONE, position) for position in following.get(site, ())]
    return order


def _moved(place: Place, to: Mapping[int, int]) -> Place:
    return place._replace(parents=tuple(to[parent] for parent in place.parents))


# -- graphs ------------------------------------------------------------------------------------------------------------


def is_same_graph(left: Trace, right: Trace) -> bool:
    """Whether the traces have the same Ops in the same order, under the same labels, with the same parents."""
    if left is right:
        return True
    a, b = left.graph, right.graph
    return (
        a.kinds == b.kinds
        and a.parent_start == b.parent_start
        and a.edges[0] == b.edges[0]
        and a.out_index == b.out_index
        and left.labels.types == right.labels.types
        and left.labels.layer_of == right.labels.layer_of
        and left.structure.hidden == right.structure.hidden
    )


def where_graphs_part(left: Trace, right: Trace) -> tuple[Op | None, Op | None] | None:
    """The first Ops, in the order of the runs, at which two graphs differ; None on the side that has ended before.

    None altogether where the graphs are the same.
    """
    if is_same_graph(left, right):
        return None
    lefts, rights = ([node for node, hides in enumerate(t.structure.hidden) if not hides] for t in (left, right))
    for a, b in zip(lefts, rights, strict=False):
        if _described(left, a) != _described(right, b):
            return Op(left, a), Op(right, b)
    shorter = min(len(lefts), len(rights))
    if len(lefts) == len(rights):
        return None  # they differ in what nobody is shown
    return (
        Op(left, lefts[shorter]) if shorter < len(lefts) else None,
        Op(right, rights[shorter]) if shorter < len(rights) else None,
    )


def _described(trace: Trace, node: int) -> tuple[str, int, list[str]]:
    labels = trace.labels
    return labels.op(node), trace.graph.out_index[node], [labels.op(n) for n in trace.graph.parents_of(node)]
