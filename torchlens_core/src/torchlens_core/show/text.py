"""What records look like in a terminal.

Names and settings come from models, and from files that strangers wrote: every line goes through ``visible``, which
writes out what a terminal would act on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NotSupported, ValueOverwritten
from .preview import preview
from .quantities import bytes_text, count_text, duration_text, flops_text, macs_text
from .untrusted import shortened, visible

if TYPE_CHECKING:
    from ..records.layer import Layer
    from ..records.location import CodeLocation
    from ..records.op import Op
    from ..records.record import Field, Record
    from ..records.trace import Trace

MAX_NAMES = 12  # of a list in one line
MAX_ROWS = 40  # of the table of Ops
_LINE = 2000  # characters
_TEXT_OF_UNIT = {"bytes": bytes_text, "ns": duration_text, "FLOPs": flops_text, "MACs": macs_text}


# -- pieces ------------------------------------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a frame of ``+``, ``-`` and ``|``, columns as wide as what stands in them.

    >>> print(table(["Layer", "Params"], [["input", "0"]]))
    +-------+--------+
    | Layer | Params |
    +-------+--------+
    | input | 0      |
    +-------+--------+
    """
    cells = [[visible(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def shortened_table(headers: Sequence[str], rows: Sequence[Sequence[str]], most: int = MAX_ROWS) -> str:
    """A table; of a long one its beginning, its end, and how many rows are left out."""
    if len(rows) > most:
        half = most // 2
        gap = ["...", f"{len(rows) - 2 * half} more"][: len(headers)]
        rows = [*rows[:half], gap + [""] * (len(headers) - len(gap)), *rows[len(rows) - half :]]
    return table(headers, rows)


def names_text(names: Sequence[Any]) -> str:
    """Names joined by commas; of a long list its beginning, and how many there are."""
    if not names:
        return "none"
    shown = ", ".join(name if isinstance(name, str) else value_text(name) for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown}, ... ({len(names)} in all)"


def value_text(value: Any) -> str:
    """A setting or a field as it is written in Python, at most 80 characters. A ``repr`` that fails does no harm."""
    try:
        text = repr(value)
    except Exception as error:  # the object is the user's
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return visible(text, 80)


def config_text(config: dict[str, Any]) -> str:
    """Settings as they are written in a call: ``out_channels=384, kernel_size=(3, 3)``."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in config.items())


def shape_text(shape: Iterable[int]) -> str:
    """``[1,3,224,224]``, as in the summary."""
    return f"[{','.join(map(str, shape))}]"


def field_text(field: Field, value: Any) -> str:
    """The value of a field in its unit."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    in_unit = _TEXT_OF_UNIT.get(field.unit)
    if in_unit is not None and isinstance(value, int | float):
        return in_unit(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in list(value.items())[:MAX_NAMES])
    if isinstance(value, list):
        return names_text(value)
    return str(value) if field.type in ("str", "str | None", "Any") else value_text(value)


def joined(lines: Iterable[str]) -> str:
    """Lines of text, each of them harmless."""
    return "\n".join(visible(line, _LINE) for line in lines)


# -- Ops and layers ----------------------------------------------------------------------------------------------------


def describe_op(op: Op) -> str:
    """Everything about an Op that a reader asks first, one line each."""
    return joined(
        [
            f"{_title(op)}:",
            *_value_lines(op),
            *_intervention_lines(op),
            *_relation_lines(op),
            *(_call_lines(op) if op.is_compute else _end_lines(op)),
            f"Lookup keys: {names_text(op.lookup_keys)}",
        ]
    )


def _title(op: Op) -> str:
    title = f"Layer {op.layer_label}"
    if op.num_passes > 1:
        title += f" (pass {op.pass_index}/{op.num_passes})"
    if op.step_index is not None:
        return f"{title}, operation {op.step_index}/{op.trace.num_ops}"
    return f"{title}, " + ("model input" if op.is_input else "model output" if op.is_output else
                           "buffer" if op.is_buffer else "orphan")  # fmt: skip


def _value_lines(op: Op) -> list[str]:
    dtype = f"{op.trace.backend_name}.{op.dtype_name}"
    lines = [f"Output tensor: shape={op.shape}, dtype={dtype}, size={bytes_text(op.nbytes)}"]
    if not op.has_saved_value:
        return [*lines, f"Value not saved: run the trace again with {op.how_to_save()}"]
    try:
        kept = op.numpy()
    except (ValueOverwritten, NotSupported) as error:
        return [*lines, f"Value not available: {error}"]
    if not isinstance(kept, np.ndarray):
        return [*lines, f"Kept of it, by a transform: {value_text(kept)}"]
    if op.has_transformed_value:
        lines.append(f"Kept of it, by a transform: shape={kept.shape}, dtype={kept.dtype}")
    return [*lines, preview(kept)]


def _intervention_lines(op: Op) -> list[str]:
    if not op.interventions:
        return []
    what = "Value changed as the model ran" if op.is_changed else "Value as computed; its gradient is changed"
    return [f"{what}: {'; '.join(op.interventions)}"]


def _relation_lines(op: Op) -> list[str]:
    lines = [
        "Related Layers:",
        f"- parent layers: {names_text(op.parents)}",
        f"- child layers: {names_text(op.children)}",
    ]
    for what, names in (("parents", op.siblings), ("children", op.co_parents)):
        if names:
            lines.append(f"- shares {what} with layers: {names_text(names)}")
    return lines


def _call_lines(op: Op) -> list[str]:
    lines = [_param_line(op), _func_line(op), f"Computed inside module: {op.module or 'none, directly in the model'}"]
    if op.config:
        lines.append(f"Config: {config_text(op.config)}")
    if op.in_multi_output:
        name = f" ({op.output_name})" if op.output_name else ""
        lines.append(f"Output number {op.output_index}{name} of its call")
    lines.append(f"Time elapsed: {'unknown' if op.duration_ns is None else duration_text(op.duration_ns)}")
    returned = [label for label in op.output_of_module_calls if label not in (op.module, "self:1")]
    if returned:
        lines.append(f"Output of modules: {names_text(returned)}")
    if op.conditional_branch_stack:
        lines.append("Inside conditionals: " + ", ".join(f"{n} ({arm})" for n, arm in op.conditional_branch_stack))
    if op.bool_value is not None:
        lines.append(f"Read as a bool: {op.bool_value}")
    return lines


def _param_line(op: Op | Layer) -> str:
    if not op.param_shapes:
        return "Params: no params used"
    shapes = ", ".join(map(str, op.param_shapes))
    total = f"{op.num_params} params total ({bytes_text(op.param_nbytes)})"
    return f"Params: Computed from params with shape {shapes}; {total}"


def _func_line(op: Op) -> str:
    grad_fn = f" (grad_fn_handle: {op.grad_fn_class_name})" if op.grad_fn_class_name else ""
    return f"Function: {op.func_name}{grad_fn}{', in-place' if op.is_inplace else ''}"


def _end_lines(op: Op) -> list[str]:
    version = f", version {op.buffer_version}" if op.buffer_version is not None else ""
    taken = [f"Given to modules: {names_text(op.input_to_module_calls)}"] if op.input_to_module_calls else []
    return [f"Address: {op.address}{version}", *taken]


def describe_layer(layer: Layer) -> str:
    """A layer: as its Op where it has one pass, what its passes share and have each for itself otherwise."""
    if layer.num_passes == 1:
        return describe_op(layer.ops[0])
    shapes = list(dict.fromkeys(layer.shapes))
    time = "unknown" if layer.duration_ns is None else duration_text(layer.duration_ns)
    lines = [
        f"Layer {layer.layer_label}, {layer.num_passes} passes:",
        f"Output tensors: shape={names_text(shapes)}, size={bytes_text(layer.nbytes)} in all",
        f"Passes: {names_text(layer.call_labels)}",
        "Related Layers:",
        f"- parent layers: {names_text(layer.parents)}",
        f"- child layers: {names_text(layer.children)}",
        _param_line(layer),
        f"Function: {layer.func_name}",
        f"Computed inside module: {layer.module or 'none, directly in the model'}",
        *([f"Config: {config_text(layer.config)}"] if layer.config else []),
        *(f"Pass {op.pass_index}: {line}" for op in layer.ops for line in _intervention_lines(op)),
        f"Time elapsed: {time} in all",
        f"Lookup keys: {layer.layer_label_short}, {layer.layer_label}",
    ]
    return joined(lines)


# -- other records -----------------------------------------------------------------------------------------------------


def describe_record(record: Record) -> str:
    """Every declared field that says something, one line each."""
    fields = [f"  {name}: {shortened(text, 200)}" for name, text in fields_text(record)]
    return joined([repr(record).strip("<>") + ":", *fields])


def fields_text(record: Record) -> list[tuple[str, str]]:
    """Names and texts of the declared fields that say something. What has a name beside it is shown by that."""
    fields = record.fields()
    names = {field.name for field in fields}
    texts = []
    for field in fields:
        value = getattr(record, field.name)
        if value is not None and value not in ([], (), {}, "") and f"{field.name}_name" not in names:
            texts.append((field.name, field_text(field, value)))
    return texts


def describe_location(location: CodeLocation) -> str:
    """The place, with three lines of source before and after it."""
    lines = [repr(location)]
    for number, text in location.numbered_context(3).items():
        mark = "->" if number == location.line_number else "  "
        lines.append(f"{mark} {number:4} | {text}")
    return joined(lines)


def describe_trace(trace: Trace) -> str:
    """What ran, in a few lines and a table of Ops."""
    lines = [repr(trace).strip("<>"), *_run_lines(trace)]
    rows = [_op_row(op) for op in trace]
    return f"{joined(lines)}\n{shortened_table(['#', 'Op', 'Shape', 'Module', 'Params'], rows)}"


def _run_lines(trace: Trace) -> list[str]:
    time = "" if trace.duration_ns is None else f" in {duration_text(trace.duration_ns)}"
    lines = [f"Run by {trace.backend_name} {trace.framework_version or ''}".rstrip() + time]
    if trace.halted is not None:
        lines.append(f"Halted at {trace.halted.label}")
    if trace.error is not None:
        lines.append(f"Ended by {trace.error}")
    if changed := interventions_text(trace):
        lines.append(changed)
    if trace.last_run is not None:
        lines.append(f"{trace.name}: {trace.last_run}")
    lines += [f"prepared: {when}" for when in trace.interventions]
    saved = f"{trace.num_saved_ops} of {len(trace)} values saved ({bytes_text(trace.saved_nbytes)})"
    return [*lines, f"{trace.num_edges} edges, {trace.num_module_calls} module calls, {saved}"]


def interventions_text(trace: Trace) -> str:
    """``Interventions: 3 changed 12 of 73 Ops``; empty where there were none."""
    changes = (*trace.program.changes, *trace.program.gradient_changes)
    if not changes:
        return ""
    whens = len({str(when) for change in changes for when in change.whens})
    return f"Interventions: {whens} changed {len(trace.steered_nodes)} of {trace.num_ops} Ops"


def _op_row(op: Op) -> list[str]:
    params = count_text(op.num_params) if op.uses_params else ""
    label = op.label if op.num_passes > 1 else op.layer_label
    return [str(op.ordinal_index), label, shape_text(op.shape), op.module or "", params]
