"""``trace.summary()``: tables of a run, by what a reader wants to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..control_flow.conditionals import Conditional
from ..errors import OptionError, nearest
from .quantities import bytes_text, count_text, counted, duration_text, flops_text
from .text import interventions_text, joined, names_text, shape_text, table

if TYPE_CHECKING:
    from ..records.module import Module
    from ..records.op import Op
    from ..records.param import Param
    from ..records.trace import Trace

MAX_ROWS = 200  # of a table; past it its beginning, and how many more there are
_MAX_SHAPES = 3  # of what one module returned

Rows = list[list[str]]


def summary(trace: Trace, level: str = "overview") -> str:
    """A text about the run.

    Args:
        trace: the run.
        level: ``'overview'`` (top-level modules, totals), ``'graph'`` (layers and their neighbours), ``'memory'``,
            ``'compute'`` (FLOPs and MACs by type of operation), ``'time'``, or ``'control_flow'`` (layers with several
            passes, conditionals).

    Raises:
        OptionError: there is no such level.
    """
    make = LEVELS.get(level)
    if make is None:
        levels = ", ".join(map(repr, LEVELS))
        raise OptionError(f"A summary has the levels {levels}; got {level!r}.{nearest(str(level), LEVELS)}")
    lines = [line for part in make(trace) for line in part.split("\n")]
    return joined([f"Model: {trace.model_name}", *lines, *_ending(trace)])


def _ending(trace: Trace) -> list[str]:
    changed = interventions_text(trace)
    lines = [changed] if changed else []
    if trace.halted is not None:
        return [*lines, f"Run: halted at {trace.halted.label}"]
    return [*lines, f"Run: ended by {trace.error}"] if trace.error is not None else lines


# -- overview ----------------------------------------------------------------------------------------------------------


def _overview(trace: Trace) -> list[str]:
    rows = [[_end_name(op, trace.input_layers), shape_text(op.shape), "0", "-"] for op in trace if op.is_input]
    rows += [_module_row(module) for module in _top_level(trace)]
    rows += [[_end_name(op, trace.output_layers), shape_text(op.shape), "-", "-"] for op in trace if op.is_output]
    return [
        _table(["Layer", "Output Shape", "Params", "Train"], rows),
        f"Params: {trace.num_params:,} unique; trainable: {trace.num_params_trainable:,}",
        f"Ops: {trace.num_ops} total",
        f"Edges: {trace.num_edges} total",
        *_cost_lines(trace),
    ]


def _end_name(op: Op, all_of_kind: Sequence[str]) -> str:
    """``input``; ``input.x`` for one of several."""
    return op.type if len(all_of_kind) == 1 else op.address or op.type


def _top_level(trace: Trace) -> list[Module]:
    """The modules that the model itself called, in the order of their first call."""
    return [trace.modules[address] for address in trace.modules["self"].calls_to]


def _name(module: Module) -> str:
    name = f"{module.address} ({module.cls})"
    return name if module.num_calls == 1 else f"{name} (x{module.num_calls})"


def _module_row(module: Module) -> list[str]:
    shapes = [shape_text(shape) for shape in module.calls[-1].output_shapes]
    shown = ", ".join(shapes[:_MAX_SHAPES]) + (", ..." if len(shapes) > _MAX_SHAPES else "")
    return [_name(module), shown or "-", count_text(module.num_params), _trainable(module.params)]


def _trainable(params: Iterable[Param]) -> str:
    states = {param.is_trainable for param in params}
    return "-" if not states else "some" if len(states) == 2 else "yes" if True in states else "no"


def _cost_lines(trace: Trace) -> list[str]:
    cost, unknown = trace.cost
    lines = [f"Forward FLOPs: {flops_text(cost.flops)}  MACs: {flops_text(cost.macs)}"]
    if unknown:
        lines.append(f"Not counted: {counted(unknown, 'call')} of unknown cost ({names_text(_unknown_types(trace))})")
    return lines


def _unknown_types(trace: Trace) -> list[str]:
    return list(dict.fromkeys(op.type for op in trace.compute_ops if op.flops is None))


# -- graph -------------------------------------------------------------------------------------------------------------


def _graph(trace: Trace) -> list[str]:
    rows = [
        [
            layer.layer_label,
            str(layer.num_passes),
            names_text(layer.parents),
            names_text(layer.children),
            layer.module or "-",
        ]
        for layer in trace.layers
    ]
    return [
        _table(["Layer", "Passes", "Parents", "Children", "Module"], rows),
        f"Ops: {trace.num_ops} total in {trace.num_layers} layers",
        f"Edges: {trace.num_edges} total, {trace.num_layer_edges} between layers",
        f"Branching factor: {trace.branching_factor:.2f}; "
        f"most parents: {trace.max_in_degree}; most children: {trace.max_out_degree}",
        f"Buffers read or written: {names_text(trace.buffer_layers)}",
        f"Made inside the model: {names_text(trace.internal_source_layers)}",
        f"Reach no output: {names_text(trace.internal_sink_layers)}",
    ]


# -- memory ------------------------------------------------------------------------------------------------------------


def _memory(trace: Trace) -> list[str]:
    rows = [
        [_name(m), bytes_text(m.activation_nbytes), bytes_text(m.output_nbytes), bytes_text(m.param_nbytes)]
        for m in _top_level(trace)
    ]
    rows.append(["model", *map(bytes_text, (trace.activation_nbytes, _output_nbytes(trace), trace.param_nbytes))])
    return [
        _table(["Module", "Activations", "Output", "Params"], rows),
        f"Inputs: {bytes_text(sum(op.nbytes for op in trace if op.is_input))}",
        f"Saved values: {bytes_text(trace.saved_nbytes)} in {trace.num_saved_ops} of {len(trace)}",
    ]


def _output_nbytes(trace: Trace) -> int:
    return sum(op.nbytes for op in trace if op.is_output)


# -- compute -----------------------------------------------------------------------------------------------------------


def _compute(trace: Trace) -> list[str]:
    calls = {op.func_call_id: op for op in trace.compute_ops if op.func_call_id is not None}.values()
    times: Counter[str] = Counter()
    for op in calls:
        times[op.type] += op.duration_ns or 0
    counts = Counter(op.type for op in calls)
    unknown = set(_unknown_types(trace))
    macs = trace.macs_by_type
    rows = [
        [type_, str(counts[type_]), "unknown" if type_ in unknown else _scaled(flops), _scaled(macs[type_]),
         duration_text(times[type_])]
        for type_, flops in trace.flops_by_type.items()
    ]  # fmt: skip
    return [_table(["Type", "Calls", "FLOPs", "MACs", "Time"], rows), *_cost_lines(trace)]


def _scaled(flops: int) -> str:
    """``1.4 G``, for a column whose heading says of what."""
    return flops_text(flops).removesuffix("FLOPs").rstrip()


# -- time --------------------------------------------------------------------------------------------------------------


def _time(trace: Trace) -> list[str]:
    rows = [
        [_name(module), duration_text(module.duration_ns), duration_text(module.func_duration_ns)]
        for module in _top_level(trace)
    ]
    rows.append(["model", duration_text(trace.forward_duration_ns), duration_text(trace.func_duration_ns)])
    total = "unknown" if trace.duration_ns is None else duration_text(trace.duration_ns)
    return [_table(["Module", "Time", "In functions"], rows), f"Whole run: {total}"]


# -- control flow ------------------------------------------------------------------------------------------------------


def _control_flow(trace: Trace) -> list[str]:
    lines = [f"Recurrent: {'yes' if trace.is_recurrent else 'no'}"]
    repeated = [layer for layer in trace.layers if layer.num_passes > 1]
    if repeated:
        rows = [[layer.layer_label, str(layer.num_passes), layer.module or "-"] for layer in repeated]
        lines.append(_table(["Layer", "Passes", "Module"], rows))
    conditionals = trace.conditionals.conditionals
    lines.append(f"Conditionals: {len(conditionals)}")
    if conditionals:
        lines.append(_table(["Id", "Kind", "Place", "Ran", "Arms"], [_conditional_row(c) for c in conditionals]))
    return lines


def _conditional_row(conditional: Conditional) -> list[str]:
    span = conditional.statement_span
    place = f"{conditional.function}, line {span[0]}" if span is not None else conditional.function
    arms = Counter(_arm(run.arm, run.value) for run in conditional.executions)
    ran = [arm if times == 1 else f"{arm} (x{times})" for arm, times in arms.items()]
    return [str(conditional.id), conditional.kind, place, str(len(conditional.executions)), ", ".join(ran)]


def _arm(arm: str | None, value: bool | None) -> str:
    return arm or ("unknown" if value is None else "none")


# -- all levels --------------------------------------------------------------------------------------------------------


def _table(headers: Sequence[str], rows: Rows) -> str:
    if len(rows) > MAX_ROWS:
        rows = [*rows[:MAX_ROWS], [f"... {len(rows) - MAX_ROWS} more", *[""] * (len(headers) - 1)]]
    return table(headers, rows)


LEVELS: dict[str, Callable[[Trace], list[str]]] = {
    "overview": _overview,
    "graph": _graph,
    "memory": _memory,
    "compute": _compute,
    "time": _time,
    "control_flow": _control_flow,
}
