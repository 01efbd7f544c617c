"""What records look like in a notebook. Every text is escaped: names come from models and from strangers' files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ..records.record import Record
from .text import fields_text, shape_text
from .untrusted import visible

if TYPE_CHECKING:
    from ..records.trace import Trace

MAX_ROWS = 200


def record_html(record: Record) -> str:
    """The declared fields that say something; below the text of the record where it has one of its own."""
    rows = fields_text(record)
    if type(record).__str__ is Record.__str__:
        return f"<div><b>{_text(_title(record))}</b>{_table([], rows)}</div>"
    return f"<div><pre>{escape(str(record))}</pre>{_folded('All fields', _table([], rows))}</div>"


def trace_html(trace: Trace) -> str:
    """The summary, and a table of the Ops to be folded out."""
    rows = [
        [str(op.ordinal_index), op.label, shape_text(op.shape), op.module or "", "yes" if op.has_saved_value else "no"]
        for op in trace
    ]
    ops = _folded(f"{len(trace)} Ops", _table(["#", "Op", "Shape", "Module", "Saved"], rows))
    return f"<div><b>{_text(_title(trace))}</b><pre>{escape(trace.summary())}</pre>{ops}</div>"


def list_html(title: str, records: Sequence[Record]) -> str:
    """One line a record."""
    return f"<div><b>{_text(title)}</b>{_table([], [[_title(record)] for record in records])}</div>"


def table_html(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under a title."""
    return f"<div><b>{_text(title)}</b>{_table(headers, rows)}</div>"


def _title(record: Record) -> str:
    return repr(record).strip("<>")


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{content}</details>"


def _table(headers: Sequence[str], rows: Sequence[Iterable[str]]) -> str:
    head = _row("th", headers) if headers else ""
    body = "".join(_row("td", row) for row in rows[:MAX_ROWS])
    left_out = f"<p>... {len(rows) - MAX_ROWS} more</p>" if len(rows) > MAX_ROWS else ""
    return f"<table>{head}{body}</table>{left_out}"


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(visible(text, 1000))
