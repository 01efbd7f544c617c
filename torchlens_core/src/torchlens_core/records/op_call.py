"""The call that made an Op's array: function, arguments, configuration, parameters, time and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..derived.graph import Kind
from ..program import HOLE, walk_outs
from ..show.config import config
from .location import CodeLocation
from .op_node import OpNode
from .record import field

if TYPE_CHECKING:
    from .param import Param


class OpCall(OpNode):
    """Fields of an Op that describe its call. Inputs, buffers and outputs were made by none."""

    __slots__ = ()

    # -- function --------------------------------------------------------------------------------------------------

    @field(group="function")
    def func_name(self) -> str:
        """The framework's own name of the function: ``max_pool2d``, ``__add__``; for what is no operation its type."""
        func = self._func
        return func.name if func is not None else self._trace.labels.types[self._layer]

    @field(group="function")
    def func_path(self) -> str | None:
        """Full name of the function, by which it can be found again; None where it cannot be named."""
        return self._func.path if self._func is not None else None

    @property
    def func(self) -> Any:
        """The callable itself; None in a loaded trace and for what is no operation."""
        return self._func.func if self._func is not None else None

    @field(group="function")
    def func_call_id(self) -> int | None:
        """Number of the call; the outputs of one call share it."""
        return self._ref if self._kind == Kind.COMPUTE else None

    @field(group="function")
    def config(self) -> dict[str, Any]:
        """What the operation is set to: ``{'out_channels': 384, 'in_channels': 192, 'kernel_size': (3, 3), ...}``."""
        return config(self._trace.query(self._ref), self.settings) if self._kind == Kind.COMPUTE else {}

    @field(group="function", in_table=False)
    def settings(self) -> dict[str, Any]:
        """Arguments by name, arrays and those at their default left out."""
        if self._kind != Kind.COMPUTE:
            return {}
        return {name: value for name, value in self._trace.settings(self._ref).items() if not _holds_hole(value)}

    @field(group="function", in_table=False)
    def args(self) -> tuple[Any, ...]:
        """Positional arguments as they were given, arrays shown as ``<array>``."""
        return self._row.args if self._row is not None else ()

    @field(group="function", in_table=False)
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments as they were given, arrays shown as ``<array>``."""
        return self._row.kwargs if self._row is not None else {}

    @field(group="function")
    def is_inplace(self) -> bool:
        """Whether the call overwrote memory of one of its arguments."""
        return self._kind == Kind.COMPUTE and self._ref in self._trace.program.writes

    @field(group="function")
    def is_random(self) -> bool:
        """Whether the function draws random numbers."""
        return self._func is not None and self._func.random

    @property
    def rng_state(self) -> Any:
        """State of the generators before the call, where the trace was made ready for replay; None elsewhere."""
        return self._trace.program.rng.get(self._ref) if self._kind == Kind.COMPUTE else None

    @field(group="function")
    def autocast(self) -> str | None:
        """Element type that autocast computed in; None where it was off."""
        ambient = self._row.ambient if self._row is not None else None
        return ", ".join(ambient["autocast"].values()) if ambient and ambient.get("autocast") else None

    @field(group="function", in_table=False)
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels seen below the call (traced with ``kernels=True``)."""
        return tuple(self._trace.program.kernels.get(self._ref, ())) if self._kind == Kind.COMPUTE else ()

    @field(group="function", in_table=False)
    def code_context(self) -> list[CodeLocation]:
        """The call stack, from the model's own frame (``[0]``) inwards to the one that ran the call (``[-1]``)."""
        row = self._row
        return self._trace.locations(row.scope, row.site) if row is not None else []

    # -- arrays taken and returned ---------------------------------------------------------------------------------

    @property
    def _taken(self) -> list[int]:
        """Value ids of the arrays that it took, parameters left out."""
        row = self._row
        return [vid for vid in row.ins if vid not in self._trace.param_of_vid] if row is not None else []

    @field(group="arguments")
    def num_inputs(self) -> int:
        """How many arrays the call took, parameters left out; one that was given twice counts twice."""
        return len(self._taken)

    @field(group="arguments")
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Their shapes, in argument order."""
        return [tuple(self._trace.program.metas[vid][0]) for vid in self._taken]

    @field(group="arguments")
    def input_dtypes(self) -> list[str]:
        """Their element types, by the names that all frameworks share."""
        return [self._trace.dtype_name(self._trace.program.metas[vid][1]) for vid in self._taken]

    @field(group="arguments", unit="bytes")
    def input_nbytes(self) -> int:
        """Their size, an array that was given twice counted once."""
        return sum(self._trace.nbytes(vid) for vid in set(self._taken))

    @field(group="arguments")
    def constants(self) -> list[str]:
        """Where the arrays among them stand that are no Op: attributes, globals, variables of an enclosing function."""
        unmade = {vid for vid in self._taken if self._trace.graph.node_of[vid] < 0}
        return [source.address for source in self._trace.program.sources if source.vid in unmade] if unmade else []

    @field(group="arguments")
    def output_index(self) -> int:
        """Position among the arrays that its call returned, from 0."""
        return self._trace.graph.out_index[self._node]

    @field(group="arguments")
    def in_multi_output(self) -> bool:
        """Whether its call returned several arrays."""
        row = self._row
        return row is not None and not isinstance(row.outs, int)

    @field(group="arguments")
    def output_name(self) -> str | None:
        """Name of this output where the function names them (``values``, ``indices``)."""
        names = self._func.output_names if self._func is not None else ()
        return names[self.output_index] if self.output_index < len(names) else None

    @field(group="arguments")
    def container_path(self) -> tuple[int, ...]:
        """Where the array stood in what the call returned; empty for a bare array."""
        row = self._row
        return walk_outs(row.outs)[self.output_index][1] if row is not None else ()

    # -- parameters ------------------------------------------------------------------------------------------------

    @property
    def params(self) -> list[Param]:
        """The parameters that the call took, in argument order."""
        table = self._trace.param_of_vid
        vids = self._row.ins if self._row is not None else ()
        return [table[vid] for vid in dict.fromkeys(vids) if vid in table]

    @field(group="parameters")
    def uses_params(self) -> bool:
        """Whether the call took a parameter."""
        return bool(self.params)

    @field(group="parameters")
    def param_addresses(self) -> list[str]:
        """Addresses of the parameters that the call took."""
        return [param.address for param in self.params]

    @field(group="parameters")
    def param_shapes(self) -> list[tuple[int, ...]]:
        """Their shapes."""
        return [param.shape for param in self.params]

    @field(group="parameters")
    def num_params(self) -> int:
        """Number of parameter elements that the call took."""
        return sum(param.num_params for param in self.params)

    @field(group="parameters")
    def num_params_trainable(self) -> int:
        """Those of them that are trainable."""
        return sum(param.num_params for param in self.params if param.is_trainable)

    @field(group="parameters", unit="bytes")
    def param_nbytes(self) -> int:
        """Memory of the parameters that the call took."""
        return sum(param.nbytes for param in self.params)

    # -- time and cost ---------------------------------------------------------------------------------------------

    @field(group="cost", unit="ns")
    def start_ns(self) -> int | None:
        """When the call began, from the start of the run; None for what is no operation."""
        row = self._row
        return row.start_ns - self._trace.program.scopes[0].start_ns if row is not None and row.end_ns else None

    @field(group="cost", unit="ns")
    def duration_ns(self) -> int | None:
        """Time from call to return; None for what is no operation, and where the framework does not run at the call."""
        row = self._row
        return row.end_ns - row.start_ns if row is not None and row.end_ns else None

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations of the call (a multiply-add is two), counted at its first output; None: unknown."""
        cost = self._trace.cost_of(self)  # type: ignore[arg-type]
        return None if cost is None else cost.flops

    @field(group="cost", unit="MACs")
    def macs(self) -> int | None:
        """Multiply-accumulates of the call, counted at its first output; None: unknown."""
        cost = self._trace.cost_of(self)  # type: ignore[arg-type]
        return None if cost is None else cost.macs


def _holds_hole(value: Any) -> bool:
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if isinstance(value, dict):
        value = tuple(value.values())
    return value is HOLE or (isinstance(value, tuple | list) and any(_holds_hole(item) for item in value))
