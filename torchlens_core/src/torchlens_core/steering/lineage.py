"""Where a trace comes from: its parent, what was changed, and how it was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..interventions.when import When
    from ..records.trace import Trace

Engine = Literal["fork", "replay", "rerun"]


@dataclass(frozen=True, slots=True)
class LastRun:
    """How a trace was made from another one.

    Attributes:
        engine: ``'replay'``, ``'rerun'``, or ``'fork'`` where nothing was run.
        parent: name of the other one.
        interventions: what was changed, in words.
        rows_run: calls that were run.
        rows: calls that are on the tape.
        diverged_at: the event at which a replay left the recorded path, in words; None where it did not.
    """

    engine: Engine
    parent: str
    interventions: tuple[str, ...] = ()
    rows_run: int = 0
    rows: int = 0
    diverged_at: str | None = None

    def __str__(self) -> str:
        how = {"fork": "fork of", "replay": "replayed from", "rerun": "run again after"}[self.engine]
        run = f", {self.rows_run} of {self.rows} calls run" if self.engine == "replay" else ""
        changes = f", with {'; '.join(self.interventions)}" if self.interventions else ""
        left = f"; it left the recorded path at {self.diverged_at}" if self.diverged_at else ""
        return f"{how} {self.parent!r}{run}{changes}{left}"


def steered(
    trace: Trace,
    engine: Engine,
    whens: Iterable[When],
    *,
    rows_run: int = 0,
    rows: int = 0,
    diverged_at: str | None = None,
) -> dict[str, Any]:
    """What is noted in the facts of a trace that was made from another one."""
    return {
        "engine": engine,
        "parent": trace.name,
        "interventions": [*map(str, whens)],
        "rows_run": rows_run,
        "rows": rows,
        "diverged_at": diverged_at,
    }


def last_run(facts: Mapping[str, Any]) -> LastRun | None:
    """What was noted, None for a trace that was made from no other."""
    noted = facts.get("steered")
    return None if noted is None else LastRun(**{**noted, "interventions": tuple(noted["interventions"])})
