"""Which places of two runs belong together where their graphs differ: by module call, and in it by type and order.

- Module calls go together by address and number. A call that the other run lacks is no boundary: what ran in it counts
  with the call around it, so that ``relu(x)`` finds ``self.act(x)``, and a wrapper does no harm.
- Directly in one call, operations go together by type, in order: the longest common subsequence of their types, with
  the calls inside standing among them as landmarks. No two pairs of one call cross. Where the sequences differ, a pair
  counts if a neighbour confirms it: a parent or a child of both is a pair too, what only arranges an array looked
  through. So the ``reshape`` before one kind of attention is not taken for the one after another.
- Between frameworks, where one operation may be several in the other: the last ones of a call go together where one of
  the two ran nothing else in it.
- Inputs and outputs go together by name, and those that are left by order; buffers by address and version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .levels import ARRANGING, levelled
from .places import Place
from .subsequence import Pairs, common_subsequence

_LANDMARK = -1
_Sequence = tuple[list[str], list[int]]  # tokens, and the position of each place (landmarks have none)


def match(left: Sequence[Place], right: Sequence[Place], *, decomposed: bool = False) -> Pairs:
    """Positions of places that belong together. Swapped arguments give swapped pairs.

    Args:
        decomposed: whether one operation may be several on the other side.
    """
    calls = _calls(left) & _calls(right)
    certain: Pairs = []
    likely: Pairs = []
    lefts, rights = _by_call(left, calls), _by_call(right, calls)
    for call in lefts.keys() & rights.keys():
        (left_tokens, left_places), (right_tokens, right_places) = lefts[call], rights[call]
        common = common_subsequence(left_tokens, right_tokens)
        found = [(left_places[x], right_places[y]) for x, y in common if left_places[x] != _LANDMARK]
        (certain if left_tokens == right_tokens else likely).extend(found)
        if decomposed and call and not common and 1 in (len(left_places), len(right_places)):
            last = left_places[-1], right_places[-1]
            certain += [last] if _LANDMARK not in last else []
    for group in ("input", "output"):
        certain += _by_name_then_order(_named(left, group), _named(right, group))
    buffers = dict(_named(right, "buffer"))
    certain += [(place, buffers[name]) for name, place in _named(left, "buffer") if name in buffers]
    return sorted(certain + _confirmed(likely, certain, left, right))


def _confirmed(likely: Pairs, certain: Pairs, left: Sequence[Place], right: Sequence[Place]) -> Pairs:
    """The likely pairs of which a parent or a child is a pair too; those with no neighbours at all need none."""
    counterpart = dict(likely + certain)
    before_left = _before(left, set(counterpart))
    before_right = _before(right, set(counterpart.values()))
    confirmed: set[int] = set()  # on the left
    for child, other in counterpart.items():
        for parent in before_left[child]:
            if counterpart.get(parent) in before_right[other]:
                confirmed.update((child, parent))
    joined_left, joined_right = _with_neighbours(left), _with_neighbours(right)
    return [(x, y) for x, y in likely if x in confirmed or (x not in joined_left and y not in joined_right)]


def _before(places: Sequence[Place], paired: set[int]) -> list[set[int]]:
    """Of each place its parents, and the parents of those that only arrange an array and have no counterpart."""
    before: list[set[int]] = []
    for place in places:
        found = set(place.parents)
        for parent in place.parents:
            if parent not in paired and parent < len(before) and levelled(places[parent].token) in ARRANGING:
                found |= before[parent]
        before.append(found)
    return before


def _with_neighbours(places: Sequence[Place]) -> set[int]:
    return {n for child, place in enumerate(places) if place.parents for n in (child, *place.parents)}


def _calls(places: Iterable[Place]) -> set[str]:
    return {call for calls in {place.calls for place in places} for call in calls}


def _by_call(places: Sequence[Place], shared: set[str]) -> dict[str, _Sequence]:
    """Innermost shared call -> what ran directly in it, in order; ``''`` is the model's own call."""
    sequences: dict[str, _Sequence] = defaultdict(lambda: ([], []))
    innermost: dict[tuple[str, ...], str] = {}
    for position, place in enumerate(places):
        if place.group != "op":
            continue
        if place.calls not in innermost:
            kept = [call for call in place.calls if call in shared]
            innermost[place.calls] = kept[-1] if kept else ""
            for around, call in zip(["", *kept], kept, strict=False):
                tokens, positions = sequences[around]
                landmark = f"call of {call}"
                if landmark not in tokens[-1:]:
                    tokens.append(landmark)
                    positions.append(_LANDMARK)
        tokens, positions = sequences[innermost[place.calls]]
        tokens.append(place.token)
        positions.append(position)
    return sequences


def _named(places: Iterable[Place], group: str) -> list[tuple[str, int]]:
    return [(place.token, position) for position, place in enumerate(places) if place.group == group]


def _by_name_then_order(left: list[tuple[str, int]], right: list[tuple[str, int]]) -> Pairs:
    named = dict(right)
    pairs = [(place, named[name]) for name, place in left if name in named]
    lefts, rights = {x for x, _ in pairs}, {y for _, y in pairs}
    rest = zip((x for _, x in left if x not in lefts), (y for _, y in right if y not in rights), strict=False)
    return [*pairs, *rest]
