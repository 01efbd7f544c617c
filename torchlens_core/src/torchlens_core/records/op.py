"""One executed operation with one output array. A view of two fields: the trace, and the number of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import selectors as select
from ..derived.graph import Kind
from ..errors import SelectorError
from .op_call import OpCall
from .op_change import OpChange
from .op_gradient import OpGradient
from .op_graph import OpGraph
from .op_place import OpPlace
from .op_value import OpValue
from .record import field

if TYPE_CHECKING:
    from ..selectors import Selector
    from .layer import Layer


class Op(OpValue, OpCall, OpGraph, OpPlace, OpChange, OpGradient):
    """An operation that ran: an input, a computation, a buffer version, an array of unknown origin, or an output."""

    __slots__ = ()
    is_live = False

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def label(self) -> str:
        """Full label, with the pass: ``conv2d_3_7:1``."""
        return self._trace.labels.op(self._node)

    @field(group="names")
    def label_short(self) -> str:
        """Short label, with the pass: ``conv2d_3:1``."""
        return f"{self._trace.labels.short(self._layer)}:{self.pass_index}"

    @field(group="names")
    def layer_label(self) -> str:
        """Label of its layer: ``conv2d_3_7``."""
        return self._trace.labels.layer(self._layer)

    @field(group="names")
    def layer_label_short(self) -> str:
        """Short label of its layer: ``conv2d_3``."""
        return self._trace.labels.short(self._layer)

    @field(group="names")
    def type(self) -> str:
        """The operation, in the word that all frameworks share: ``conv2d``, ``add``, ``input``."""
        return self._trace.labels.types[self._layer]

    @field(group="names")
    def type_index(self) -> int:
        """Number of its layer among the layers of its type, from 1."""
        return self._trace.labels.type_index[self._layer]

    @field(group="names")
    def pass_index(self) -> int:
        """Which pass of its layer it is, from 1."""
        return self._trace.labels.pass_of[self._node]

    @field(group="names")
    def num_passes(self) -> int:
        """How many passes its layer has."""
        return self._trace.labels.num_passes(self._layer)

    @field(group="names")
    def step_index(self) -> int | None:
        """Position among all compute Ops, repeats counted, from 1; None for inputs, buffers and outputs."""
        return self._trace.structure.step.get(self._node)

    @field(group="names")
    def ordinal_index(self) -> int | None:
        """The integer that finds it: ``trace[i]``, from 0; None for what lists leave out (buffers, orphans)."""
        return self._trace.structure.position.get(self._node)

    @field(group="names")
    def raw_index(self) -> int:
        """Position among everything that was recorded, buffers and orphans too, from 0."""
        return self._node

    @field(group="names", in_table=False)
    def lookup_keys(self) -> list[Any]:
        """Everything that ``trace[...]`` takes for it."""
        return self._trace.lookup.keys_of(self)

    @property
    def live_selector(self) -> Selector:
        """What selects it as the model runs, where its label cannot: ``tl.func('relu').nth(3)``.

        Raises:
            SelectorError: no operation made it: an input, a buffer version.
        """
        func = self._func
        if func is not None:
            same = select.func(func.name)
            return same.nth(self._trace.number_among(same, self._node))
        if self._kind == Kind.OUTPUT:
            return select.module("self")
        raise SelectorError(f"{self.label} is not computed by an operation, so nothing selects it as the model runs.")

    @property
    def layer(self) -> Layer:
        """The layer that it is a pass of."""
        return self._trace.layer(self._layer)

    # -- showing ---------------------------------------------------------------------------------------------------

    def _brief(self) -> str:
        return f"<Op {self.label} {self.shape}>"

    def __str__(self) -> str:
        from ..show.text import describe_op

        return describe_op(self)
