r"""A picture as text in the DOT language of Graphviz. Needs no library.

Everything in quotes or in a label is escaped here, whoever wrote it: nothing in a name can end a string, open a tag,
name an entity, or be taken for one of Graphviz' own escapes (``\N``).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping

from ..show.untrusted import visible
from .picture import Picture
from .scene import Edge, Group
from .style import GRADIENT, LEGEND, NodeSpec, box_width, edge_style

_RANKDIR = {"bottomup": "BT", "topdown": "TB", "leftright": "LR"}
_TITLE, _MARK, _SMALL = 1.5, 1.8, 0.85  # the caption; IF, THEN, ELSE; arguments and passes: times the font size


def to_dot(picture: Picture) -> str:
    """The DOT text of a picture."""
    return "\n".join(_Writer(picture).lines()) + "\n"


def quoted(value: object) -> str:
    """The value of an attribute as a quoted string, in which backslashes and quotes mean themselves."""
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def quoted_text(text: str) -> str:
    """A text of several lines as a quoted string, in which entities mean themselves too.

    Made for tooltips, in which Graphviz expands backslashes twice.
    """
    lines = (visible(line, 1000).replace("&", "&amp;").replace("\\", "\\\\") for line in text.split("\n"))
    return quoted("\n".join(lines))


def label_text(text: str) -> str:
    """A text within an HTML-like label. Graphviz expands backslashes there as well."""
    return html.escape(visible(text)).replace("\\", "\\\\")


def _tagged(text: str, *tags: str, size: float | None = None) -> str:
    for tag in reversed(tags):
        text = f"<{tag}>{text}</{tag}>"
    return text if size is None else f'<FONT POINT-SIZE="{size:g}">{text}</FONT>'


def _joined(lines: Iterable[str], align: str = "") -> str:
    """Lines of HTML as a label; with ``align`` all of them stand on that side."""
    end = f'<BR ALIGN="{align}"/>' if align else "<BR/>"
    return f"<{end.join(lines)}{end if align else ''}>"


def _bracketed(attributes: Mapping[str, str], further: Mapping[str, object]) -> str:
    """``[a="1", b=<...>]``; values of the first are DOT already, those of the second are not."""
    all_ = {**attributes, **{name: quoted(value) for name, value in further.items()}}
    return f" [{', '.join(f'{name}={value}' for name, value in all_.items())}]" if all_ else ""


class _Writer:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.scene = picture.scene
        self.theme = picture.theme
        self.look = picture.look
        self.size = picture.look.font_size
        self.is_backward = all(edge.gradient for edge in picture.scene.edges)
        self.joined: set[tuple[str, str, str, str]] = set()  # ends and passes of the edges written so far

    def lines(self) -> Iterator[str]:
        theme, font = self.theme, {"fontname": self.theme.font, "fontsize": self.size}
        yield "digraph {"
        yield f"  graph{_bracketed(self._graph(), self.picture.graph)}"
        yield f"  node{_bracketed({}, font | {'margin': '0.12,0.07', 'height': 0.3, 'width': 0.6})}"
        edges = font | {"fontsize": self.size * _SMALL, "fontcolor": theme.line, "color": theme.line, "arrowsize": 0.7}
        yield f"  edge{_bracketed({}, edges | {'labeldistance': 2, 'labelangle': -45})}"
        yield from self._contents(self.scene.root, "  ")
        for edge, further in zip(self.scene.edges, self.picture.edges, strict=True):
            yield f"  {edge.tail} -> {edge.head}{_bracketed(self._edge(edge), further)}"
        if self.look.has_legend:
            yield f"  legend [shape=plain, fontcolor={quoted(theme.ink)}, label={self._legend()}]"
        yield "}"

    def _graph(self) -> dict[str, str]:
        title, *rest = map(label_text, self.scene.caption)
        attributes: dict[str, object] = {
            "rankdir": _RANKDIR[self.look.direction],
            "labelloc": "t",
            "labeljust": "l",
            "fontname": self.theme.font,
            "fontsize": self.size,
            "fontcolor": self.theme.ink,
            "bgcolor": self.theme.background,
        }
        if self.look.orders_siblings:
            attributes["ordering"] = "out"
        if self.look.dpi is not None:
            attributes["dpi"] = self.look.dpi
        label = _joined([_tagged(title, "B", size=self.size * _TITLE), *rest], "LEFT")
        return {"label": label} | {name: quoted(value) for name, value in attributes.items()}

    # -- boxes and nodes -------------------------------------------------------------------------------------------

    def _contents(self, group: Group, indent: str) -> Iterator[str]:
        for id in group.nodes:
            spec = self.picture.nodes[id]
            yield f"{indent}{id}{_bracketed(self._node(spec), spec.attributes)}"
        for inner in group.groups:
            yield f"{indent}subgraph cluster_{inner.id} {{"
            yield f"{indent}  graph{_bracketed(self._box(inner), self.picture.groups[inner.id])}"
            yield from self._contents(inner, indent + "  ")
            yield f"{indent}}}"

    def _box(self, group: Group) -> dict[str, str]:
        title = _tagged(label_text(group.title), "B")
        return {
            "label": _joined([f"{title} ({label_text(group.cls)})"]),
            "labelloc": quoted("b" if self.look.direction == "bottomup" else "t"),
            "color": quoted(self.theme.box),
            "penwidth": quoted(box_width(group)),
            "margin": quoted(12),
            "style": quoted("solid" if group.from_input else "dashed"),
        }

    def _node(self, spec: NodeSpec) -> dict[str, str]:
        title = _tagged(label_text(spec.title), "B")
        attributes = {
            "label": _joined([title, *map(label_text, spec.lines)]),
            "shape": quoted(spec.shape),
            "style": quoted("filled,dashed" if spec.is_dashed else "filled"),
            "fillcolor": quoted(spec.fill),
            "color": quoted(spec.outline),
            "fontcolor": quoted(spec.ink),
            "tooltip": quoted_text(spec.tooltip),
        }
        if spec.width != 1:
            attributes["penwidth"] = quoted(spec.width)
        if spec.is_double:
            attributes["peripheries"] = quoted(2)
        return attributes

    # -- edges -----------------------------------------------------------------------------------------------------

    def _edge(self, edge: Edge) -> dict[str, str]:
        attributes = {}
        if edge_style(edge) != "solid":
            attributes["style"] = quoted(edge_style(edge))
        if edge.gradient:
            attributes["color"] = quoted(GRADIENT)
        if edge.gradient and not self.is_backward:  # beside the edges of values, which alone decide where nodes stand
            attributes["constraint"] = quoted("false")
        lines = []
        if edge.mark:
            mark = _tagged(label_text(edge.mark), "B", "U", size=self.size * _MARK)
            lines.append(f'<FONT COLOR="{html.escape(self.theme.mark)}">{mark}</FONT>')
        if edge.argument or edge.is_write:
            lines.append(label_text(edge.argument if not edge.is_write else "write"))
        if edge.head_passes and edge.tail_passes:
            lines.append(f"In {edge.head_passes} / Out {edge.tail_passes}")
        elif self._is_first(edge):
            attributes |= {"headlabel": quoted(f"In {edge.head_passes}")} if edge.head_passes else {}
            attributes |= {"taillabel": quoted(f"Out {edge.tail_passes}")} if edge.tail_passes else {}
        if lines:
            attributes["label"] = _joined(f"&nbsp;{line}" for line in lines)  # Graphviz puts it right at the line
        return attributes

    def _is_first(self, edge: Edge) -> bool:
        """Whether no edge before it runs beside it: on parallel ones the same label would stand upon itself."""
        ends = (edge.tail, edge.head, edge.head_passes, edge.tail_passes)
        is_first = ends not in self.joined
        self.joined.add(ends)
        return is_first

    # -- legend ----------------------------------------------------------------------------------------------------

    def _legend(self) -> str:
        rows = [
            f'<TR><TD BGCOLOR="{html.escape(self.theme.fills[role])}" BORDER="1">{shape}</TD>'
            f'<TD ALIGN="LEFT">{label_text(meaning)}</TD></TR>'
            for role, shape, meaning in LEGEND
        ]
        return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="3" COLOR="{self.theme.ink}">{"".join(rows)}</TABLE>>'
