"""The conformance kit: what every plugin runs to prove itself.

With pytest it is one subclass of :class:`Conformance`; ``torchlens conformance BACKEND`` prints a table. What the
author of a plugin writes for it is :class:`Fixtures`. The tutorial *Write a backend* uses it step by step.
"""

from .check import Check, Nonconforming
from .conformance import Conformance, Report, checks, run
from .fixtures import FEATURES, Fixtures

__all__ = ["FEATURES", "Check", "Conformance", "Fixtures", "Nonconforming", "Report", "checks", "run"]
