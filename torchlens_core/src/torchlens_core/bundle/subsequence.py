"""The longest common subsequence of two sequences, in time that stays linear for sequences that have little in common.

The greedy algorithm of E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", Algorithmica 1 (1986), in runs
of at most ``MAX_EDITS`` edits: after each, what gets furthest is kept. So of sequences that differ in more places than
that the result is a common subsequence, and perhaps not the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_EDITS: Final = 200

Pairs = list[tuple[int, int]]


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> Pairs:
    """Positions of items that the two have in common, rising on both sides; swapped arguments give swapped pairs.

    >>> common_subsequence(["linear", "relu", "linear"], ["linear", "linear"])
    [(0, 0), (2, 1)]
    """
    if (len(right), right) < (len(left), left):  # of several longest ones the same is found whichever comes first
        return [(x, y) for y, x in common_subsequence(right, left)]
    start, shortest = 0, min(len(left), len(right))
    while start < shortest and left[start] == right[start]:
        start += 1
    end = 0
    while end < shortest - start and left[-1 - end] == right[-1 - end]:
        end += 1
    pairs = [(n, n) for n in range(start)]
    pairs += _between(left, right, start, len(left) - end, len(right) - end)
    return pairs + [(len(left) - n, len(right) - n) for n in range(end, 0, -1)]


def _between(left: Sequence[str], right: Sequence[str], start: int, left_end: int, right_end: int) -> Pairs:
    """The pairs between a common beginning and a common end."""
    pairs: Pairs = []
    x = y = start
    while x < left_end and y < right_end:
        steps, (dx, dy) = _run(left[x:left_end], right[y:right_end])
        pairs += [(x + dx_, y + dy_) for dx_, dy_ in steps]
        x, y = x + dx, y + dy
    return pairs


def _run(left: Sequence[str], right: Sequence[str]) -> tuple[Pairs, tuple[int, int]]:
    """The pairs along the path that gets furthest with at most ``MAX_EDITS`` edits, and where it ends.

    ``reach[k]`` is how many items of ``left`` the furthest path on diagonal ``k`` has taken; of ``right`` it has taken
    ``k`` fewer.
    """
    width, height = len(left), len(right)
    reach = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(MAX_EDITS + 1):
        history.append(reach)
        reach = {}
        for k in range(-edits, edits + 1, 2):
            x = _first(history[-1], k)
            y = x - k
            if x < 0 or x > width or y < 0 or y > height:
                continue
            while x < width and y < height and left[x] == right[y]:
                x, y = x + 1, y + 1
            reach[k] = x
            if x == width and y == height:
                return _walk_back(history, x, y), (x, y)
    k, x = max(reach.items(), key=lambda item: 2 * item[1] - item[0])
    return _walk_back(history, x, x - k), (x, x - k)


def _first(before: dict[int, int], k: int) -> int:
    """Where diagonal ``k`` is entered: down from the diagonal above it, or to the right from the one below."""
    down, right = before.get(k + 1, -1), before.get(k - 1, -2) + 1
    return max(down, right)


def _walk_back(history: list[dict[int, int]], x: int, y: int) -> Pairs:
    pairs: Pairs = []
    for before in reversed(history):
        k = x - y
        entered = _first(before, k)
        while x > entered:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        if before.get(k + 1, -1) == entered:
            y -= 1
        else:
            x -= 1
    pairs.reverse()
    return pairs
