"""What a picture shows, before any layout: nodes, edges and nested groups, already collapsed, rolled or unrolled.

A scene is plain data: text, flags and numbers. Colours and shapes are :mod:`.style`'s, positions a renderer's. The text
that is shown has been made harmless to look at (:mod:`torchlens_core.show.untrusted`); a renderer still escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

NodeKind = Literal["input", "output", "op", "buffer", "module", "intervention", "grad_fn"]
ParamState = Literal["none", "trainable", "frozen", "mixed"]


@dataclass(slots=True)
class Node:
    """One node: an Op, a Layer (rolled), a collapsed module, what changed the array of a node, or a derivative.

    Attributes:
        id: unique in the scene: letters and digits.
        title: the label, with ``(x4)`` where it stands for several passes.
        lines: what stands below the title.
        params: whether it takes parameters, and of which kind.
        truth: ``'TRUE'``, ``'TRUE (x3), FALSE'`` where Python asked for its truth value; else empty.
        from_input: whether an input leads to it.
        is_module_output: whether it is the one Op of a module and what that returned.
        hidden_buffers: addresses of buffers that it reads or writes and that are not drawn.
        changes: what interventions changed there, in order; each once.
        address: of the module that it stands for (``'module'``), ``'self'`` being the model.
        ops: raw indices of the Ops that it stands for, in the order they ran; of a derivative its number.
        order: of differentiation, of a derivative.
    """

    id: str
    kind: NodeKind
    title: str
    lines: list[str] = field(default_factory=list)
    params: ParamState = "none"
    truth: str = ""
    from_input: bool = True
    is_module_output: bool = False
    hidden_buffers: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    address: str = ""
    ops: tuple[int, ...] = ()
    order: int = 1


@dataclass(slots=True)
class Edge:
    """One edge, from the node that made an array to one that took it.

    Attributes:
        tail, head: ids of nodes.
        argument: name of the argument that the head took it as, where the head has several.
        mark: ``'IF'``, ``'THEN'``, ``'ELIF 1'``, ``'ELSE'`` ... where a conditional decided it; else empty.
        head_passes, tail_passes: ``'2-4'`` where not all passes of a rolled head or tail have it; else empty.
        from_input: whether an input leads to its tail.
        is_write: the head reads memory that the tail overwrote through another array.
        gradient: ``'flow'`` where a gradient goes from tail to head, ``'accum'`` where it is accumulated there.
    """

    tail: str
    head: str
    argument: str = ""
    mark: str = ""
    head_passes: str = ""
    tail_passes: str = ""
    from_input: bool = True
    is_write: bool = False
    gradient: Literal["", "flow", "accum"] = ""


@dataclass(slots=True)
class Group:
    """A module call (rolled: a module) that is drawn as a box around its contents.

    Attributes:
        level: nesting, 0 for the outermost boxes; -1 for the whole picture.
        title: ``'@encoder.0'``, ``'@cell:2'``, rolled ``'@cell (x4)'``.
        cls: name of the module's class.
        from_input: whether an input leads to something in it.
        nodes: ids of the nodes directly inside, in the order they ran.
    """

    id: str
    level: int
    title: str = ""
    cls: str = ""
    address: str = ""
    from_input: bool = True
    nodes: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def groups_within(self) -> Iterator[Group]:
        """All groups inside, at any level, outer before inner."""
        for group in self.groups:
            yield group
            yield from group.groups_within()


@dataclass(slots=True)
class Scene:
    """A whole picture: its caption (the first line is the title), nodes by id, edges, and the tree of groups."""

    caption: list[str]
    nodes: dict[str, Node]
    edges: list[Edge]
    root: Group
    is_rolled: bool = False
