"""The Ops that are one operation repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MultiPassError
from .op import Op
from .record import Record, field

if TYPE_CHECKING:
    from .param import Param
    from .trace import Trace


class Layer(Record):
    """A layer: its passes in order. What is the same in all passes can be asked of it; a value is asked of one pass."""

    __slots__ = ("_layer", "_trace")
    kind = "layer"

    def __init__(self, trace: Trace, layer: int) -> None:
        self._trace = trace
        self._layer = layer

    @property
    def ops(self) -> list[Op]:
        """Its passes, in the order they ran."""
        return [Op(self._trace, node) for node in self._trace.labels.nodes[self._layer]]

    @property
    def _first(self) -> Op:
        return Op(self._trace, self._trace.labels.nodes[self._layer][0])

    def __len__(self) -> int:
        return self.num_passes

    def __getitem__(self, number: int) -> Op:
        """The Op of one pass, from 1 as in labels; negative numbers count from the last."""
        ops = self.ops
        if number == 0 or not -len(ops) <= number <= len(ops):
            raise MultiPassError(f"{self.layer_label} has passes 1 to {len(ops)}; got {number}.")
        return ops[number - 1 if number > 0 else number]

    # -- names -----------------------------------------------------------------------------------------------------

    @field(group="names")
    def layer_label(self) -> str:
        """Full label: ``linear_1_1``."""
        return self._trace.labels.layer(self._layer)

    @property
    def label(self) -> str:
        """The same as ``layer_label``."""
        return self.layer_label

    @field(group="names")
    def layer_label_short(self) -> str:
        """Short label: ``linear_1``."""
        return self._trace.labels.short(self._layer)

    @field(group="names")
    def type(self) -> str:
        """The operation, in the word that all frameworks share."""
        return self._trace.labels.types[self._layer]

    @field(group="names")
    def type_index(self) -> int:
        """Number among the layers of its type, from 1."""
        return self._trace.labels.type_index[self._layer]

    @field(group="names")
    def num_passes(self) -> int:
        """How many times it ran."""
        return self._trace.labels.num_passes(self._layer)

    @field(group="names", in_table=False)
    def call_labels(self) -> list[str]:
        """Labels of its passes."""
        return [op.label for op in self.ops]

    # -- value -----------------------------------------------------------------------------------------------------

    @field(group="value")
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each pass."""
        return [op.shape for op in self.ops]

    @field(group="value")
    def dtype_names(self) -> list[str]:
        """Element types of its passes, each once."""
        return list(dict.fromkeys(op.dtype_name for op in self.ops))

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the arrays of all passes."""
        return sum(op.nbytes for op in self.ops)

    @field(group="value")
    def has_saved_value(self) -> bool:
        """Whether the value of a pass was kept."""
        return any(op.has_saved_value for op in self.ops)

    # -- function and parameters -----------------------------------------------------------------------------------

    @field(group="function")
    def func_name(self) -> str:
        """The framework's own name of the function, at the first pass."""
        return self._first.func_name

    @field(group="function")
    def config(self) -> dict[str, Any]:
        """What the operation is set to, at the first pass."""
        return self._first.config

    @property
    def params(self) -> list[Param]:
        """Its parameters, in argument order."""
        return self._first.params

    @field(group="parameters")
    def param_addresses(self) -> list[str]:
        """Addresses of its parameters."""
        return self._first.param_addresses

    @field(group="parameters")
    def param_shapes(self) -> list[tuple[int, ...]]:
        """Their shapes."""
        return self._first.param_shapes

    @field(group="parameters")
    def num_params(self) -> int:
        """Number of parameter elements that it takes."""
        return self._first.num_params

    @field(group="parameters")
    def num_params_trainable(self) -> int:
        """Those of them that are trainable."""
        return self._first.num_params_trainable

    @field(group="parameters", unit="bytes")
    def param_nbytes(self) -> int:
        """Memory of its parameters."""
        return self._first.param_nbytes

    # -- place -----------------------------------------------------------------------------------------------------

    @field(group="modules")
    def modules(self) -> list[str]:
        """Addresses of the modules around it at its first pass, outermost first."""
        return [call.rpartition(":")[0] for call in self._first.modules]

    @field(group="modules")
    def module(self) -> str | None:
        """Address of the innermost module around it; None directly in the model."""
        modules = self.modules
        return modules[-1] if modules else None

    @field(group="graph")
    def parents(self) -> list[str]:
        """Labels of the layers whose arrays its passes took."""
        return list(dict.fromkeys(parent.layer_label for op in self.ops for parent in op.parent_ops()))

    @field(group="graph")
    def children(self) -> list[str]:
        """Labels of the layers that took its arrays."""
        return list(dict.fromkeys(child.layer_label for op in self.ops for child in op.child_ops()))

    @field(group="graph", in_table=False)
    def parents_per_pass(self) -> dict[int, list[str]]:
        """Parents of each pass."""
        return {op.pass_index: op.parents for op in self.ops}

    @field(group="graph", in_table=False)
    def children_per_pass(self) -> dict[int, list[str]]:
        """Children of each pass."""
        return {op.pass_index: op.children for op in self.ops}

    @field(group="graph")
    def edges_vary_across_passes(self) -> bool:
        """Whether its passes have different parent or child layers."""
        edges = {
            (tuple(p.layer_label for p in op.parent_ops()), tuple(c.layer_label for c in op.child_ops()))
            for op in self.ops
        }
        return len(edges) > 1

    @field(group="conditionals")
    def conditional_branch_stacks(self) -> list[list[tuple[int, str]]]:
        """The conditionals around each pass, outermost first: (number, arm)."""
        return [op.conditional_branch_stack for op in self.ops]

    # -- time and cost ---------------------------------------------------------------------------------------------

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int | None:
        """Time of all passes; None where that of one is unknown."""
        each = [op.duration_ns for op in self.ops]
        return None if None in each else sum(filter(None, each))

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations of all passes; None where one is unknown."""
        each = [op.flops for op in self.ops]
        return None if None in each else sum(filter(None, each))

    @field(group="cost", unit="MACs")
    def macs(self) -> int | None:
        """Multiply-accumulates of all passes; None where one is unknown."""
        each = [op.macs for op in self.ops]
        return None if None in each else sum(filter(None, each))

    # -- what is asked of passes -----------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Op, name):
            raise AttributeError(f"a Layer has no {name!r}")
        if self.num_passes == 1:
            return getattr(self._first, name)
        if name in {field.name for field in Op.fields()}:
            first, *others = (getattr(op, name) for op in self.ops)
            if all(other == first for other in others):
                return first
        raise MultiPassError(
            f"{self.layer_label} has {self.num_passes} passes, each with its own {name!r}. Name one: "
            f"trace['{self.layer_label}:1'].{name}, or take all: [op.{name} for op in trace['{self.layer_label}'].ops]."
        )

    # -- identity and showing --------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self._layer == other._layer and self._trace is other._trace

    def __hash__(self) -> int:
        return hash((id(self._trace), "layer", self._layer))

    def _brief(self) -> str:
        return f"<Layer {self.layer_label} (x{self.num_passes})>"

    def __str__(self) -> str:
        from ..show.text import describe_layer

        return describe_layer(self)
