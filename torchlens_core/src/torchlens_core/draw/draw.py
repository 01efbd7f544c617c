"""``trace.draw()``: the graph of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import DrawError, nearest
from .backward import add_gradients
from .build import build_scene
from .choice import Buffers, SceneOptions
from .drawing import Drawing
from .graphviz import TIMEOUT
from .interventions import Interventions
from .output_path import output_path
from .picture import Direction, Look, ModuleSpecFn, NodeSpecFn, Overrides, make_picture
from .renderers import choose_renderer, formats

if TYPE_CHECKING:
    from ..records.layer import Layer
    from ..records.module import Module
    from ..records.trace import Trace

Mode = Literal["unrolled", "rolled", "none"]
NodeStyle = Literal["default", "profiling"]


def draw(
    trace: Trace,
    vis_outpath: str | os.PathLike[str] = "modelgraph",
    *,
    vis_mode: Mode = "unrolled",
    depth: int | None = None,
    module: str | None = None,
    direction: Direction = "bottomup",
    vis_fileformat: str | None = None,
    vis_save_only: bool = False,
    return_graph: bool = False,
    show_buffer_layers: Buffers | bool = "meaningful",
    show_orphans: bool = False,
    order_siblings: bool = True,
    collapse_fn: Callable[[Module], bool] | None = None,
    skip_fn: Callable[[Layer], bool] | None = None,
    node_style: NodeStyle = "default",
    node_spec_fn: NodeSpecFn | None = None,
    collapsed_node_spec_fn: ModuleSpecFn | None = None,
    vis_graph_overrides: Overrides | None = None,
    vis_edge_overrides: Overrides | None = None,
    vis_module_overrides: Overrides | None = None,
    theme: str | None = None,
    legend: bool | None = None,
    font_size: float = 10,
    dpi: float | None = None,
    renderer: str | None = None,
    timeout: float = TIMEOUT,
    vis_intervention_mode: Interventions = "node_mark",
    gradients: bool = False,
    vis_call_depth: int | None = None,
    vis_theme: str | None = None,
    show_legend: bool | None = None,
) -> Drawing:
    """Draw the graph of a run and write it to a file. No viewer is opened; in a notebook the result shows itself.

    Args:
        trace: what to draw; loaded, halted and partial traces draw too.
        vis_outpath: the file, with or without its ending. Folders are made; a file that is there is replaced.
        vis_mode: ``'unrolled'``, one node an Op; ``'rolled'``, one node a layer, with ``(x4)`` for its passes;
            ``'none'``, as ``return_graph``.
        depth: how many levels of modules are shown: deeper ones are collapsed to one node each. None for all levels.
            Also ``vis_call_depth``.
        module: address of the one module to draw.
        direction: where the flow goes: ``'bottomup'``, ``'topdown'``, ``'leftright'``.
        vis_fileformat: ``'pdf'``, ``'svg'``, ``'png'``, ``'dot'`` ...; by default as ``vis_outpath`` ends, else PDF.
        vis_save_only: write the file and show nothing, in a notebook either.
        return_graph: write no file. The Drawing lays itself out when asked for ``svg``; its ``dot`` needs no Graphviz.
        show_buffer_layers: which buffers get nodes: ``'never'`` (False), ``'meaningful'``, those that the run wrote to,
            ``'always'`` (True). An Op with hidden buffers has a double outline.
        show_orphans: also show Ops connected to neither an input nor an output.
        order_siblings: put the children of a node from left to right in the order they ran.
        collapse_fn: ``Module -> bool``, whether to collapse a module at whatever level.
        skip_fn: ``Layer -> bool``, whether to leave out a layer; its parents are then joined to its children.
        node_style: ``'profiling'`` adds FLOPs, MACs and time to the nodes.
        node_spec_fn: ``(Op, NodeSpec) -> NodeSpec | None`` (rolled: Layer), to change the look of a node.
        collapsed_node_spec_fn: ``(Module, NodeSpec) -> NodeSpec | None``, the same for collapsed modules.
        vis_graph_overrides: Graphviz attributes of the whole graph, ``{'ranksep': 0.3}``.
        vis_edge_overrides: Graphviz attributes of edges; a value may be a function of the edge.
        vis_module_overrides: Graphviz attributes of module boxes; a value may be a function of the Module.
        theme: ``'torchlens'``, ``'paper'``, ``'dark'``, ``'colorblind'`` or ``'high_contrast'``; also ``vis_theme``.
        legend: explain colours and shapes; also ``show_legend``.
        font_size: of the text, in points.
        dpi: dots per inch of PNG and the like.
        renderer: name of the renderer, where several write the format.
        timeout: seconds that a layout may take.
        vis_intervention_mode: how Ops that interventions changed are shown: ``'node_mark'``, an outline in purple and
            what was done; ``'as_node'``, a node of its own between the Op and those that take its array.
        gradients: also show the way of the gradients that were kept: an edge back for each array whose gradient and
            that of the Op it went into are there.

    Raises:
        DrawError: an option has no such value; nothing is left to draw; Graphviz is missing or takes too long; the file
            cannot be written.
        LabelError: no module has the address ``module``.
    """
    _check("vis_mode", vis_mode, get_args(Mode))
    _check("direction", direction, get_args(Direction))
    _check("node_style", node_style, get_args(NodeStyle))
    _check("vis_intervention_mode", vis_intervention_mode, get_args(Interventions))
    options = SceneOptions(
        is_rolled=vis_mode == "rolled",
        depth=_depth(_one_of("depth", depth, "vis_call_depth", vis_call_depth)),
        module=module,
        buffers=_buffers(show_buffer_layers),
        orphans=show_orphans,
        collapse=collapse_fn,
        skip=skip_fn,
        profile=node_style == "profiling",
        interventions=vis_intervention_mode,
    )
    look = Look(
        theme=_one_of("theme", theme, "vis_theme", vis_theme) or "torchlens",
        direction=direction,
        font_size=_positive("font_size", font_size),
        dpi=None if dpi is None else _positive("dpi", dpi),
        has_legend=bool(_one_of("legend", legend, "show_legend", show_legend)),
        orders_siblings=order_siblings,
        graph_overrides=vis_graph_overrides or {},
        edge_overrides=vis_edge_overrides or {},
        module_overrides=vis_module_overrides or {},
        node_spec_fn=node_spec_fn,
        module_spec_fn=collapsed_node_spec_fn,
    )
    path, format = output_path(vis_outpath, vis_fileformat, formats())
    choose_renderer(format, renderer)  # before the work: an unknown name or format
    scene = build_scene(trace, options)
    if gradients:
        add_gradients(trace, scene)
    picture = make_picture(trace, scene, look)
    drawing = Drawing(picture, timeout=_positive("timeout", timeout), renderer=renderer, is_shown=not vis_save_only)
    if vis_mode != "none" and not return_graph:
        drawing.save(path, format)
    return drawing


# -- options -----------------------------------------------------------------------------------------------------------


def _check(option: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        hint = nearest(value, [name for name in known if isinstance(name, str)]) if isinstance(value, str) else ""
        raise DrawError(f"{option} is {', '.join(map(repr, known))}; got {value!r}.{hint}")


def _one_of(name: str, value: Any, alias: str, other: Any) -> Any:
    """The value of an option that goes by two names."""
    if value is not None and other is not None and value != other:
        raise DrawError(f"{name}={value!r} and {alias}={other!r} are the same option; give one of them.")
    return other if value is None else value


def _depth(depth: Any) -> int | None:
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 1):
        raise DrawError(f"depth is how many levels of modules are shown, 1 or more, or None for all; got {depth!r}.")
    return depth


def _buffers(value: Any) -> Buffers:
    if isinstance(value, bool):
        return "always" if value else "never"
    _check("show_buffer_layers", value, (*get_args(Buffers), True, False))
    return value  # type: ignore[no-any-return]


def _positive(option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise DrawError(f"{option} is a number greater than 0; got {value!r}.")
    return float(value)
