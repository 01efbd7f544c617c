"""Writes docs/capabilities.md: what each backend can do, from what the backends declare.

The frameworks live in different environments, so each writes a column of its own first:

    .venv/bin/python docs/generate_capabilities.py torch toy
    .venv-jax/bin/python docs/generate_capabilities.py jax

The columns stand in docs/capabilities/, as `python -m torchlens conformance NAME --declared --json` prints them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchlens_core.testing.conformance.command import fixtures_of
from torchlens_core.testing.conformance.declared import declared
from torchlens_core.testing.conformance.fixtures import FEATURES

PAGE = Path(__file__).parent / "capabilities.md"
COLUMNS = Path(__file__).parent / "capabilities"

JOBS = {
    "recording": "`tl.record`",
    "call": "replay, `tl.validate`, `tl.sweep`",
    "preserve": "`tl.sites`, `tl.validate`",
    "with_state": "`tl.validate` with other parameters",
    "grad": "`trace.gradients(of=...)`",
    "backward": "`save_grads=`, `trace.log_backward`",
    "recording_backward": "`trace.recording_backward()`",
    "abstract": "`tl.estimate`",
    "findings": "`tl.compat.report`",
    "settings": "arguments by name",
    "resolve": "operations of loaded traces, to be run",
}
"""What a user knows the jobs by that a backend may declare as not implemented."""

ABOUT = """\
# Capabilities

What each backend does, from what it declares: this page is generated. What is not declared is run by the [conformance
kit](tutorials/write_a_backend.md) in the tests of each backend, and holds. `toy` is the framework in numpy that core is
tested with.

`tl.backends()` tells of the backends that are installed what stands below under *jobs*; all of it is told by
`python -m torchlens conformance NAME --declared`.
"""


def column(backend: str) -> dict[str, Any]:
    """What an installed backend declares, as JSON has it."""
    return json.loads(json.dumps(asdict(declared(fixtures_of(backend)))))


def stored() -> dict[str, dict[str, Any]]:
    """The columns that have been written, by backend."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(COLUMNS.glob("*.json"))}


def write_column(backend: str) -> None:
    """Write the column of an installed backend."""
    COLUMNS.mkdir(exist_ok=True)
    (COLUMNS / f"{backend}.json").write_text(json.dumps(column(backend), indent=2) + "\n", encoding="utf-8")


def page() -> str:
    """The page."""
    columns = stored()
    names = list(columns)
    suites = list(dict.fromkeys(suite for each in columns.values() for suite in each["suites"]))
    jobs = [*JOBS, *sorted({job for each in columns.values() for job in each["jobs"]} - JOBS.keys())]
    features = {
        name: about for name, about in FEATURES.items() if any(name in each["cannot"] for each in columns.values())
    }
    return "\n".join(
        [
            ABOUT,
            "## Suites of the kit",
            "",
            "How many of the checks of each suite are run; the others are declared.",
            "",
            *_table("suite", names, [[suite, *(_run(each, suite) for each in columns.values())] for suite in suites]),
            "## Jobs",
            "",
            "Of a [backend](plugins.md#a-backend), those that one may declare as not implemented.",
            "",
            *_table(
                "job",
                names,
                [[_job(job), *("no" if job in each["jobs"] else "yes" for each in columns.values())] for job in jobs],
            ),
            "## What a framework does not have",
            "",
            *_table(
                "feature",
                names,
                [
                    [
                        f"{name.replace('_', ' ')}: {about}",
                        *("no" if name in each["cannot"] else "yes" for each in columns.values()),
                    ]
                    for name, about in features.items()
                ],
            ),
            "## Why",
            *(line for name, each in columns.items() for line in _reasons(name, each)),
            "",
        ]
    )


def _table(title: str, names: list[str], rows: list[list[str]]) -> list[str]:
    head = [f"| {title} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _run(each: dict[str, Any], suite: str) -> str:
    number, skipped = each["suites"].get(suite, (0, 0))
    return f"all {number}" if not skipped else f"{number - skipped} of {number}" if skipped < number else "none"


def _job(job: str) -> str:
    return f"`{job}`: {JOBS[job]}" if job in JOBS else f"`{job}`"


def _reasons(name: str, each: dict[str, Any]) -> list[str]:
    reasons = {f"`{job}`": why for job, why in each["jobs"].items()}
    reasons |= {key.replace("_", " "): why for key, why in each["cannot"].items()}
    rows = [f"- {key}: {why}" for key, why in reasons.items()]
    return ["", f"### {name}", "", f"Needs `{each['requires']}`.", "", *(rows or ["Nothing is declared."])]


if __name__ == "__main__":
    for each in sys.argv[1:]:
        write_column(each)
    PAGE.write_text(page(), encoding="utf-8")
