"""DOT text to SVG, PDF or PNG: by the ``dot`` program where there is one, else by the libraries of pygraphviz.

The libraries run in a process of their own: a layout can then be stopped when it takes too long, and what a C library
prints, or how it dies, touches nobody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import DrawError

TIMEOUT = 120.0  # seconds

_BUNDLED = Path(__file__).with_name("bundled_graphviz.py")
_INSTALL = (
    "Install one of the two: `pip install pygraphviz` (2.0 or later carries the Graphviz libraries), or Graphviz "
    "itself, https://graphviz.org/download. vis_fileformat='dot' needs neither."
)
_SMALLER = (
    "Draw less (depth=1 collapses modules, vis_mode='rolled' repetitions, module='...' draws one), or give it more "
    "time: timeout=..."
)


def lay_out(dot: str, format: str, *, timeout: float = TIMEOUT) -> bytes:
    """The picture that DOT text describes, as a file of a format (``'svg'``, ``'pdf'``, ``'png'`` ...).

    Raises:
        DrawError: Graphviz is not installed, could not draw it, or took more than ``timeout`` seconds.
    """
    failures = []
    for name, command in _commands(format):
        try:
            done = subprocess.run(
                command, input=dot.encode(), capture_output=True, timeout=timeout, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired:
            raise DrawError(f"Graphviz ({name}) has not laid out the graph within {timeout:g} s. {_SMALLER}") from None
        except OSError as error:
            failures.append(f"{name}: {error}")
            continue
        if done.returncode == 0 and done.stdout:
            return done.stdout
        failures.append(f"{name}: {_last_words(done)}")
    raise DrawError(f"Graphviz could not draw the graph as {format}. {'; '.join(failures)}. {_INSTALL}")


def _commands(format: str) -> list[tuple[str, list[str]]]:
    program = shutil.which("dot")
    commands = [("the dot program", [program, f"-T{format}"])] if program else []
    return [*commands, ("pygraphviz", [sys.executable, "-P", str(_BUNDLED), format])]


def _environment() -> dict[str, str]:
    """The environment of this process, with its import path: the other Python is to find the same packages."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = [line for line in lines if not line.startswith("Fontconfig")]
    return said[-1][:300] if said else f"it ended with code {done.returncode} and wrote no picture"
