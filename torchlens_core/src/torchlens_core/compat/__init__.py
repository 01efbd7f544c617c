"""``tl.compat``: what a model is made of, and how well tracing goes with each of it."""

from .report import CompatReport, report
from .row import CompatRow

__all__ = ["CompatReport", "CompatRow", "report"]
