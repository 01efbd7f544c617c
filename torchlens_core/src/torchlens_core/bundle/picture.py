"""``bundle.draw(...)``: the graph of one member, coloured by how far another member is from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..draw.drawing import Drawing
from ..draw.output_path import output_path
from ..draw.picture import ModuleSpecFn, NodeSpecFn
from ..draw.renderers import formats
from ..draw.style import NodeSpec
from ..records.layer import Layer
from ..records.op import Op
from ..show.untrusted import visible
from .metrics import Metric, Reading
from .pair import Pair
from .sites import label_of
from .table import number_text

if TYPE_CHECKING:
    from ..records.module import Module
    from ..records.trace import Trace

_AGREES: Final = "#E5F2E5"
_UNKNOWN: Final = "#F2F2F2"
_SCALE: Final = ("#FFF2CC", "#FFD98A", "#FFB066", "#FF7F50", "#E8452F")  # from the least error to the largest
_LEAST, _MOST = -6.0, 0.0  # powers of ten at the ends of the scale


class Measured:
    """What is known of each Op of ``a``.

    Args:
        pairs: of two members, at every site.
        metric: that colours; changes from 1e-6 to 1 make the scale.
    """

    def __init__(self, pairs: Sequence[Pair], metric: Metric, rtol: float | None, atol: float | None) -> None:
        self.metric = metric
        self.names = pairs[0].names
        self._found: dict[int, tuple[Reading, bool | None, str]] = {}
        self._alone: set[int] = set()
        for pair in pairs:
            if pair.left is None:
                continue
            if pair.right is None:
                self._alone.add(pair.left.raw_index)
                continue
            values = pair.read()
            axes = "" if values.axes is None else str(values.axes)
            self._found[pair.left.raw_index] = values.measure(metric), values.agree(rtol, atol), axes

    def style(self, ops: Sequence[Op], spec: NodeSpec) -> NodeSpec:
        """The look of the node of some Ops: that of the one that is furthest off."""
        known = [self._found[op.raw_index] for op in ops if op.raw_index in self._found]
        if not known:
            if ops and all(op.raw_index in self._alone for op in ops):
                spec.fill, spec.is_dashed = "white", True
                spec.lines.append(f"not in {self.names[1]}")
            return spec
        reading, agrees, axes = max(known, key=lambda each: self.metric.change(each[0].value))
        if any(each[1] is False for each in known):
            agrees = False
        spec.fill = _UNKNOWN if agrees is None else _AGREES if agrees else self._colour(reading)
        spec.ink = "black"
        if reading.value is not None:
            spec.lines.append(f"{self.metric.name} {number_text(reading.value)}")
        else:
            spec.lines.append(reading.why)
        if axes:
            spec.lines.append(f"axes {axes}")
        return spec

    def _colour(self, reading: Reading) -> str:
        change = self.metric.change(reading.value)
        if change < 0 or not math.isfinite(change):
            return _SCALE[-1]
        power = math.log10(change) if change > 0 else _LEAST
        place = (power - _LEAST) / (_MOST - _LEAST) * len(_SCALE)
        return _SCALE[min(max(int(place), 0), len(_SCALE) - 1)]


def draw(measured: Measured, member: Trace, alone: Sequence[Op], path: Any, options: Mapping[str, Any]) -> Drawing:
    """Draw the graph of ``a``. The caption says what the colours mean, and what ``b`` alone ran."""
    node_fn: NodeSpecFn | None = options.get("node_spec_fn")
    module_fn: ModuleSpecFn | None = options.get("collapsed_node_spec_fn")

    def of_node(record: Op | Layer, spec: NodeSpec) -> NodeSpec | None:
        styled = measured.style(record.ops if isinstance(record, Layer) else [record], spec)
        return _then(node_fn, record, styled)

    def of_module(module: Module, spec: NodeSpec) -> NodeSpec | None:
        return _then(module_fn, module, measured.style(module.ops, spec))

    chosen = {**options, "node_spec_fn": of_node, "collapsed_node_spec_fn": of_module, "return_graph": True}
    drawing: Drawing = member.draw(path, **chosen)
    drawing.picture.scene.caption.extend(_caption(measured, alone))
    if not options.get("return_graph") and options.get("vis_mode") != "none":
        file, format = output_path(path, options.get("vis_fileformat"), formats())
        drawing.save(file, format)
    return drawing


def _then(function: Callable[[Any, NodeSpec], NodeSpec | None] | None, record: Any, spec: NodeSpec) -> NodeSpec | None:
    return spec if function is None else function(record, spec) or spec


def _caption(measured: Measured, alone: Sequence[Op]) -> list[str]:
    a, b = measured.names
    lines = [
        f"{a} against {b}, by {measured.metric.name}",
        "green: equal up to rounding; yellow to red: 1e-6 to 1; dashed: in one alone",
    ]
    if alone:
        shown = ", ".join(label_of(op) for op in alone[:6]) + (", ..." if len(alone) > 6 else "")
        lines.append(f"in {b} alone: {shown}")
    return [visible(line) for line in lines]
