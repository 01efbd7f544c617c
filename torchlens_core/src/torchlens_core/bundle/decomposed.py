"""Operations that are one in one framework and several in another: their results are the same array.

``softmax`` here may be ``exp``, ``sum`` and ``div`` there. Between two sites that both traces have, an operation that
one alone ran belongs to the last one that the other alone ran and that made the same numbers; and what both ran once
there belongs together whatever numbers it made.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from ..derived.graph import Kind
from ..records.op import Op
from ..records.trace import Trace
from .alignment import Alignment
from .axes import as_they_are, reordered
from .levels import ARRANGING, levelled
from .subsequence import common_subsequence
from .tolerance import tolerance
from .values import value_of

_LARGEST_GAP = 64  # operations without counterpart that are compared with each other


def join_by_value(alignment: Alignment, traces: Sequence[Trace], reference: int) -> Alignment:
    """The alignment with the sites of operations that made the same numbers made one.

    Args:
        reference: position of the trace whose operations get counterparts, in those of other frameworks.
    """
    for graph in dict.fromkeys(alignment.graph_of):
        if traces[graph].backend_name != traces[reference].backend_name:
            for find in (_made_the_same, _named_once):
                joined = list(find(alignment, traces, reference, graph))
                alignment = _with(alignment, joined, reference, graph)
    return alignment


def part_unlike(alignment: Alignment, traces: Sequence[Trace], reference: int) -> Alignment:
    """The alignment without pairs of operations that were taken for one by their type alone.

    Between frameworks, in modules of other addresses: they made arrays of other sizes, and what follows has the same
    sizes again. One projection of queries, keys and values is not that of the queries.
    """
    for graph in dict.fromkeys(alignment.graph_of):
        if traces[graph].backend_name != traces[reference].backend_name:
            unlike = list(_unlike(alignment, traces, reference, graph))
            alignment = _parted(alignment, unlike, graph)
    return alignment


def _unlike(alignment: Alignment, traces: Sequence[Trace], reference: int, other: int) -> Iterator[int]:
    left, right = traces[reference], traces[other]
    pairs = {a: b for a, b in zip(alignment.nodes[reference], alignment.nodes[other], strict=True) if min(a, b) >= 0}
    sizes = {a: (prod(Op(left, a).shape), prod(Op(right, b).shape)) for a, b in pairs.items()}
    for site, (a, b) in enumerate(zip(alignment.nodes[reference], alignment.nodes[other], strict=True)):
        if min(a, b) < 0 or left.graph.kinds[a] != Kind.COMPUTE or len(set(sizes[a])) == 1:
            continue
        modules = Op(left, a).module, Op(right, b).module
        behind = _behind(left, a, pairs)
        if modules[0] != modules[1] and behind and all(len(set(sizes[node])) == 1 for node in behind):
            yield site


def _behind(trace: Trace, start: int, shared: Mapping[int, int]) -> set[int]:
    """The nearest nodes with a counterpart that come from a node."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [start]
    while waiting and len(seen) < _LARGEST_GAP:
        for node in trace.graph.children_of(waiting.pop()):
            if node in shared:
                found.add(node)
            elif node not in seen:
                seen.add(node)
                waiting.append(node)
    return found


def _parted(alignment: Alignment, sites: Sequence[int], graph: int) -> Alignment:
    """The alignment with the node of some traces at sites at ones of its own, behind them."""
    if not sites:
        return alignment
    parted = set(sites)
    columns: list[array[int]] = []
    for column, of in zip(alignment.nodes, alignment.graph_of, strict=True):
        made = array("q")
        for site, node in enumerate(column):
            if site in parted:
                made.extend((-1, node) if of == graph else (node, -1))
            else:
                made.append(node)
        columns.append(made)
    return Alignment(tuple(columns), alignment.graph_of)


