"""One backward pass: what was differentiated, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..show.quantities import counted
from .record import Record, field

if TYPE_CHECKING:
    from ..gradients.gradients import Gradients
    from ..gradients.store import Pass
    from .grad_fn import GradFn
    from .trace import Trace


class BackwardPass(Record):
    """A call of the framework's backward that reached an Op whose gradient was asked for."""

    __slots__ = ("_pass", "_trace")
    kind = "backward pass"

    def __init__(self, trace: Trace, done: Pass) -> None:
        self._trace = trace
        self._pass = done

    @field(group="names")
    def index(self) -> int:
        """Number, from 1, in the order in which the passes ran."""
        return self._pass.index

    @field(group="run")
    def loss(self) -> str:
        """What was differentiated: the class of the node that made it; empty where that is not known."""
        return self._pass.loss

    @field(group="run")
    def order(self) -> int:
        """Order of differentiation: 2 where the loss depends on the gradients of an earlier pass."""
        return self._pass.order

    @field(group="run")
    def was_recorded(self) -> bool:
        """Whether its ``grad_fns`` are known: ``log_backward`` ran it, or it ran in ``recording_backward()``."""
        return self._pass.was_recorded

    @field(group="counts")
    def num_gradients(self) -> int:
        """How many gradients at Ops it left."""
        return len(self.gradients)

    @field(group="counts")
    def num_grad_fns(self) -> int:
        """How many nodes of the gradient graph it reached."""
        return len(self._pass.nodes)

    @field(group="time", unit="ns")
    def duration_ns(self) -> int | None:
        """From its start, or the first gradient that arrived, to its end; None where that was not seen."""
        return self._pass.duration_ns

    @property
    def gradients(self) -> Gradients:
        """The gradients at Ops that it left, by label."""
        return self._trace.gradients_of_pass(self._pass)

    @property
    def grad_fns(self) -> list[GradFn]:
        """The nodes of the gradient graph that it reached, in the order in which they were found from the loss."""
        return [self._trace.grad_fn(number) for number in self._pass.nodes]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BackwardPass) and self._pass is other._pass

    def __hash__(self) -> int:
        return hash(id(self._pass))

    def _brief(self) -> str:
        return f"<BackwardPass {self.index}: {counted(self.num_gradients, 'gradient')}>"
