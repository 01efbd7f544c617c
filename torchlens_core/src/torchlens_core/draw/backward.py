"""``trace.draw_backward()``: the gradient graph as a picture, and gradients in the picture of the forward."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import DrawError
from ..records.op import Op
from ..show.quantities import counted, duration_text
from ..show.untrusted import visible
from .drawing import Drawing
from .graphviz import TIMEOUT
from .output_path import output_path
from .picture import Direction, Look, Overrides, make_picture
from .renderers import choose_renderer, formats
from .scene import Edge, Group, Node, Scene

if TYPE_CHECKING:
    from ..records.backward_pass import BackwardPass
    from ..records.grad_fn import GradFn
    from ..records.trace import Trace


def draw_backward(
    trace: Trace,
    vis_outpath: str | os.PathLike[str] = "backwardgraph",
    *,
    bwd: int | None = None,
    direction: Direction = "topdown",
    vis_fileformat: str | None = None,
    vis_save_only: bool = False,
    return_graph: bool = False,
    node_spec_fn: Any = None,
    vis_graph_overrides: Overrides | None = None,
    vis_edge_overrides: Overrides | None = None,
    theme: str = "torchlens",
    font_size: float = 10,
    dpi: float | None = None,
    renderer: str | None = None,
    timeout: float = TIMEOUT,
) -> Drawing:
    """Draw the gradient graph that a backward pass went through, from the loss to the parameters and inputs.

    Each node is one of ``trace.grad_fns``, with the Op that it is the derivative of; ``[i]`` stands before those that
    belong to none. Dotted edges lead to where gradients are accumulated; derivatives of derivatives are yellow.

    Args:
        trace: of which ``log_backward`` or ``recording_backward()`` recorded a pass.
        vis_outpath: the file, with or without its ending.
        bwd: number of the pass; by default all that was recorded.
        direction: where the gradients go: ``'topdown'``, ``'bottomup'``, ``'leftright'``.
        vis_fileformat, vis_save_only, return_graph, theme, font_size, dpi, renderer, timeout: as for ``trace.draw``.
        node_spec_fn: ``(GradFn, NodeSpec) -> NodeSpec | None``, to change the look of a node.
        vis_graph_overrides, vis_edge_overrides: Graphviz attributes, as for ``trace.draw``.

    Raises:
        DrawError: no pass was recorded, or none of this number; and as for ``trace.draw``.
    """
    look = Look(
        theme=theme,
        direction=direction,
        font_size=font_size,
        dpi=dpi,
        orders_siblings=False,
        graph_overrides=vis_graph_overrides or {},
        edge_overrides=vis_edge_overrides or {},
        node_spec_fn=node_spec_fn,
    )
    path, format = output_path(vis_outpath, vis_fileformat, formats())
    choose_renderer(format, renderer)  # before the work: an unknown name or format
    picture = make_picture(trace, backward_scene(trace, bwd), look)
    drawing = Drawing(picture, timeout=timeout, renderer=renderer, is_shown=not vis_save_only)
    if not return_graph:
        drawing.save(path, format)
    return drawing


def backward_scene(trace: Trace, bwd: int | None) -> Scene:
    """The nodes that recorded passes went through, or one of them."""
    passes = [done for done in trace.backward_passes if done.was_recorded and bwd in (None, done.index)]
    if not passes:
        number = "" if bwd is None else f" of number {bwd}"
        raise DrawError(
            f"No backward pass{number} was recorded, so there is no gradient graph to draw. Run "
            "trace.log_backward(loss), or the backward inside `with trace.recording_backward():`."
        )
    numbers = dict.fromkeys(grad_fn.ordinal_index for done in passes for grad_fn in done.grad_fns)
    grad_fns = [trace.grad_fn(number) for number in numbers]
    nodes = {f"grad{each.ordinal_index}": _node(each) for each in grad_fns}
    edges = [
        Edge(f"grad{each.ordinal_index}", f"grad{child.ordinal_index}", gradient=_kind(child))
        for each in grad_fns
        for child in each.child_fns
        if child.ordinal_index in numbers
    ]
    for edge in edges:
        edge.argument = "accum" if edge.gradient == "accum" else ""
    return Scene(_caption(trace, passes, len(nodes)), nodes, edges, Group("all", -1, nodes=list(nodes)))


def _kind(child: GradFn) -> Any:
    return "accum" if child.type == "accumulategrad" else "flow"


def _node(grad_fn: GradFn) -> Node:
    of = grad_fn.op_label or grad_fn.leaf_address
    title = grad_fn.label if of else f"[i] {grad_fn.label}"
    lines = [grad_fn.class_name + (" (custom)" if grad_fn.is_custom else "")]
    if of:
        lines.append(f"of {of}" if grad_fn.op_label else f"@{of}")
    op = grad_fn.op
    if op is not None and op.module is not None:
        lines.append(f"@{op.module}")
    if grad_fn.duration_ns is not None:
        lines.append(duration_text(grad_fn.duration_ns))
    node = Node(f"grad{grad_fn.ordinal_index}", "grad_fn", visible(title), [visible(line) for line in lines])
    node.ops, node.order = (grad_fn.ordinal_index,), grad_fn.order
    return node


def _caption(trace: Trace, passes: list[BackwardPass], nodes: int) -> list[str]:
    which = ", ".join(f"{done.index} (from {done.loss})" for done in passes)
    return [visible(f"{trace.model_name}: backward"), f"{counted(nodes, 'grad_fn')}", visible(f"pass {which}")]


# -- in the picture of the forward -------------------------------------------------------------------------------------


def add_gradients(trace: Trace, scene: Scene) -> None:
    """Add an edge back beside each edge of the scene between nodes that both have a gradient.

    Raises:
        DrawError: the trace has no gradients.
    """
    if not trace.gradients:
        raise DrawError(
            "There are no gradients to draw: trace with save_grads=True, and run trace.log_backward(loss) before."
        )
    with_gradient = {id for id, node in scene.nodes.items() if any(Op(trace, raw).has_grad for raw in _ops(node))}
    pairs = dict.fromkeys((edge.head, edge.tail) for edge in scene.edges)
    scene.edges += [
        Edge(tail, head, gradient="flow") for tail, head in pairs if tail in with_gradient and head in with_gradient
    ]


def _ops(node: Node) -> tuple[int, ...]:
    """The Ops whose gradients stand for a node: those that it stands for; a border of a module is no Op."""
    return () if node.id.startswith(("entry", "exit")) else node.ops
