"""Writes docs/reference/api.md from the public names and their docstrings: ``python docs/generate_api.py``."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torchlens as tl
from torchlens_core import errors
from torchlens_core.bundle import Comparison, Difference, Divergence, Relationship, Site, Sites, Table
from torchlens_core.draw.draw import draw
from torchlens_core.draw.drawing import Drawing
from torchlens_core.file import Inspection
from torchlens_core.plan import Keep
from torchlens_core.plugins import BackendInfo
from torchlens_core.records.accessors import Accessor, Modules
from torchlens_core.records.layer import Layer
from torchlens_core.records.location import CodeLocation
from torchlens_core.records.module import Module
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.records.param import Buffer, Param
from torchlens_core.records.record import DeclaredField, Record
from torchlens_core.records.selection import Selection
from torchlens_core.selectors import Selector
from torchlens_core.show.summary import summary

PAGE = Path(__file__).parent / "reference" / "api.md"
HEAD = """\
# Functions and classes

Made from the docstrings by `python docs/generate_api.py`; a test compares the two. What records are made of stands in
the [reference of fields](fields.md)."""

FUNCTIONS = {
    "Running a model": ("trace", "pluck", "sites", "validate"),
    "Selecting": (
        "func", "module", "in_module", "label", "contains", "regex", "where", "output", "followed_by", "preceded_by",
        "keep",
    ),
    "Comparing": ("bundle",),
    "Trace files": ("save", "load", "inspect", "verify"),
    "Plugins": ("backends",),
}  # fmt: skip
CLASSES: dict[str, tuple[type, ...]] = {
    "Records": (Record, tl.Trace, Op, Layer, Module, ModuleCall, Param, Buffer, CodeLocation),
    "Collections": (Accessor, Modules, Selection),
    "Bundles": (tl.Bundle, Site, Sites, Table, Comparison, Difference, Divergence, Relationship, tl.Metric),
    "What functions take and give": (Selector, Keep, tl.Validation, Drawing, Inspection, tl.Limits, BackendInfo),
}
# What is public for other parts of the project, and of no use to who uses it.
INSIDE = {
    "TraceBase": "backend buffers_below calls_inside cost_of dtype_name events_of graph labels layer locations lookup "
    "nbytes param_of_vid params_below query row_cost row_position settings taken_by users_of value_of",
    "TraceFacts": "cost facts",
    "Trace": "number_among",
    "OpGraph": "child_sites number_among parent_sites",
    "OpPlace": "module_address",
    "Module": "facts",
    "State": "holders",
    "Accessor": "find",
    "Modules": "addresses call children_of find parent_of primary",
    "Bundle": "alignment position",
    "Mapping": "get items keys values",
    "Sequence": "count index",
    "Selector": "check matches parts",
    "Keep": "is_plain waits_for_children",
    "Drawing": "picture scene",
}


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for heading, names in FUNCTIONS.items():
        parts += [f"## {heading}", *(described(f"tl.{name}", getattr(tl, name)) for name in names)]
    parts += ["## Showing a trace", described("trace.draw", draw), described("trace.summary", summary)]
    for heading, classes in CLASSES.items():
        parts += [f"## {heading}", *map(class_section, classes)]
    return "\n\n".join([*parts, "## Errors and warnings", error_tree()]) + "\n"


def class_section(cls: type) -> str:
    """One class: what it is, and its methods and properties that are no fields."""
    rows = [f"| {cell(f'`{name}`')} | {cell(about)} |" for name, about in members(cls)]
    table = ["", "| | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"### {cls.__name__}", "", text_of(cls), *table])


def members(cls: type) -> Iterator[tuple[str, str]]:
    """Name and first paragraph of each public member, in the order of definition; not those of another class here."""
    shown = {other for group in CLASSES.values() for other in group} - {cls}
    inherited = {name for other in shown if issubclass(cls, other) for name in dir(other)}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            hidden = name.startswith("_") or name in INSIDE.get(base.__name__, "").split() or name in inherited
            if hidden or isinstance(value, DeclaredField):
                continue
            doc = inspect.getdoc(value)
            if isinstance(value, property | cached_property) and doc:
                yield name, doc.partition("\n\n")[0]
            elif inspect.isfunction(value) or isinstance(value, classmethod):
                yield name + signature(getattr(cls, name)), (doc or "").partition("\n\n")[0]


def described(name: str, function: Callable[..., Any]) -> str:
    """One function: signature and docstring."""
    return f"### {name}\n\n```py\n{name}{signature(function)}\n```\n\n{text_of(function)}"


def signature(function: Callable[..., Any]) -> str:
    """The signature without `self` (or the trace of a method's function), an argument a line where it is long."""
    found = inspect.signature(function)
    parameters = [p for name, p in found.parameters.items() if name not in ("self", "trace")]
    arguments = [unquoted(str(p)) for p in parameters]
    first = next((i for i, p in enumerate(parameters) if p.kind == p.KEYWORD_ONLY), None)
    if first is not None:
        arguments.insert(first, "*")
    line = ", ".join(arguments)
    if len(line) > 80:
        line = "".join(f"\n    {argument}," for argument in arguments) + "\n"
    return f"({line}) -> {unquoted(str(found.return_annotation))}"


def unquoted(text: str) -> str:
    """An annotation without the quotes that `from __future__ import annotations` gives it."""
    return re.sub(r"""^((?:\*{0,2}\w+: )?)(['"])(.*?)\2""", r"\1\3", text)


def text_of(documented: Any) -> str:
    """A docstring as markdown: its sections as lists, its references as code."""
    doc = with_references(inspect.getdoc(documented) or "")
    return re.sub(r"^(Args|Raises|Attributes):\n((?:[ ]+.*\n?|\n)+)", section, doc, flags=re.MULTILINE).strip()


def section(match: re.Match[str]) -> str:
    """``Args:`` and its like as a list."""
    heading = {"Args": "Arguments", "Raises": "Raises", "Attributes": "Attributes"}[match[1]]
    items = re.split(r"^    (?=\S)", match[2], flags=re.MULTILINE)[1:]
    lines = [re.sub(r"^([\w, ]+?):", r"- `\1`:", " ".join(item.split())) for item in items]
    return "\n".join([f"**{heading}**", "", *lines, "", ""])


def cell(text: str) -> str:
    """Text that can stand in a cell of a table."""
    return with_references(" ".join(text.split())).replace("|", "\\|")


def with_references(text: str) -> str:
    """References as code, by the names that users know."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    known = {
        "torchlens_core.draw.draw": "trace.draw",
        "torchlens_core.show.summary.summary": "trace.summary",
        "torchlens.save": "tl.save",
    }
    return re.sub(r"(?<=`)[\w.]+(?=`)", lambda match: known.get(match[0], match[0]), text)


def error_tree() -> str:
    """All errors and warnings, those that derive from one under it."""
    lines: list[str] = []

    def add(cls: type, depth: int) -> None:
        about = (inspect.getdoc(cls) or "").partition("\n\n")[0]
        lines.append(f"{'  ' * depth}- `{cls.__name__}`: {cell(about)}")
        for child in cls.__subclasses__():
            if child.__module__ == errors.__name__:
                add(child, depth + 1)

    add(errors.TorchLensError, 0)
    add(errors.TorchLensWarning, 0)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
