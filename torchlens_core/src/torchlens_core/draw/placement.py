"""Where each Op is drawn: inside which module boxes, or as part of which collapsed module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..derived.graph import Kind
from ..program import Scope

if TYPE_CHECKING:
    from ..records.module import Module
    from ..records.trace import Trace


class Place(NamedTuple):
    """Module calls from the outermost inwards."""

    boxes: tuple[Scope, ...]  # drawn open, around the Op
    collapsed: Scope | None  # drawn as one node, which the Op is part of


class Placement:
    """Places of the nodes of one trace.

    A module call of a single Op gets no box: the Op's own node stands for it. For the same reason it is not collapsed
    at the depth limit, where its Op says more.

    Args:
        nodes: the nodes that are drawn.
        depth: how many levels of modules are open at most, None for all; modules at that level are collapsed.
        collapse: whether a module is collapsed at whatever level.
        focus: address of the module that the picture is of; boxes around it are left out.
        boxes_focus: whether the calls of that module get boxes themselves.
    """

    def __init__(
        self,
        trace: Trace,
        nodes: Iterable[int],
        *,
        depth: int | None = None,
        collapse: Callable[[Module], bool] | None = None,
        focus: str | None = None,
        boxes_focus: bool = False,
    ) -> None:
        self._trace = trace
        self._depth = depth
        self._collapse = collapse
        self._focus = focus
        self._boxes_focus = boxes_focus
        self._stacks: dict[int, tuple[Scope, ...]] = {}
        self._places: dict[int, Place] = {}
        self._decisions: dict[str, bool] = {}
        self._sizes: Counter[int] = Counter()  # Ops in each module call, at any depth
        self._has_calls: set[int] = set()  # module calls with Ops in a module call of their own
        for node in nodes:
            if trace.graph.kinds[node] == Kind.COMPUTE:
                stack = self.stack(self.scope(node))
                self._sizes.update(call.index for call in stack)
                self._has_calls.update(call.index for call in stack[:-1])

    def scope(self, node: int) -> Scope:
        """The scope that a node belongs to; what no Op made (a buffer) belongs beside who uses it first."""
        graph, program = self._trace.graph, self._trace.program
        if graph.kinds[node] == Kind.COMPUTE:
            return program.rows[graph.refs[node]].scope
        if graph.kinds[node] in (Kind.BUFFER, Kind.SOURCE):
            for other in (*graph.children_of(node)[:1], *graph.parents_of(node)[:1]):
                if graph.kinds[other] == Kind.COMPUTE:
                    return program.rows[graph.refs[other]].scope
        return program.scopes[0]

    def stack(self, scope: Scope) -> tuple[Scope, ...]:
        """The module calls around a scope and its own, outermost first, the model's left out."""
        found = self._stacks.get(scope.index)
        if found is None:
            outer = self.stack(scope.parent) if scope.parent is not None else ()
            is_call = scope.kind == "module" and scope.parent is not None
            found = self._stacks[scope.index] = (*outer, scope) if is_call else outer
        return found

    def is_in_focus(self, node: int) -> bool:
        """Whether a node runs in the module that the picture is of."""
        return self._focus is None or any(call.address == self._focus for call in self.stack(self.scope(node)))

    def is_one_op(self, call: Scope) -> bool:
        """Whether just one Op that is drawn ran in a module call."""
        return self._sizes[call.index] == 1

    def is_leaf(self, call: Scope) -> bool:
        """Whether a module call is one Op of its own, whose node then stands for it."""
        return self.is_one_op(call) and call.index not in self._has_calls

    def place(self, node: int) -> Place:
        """Where a node is drawn."""
        scope = self.scope(node)
        found = self._places.get(scope.index)
        if found is None:
            found = self._places[scope.index] = self._place(self._below_focus(self.stack(scope)))
        return found

    def _place(self, stack: Sequence[Scope]) -> Place:
        for level, call in enumerate(stack):
            if self._is_collapsed(call.address):
                return Place(tuple(stack[:level]), call)
            if self._depth is not None and level + 1 >= self._depth:
                return Place(tuple(stack[:level]), None if self.is_one_op(call) else call)
            if self.is_leaf(call):
                return Place(tuple(stack[:level]), None)
        return Place(tuple(stack), None)

    def _below_focus(self, stack: tuple[Scope, ...]) -> tuple[Scope, ...]:
        for level, call in enumerate(stack):
            if call.address == self._focus:
                return stack[level if self._boxes_focus else level + 1 :]
        return stack

    def _is_collapsed(self, address: str) -> bool:
        if self._collapse is None:
            return False
        if address not in self._decisions:
            self._decisions[address] = bool(self._collapse(self._trace.modules[address]))
        return self._decisions[address]
