"""The nodes of the framework's gradient graph, paired with the Ops that they are the derivatives of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..gradients.tape import GradientMeta, TapeCall, TapeNode
from .op import Op
from .record import Record, field

if TYPE_CHECKING:
    from .param import Param
    from .trace import Trace


class GradFn(Record):
    """One function of the gradient graph.

    It takes the gradients at what a forward function returned, and gives those at what that took.
    """

    __slots__ = ("_number", "_trace")
    kind = "grad_fn"

    def __init__(self, trace: Trace, number: int) -> None:
        self._trace = trace
        self._number = number

    @property
    def _node(self) -> TapeNode:
        return self._trace.tape_nodes[self._number]

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def label(self) -> str:
        """``addmm_back_1_3``: type, number among those of its type, number among all, as found from the loss."""
        return self._trace.grad_fn_labels[self._number]

    @field(group="names")
    def type(self) -> str:
        """What it is the derivative of, in the framework's word: ``addmm``; ``accumulategrad`` ends at a leaf."""
        return self._node.type

    @field(group="names")
    def type_index(self) -> int:
        """Number among those of its type, from 1."""
        return int(self.label.rsplit("_", 2)[1])

    @field(group="names")
    def ordinal_index(self) -> int:
        """Number among all, from 0: ``trace.grad_fns[i]``."""
        return self._number

    # -- what it is ------------------------------------------------------------------------------------------------

    @field(group="function")
    def class_name(self) -> str:
        """The framework's class: ``AddmmBackward0``."""
        return self._node.name

    @field(group="function")
    def is_custom(self) -> bool:
        """Whether a user wrote it, and not the framework."""
        return self._node.is_custom

    @field(group="function")
    def order(self) -> int:
        """1 for derivatives of the model, 2 for derivatives of those, and so on."""
        return self._node.order

    @field(group="function")
    def origin_backward_pass(self) -> int:
        """Number of the backward pass that made it, being differentiable itself; 0 for the forward run."""
        return self._node.origin

    # -- the Op ----------------------------------------------------------------------------------------------------

    @property
    def ops(self) -> list[Op]:
        """The Ops that it is the derivative of, or of a part of which; several where a call returned several arrays."""
        nodes = (self._trace.graph.node_of[vid] for vid in self._node.vids)
        return [Op(self._trace, node) for node in nodes if node >= 0]

    @property
    def op(self) -> Op | None:
        """The first of them; None where there is none, or it is not known."""
        return next(iter(self.ops), None)

    @field(group="graph")
    def op_label(self) -> str | None:
        """Label of that Op."""
        op = self.op
        return None if op is None else self._trace.labels.neighbour(op.raw_index)

    @field(group="graph")
    def pairing(self) -> str | None:
        """How the Op is known: ``'paired'``: it made its array; ``'inferred'``: within its call; None without Op."""
        return (self._node.pairing or None) if self.op is not None else None

    @property
    def param(self) -> Param | None:
        """The parameter at which the gradient ends; None elsewhere."""
        return self._trace.param_of_vid.get(self._node.leaf)

    @field(group="graph")
    def leaf_address(self) -> str | None:
        """Address of the parameter, or name of the input, at which the gradient ends; None elsewhere."""
        leaf = self._node.leaf
        return next((source.address for source in self._trace.program.sources if source.vid == leaf), None)

    @field(group="modules")
    def modules(self) -> list[str]:
        """The module calls around its Op, outermost first; of a leaf the module that holds it."""
        op, param = self.op, self.param
        return op.modules if op is not None else [param.module_address] if param is not None else []

    @field(group="modules")
    def module(self) -> str | None:
        """The innermost of them."""
        return self.modules[-1] if self.modules else None

    # -- graph -----------------------------------------------------------------------------------------------------

    @field(group="graph")
    def parents(self) -> list[str]:
        """Labels of those whose gradients it takes: nearer to the loss."""
        return [self._trace.grad_fn_labels[number] for number in self._trace.tape_parents[self._number]]

    @field(group="graph")
    def children(self) -> list[str]:
        """Labels of those that take its gradients, one for each array: further from the loss."""
        return [self._trace.grad_fn_labels[number] for number in self._node.next]

    @property
    def parent_fns(self) -> list[GradFn]:
        """Those whose gradients it takes."""
        return [GradFn(self._trace, number) for number in self._trace.tape_parents[self._number]]

    @property
    def child_fns(self) -> list[GradFn]:
        """Those that take its gradients."""
        return [GradFn(self._trace, number) for number in self._node.next]

    # -- calls -----------------------------------------------------------------------------------------------------

    @field(group="calls")
    def backward_passes(self) -> list[int]:
        """Numbers of the backward passes that reached it."""
        passes = self._trace.gradient_store.passes if self._trace.gradient_store is not None else []
        return [done.index for done in passes if self._number in done.nodes]

    @property
    def calls(self) -> list[GradFnCall]:
        """Its calls, of passes that noted them: ``log_backward(loss, calls=True)``."""
        return [call for call in self._trace.grad_fn_calls if call.grad_fn == self]

    @field(group="calls")
    def num_calls(self) -> int:
        """How many calls were noted."""
        return len(self.calls)

    @field(group="time", unit="ns")
    def duration_ns(self) -> int | None:
        """Time of all noted calls; None where there is none, or that of one is unknown."""
        each = [call.duration_ns for call in self.calls]
        return None if not each or None in each else sum(filter(None, each))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and self._number == other._number and self._trace is other._trace

    def __hash__(self) -> int:
        return hash((id(self._trace), "grad_fn", self._number))

    def _brief(self) -> str:
        of = self.op_label or self.leaf_address
        return f"<GradFn {self.label}{f' of {of}' if of else ''}>"


class GradFnCall(Record):
    """One call of a function of the gradient graph in a backward pass."""

    __slots__ = ("_call", "_pass_index", "_trace")
    kind = "grad_fn call"

    def __init__(self, trace: Trace, pass_index: int, call: TapeCall) -> None:
        self._trace = trace
        self._pass_index = pass_index
        self._call = call

    @property
    def grad_fn(self) -> GradFn:
        """The function."""
        return self._trace.grad_fn(self._call.node)

    @field(group="names")
    def call_label(self) -> str:
        """``addmm_back_1_3:1``: with the number of the backward pass."""
        return f"{self.grad_fn.label}:{self._pass_index}"

    @field(group="names")
    def backward_pass_index(self) -> int:
        """Number of the backward pass."""
        return self._pass_index

    @field(group="value")
    def grad_outputs(self) -> list[GradientMeta | None]:
        """Shape and type of each gradient that it took: with respect to what the forward function returned."""
        return list(self._call.grad_outputs)

    @field(group="value")
    def grad_inputs(self) -> list[GradientMeta | None]:
        """Shape and type of each gradient that it gave: with respect to what the forward function took."""
        return list(self._call.grad_inputs)

    @field(group="time", unit="ns")
    def duration_ns(self) -> int | None:
        """How long it ran; None where the framework does not wait for the device."""
        return self._call.duration_ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFnCall) and self._call is other._call

    def __hash__(self) -> int:
        return hash(id(self._call))

    def _brief(self) -> str:
        return f"<GradFnCall {self.call_label}>"
