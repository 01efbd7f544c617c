"""The conditionals of a trace as records, and back."""

from __future__ import annotations

from typing import Any

from ..control_flow.conditionals import Conditional, ControlFlow, Execution, Predicate
from ..control_flow.source_tree import Span
from . import schema
from .source_text import SourceText
from .text import clean


def encode_control_flow(flow: ControlFlow, source: SourceText | None) -> schema.ControlFlowRecord:
    """The records; without ``source`` the files, functions and spans are left out."""
    return schema.ControlFlowRecord(
        conditionals=tuple(_conditional(conditional, source) for conditional in flow.conditionals),
        branch_stacks=tuple((op, tuple(stack)) for op, stack in flow.branch_stacks.items()),
        branch_edges=tuple((parent, child, ids) for (parent, child), ids in flow.branch_edges.items()),
        arm_entry_edges=tuple((id_, arm, edges) for (id_, arm), edges in flow.arm_entry_edges.items()),
    )


def _conditional(conditional: Conditional, source: SourceText | None) -> schema.ConditionalRecord:
    where: dict[str, Any] = {}
    if source is not None:
        where = {
            "file": source.name(conditional.file) if conditional.file else "",
            "function": clean(conditional.function),
            "function_span": conditional.function_span,
            "statement_span": conditional.statement_span,
            "test_span": conditional.test_span,
            "test_spans": tuple(conditional.test_spans.items()),
            "branch_spans": tuple(conditional.branch_spans.items()),
        }
    return schema.ConditionalRecord(
        kind=conditional.kind,
        parent=conditional.parent,
        parent_arm=conditional.parent_arm,
        executions=tuple(map(_execution, conditional.executions)),
        **where,
    )


def _execution(execution: Execution) -> schema.ExecutionRecord:
    return schema.ExecutionRecord(
        scope=execution.scope,
        call=execution.order,
        value=execution.value,
        arm=execution.arm,
        predicates=tuple(
            schema.PredicateRecord(event=p.event, op=p.op, value=p.value, test=p.test) for p in execution.predicates
        ),
        ops=execution.ops,
    )


def decode_control_flow(record: schema.ControlFlowRecord) -> ControlFlow:
    """The conditionals that the records tell of."""
    return ControlFlow(
        conditionals=tuple(_read_conditional(id_, item) for id_, item in enumerate(record.conditionals)),
        branch_stacks=dict(record.branch_stacks),
        branch_edges={(parent, child): ids for parent, child, ids in record.branch_edges},
        arm_entry_edges={(id_, arm): edges for id_, arm, edges in record.arm_entry_edges},
    )


def _read_conditional(id_: int, record: schema.ConditionalRecord) -> Conditional:
    return Conditional(
        id=id_,
        kind=record.kind,
        file=record.file,
        function=record.function,
        function_span=_span(record.function_span),
        statement_span=_span(record.statement_span),
        test_span=_span(record.test_span),
        test_spans={arm: Span(*span) for arm, span in record.test_spans},
        branch_spans={arm: Span(*span) for arm, span in record.branch_spans},
        parent=record.parent,
        parent_arm=record.parent_arm,
        executions=tuple(
            Execution(
                item.scope,
                item.call,
                item.value,
                item.arm,
                tuple(Predicate(p.event, p.op, p.value, p.test) for p in item.predicates),
                item.ops,
            )
            for item in record.executions
        ),
    )


def _span(span: schema.SpanRecord | None) -> Span | None:
    return None if span is None else Span(*span)
