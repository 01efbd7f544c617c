"""How pictures look: one table of themes, and the rules from what a node is to its shape and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from ..errors import DrawError, nearest
from .scene import Edge, Group, Node, NodeKind, ParamState

Role = Literal[
    "input", "output", "op", "trainable", "frozen", "bool", "buffer", "module", "intervention", "grad_fn", "higher"
]  # fmt: skip
INTERVENTION: Final = "#CC79A7"
GRADIENT: Final = "#9197F6"  # edges that gradients take, and outlines of derivatives
GRAD_FN: Final = "#F2F3FF"
HIGHER_ORDER: Final = "#FFF4D6"  # derivatives of derivatives


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a picture; ``fills`` are those of nodes, by role."""

    name: str
    fills: Mapping[Role, str]
    background: str = "white"
    ink: str = "black"  # text and outlines of nodes
    line: str = "black"  # edges
    box: str = "black"  # outlines of modules
    mark: str = "black"  # IF, THEN, ELSE
    font: str = "Helvetica,Arial,sans-serif"


def _fills(*colours: str) -> Mapping[Role, str]:
    roles: tuple[Role, ...] = ("input", "output", "op", "trainable", "frozen", "bool", "buffer", "module")
    fixed: dict[Role, str] = {"intervention": INTERVENTION, "grad_fn": GRAD_FN, "higher": HIGHER_ORDER}
    return MappingProxyType({**dict(zip(roles, colours, strict=True)), **fixed})


THEMES: Final[Mapping[str, Theme]] = MappingProxyType(
    {
        theme.name: theme
        for theme in (
            #                       input      output     op         trainable  frozen     bool       buffer     module
            Theme(
                "torchlens", _fills("#98FB98", "#ff9999", "white", "#D9D9D9", "#B0B0B0", "#F7D460", "#DCE9F7", "white")
            ),
            Theme(
                "paper",
                _fills("white", "white", "white", "#E6E6E6", "#C4C4C4", "#F2F2F2", "white", "white"),
                box="#555555",
                font="Times New Roman,Times,serif",
            ),
            Theme(
                "dark",
                _fills("#2E6B3A", "#8A3B3B", "#2B2F36", "#4A505A", "#33373E", "#8A6D1C", "#2C4A66", "#2B2F36"),
                background="#16181C",
                ink="#EDEDED",
                line="#B8BCC4",
                box="#7D838F",
                mark="#F7D460",
            ),
            Theme(  # the palette of Okabe and Ito, lightened where text stands on it
                "colorblind",
                _fills("#009E73", "#D55E00", "white", "#56B4E9", "#9BCFEF", "#F0E442", "#E69F00", "white"),
            ),
            Theme(
                "high_contrast",
                _fills("#00FF00", "#FF5555", "white", "#CCCCCC", "#999999", "#FFFF00", "#66CCFF", "white"),
            ),
        )
    }
)


def get_theme(name: str) -> Theme:
    """A theme by name."""
    if name not in THEMES:
        raise DrawError(f"No theme is called {name!r}; there are {', '.join(THEMES)}.{nearest(name, THEMES)}")
    return THEMES[name]


# -- nodes -------------------------------------------------------------------------------------------------------------

SHAPES: Final[Mapping[NodeKind, str]] = MappingProxyType(
    {
        "input": "oval",
        "output": "oval",
        "op": "oval",
        "buffer": "cylinder",
        "module": "box3d",
        "intervention": "diamond",
        "grad_fn": "oval",
    }
)


@dataclass(slots=True)
class NodeSpec:
    """How one node looks. ``node_spec_fn`` is given one, and may change it or return another.

    Attributes:
        title: first line, bold.
        lines: the lines below it.
        shape: a Graphviz node shape: ``'oval'``, ``'box'``, ``'box3d'``, ``'cylinder'``, ``'diamond'`` ...
        fill: colour, or two with a colon between them for a gradient. Names of X11 or ``'#RRGGBB'``.
        outline: colour of the border.
        ink: colour of the text.
        width: of the border, in points.
        is_dashed: whether the border is dashed.
        is_double: whether the border is drawn twice.
        tooltip: what a viewer shows under the pointer.
        attributes: further Graphviz attributes of the node.
    """

    title: str
    lines: list[str]
    shape: str
    fill: str
    outline: str
    ink: str
    width: float = 1.0
    is_dashed: bool = False
    is_double: bool = False
    tooltip: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def node_spec(node: Node, theme: Theme) -> NodeSpec:
    """The usual look: green input, red output, grey with parameters, yellow predicate, cylinder for a buffer.

    What an intervention changed has a purple outline.
    """
    takes_params = node.kind == "op" and node.params != "none"
    is_marked, is_derivative = bool(node.changes), node.kind == "grad_fn"
    hidden = f"\nHidden buffers: {', '.join(node.hidden_buffers)}" if node.hidden_buffers else ""
    return NodeSpec(
        title=f"{node.title}: {node.truth}" if node.truth else node.title,
        lines=[*node.lines, *(f"changed: {text}" if n == 0 else text for n, text in enumerate(node.changes))],
        shape="box" if takes_params or node.is_module_output else SHAPES[node.kind],
        fill=node_fill(node, theme),
        outline=INTERVENTION if is_marked else GRADIENT if is_derivative else theme.ink,
        ink="black" if is_derivative else theme.ink,  # the fill is light in every theme
        width=3.0 if is_marked else 1.0,
        is_dashed=not node.from_input,
        is_double=bool(node.hidden_buffers),
        tooltip=node.title + hidden,
    )


def node_fill(node: Node, theme: Theme) -> str:
    """The fill of a node; two colours where some of its parameters are frozen and some are not."""
    if node.truth:
        return theme.fills["bool"]
    if node.order > 1:
        return theme.fills["higher"]
    if node.kind in ("op", "module") and node.params != "none":
        return _params_fill(node.params, theme)
    return theme.fills[node.kind]


def _params_fill(state: ParamState, theme: Theme) -> str:
    trainable, frozen = theme.fills["trainable"], theme.fills["frozen"]
    return {"trainable": trainable, "frozen": frozen}.get(state, f"{trainable}:{frozen}")


# -- edges and boxes ---------------------------------------------------------------------------------------------------


def edge_style(edge: Edge) -> str:
    """Dotted for writes seen through another array and for accumulated gradients, dashed where no input leads to."""
    return "dotted" if edge.is_write or edge.gradient == "accum" else "solid" if edge.from_input else "dashed"


def box_width(group: Group) -> float:
    """Outlines get thinner inwards: 5, 3.5, 2 points."""
    return max(5.0 - 1.5 * group.level, 2.0)


LEGEND: Final[tuple[tuple[Role, str, str], ...]] = (  # role, shape, what it means
    ("input", "oval", "input"),
    ("output", "oval", "output"),
    ("op", "oval", "operation"),
    ("trainable", "box", "with trainable parameters"),
    ("frozen", "box", "with frozen parameters"),
    ("bool", "oval", "truth value asked by the model's code"),
    ("buffer", "cylinder", "buffer"),
    ("module", "box3d", "module, collapsed"),
    ("intervention", "diamond", "intervention; outline: changed by one"),
)
