"""What Ops and parameters have in common: the gradient of a loss with respect to their array."""

from __future__ import annotations

from typing import Any

from ..gradients.lookup import GradientsAt
from .record import Record, field


class GradientFields(Record):
    """Fields that describe a gradient."""

    __slots__ = ()

    @property
    def _gradients(self) -> GradientsAt:
        raise NotImplementedError

    @property
    def grad(self) -> Any:
        """The gradient of the loss with respect to the array, in its shape, in the framework's own type.

        None where the framework can have none; ``grad_reason`` says why. At an Op it is dLoss/d(op.out), as it went on
        from there: what interventions and the model's own hooks made of it is in it. Of a parameter it is that of the
        one backward pass, not what has accumulated.

        Raises:
            GradientNotSaved: it was not asked for by ``save_grads=``, or no backward pass has run.
            BackwardPassError: several passes have one: see ``grads`` and ``grad_for``.
            ValueOverwritten: it was overwritten since.
        """
        return self._gradients.only()

    @property
    def grads(self) -> list[Any]:
        """The gradients of all backward passes, in order; None for a pass that has none."""
        return self._gradients.all()

    def grad_for(self, bwd: int) -> Any:
        """The gradient of one backward pass, by its number from 1; None where it has none."""
        return self._gradients.of_pass(bwd)

    @field(group="gradients")
    def has_grad(self) -> bool:
        """Whether a gradient was kept."""
        return bool(self._gradients.passes)

    @field(group="gradients")
    def num_grads(self) -> int:
        """How many backward passes left a gradient."""
        return len(self._gradients.passes)

    @field(group="gradients", unit="bytes")
    def grad_nbytes(self) -> int:
        """Size of the kept gradients of all passes; results of a transform that are no arrays count nothing."""
        return self._gradients.nbytes()

    @field(group="gradients")
    def grad_reason(self) -> str | None:
        """Why there is no gradient and can be none; None where there is one, or none was asked for."""
        return self._gradients.why_none()
