"""What interventions did at an Op."""

from __future__ import annotations

from typing import Any

from ..errors import ValueNotSaved
from .op_node import OpNode
from .record import field


class OpChange(OpNode):
    """Fields of an Op that tell how its value was changed as the model ran."""

    __slots__ = ()

    @field(group="interventions")
    def interventions(self) -> list[str]:
        """What acted on its value, in order, then on its gradient: ``when(func('relu'), scale(factor=0.5))``."""
        made = (*self._changes, *self._trace.gradient_changes_of.get(self._node, ()))
        return [str(when) for change in made for when in change.whens]

    @field(group="interventions")
    def is_changed(self) -> bool:
        """Whether an intervention put another value in the place of what was computed."""
        return bool(self._changes)

    @property
    def intervention_replaced(self) -> bool:
        """The same as ``is_changed``."""
        return self.is_changed

    @property
    def clean_out(self) -> Any:
        """The value as it was computed, before the first intervention (``tl.when(..., keep_clean=True)``).

        Raises:
            ValueNotSaved: nothing acted on it, or its clean value was not asked for.
        """
        for change in self._changes:
            clean = self._trace.values.clean(change.old)
            if clean is not None:
                return clean
        why = (
            "was not kept: tl.when(..., keep_clean=True)" if self._changes else "is op.out: no intervention changed it"
        )
        raise ValueNotSaved(f"The clean value of {self._trace.labels.op(self._node)} {why}.")

    @property
    def _changes(self) -> list[Any]:
        return self._trace.changes_of.get(self._node, [])
