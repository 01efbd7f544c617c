"""Looks at every value as the model runs, and stops the run at the first that is NaN or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, NonFiniteError, NotSupported, OptionError
from .extent import Extent, Which
from .nonfinite import Finder
from .undefined import Undefined

if TYPE_CHECKING:
    from ..records.trace import Trace
    from ..session import Session


def asked_for(raise_on_nan: bool | str) -> Which | None:
    """What ``raise_on_nan=`` means: True and ``'nan'`` are NaN, ``'inf'``, ``'nonfinite'`` is both."""
    if raise_on_nan is False:
        return None
    if raise_on_nan is True or raise_on_nan == "nan":
        return "nan"
    if raise_on_nan == "inf" or raise_on_nan == "nonfinite":
        return raise_on_nan  # type: ignore[return-value]
    raise OptionError(f"raise_on_nan is True or 'nan' (NaN), 'inf', 'nonfinite' (both) or False; got {raise_on_nan!r}.")


class Watch:
    """Of one session.

    Attributes:
        extents: value id -> what was in the array, for each that was looked at.
    """

    def __init__(self, session: Session, which: Which) -> None:
        self._session = session
        self._which = which
        self._undefined = Undefined(session.rows, session.deps)
        self.extents: dict[int, Extent | None] = {}
        self.error: NonFiniteError | None = None

    def look(self, vid: int, array: Any, *, is_buffer: bool = False) -> None:
        """Look at one array. Buffers are noted and never stop the run: the Op that takes them does."""
        try:
            extent = self.extents[vid] = self._session.arrays.extent(array)
        except NotSupported as error:
            raise CaptureError(f"raise_on_nan= looks at values, and there are none to look at. {error}") from None
        if extent is not None and extent.count(self._which) and not is_buffer and vid not in self._undefined:
            self._add_params()
            self.error = NonFiniteError("NaN or inf came up", vid)
            raise self.error

    def _add_params(self) -> None:
        """Look at the parameters that the last call took."""
        session = self._session
        arrays = {state.address: state.array for state in session.discovery.state}
        taken = set(session.rows[-1][3]) if session.rows else set()
        for source in session.sources:
            if source.kind == "param" and source.vid in taken:
                self.extents[source.vid] = session.arrays.extent(arrays[source.address])

    def explain(self, error: NonFiniteError, trace: Trace) -> None:
        """Give the error its words, now that there is a trace with labels."""
        from ..records.op import Op

        op = Op(trace, trace.graph.node_of[error.vid])
        extent = self.extents[error.vid]
        assert extent is not None
        error.found = Finder(trace, self._which, self.extents).describe(op, extent)
        error.args = (f"{error.found}\nThe trace up to there is the exception's partial_trace.",)
