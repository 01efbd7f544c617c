"""The case table: small models that every framework can be asked to run, with what is to be seen of them."""

from __future__ import annotations

from ..case import Case
from .control_flow import CONTROL_FLOW
from .loops import LOOPS
from .modules import MODULES
from .networks import NETWORKS
from .outputs import OUTPUTS
from .randomness import RANDOMNESS
from .state import STATE
from .writes import WRITES

CASES: tuple[Case, ...] = (
    *NETWORKS, *MODULES, *STATE, *LOOPS, *CONTROL_FLOW, *OUTPUTS, *WRITES, *RANDOMNESS,
)  # fmt: skip

__all__ = ["CASES"]
