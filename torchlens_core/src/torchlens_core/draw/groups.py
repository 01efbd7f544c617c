"""The boxes around nodes: nested calls of modules, rolled into one for each module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..program import Scope
from ..show.untrusted import visible
from .node_text import call_title
from .scene import Group

if TYPE_CHECKING:
    from ..records.trace import Trace

_Path = tuple[Scope, ...]


class Groups:
    """Gathers the groups of a scene from the module calls around its nodes."""

    def __init__(self, trace: Trace, *, is_rolled: bool) -> None:
        self._trace = trace
        self._is_rolled = is_rolled
        self._numbers: dict[Hashable, int] = {}
        self._root = Group("root", -1)
        self._groups: dict[int, Group] = {}
        self._calls: dict[int, dict[int, Scope]] = defaultdict(dict)  # number of a group -> its calls, by index
        self._fed: set[int] = set()  # numbers of groups that an input leads into

    def number(self, path: _Path) -> int:
        """A number for nested module calls; rolled, one for all calls of the same modules."""
        key = tuple(call.address for call in path) if self._is_rolled else path[-1].index
        return self._numbers.setdefault(key, len(self._numbers))

    def hold(self, path: _Path, id: str) -> None:
        """Put a node into the innermost group of a path, which is made where it is new."""
        self._group(path).nodes.append(id)

    def note(self, path: _Path, from_input: bool) -> None:
        """Note an Op that ran inside: in which calls, and whether an input leads to it."""
        for length, call in enumerate(path, start=1):
            number = self.number(path[:length])
            self._calls[number][call.index] = call
            if from_input:
                self._fed.add(number)

    def tree(self) -> Group:
        """The finished groups."""
        for number, group in self._groups.items():
            calls = list(self._calls[number].values())
            group.title = call_title(self._trace, calls[-1], len(calls))
            group.from_input = number in self._fed
        return self._root

    def _group(self, path: _Path) -> Group:
        if not path:
            return self._root
        number = self.number(path)
        group = self._groups.get(number)
        if group is None:
            call = path[-1]
            group = Group(f"group{number}", len(path) - 1, cls=visible(call.cls), address=call.address)
            self._groups[number] = group
            self._group(path[:-1]).groups.append(group)
        return group
