"""The gradient at an Op."""

from __future__ import annotations

from ..gradients.lookup import GradientsAt
from .gradient_fields import GradientFields
from .op_node import OpNode


class OpGradient(GradientFields, OpNode):
    """Fields of an Op that describe the gradient with respect to its array."""

    __slots__ = ()

    @property
    def _gradients(self) -> GradientsAt:
        label, func = self._trace.labels.layer(self._layer), self._func
        how = f"tl.func({func.name!r})" if func is not None else f"tl.label({label!r})"
        name = self._trace.labels.op(self._node)
        return GradientsAt(self._trace, self._vid, name, f"save_grads=True or save_grads={how}", self._node)
