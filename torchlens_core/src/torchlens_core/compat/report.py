"""``tl.compat.report``: looks at a model and its arguments, and says what of them can be traced, and how."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..backend import Backend, Call
from ..errors import CaptureWarning, LabelError, MissingDependency, nearest
from ..show.quantities import counted
from ..show.text import table
from ..show.untrusted import visible
from ..tracing import backend_for, make_call
from ..validate import Validation, validate
from .row import CompatRow

_HEADERS = ("name", "status", "severity", "detected", "details", "suggestion")
_RUN = "this model, run"


class CompatReport(Sequence[CompatRow]):
    """What was looked for in a model. Prints as a table of what was found; True where all of that can be traced.

    Attributes:
        model: name of the model's class or function.
        backend: name of the backend.
        rows: all that was looked for, found or not.
        validation: what :func:`torchlens.validate` said; None where the model was not run.
    """

    def __init__(
        self, model: str, backend: str, rows: Sequence[CompatRow], validation: Validation | None = None
    ) -> None:
        self.model = model
        self.backend = backend
        self.rows = tuple(rows)
        self.validation = validation

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        for row in self.rows:
            if row.name == key:
                return row
        raise LabelError(f"The report has no row {key!r}.{nearest(key, [row.name for row in self.rows])}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[CompatRow]:
        return iter(self.rows)

    @property
    def detected(self) -> tuple[CompatRow, ...]:
        """The rows of what was found."""
        return tuple(row for row in self.rows if row.detected)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that is known not to work."""
        return all(row.severity != "error" for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        verdict = "ok" if self.ok else "NOT OK"
        return f"<CompatReport of {self.model} ({self.backend}): {verdict}, {len(self.detected)} found>"

    def __str__(self) -> str:
        head = f"{self.model} ({self.backend}): {'nothing known to fail' if self.ok else 'NOT OK'}"
        if not self.detected:
            return f"{head}. None of {len(self.rows)} special kinds was found: a plain model."
        found = table(["Found", "Status", "Where"], [(row.name, row.status, row.evidence) for row in self.detected])
        notes = [f"{row.name}: {row.details} {row.suggestion}".strip() for row in self.detected]
        others = (
            f"Looked for and not found: {len(self.rows) - len(self.detected)} others; report.to_markdown() lists all."
        )
        return "\n".join([head, found, *(visible(note, 1000) for note in notes), others])

    def to_markdown(self) -> str:
        """All rows as a table in Markdown."""
        lines = [f"| {' | '.join(_HEADERS)} |", f"|{'---|' * len(_HEADERS)}"]
        for row in self.rows:
            cells = [visible(str(cell), 1000).replace("|", "\\|") for cell in self._cells(row).values()]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def to_pandas(self) -> Any:
        """A data frame with a row for each: name, status, severity, detected, details, suggestion, evidence."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingDependency(
                "Data frames are made by pandas, which is not installed: pip install pandas"
            ) from None
        records = [{**self._cells(row), "detected": row.detected, "evidence": row.evidence} for row in self.rows]
        return pd.DataFrame(records, columns=[*_HEADERS, "evidence"])

    def _cells(self, row: CompatRow) -> dict[str, Any]:
        return {
            "name": row.name, "status": row.status, "severity": row.severity, "detected": row.evidence or "no",
            "details": row.details, "suggestion": row.suggestion,
        }  # fmt: skip


def report(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
    run: bool = False,
) -> CompatReport:
    """Look at a model and its arguments for all that tracing is known to do well, within limits, or not at all.

    Nothing runs, unless asked for: what only a run can show (code outside the framework, say) is then a row
    ``not_tested``.

    Args:
        model, args, kwargs, backend: as for :func:`torchlens.trace`.
        run: also trace the model and prove the trace by :func:`torchlens.validate`, which runs the model four times
            and leaves it as it was.
    """
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    discovery = chosen.discover(call)
    rows = list(chosen.findings(call, discovery))
    validation, row = _run(chosen, call) if run else (None, _NOT_RUN)
    return CompatReport(discovery.name, chosen.name, [row, *rows], validation)


_NOT_RUN = CompatRow(
    _RUN,
    "not_tested",
    "The report looked at the model and did not run it.",
    "report(model, x, run=True) traces it and proves the trace.",
)


def _run(backend: Backend, call: Call) -> tuple[Validation | None, CompatRow]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = validate(call.model, list(call.args), call.kwargs, backend=backend.name)
        except Exception as error:  # of the model, of the framework, or ours: all are findings here
            said = f"{type(error).__name__}: {error}"
            return None, CompatRow(_RUN, "known_broken", said, "tl.trace(model, x) shows where.", "it raised")
    unseen = [str(each.message) for each in caught if issubclass(each.category, CaptureWarning)]
    evidence = f"{counted(found.num_ops, 'op')} compared"
    if not found:
        return found, CompatRow(_RUN, "known_broken", " ".join(found.problems), "", evidence)
    if unseen:
        return found, CompatRow(_RUN, "scope", " ".join(unseen), "Their values are right.", evidence)
    details = (
        "It was traced, and the trace proven: replayed, also with other parameters, it gives what the model gives."
    )
    return found, CompatRow(_RUN, "pass", details, "", evidence)
