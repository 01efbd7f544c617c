"""The table: one row a measurement, written into docs/performance.md between its markers."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

START, END = "<!-- measured: start -->", "<!-- measured: end -->"


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


def conditions(threads: int) -> str:
    """What it was measured on, in one line."""
    names = ("torch", "torchvision", "transformers", "numpy")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return f"Measured with Python {platform.python_version()} on {platform.machine()}, {threads} threads; {versions}."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(page: Path, text: str) -> None:
    """Put the text between the page's markers."""
    old = page.read_text()
    before, _, rest = old.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{text}\n{END}{after}")
