"""The table: one row a measurement, written into docs/performance.md between its markers."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

_START, _END = "<!-- measured{}: start -->", "<!-- measured{}: end -->"
_TORCH = ("torch", "torchvision", "transformers", "numpy")


class Row(NamedTuple):
    what: str
    measured: str
    promised: str
    kept: bool | None  # None: nothing was promised, or not as a number


def table(rows: Iterable[Row]) -> str:
    """A markdown table."""
    verdicts = {True: "kept", False: "**not reached**", None: ""}
    lines = ["| what | measured | promised | |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.measured} | {row.promised} | {verdicts[row.kept]} |" for row in rows]
    return "\n".join(lines)


def conditions(threads: int, names: Iterable[str] = _TORCH) -> str:
    """What it was measured on, in one line."""
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return f"Measured with Python {platform.python_version()} on {platform.machine()}, {threads} threads; {versions}."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(page: Path, text: str, section: str = "") -> None:
    """Put the text between the page's markers of a section; what else is on the page stays."""
    start, end = (marker.format(f" {section}" if section else "") for marker in (_START, _END))
    old = page.read_text(encoding="utf-8")
    if old.count(start) != 1 or old.count(end) != 1:
        raise ValueError(f"{page} has to have {start} and {end} once each, for the table to stand between.")
    before, _, rest = old.partition(start)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
