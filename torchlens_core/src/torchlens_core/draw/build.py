"""A trace as a scene: which nodes stand for its Ops, in which groups, with which edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..derived.graph import Kind
from ..errors import DrawError
from ..program import Scope, walk_outs
from ..records.op import Op
from ..show.untrusted import visible
from .choice import Choice, Link, SceneOptions
from .edges import End, join
from .groups import Groups
from .interventions import as_nodes
from .node_text import call_title, caption, changes, module_lines, op_node, shape_line
from .params import ParamTotals, totals_by_module
from .placement import Place, Placement
from .scene import Node, Scene

if TYPE_CHECKING:
    from ..records.trace import Trace


@dataclass(slots=True)
class _Unit:
    """A node of the scene in the making: the Ops that it stands for; the calls of the collapsed module that it is."""

    id: str
    place: Place
    nodes: list[int] = field(default_factory=list)
    calls: dict[int, Scope] = field(default_factory=dict)


def build_scene(trace: Trace, options: SceneOptions) -> Scene:
    """The scene of a trace: chosen, collapsed and rolled as the options say.

    Raises:
        LabelError: no module has the address ``options.module``.
        DrawError: that module did not run, or nothing is left to draw.
    """
    return _Builder(trace, options).build()


class _Builder:
    def __init__(self, trace: Trace, options: SceneOptions) -> None:
        self.trace = trace
        self.options = options
        self.focus = _focus(trace, options.module)
        self.choice = Choice(trace, options)
        self.placement = Placement(
            trace,
            self.choice.nodes,
            depth=options.depth,
            collapse=options.collapse,
            focus=self.focus,
            boxes_focus=not options.is_rolled and self.focus is not None and trace.modules[self.focus].num_calls > 1,
        )
        self.groups = Groups(trace, is_rolled=options.is_rolled)
        self.totals = totals_by_module(trace)
        self.units: dict[str, _Unit] = {}
        self.end_of: dict[int, End] = {}

    def build(self) -> Scene:
        inside = [node for node in self.choice.nodes if self.placement.is_in_focus(node)]
        if not inside:
            what = f"module {self.focus!r} ran no Op that is drawn" if self.focus else "the trace shows no Op"
            raise DrawError(f"There is nothing to draw: {what}.")
        for node in inside:
            self._add(node)
        passes: dict[str, set[int]] = {}
        for end in self.end_of.values():
            passes.setdefault(end.id, set()).add(end.number)
        links = list(self.choice.links()) if self.focus is None else list(self._links_of_focus(passes))
        edges = join(self.trace, links, self.end_of.__getitem__, passes)
        scene = Scene(
            caption(self.trace, self.focus),
            {unit.id: self._node(unit) for unit in self.units.values()},
            edges,
            self.groups.tree(),
            self.options.is_rolled,
        )
        if self.options.interventions == "as_node":
            as_nodes(scene)
        return scene

    # -- which node stands for which Op ----------------------------------------------------------------------------

    def _add(self, node: int) -> None:
        place = self.placement.place(node)
        is_rolled, labels = self.options.is_rolled, self.trace.labels
        if place.collapsed is not None:
            id = f"module{self.groups.number((*place.boxes, place.collapsed))}"
            end = End(id, place.collapsed.call_index if is_rolled else 1, True, place.collapsed.index)
        else:
            id = f"layer{labels.layer_of[node]}" if is_rolled else f"op{node}"
            end = End(id, labels.pass_of[node] if is_rolled else 1, False, -1)
        self.end_of[node] = end
        unit = self._unit(id, place)
        unit.nodes.append(node)
        if place.collapsed is not None:
            unit.calls[place.collapsed.index] = place.collapsed
        self.groups.note(place.boxes, bool(self.trace.graph.from_input[node]))

    def _unit(self, id: str, place: Place) -> _Unit:
        unit = self.units.get(id)
        if unit is None:
            unit = self.units[id] = _Unit(id, place)
            self.groups.hold(place.boxes, id)
        return unit

    # -- the border of a module that is drawn alone ----------------------------------------------------------------

    def _links_of_focus(self, passes: dict[str, set[int]]) -> Iterator[Link]:
        """The links inside; for each array that enters a node where it comes from; for each that leaves an output.

        What a call of the module returned leaves it, too, where no Op took it.
        """
        inside = set(self.end_of)
        leaving = dict.fromkeys(node for node in self._returned() if node in inside)
        for link in self.choice.links():
            if link.child in inside:
                if link.parent not in inside:
                    self._add_border("entry", link.parent, link.parent, passes)
                leaving.pop(link.parent, None)
                yield link
        for link in self.choice.links():
            if link.parent in inside and link.child not in inside:
                leaving[link.parent] = None
        for node in sorted(leaving):
            self._add_border("exit", node, ~node, passes)  # no Op stands for it: the complement of the Op that leaves
            yield Link(node, ~node, -1, False, (node, ~node))

    def _add_border(self, kind: str, node: int, key: int, passes: dict[str, set[int]]) -> None:
        if key in self.end_of:
            return
        labels, is_rolled = self.trace.labels, self.options.is_rolled
        id = f"{kind}{labels.layer_of[node] if is_rolled else node}"
        self.end_of[key] = End(id, labels.pass_of[node] if is_rolled else 1, False, -1)
        passes.setdefault(id, set()).add(self.end_of[key].number)
        self._unit(id, Place((), None)).nodes.append(node)

    def _returned(self) -> list[int]:
        """The nodes that calls of the focus returned."""
        calls = self.trace.structure.scopes_by_address.get(self.focus or "", [])
        return [node for call in calls for node in self._outputs(call)]

    def _outputs(self, call: Scope) -> list[int]:
        node_of = self.trace.graph.node_of
        nodes = (node_of[vid] for vid, _ in walk_outs(call.outs) if vid is not None)
        return [node for node in dict.fromkeys(nodes) if node >= 0]

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _node(self, unit: _Unit) -> Node:
        made = self._module_node(unit) if unit.calls else self._op_node(unit)
        made.from_input = any(self.trace.graph.from_input[node] for node in unit.nodes)
        return made

    def _op_node(self, unit: _Unit) -> Node:
        options, first = self.options, unit.nodes[0]
        made = op_node(self.trace, unit.id, unit.nodes, is_rolled=options.is_rolled, profile=options.profile)
        if unit.id.startswith("entry"):
            made.kind = "input"
        elif unit.id.startswith("exit"):
            made.kind, made.title, made.lines, made.truth = "output", "output", made.lines[:1], ""
        else:
            made.hidden_buffers = list(map(visible, self.choice.hidden_buffers(first)))
            call = self._leaf_call(first)
            if call is not None:
                count = len({self._leaf_of(node) for node in unit.nodes})
                made.lines.append(call_title(self.trace, call, count))
                made.is_module_output = any(c is call for c in self.trace.structure.returned_by.get(first, ()))
        return made

    def _leaf_call(self, node: int) -> Scope | None:
        """The module call without a box of its own that a node stands for."""
        stack = self.placement.stack(self.placement.scope(node))
        is_compute = self.trace.graph.kinds[node] == Kind.COMPUTE
        return stack[-1] if is_compute and stack and self.placement.is_leaf(stack[-1]) else None

    def _leaf_of(self, node: int) -> int:
        call = self._leaf_call(node)
        return -1 if call is None else call.index

    def _module_node(self, unit: _Unit) -> Node:
        trace, calls = self.trace, list(unit.calls.values())
        title = call_title(trace, calls[-1], len(calls))
        outputs = self._outputs(calls[-1])
        labels, kinds = trace.labels, trace.graph.kinds
        layers = {labels.layer_of[node] for node in unit.nodes if kinds[node] in (Kind.COMPUTE, Kind.SOURCE)}
        totals = self.totals.get(calls[-1].address, ParamTotals())
        shape = shape_line([Op(trace, outputs[0])]) if outputs else ""
        made = Node(unit.id, "module", title, module_lines(calls[-1].cls, shape, len(layers), totals))
        made.address, made.params, made.ops = calls[-1].address, totals.state, tuple(unit.nodes)
        made.changes = changes([Op(trace, node) for node in unit.nodes if node in trace.steered_nodes])
        return made


def _focus(trace: Trace, address: str | None) -> str | None:
    """The address of a module that ran; None for the whole model."""
    if address is None:
        return None
    module = trace.modules[address]
    if not module.num_calls:
        raise DrawError(
            f"There is nothing to draw: module {module.address!r} ({module.cls}) was not called in this run."
        )
    return None if module.address == "self" else module.address
