"""What is written on the nodes of a scene: title, shape and size, configuration, parameters, module."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..program import Scope
from ..records.op import Op
from ..show.quantities import bytes_text, duration_text, flops_text, macs_text
from ..show.untrusted import shortened, visible
from .params import ParamTotals, total
from .scene import Node, NodeKind

if TYPE_CHECKING:
    from ..records.param import Param
    from ..records.trace import Trace

LINE_LENGTH = 48  # where lists of settings and parameters are broken
MAX_LINES = 3  # of settings, and of parameters

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 24


def op_node(trace: Trace, id: str, nodes: Sequence[int], *, is_rolled: bool, profile: bool) -> Node:
    """The node of one Op, or of the passes of one layer."""
    ops = [Op(trace, node) for node in nodes]
    first = ops[0]
    kind: NodeKind = (
        "input" if first.is_input else "output" if first.is_output else "buffer" if first.is_buffer else "op"
    )
    title = times(first.layer_label, len(ops)) if is_rolled else trace.labels.neighbour(nodes[0])
    node = Node(id, kind, visible(title), ops=tuple(nodes))
    node.lines = [shape_line(ops), *_address_lines(first)]
    if kind == "op":
        node.lines += wrapped(f"{name}={_REPR.repr(value)}" for name, value in first.config.items())
        node.lines += _param_lines(first.params)
        node.params = total(first.params).state
        node.truth = _truth(ops)
        node.changes = changes(ops)
    if first.output_name or first.in_multi_output:
        node.lines.append(visible(f"output: {first.output_name or first.output_index}"))
    if profile:
        node.lines += _profile(ops)
    return node


def changes(ops: Iterable[Op]) -> list[str]:
    """What interventions changed at these Ops, each once."""
    texts = dict.fromkeys(text for op in ops for text in op.interventions)
    return wrapped(texts, separator="; ")


def times(name: str, count: int) -> str:
    """``linear_1_1 (x4)``."""
    return f"{name} (x{count})" if count > 1 else name


def call_title(trace: Trace, call: Scope, count: int) -> str:
    """``@encoder.0``; ``@cell:2`` for one of several calls; ``@cell (x4)`` for some of them or all (rolled)."""
    is_one_of_several = count == 1 and len(trace.structure.scopes_by_address[call.address]) > 1
    return visible(f"@{call.call_label}" if is_one_of_several else times(f"@{call.address}", count))


def module_lines(cls: str, shape: str, layers: int, totals: ParamTotals) -> list[str]:
    """Lines of a collapsed module: class, shape of what it returned, number of layers, parameters."""
    lines = [visible(cls), shape, f"{layers} layer{'s' if layers != 1 else ''} total"]
    return [line for line in (*lines, str(totals) if totals.elements else "") if line]


# -- lines -------------------------------------------------------------------------------------------------------------


def shape_line(ops: Sequence[Op]) -> str:
    """``(6, 5), 120 B``; where passes differ, of the first and the last."""
    texts = list(dict.fromkeys(f"{_shape(op.shape)}, {bytes_text(op.nbytes)}" for op in ops))
    return visible(texts[0] if len(texts) == 1 else f"{texts[0]} … {texts[-1]}")


def _shape(shape: Iterable[int]) -> str:
    sizes = tuple(shape)
    return repr(sizes) if sizes else "scalar"


def _address_lines(op: Op) -> list[str]:
    if op.is_buffer:
        version = op.buffer_version or 1
        return [visible(f"@{op.address}") + (f", version {version}" if version > 1 else "")]
    has_name = op.address is not None and op.address != "output"
    return [visible(f"@{op.address}")] if has_name else []


def _param_lines(params: Sequence[Param]) -> list[str]:
    shown = [f"{param.name} {_shape(param.shape)}" for param in params]
    shown = [text if param.is_trainable else f"[{text}]" for text, param in zip(shown, params, strict=True)]
    return wrapped(shown, separator=" · ", before="params: ")


def _profile(ops: Sequence[Op]) -> list[str]:
    costs = [(op.flops, op.macs) for op in ops if op.is_compute]
    lines = []
    if costs and all(flops is not None for flops, _ in costs):
        flops, macs = (sum(column) for column in zip(*costs, strict=True))
        lines.append(f"{flops_text(flops)}, {macs_text(macs)}")
    time = sum(op.duration_ns or 0 for op in ops)
    return [*lines, duration_text(time)] if time else lines


def _truth(ops: Sequence[Op]) -> str:
    values = [op.bool_value for op in ops if op.bool_value is not None]
    counts = {"TRUE": values.count(True), "FALSE": values.count(False)}
    return ", ".join(times(text, count) for text, count in counts.items() if count)


def wrapped(texts: Iterable[str], separator: str = ", ", before: str = "") -> list[str]:
    """Texts joined into lines of about ``LINE_LENGTH`` characters, ``MAX_LINES`` at most."""
    lines: list[str] = []
    for text in texts:
        text = visible(text, LINE_LENGTH)
        if lines and len(lines[-1]) + len(separator) + len(text) <= LINE_LENGTH:
            lines[-1] += separator + text
        elif len(lines) == MAX_LINES:
            lines[-1] = shortened(lines[-1], LINE_LENGTH) + separator + "…"
            break
        else:
            lines.append(text if lines else before + text)
    return lines


# -- caption -----------------------------------------------------------------------------------------------------------


def caption(trace: Trace, focus: str | None) -> list[str]:
    """Name of the model (and of the module drawn alone), arrays and parameters; where the run ended early, why."""
    ops: list[Op] = list(trace)
    params: Iterable[Param] = trace.params
    title = trace.model_name
    if focus is not None:
        module = trace.modules[focus]
        title = f"{title}: {focus} ({module.cls})"
        ops, params = module.ops, module.params
    lines = [
        visible(title),
        f"{len(ops)} tensors total ({bytes_text(sum(op.nbytes for op in ops))})",
        str(total(params)),
    ]
    if trace.halted is not None:
        lines.append(visible(f"halted at {trace.halted.layer_label}"))
    elif "error" in trace.facts:
        lines.append(visible(f"ended by {trace.facts['error']}"))
    return lines
