"""The table of cost rules, by type of operation: one for all frameworks. Asked through ``torchlens_core.costs``."""

from __future__ import annotations

from . import algorithms, elements, products, spatial
from .query import Rule

RULES: dict[str, Rule] = {**products.RULES, **elements.RULES, **spatial.RULES, **algorithms.RULES}
