"""The suites, in the order in which an author makes them pass."""

from .arrays import ARRAYS
from .details import CONDITIONALS
from .manners import FAILURE, PURITY
from .operations import CAPTURE, CONTROL_FLOW, IN_PLACE, MODULES, OUTPUTS, RANDOMNESS, RECURRENCE, STATE
from .proving import FILES, GRADIENTS, REPLAY
from .reports import REPORTS
from .steering import HALT, INTERVENTIONS, RECORD, SELECTING

SUITES = (
    ARRAYS, CAPTURE, OUTPUTS, MODULES, STATE, RECURRENCE, CONTROL_FLOW, CONDITIONALS, IN_PLACE, RANDOMNESS, SELECTING,
    HALT, RECORD, INTERVENTIONS, GRADIENTS, REPLAY, FILES, REPORTS, FAILURE, PURITY,
)  # fmt: skip

__all__ = ["SUITES"]
