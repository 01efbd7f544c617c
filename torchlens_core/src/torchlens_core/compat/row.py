"""One thing that a model can be or have, and how tracing goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# It works, and tests trace such models; it works within limits that the details give; it does not work; nobody tried.
Status = Literal["pass", "scope", "known_broken", "not_tested"]
Severity = Literal["none", "info", "warning", "error"]


@dataclass(frozen=True)
class CompatRow:
    """One row of a report.

    Attributes:
        name: what was looked for: ``DistributedDataParallel``, ``sparse arrays``.
        status: how tracing goes with it, in this model or in others.
        details: what happens.
        suggestion: what to do; empty where nothing is to be done.
        evidence: where it was found; empty where it was not.
    """

    name: str
    status: Status
    details: str
    suggestion: str = ""
    evidence: str = ""

    @property
    def detected(self) -> bool:
        """Whether this model, or its arguments, have it."""
        return bool(self.evidence)

    @property
    def severity(self) -> Severity:
        """How much it matters here: ``none`` where it was not detected."""
        if not self.detected:
            return "none"
        return "info" if self.status == "pass" else "error" if self.status == "known_broken" else "warning"