def _made_the_same(
    alignment: Alignment, traces: Sequence[Trace], reference: int, other: int
) -> Iterator[tuple[int, int]]:
    """Sites of the reference alone, and those of the other alone that they are one with."""
    for lefts, rights in _gaps(alignment.nodes[reference], alignment.nodes[other]):
        free = _of_operations(traces[other], alignment.nodes[other], rights)
        for left in _of_operations(traces[reference], alignment.nodes[reference], lefts):
            op = Op(traces[reference], alignment.nodes[reference][left])
            same = [right for right in free if _are_the_same(op, Op(traces[other], alignment.nodes[other][right]))]
            if same:
                yield left, same[-1]
                free = free[free.index(same[-1]) + 1 :]


def _named_once(alignment: Alignment, traces: Sequence[Trace], reference: int, other: int) -> Iterator[tuple[int, int]]:
    """The same between two sites that both have, of operations whose type each of the two ran once there."""
    for gap in _gaps(alignment.nodes[reference], alignment.nodes[other]):
        found: list[dict[str, list[int]]] = []
        for trace, sites in zip((reference, other), gap, strict=True):
            by_type: dict[str, list[int]] = {}
            for site in _of_operations(traces[trace], alignment.nodes[trace], sites):
                by_type.setdefault(levelled(Op(traces[trace], alignment.nodes[trace][site]).type), []).append(site)
            found.append({type_: sites for type_, sites in by_type.items() if len(sites) == 1})
        left, right = found
        for x, y in common_subsequence(list(left), list(right)):
            yield list(left.values())[x][0], list(right.values())[y][0]


def _gaps(left: Sequence[int], right: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The sites that one alone has, behind the same site that both have, in the order of the runs."""
    lefts, rights = _by_last_shared(left, right), _by_last_shared(right, left)
    for before, sites in lefts.items():
        others = rights.get(before, [])
        if others and len(sites) + len(others) <= _LARGEST_GAP:
            yield sites, others


def _by_last_shared(own: Sequence[int], other: Sequence[int]) -> dict[int, list[int]]:
    """Site that both have (-1: the beginning) -> the sites behind it that the other lacks."""
    found: dict[int, list[int]] = {}
    last = -1
    for site in sorted((site for site, node in enumerate(own) if node >= 0), key=own.__getitem__):
        if other[site] >= 0:
            last = site
        else:
            found.setdefault(last, []).append(site)
    return found


def _of_operations(trace: Trace, nodes: Sequence[int], sites: Sequence[int]) -> list[int]:
    """Those of sites that are operations which make other numbers than they take."""
    kinds, labels = trace.graph.kinds, trace.labels
    computed = [site for site in sites if kinds[nodes[site]] == Kind.COMPUTE]
    return [site for site in computed if levelled(labels.types[labels.layer_of[nodes[site]]]) not in ARRANGING]


def _are_the_same(left: Op, right: Op) -> bool:
    a, b = value_of(left, "").array, value_of(right, "").array
    if a is None or b is None or a.dtype.kind in "biu":
        return False
    same = as_they_are(a.shape, b.shape)
    for axes in [same] if same is not None else reordered(a.shape, b.shape):
        moved = axes.apply(b)
        if a.size > 1 and tolerance(a, moved).allows(a, moved):
            return True
    return False


def _with(alignment: Alignment, joined: Sequence[tuple[int, int]], reference: int, graph: int) -> Alignment:
    if not joined:
        return alignment
    columns = [array("q", column) for column in alignment.nodes]
    for left, right in joined:
        for column, of in zip(columns, alignment.graph_of, strict=True):
            if of == graph:
                column[left], column[right] = column[right], -1
    order = _in_run_order(columns, reference)
    return Alignment(tuple(array("q", (column[n] for n in order)) for column in columns), alignment.graph_of)


def _in_run_order(columns: Sequence[Sequence[int]], reference: int) -> list[int]:
    """The sites in the order of the reference's run; what it lacks behind what ran before it elsewhere."""
    following: dict[int, list[int]] = {}
    placed: set[int] = set()
    for column in columns:
        for before, sites in _by_last_shared(column, columns[reference]).items():
            following.setdefault(before, []).extend(site for site in sites if site not in placed)
            placed.update(sites)
    shared = (site for site, node in enumerate(columns[reference]) if node >= 0)
    return [site for before in (-1, *shared) for site in ([before] if before >= 0 else []) + following.get(before, [])]
