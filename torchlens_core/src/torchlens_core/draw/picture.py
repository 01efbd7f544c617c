"""A scene with its looks: what renderers are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DrawError
from ..records.op import Op
from .scene import Edge, Group, Node, Scene
from .style import NodeSpec, Theme, get_theme, node_spec

if TYPE_CHECKING:
    from ..records.layer import Layer
    from ..records.module import Module
    from ..records.trace import Trace

Direction = Literal["bottomup", "topdown", "leftright"]
Attributes = Mapping[str, str]
Overrides = Mapping[str, Any]  # attribute -> value, or a function that gives it for what is drawn (None: as it is)
NodeSpecFn = Callable[["Op | Layer", NodeSpec], "NodeSpec | None"]
ModuleSpecFn = Callable[["Module", NodeSpec], "NodeSpec | None"]


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is drawn, whatever it shows. See :func:`torchlens_core.draw.draw`."""

    theme: str = "torchlens"
    direction: Direction = "bottomup"
    font_size: float = 10
    dpi: float | None = None
    has_legend: bool = False
    orders_siblings: bool = True
    graph_overrides: Overrides = field(default_factory=dict)
    edge_overrides: Overrides = field(default_factory=dict)
    module_overrides: Overrides = field(default_factory=dict)
    node_spec_fn: NodeSpecFn | None = None
    module_spec_fn: ModuleSpecFn | None = None

    def without_functions(self) -> Look:
        """The same for a renderer: what the user's functions said is in the picture."""
        none: Overrides = {}
        bare = replace(self, node_spec_fn=None, module_spec_fn=None)
        return replace(bare, graph_overrides=none, edge_overrides=none, module_overrides=none)


@dataclass(slots=True)
class Picture:
    """What is drawn and how. Holds nothing of the trace: text, colours and numbers alone.

    Attributes:
        nodes: id -> look of a node.
        edges: further Graphviz attributes of each edge, in the order of ``scene.edges``.
        groups: id -> further Graphviz attributes of a group.
        graph: further Graphviz attributes of the whole.
    """

    scene: Scene
    theme: Theme
    look: Look
    nodes: dict[str, NodeSpec]
    edges: list[Attributes]
    groups: dict[str, Attributes]
    graph: Attributes


def make_picture(trace: Trace, scene: Scene, look: Look) -> Picture:
    """Give everything in a scene its look. The user's functions are called here, and only here."""
    theme = get_theme(look.theme)
    return Picture(
        scene,
        theme,
        look.without_functions(),
        {id: _node(trace, scene, node, look, theme) for id, node in scene.nodes.items()},
        [_attributes(look.edge_overrides, edge, "vis_edge_overrides") for edge in scene.edges],
        {group.id: _box(trace, group, look) for group in scene.root.groups_within()},
        _attributes(look.graph_overrides, trace, "vis_graph_overrides"),
    )


def _node(trace: Trace, scene: Scene, node: Node, look: Look, theme: Theme) -> NodeSpec:
    spec = node_spec(node, theme)
    made: NodeSpec | None = spec
    if node.kind not in ("module", "intervention") and look.node_spec_fn:
        made = look.node_spec_fn(_record(trace, scene, node), spec)
    elif node.kind == "module" and look.module_spec_fn:
        made = look.module_spec_fn(trace.modules[node.address], spec)
    if made is not None and not isinstance(made, NodeSpec):
        raise DrawError(f"node_spec_fn and module_spec_fn return a NodeSpec or None; for {node.title} it was {made!r}.")
    return spec if made is None else made


def _record(trace: Trace, scene: Scene, node: Node) -> Any:
    if node.kind == "grad_fn":
        return trace.grad_fn(node.ops[0])
    return trace.layer(trace.labels.layer_of[node.ops[0]]) if scene.is_rolled else Op(trace, node.ops[0])


def _box(trace: Trace, group: Group, look: Look) -> Attributes:
    if not look.module_overrides:
        return {}
    return _attributes(look.module_overrides, trace.modules[group.address], "vis_module_overrides")


_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _attributes(overrides: Overrides, drawn: Trace | Edge | Module, option: str) -> Attributes:
    found: dict[str, str] = {}
    for name, value in overrides.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DrawError(f"{option} maps names of Graphviz attributes to values; {name!r} is no such name.")
        value = value(drawn) if callable(value) else value
        if value is not None:
            found[name] = str(value)
    return found
