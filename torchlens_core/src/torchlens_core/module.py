"""Modules of the model, and their calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .op import Op
from .program import ModuleInfo, Scope, walk_outs
from .record import Record, field

if TYPE_CHECKING:
    from .location import CodeLocation
    from .param import Param
    from .trace import Trace


class ModuleCall(Record):
    """One call of a module."""

    kind = "module_call"

    def __init__(self, trace: Trace, scope: Scope) -> None:
        self._trace = trace
        self._scope = scope

    @field(group="names")
    def call_label(self) -> str:
        """``features.6:1``"""
        return self._scope.call_label

    @field(group="names")
    def address(self) -> str:
        """Address of the module; ``self`` for the model."""
        return self._scope.address or "self"

    @field(group="names")
    def call_index(self) -> int:
        """Which call of the module it is, from 1."""
        return self._scope.call_index

    @property
    def _nodes(self) -> list[int]:
        first, last = self._scope.first_row, self._scope.last_row
        return [node for node in self._trace.structure.compute if first <= self._trace.row_position(node) < last]

    @property
    def ops(self) -> list[Op]:
        """The compute Ops that ran inside, at any depth."""
        return [Op(self._trace, node) for node in self._nodes]

    @field(group="contents")
    def op_labels(self) -> list[str]:
        """Their labels."""
        return [op.label for op in self.ops]

    @field(group="contents")
    def num_ops(self) -> int:
        """How many there are."""
        return len(self._nodes)

    @field(group="graph")
    def input_ops(self) -> list[str]:
        """Labels of the Ops whose arrays it was given."""
        nodes = (self._trace.graph.node_of[vid] for vid in dict.fromkeys(self._scope.ins))
        return [self._trace.labels.neighbour(node) for node in nodes if node >= 0]

    @field(group="graph")
    def output_ops(self) -> list[str]:
        """Labels of the Ops whose arrays it returned."""
        return [op.label for op in self.outputs]

    @property
    def outputs(self) -> list[Op]:
        """The Ops whose arrays it returned."""
        vids = [vid for vid, _ in walk_outs(self._scope.outs) if vid is not None]
        nodes = dict.fromkeys(self._trace.graph.node_of[vid] for vid in vids)
        return [Op(self._trace, node) for node in nodes if node >= 0]

    @field(group="graph")
    def parent_call(self) -> str | None:
        """Label of the module call that it ran in; None for the model's own."""
        parent = self._scope.parent
        while parent is not None and parent.kind != "module":
            parent = parent.parent
        return parent.call_label if parent is not None else None

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int:
        """Time from call to return."""
        return max(self._scope.end_ns - self._scope.start_ns, 0)

    @field(group="graph", in_table=False)
    def code_context(self) -> list[CodeLocation]:
        """The call stack, from the model's own call inwards to the line that called it."""
        parent = self._scope.parent
        return self._trace.locations(parent, self._scope.site) if parent is not None else []

    def __repr__(self) -> str:
        return f"<ModuleCall {self.call_label}, {self.num_ops} ops>"

    def __str__(self) -> str:
        from .text import describe_record

        return describe_record(self, f"Call {self.call_label}")

    def _repr_html_(self) -> str:
        from .html import record_html

        return record_html(self)


