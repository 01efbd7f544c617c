"""The module calls of a run as a tree in text, with their durations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..records.module_call import ModuleCall
from .quantities import duration_text
from .text import joined

if TYPE_CHECKING:
    from ..records.trace import Trace


def call_tree(trace: Trace, depth: int | None = None) -> str:
    """One line a call, indented below the call that it ran in.

    Args:
        trace: the run.
        depth: how many levels below the model; None shows all.
    """
    root = trace.module_calls["self:1"]
    lines = [f"{trace.model_name}  {duration_text(root.duration_ns)}"]
    lines += _branches(root, "", depth)
    return joined(lines)


def _branches(call: ModuleCall, indent: str, depth: int | None) -> Iterator[str]:
    if depth is not None and depth <= 0:
        return
    children = call.children
    for number, child in enumerate(children, start=1):
        is_last = number == len(children)
        name = child.address if child.module.num_calls == 1 else child.call_label
        yield f"{indent}{'└── ' if is_last else '├── '}{name} ({child.cls})  {duration_text(child.duration_ns)}"
        yield from _branches(child, indent + ("    " if is_last else "│   "), None if depth is None else depth - 1)
