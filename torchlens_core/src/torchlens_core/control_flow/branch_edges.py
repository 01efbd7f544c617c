"""The edges at which flow turns to a predicate (IF), and those by which it enters an arm (THEN, ELIF, ELSE, body)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

Edge = tuple[int, int]  # (parent, child), indices of Ops
Stay = tuple[int, str, int]  # in an arm: conditional, name of the arm, number of the execution


def branch_edges(
    parents: Sequence[Sequence[int]], sources: Collection[int], predicates: Mapping[int, Collection[int]]
) -> dict[Edge, tuple[int, ...]]:
    """The edges from the flow to the first Op that serves predicates alone, each with the conditionals it decides.

    ``predicates`` gives for each Op that was asked the conditionals that asked. An Op serves predicates alone when all
    that was made from it ends in predicates; ``sources`` (inputs, buffers) are flow whatever they serve. Where
    something else uses a predicate too, there is no such Op, and the edges into the predicate itself are taken.
    """
    users = [0] * len(parents)  # children that may still serve something else
    for own in parents:
        for parent in set(own):
            users[parent] += 1
    decides: dict[int, set[int]] = defaultdict(set)  # final once all children are known to serve predicates alone
    for op, conditionals in predicates.items():
        decides[op].update(conditionals)
    alone: set[int] = set()
    todo = [op for op in predicates if not users[op] and op not in sources]
    while todo:
        op = todo.pop()
        alone.add(op)
        for parent in set(parents[op]):
            decides[parent] |= decides[op]
            users[parent] -= 1
            if not users[parent] and parent not in sources:
                todo.append(parent)
    turned_to = alone.union(op for op in predicates if op not in sources)
    return {
        (parent, op): tuple(sorted(decides[op] if op in alone else predicates[op]))
        for op in sorted(turned_to)
        for parent in parents[op]
        if parent not in alone
    }


def arm_entry_edges(
    parents: Sequence[Sequence[int]], stays: Mapping[int, Sequence[Stay]]
) -> dict[tuple[int, str], tuple[Edge, ...]]:
    """For each arm the edges to its Ops from what ran outside that execution of it, in the order of the Ops."""
    entries: dict[tuple[int, str], dict[Edge, None]] = defaultdict(dict)
    for op, inside in stays.items():
        for stay in inside:
            edges = entries[stay[:2]]
            for parent in parents[op]:
                if stay not in stays.get(parent, ()):
                    edges[parent, op] = None
    return {arm: tuple(edges) for arm, edges in entries.items()}
