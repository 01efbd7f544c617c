"""Edges of a scene: links between Ops, joined between the nodes that stand for them, with what is written on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..derived.graph import Kind
from ..program import hole_paths
from ..show.untrusted import visible
from ..vocabulary import COMMUTATIVE
from .choice import Link
from .scene import Edge

if TYPE_CHECKING:
    from ..records.trace import Trace


class End(NamedTuple):
    """What a node of the scene is to one Op that it stands for."""

    id: str
    number: int  # pass of the layer, call of the module
    is_module: bool
    run: int  # the collapsed module call that the Op is part of; -1 for an Op that has a node of its own


class _Bundle:
    """The links that one edge stands for."""

    __slots__ = ("heads", "links", "tails")

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.tails: set[int] = set()
        self.heads: set[int] = set()


def join(
    trace: Trace, links: Iterable[Link], end_of: Callable[[int], End], passes: Mapping[str, set[int]]
) -> list[Edge]:
    """The edges of a scene.

    Between two Ops (or layers) there is one edge for each argument that the array fills; to and from a collapsed module
    there is one in all. What stays inside one call of a collapsed module shows no edge.

    Args:
        end_of: raw index of an Op -> the node that stands for it.
        passes: id of a node of the scene -> all passes (module calls) that it stands for.
    """
    bundles: dict[tuple[str, str, int, bool], _Bundle] = {}
    inputs: dict[str, set[int]] = {}  # node -> the arguments that edges lead to
    for link in links:
        tail, head = end_of(link.parent), end_of(link.child)
        if tail.run >= 0 and tail.run == head.run:
            continue
        hole = -1 if head.is_module else link.hole
        bundle = bundles.setdefault((tail.id, head.id, hole, link.is_write), _Bundle())
        bundle.links.append(link)
        bundle.tails.add(tail.number)
        bundle.heads.add(head.number)
        inputs.setdefault(head.id, set()).add(hole)
    marks = _marks(trace)
    from_input = trace.graph.from_input
    edges = []
    for (tail_id, head_id, hole, is_write), bundle in bundles.items():
        first = bundle.links[0]
        several = len(inputs[head_id]) > 1 and hole >= 0
        edges.append(
            Edge(
                tail_id,
                head_id,
                argument=_argument(trace, first) if several else "",
                mark=_common_mark(marks, bundle.links) if marks else "",
                head_passes=_pass_text(bundle.heads, passes[head_id]),
                tail_passes=_pass_text(bundle.tails, passes[tail_id]),
                from_input=any(from_input[link.parent] for link in bundle.links),
                is_write=is_write,
            )
        )
    return edges


# -- names of arguments ------------------------------------------------------------------------------------------------


def _argument(trace: Trace, link: Link) -> str:
    graph = trace.graph
    if graph.kinds[link.child] != Kind.COMPUTE:
        return ""
    row = trace.program.rows[graph.refs[link.child]]
    return "" if row.func.type in COMMUTATIVE else visible(argument_names(trace, graph.refs[link.child])[link.hole], 40)


def argument_names(trace: Trace, row_index: int) -> list[str]:
    """What each array argument of a call is called: ``query``, ``tensors[1]``, ``arg 2`` where it has no name."""
    row = trace.program.rows[row_index]
    paths = hole_paths(row._replace(args=(), kwargs=trace.settings(row_index)))
    if len(paths) != len(row.ins):  # the backend cannot name them
        paths = hole_paths(row)
    return [_path_text(path) for path in paths]


def _path_text(path: tuple[object, ...]) -> str:
    first, *rest = path
    name = f"arg {first}" if isinstance(first, int) else str(first).replace("arg_", "arg ")
    return name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)


# -- conditionals ------------------------------------------------------------------------------------------------------

_QUESTIONS = {"while": "WHILE", "assert": "ASSERT"}


def _marks(trace: Trace) -> dict[tuple[int, int], tuple[str, ...]]:
    """(parent, child) -> what a conditional makes of the edge: ``IF`` towards what it asks, ``THEN`` into an arm."""
    if not trace.program.events:
        return {}
    flow = trace.conditionals
    marks: dict[tuple[int, int], tuple[str, ...]] = {}
    for step, ids in flow.branch_edges.items():
        asked = (_QUESTIONS.get(flow.conditionals[number].kind, "IF") for number in ids)
        marks[step] = tuple(dict.fromkeys(asked))
    for (_, arm), steps in sorted(flow.arm_entry_edges.items()):
        for step in steps:
            marks[step] = (*marks.get(step, ()), arm.replace("_", " ").upper())
    return marks


def _common_mark(marks: Mapping[tuple[int, int], tuple[str, ...]], links: list[Link]) -> str:
    """What is marked on every one of the links."""
    common = [mark for mark in marks.get(links[0].step, ()) if all(mark in marks.get(link.step, ()) for link in links)]
    return " · ".join(dict.fromkeys(common))


# -- passes ------------------------------------------------------------------------------------------------------------


def _pass_text(some: set[int], all_: set[int]) -> str:
    return "" if some == all_ else ranges(some)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them.

    >>> ranges({1, 3, 4, 5, 8})
    '1, 3-5, 8'
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
