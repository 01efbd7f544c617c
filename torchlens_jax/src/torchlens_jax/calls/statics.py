"""Values that are no arrays, as part of a key: mostly the same objects, call after call."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import is_
from typing import Any

from .freezing import Freezer


class Statics:
    """Values that are no arrays. Equal where they are the same objects, or are frozen to equal keys.

    Objects that are the same need no further look: what they hold is watched.
    """

    __slots__ = ("_frozen", "pinned", "values")

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = list(values)
        self._frozen: Hashable = None
        self.pinned: list[Any] = []

    def settle(self) -> Hashable:
        """The values as a key. To be asked for before they are used, for they may change."""
        if self._frozen is None:
            freeze = Freezer()
            self._frozen = tuple(map(freeze, self.values))
            self.pinned = freeze.pinned
        return self._frozen

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statics) or len(self.values) != len(other.values):
            return False
        return all(map(is_, self.values, other.values)) or self.settle() == other.settle()

    __hash__ = None  # type: ignore[assignment]  # compared one by one: what it holds need not hash


def noted(values: Iterable[Any], freeze: Freezer) -> Statics:
    """Static values of a call: part of its key, and to be watched."""
    made = Statics(values)
    freeze.statics.append(made)
    return made


def statics_of(tree: Any) -> list[Any]:
    """What a pytree is beside its leaves: kinds of nodes, and what these say of themselves.

    Treedefs are not compared themselves: to them 1 is True, and what their static fields hold may not compare at all.
    """
    found: list[Any] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        data, inner = node.node_data(), node.children()
        pending += inner
        if data is None:
            found.append(None)
            continue
        kind, about = data
        found += (kind, len(inner))
        found += about if type(about) in (tuple, list) else _parts(about)
    return found


def _parts(about: Any) -> list[Any]:
    """What a node says of itself, taken apart where that is an object made each time, as Equinox did before 0.13.1."""
    cls = type(about)
    if not (cls.__module__.startswith("equinox.") and hasattr(cls, "__slots__")):
        return [about]
    fields = [getattr(about, name) for name in cls.__slots__]
    return [part for field in fields for entry in field for part in (entry if type(entry) is tuple else (entry,))]
