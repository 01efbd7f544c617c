"""Traces as text: a line an Op, the form in which cases declare what is to be seen.

    add_1_2 = input.x <- linear_1_1, input_1 | mul_1_1 in mid:1 mid.fc:1 -> mid.fc:1 mid:1

The label (with its pass where its layer has several); behind ``=`` the address of an input, output or buffer version;
behind ``<-`` the parents; behind ``|`` those parents by a write; behind ``in`` the module calls around it, and behind
``->`` those that returned it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_LINE = re.compile(
    r"(?P<label>\S+)(?: = (?P<address>\S+(?: v\d+)?))?"
    r"(?: <- (?P<parents>\S+(?:, \S+)*))?(?: \| (?P<writes>\S+(?:, \S+)*))?"
    r"(?: in (?P<modules>\S+(?: (?!->)\S+)*))?(?: -> (?P<returned>.+))?"
)


class Line(NamedTuple):
    """One Op, as text."""

    label: str
    address: str
    parents: tuple[str, ...]
    write_parents: tuple[str, ...]
    modules: tuple[str, ...]
    returned_by: tuple[str, ...]

    def __str__(self) -> str:
        parts = [self.label, f"= {self.address}" if self.address else ""]
        parts.append(f"<- {', '.join(self.parents)}" if self.parents else "")
        parts.append(f"| {', '.join(self.write_parents)}" if self.write_parents else "")
        parts.append(f"in {' '.join(self.modules)}" if self.modules else "")
        parts.append(f"-> {' '.join(self.returned_by)}" if self.returned_by else "")
        return " ".join(part for part in parts if part)


def parse(text: str) -> list[Line]:
    """The lines of a declaration."""
    return [_parsed(" ".join(line.split())) for line in text.splitlines()]


def _parsed(line: str) -> Line:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"not a line of an Op: {line!r}")
    commas, spaces = re.compile(", "), re.compile(" ")
    return Line(
        found["label"],
        found["address"] or "",
        *(tuple(commas.split(found[name])) if found[name] else () for name in ("parents", "writes")),
        *(tuple(spaces.split(found[name])) if found[name] else () for name in ("modules", "returned")),
    )


def lines(trace: Any) -> list[Line]:
    """What a trace holds: its Ops as they ran, then the versions of buffers."""
    ops = [*trace, *(op for buffer in trace.buffers for op in buffer.versions)]
    return [_line(op) for op in ops]


def _line(op: Any) -> Line:
    version = f" v{op.buffer_version}" if op.is_buffer else ""
    parents = tuple(parent for parent in op.parents if parent not in op.write_parents)
    return Line(
        op.label if op.num_passes > 1 else op.layer_label,
        f"{op.address}{version}" if op.address else "",
        parents,
        tuple(op.write_parents),
        tuple(op.modules) if op.is_compute else (),
        tuple(op.output_of_module_calls) if op.is_compute else (),
    )