class Module(Record):
    """A module of the model, called or not."""

    kind = "module"

    def __init__(self, trace: Trace, info: ModuleInfo) -> None:
        self._trace = trace
        self._info = info

    @property
    def _scopes(self) -> list[Scope]:
        return self._trace.structure.scopes_by_address.get(self._info.address, [])

    @field(group="names")
    def address(self) -> str:
        """``encoder.0.attn``; ``self`` for the model."""
        return self._info.address or "self"

    @field(group="names")
    def aliases(self) -> tuple[str, ...]:
        """Other addresses of the same module."""
        return self._info.aliases

    @field(group="names")
    def name(self) -> str:
        """Last part of the address."""
        return self.address.rpartition(".")[2]

    @field(group="names")
    def cls(self) -> str:
        """Name of its class."""
        return self._info.cls

    @field(group="names")
    def qualname(self) -> str:
        """Full name of its class."""
        return self._info.qualname

    @field(group="names")
    def training(self) -> bool | None:
        """Whether it was in training mode."""
        return self._info.training

    @field(group="names", in_table=False)
    def facts(self) -> dict[str, Any]:
        """What else discovery noted: signature, source file, hooks, attributes of its own."""
        return dict(self._info.facts)

    @property
    def calls(self) -> list[ModuleCall]:
        """Its calls, in order."""
        return [ModuleCall(self._trace, scope) for scope in self._scopes]

    @field(group="calls")
    def num_calls(self) -> int:
        """How many times it was called."""
        return len(self._scopes)

    @field(group="calls")
    def call_labels(self) -> list[str]:
        """Labels of its calls."""
        return [scope.call_label for scope in self._scopes]

    @property
    def ops(self) -> list[Op]:
        """The compute Ops that ran inside it, at any depth, over all its calls."""
        return [op for call in self.calls for op in call.ops]

    @field(group="contents")
    def num_ops(self) -> int:
        """How many there are."""
        return sum(call.num_ops for call in self.calls)

    @field(group="contents")
    def layers(self) -> list[str]:
        """Labels of the layers that ran inside it."""
        return list(dict.fromkeys(op.layer_label for op in self.ops))

    @field(group="contents")
    def num_layers(self) -> int:
        """How many there are."""
        return len(self.layers)

    @field(group="tree")
    def parent(self) -> str | None:
        """Address of the module that holds it; None for the model."""
        if not self._info.address:
            return None
        return self._info.address.rpartition(".")[0] or "self"

    @field(group="tree")
    def children(self) -> list[str]:
        """Addresses of the modules that it holds, in the order of definition."""
        return self._trace.modules.children_of(self._info.address)

    @field(group="tree")
    def depth(self) -> int:
        """Nesting: 0 for the model, 1 for ``features``, 2 for ``features.0``."""
        return len(self._info.address.split(".")) if self._info.address else 0

    @property
    def params(self) -> list[Param]:
        """Its parameters and those of the modules below it."""
        return [param for param in self._trace.params if _is_below(param.module_address, self._info.address)]

    @field(group="parameters")
    def num_params(self) -> int:
        """Number of parameter elements in it and below it."""
        return sum(param.num_params for param in self.params)

    @field(group="parameters")
    def num_params_trainable(self) -> int:
        """Those of them that are trainable."""
        return sum(param.num_params for param in self.params if param.is_trainable)

    @field(group="parameters", unit="bytes")
    def param_nbytes(self) -> int:
        """Memory of its parameters."""
        return sum(param.nbytes for param in self.params)

    @field(group="graph")
    def input_ops(self) -> list[str]:
        """Labels of the Ops whose arrays its calls were given."""
        return list(dict.fromkeys(label for call in self.calls for label in call.input_ops))

    @field(group="graph")
    def output_ops(self) -> list[str]:
        """Labels of the Ops whose arrays its calls returned."""
        return list(dict.fromkeys(label for call in self.calls for label in call.output_ops))

    @property
    def outputs(self) -> list[Op]:
        """The Ops whose arrays its calls returned."""
        return [op for call in self.calls for op in call.outputs]

    @field(group="value")
    def output_shape(self) -> tuple[int, ...] | None:
        """Shape of what its last call returned; None where it returned no array or was not called."""
        outputs = self.outputs
        return outputs[-1].shape if outputs else None

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations inside it; None where one is unknown."""
        each = [op.flops for op in self.ops]
        return None if None in each else sum(filter(None, each))

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int:
        """Time of all its calls."""
        return sum(call.duration_ns for call in self.calls)

    def __repr__(self) -> str:
        return f"<Module {self.address} ({self.cls}), {self.num_calls} call(s)>"

    def __str__(self) -> str:
        from .text import describe_record

        return describe_record(self, f"Module {self.address} ({self.cls})")

    def _repr_html_(self) -> str:
        from .html import record_html

        return record_html(self)


def _is_below(address: str, ancestor: str) -> bool:
    return not ancestor or address == ancestor or address.startswith(ancestor + ".")
