"""What is measured of each run of a sweep: functions of what the model returned, or of the trace."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError

if TYPE_CHECKING:
    from ..records.trace import Trace


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric.

    Attributes:
        function: of what the model returned, or of the trace.
        takes_trace: which of the two.
    """

    function: Callable[[Any], Any]
    takes_trace: bool

    def __call__(self, returned: Any, trace: Trace | None) -> Any:
        """Its result; numbers of the framework as numbers of Python."""
        result = self.function(trace if self.takes_trace else returned)
        return result.item() if hasattr(result, "item") and getattr(result, "shape", None) in ((), (1,)) else result


def measures(metric: Any) -> dict[str, Measure]:
    """What ``metric=`` means: a function, or functions by name."""
    if metric is None:
        return {}
    if isinstance(metric, Mapping):
        named = dict(metric)
    else:
        name = getattr(metric, "__name__", "metric")
        named = {"metric" if name == "<lambda>" else name: metric}
    for name, function in named.items():
        if not callable(function):
            raise OptionError(f"metric= takes a function, or {{name: function}}; got {function!r:.80} for {name!r}.")
        if name in ("run", "site", "value", "member"):
            raise OptionError(f"A metric cannot be called {name!r}: the table has a column of that name.")
    return {str(name): Measure(function, _takes_trace(function)) for name, function in named.items()}


def _takes_trace(function: Callable[..., Any]) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):  # of functions written in C
        return False
    return first == "trace"
