"""One executed operation with one output array. A view of two fields: the trace, and the number of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .graph import Kind
from .location import CodeLocation
from .program import HOLE, Func, Meta, Row, Scope, Source, hole_paths, walk_outs
from .record import Record, field
from .session import module_calls

if TYPE_CHECKING:
    from .layer import Layer
    from .module import Module, ModuleCall
    from .param import Param
    from .trace import Trace


class Op(Record):
    """An operation that ran: an input, a computation, a buffer version, an array of unknown origin, or an output."""

    __slots__ = ("_node", "_trace")
    kind = "op"
    is_live = False

    def __init__(self, trace: Trace, node: int) -> None:
        self._trace = trace
        self._node = node

    # -- what it stands on -----------------------------------------------------------------------------------------

    @property
    def _kind(self) -> Kind:
        return Kind(self._trace.graph.kinds[self._node])

    @property
    def _ref(self) -> int:
        return self._trace.graph.refs[self._node]

    @property
    def _vid(self) -> int:
        return self._trace.graph.vids[self._node]

    @property
    def _layer(self) -> int:
        return self._trace.labels.layer_of[self._node]

    @property
    def _row(self) -> Row | None:
        return self._trace.program.rows[self._ref] if self._kind == Kind.COMPUTE else None

    @property
    def _source(self) -> Source | None:
        is_source = self._kind in (Kind.INPUT, Kind.BUFFER, Kind.SOURCE)
        return self._trace.program.sources[self._ref] if is_source else None

    @property
    def _scope(self) -> Scope:
        row = self._row
        return self._trace.program.scopes[0] if row is None else row.scope

    @property
    def _meta(self) -> Meta:
        return Meta(*self._trace.program.metas[self._vid])

    def _ops(self, nodes: Iterator[int] | Sequence[int]) -> list[Op]:
        return [Op(self._trace, node) for node in nodes]

    def _names(self, nodes: Iterator[int] | Sequence[int]) -> list[str]:
        return [self._trace.labels.neighbour(node) for node in nodes]

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
    def layer(self) -> Layer:
        """The layer that it is a pass of."""
        return self._trace.layer(self._layer)

    # -- value -----------------------------------------------------------------------------------------------------

    @property
    def out(self) -> Any:
        """The value at this Op, in the framework's own type (numpy in a loaded trace).

        Raises:
            ValueNotSaved: it was not selected by ``save=``.
            ValueOverwritten: it was kept by reference and something has overwritten it since the run.
        """
        return self._trace.value_of(self)

    def numpy(self) -> Any:
        """The value as a numpy array."""
        return self._trace.value_of(self, as_numpy=True)

    @field(group="value")
    def has_saved_value(self) -> bool:
        """Whether its value was kept."""
        return self._vid in self._trace.values

    @field(group="value")
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._meta.shape

    @field(group="value")
    def dtype(self) -> Any:
        """Element type, the framework's own object (its name in a loaded trace)."""
        return self._meta.dtype

    @field(group="value")
    def device(self) -> Any:
        """Where the array was."""
        return self._meta.device

    @field(group="value", unit="bytes")
    def nbytes(self) -> int:
        """Size of the array: elements times element size."""
        return self._trace.nbytes(self._vid)

    @field(group="value")
    def batch_dims(self) -> tuple[int, ...]:
        """Axes that ``vmap`` added, whose values are batched."""
        return self._trace.program.batch_dims.get(self._vid, ())

    # -- function --------------------------------------------------------------------------------------------------

    @property
    def _func(self) -> Func | None:
        row = self._row
        return row.func if row is not None else None

    @field(group="function")
    def func_name(self) -> str:
        """The framework's own name of the function: ``max_pool2d``, ``__add__``; ``input``, ``output`` ... for the others."""
        row = self._row
        return row.func.name if row is not None else self.type

    @field(group="function")
    def func_path(self) -> str | None:
        """Full name of the function, ``torch.nn.functional.relu``; None where it cannot be named."""
        return self._func.path if self._func is not None else None

    @property
    def func(self) -> Any:
        """The callable itself; None in a loaded trace and for what is no operation."""
        return self._func.func if self._func is not None else None

    @field(group="function")
    def func_call_id(self) -> int | None:
        """Number of the call; the outputs of one call share it."""
        return self._ref if self._kind == Kind.COMPUTE else None

    @field(group="function", in_table=False)
    def args(self) -> tuple[Any, ...]:
        """Positional arguments as they were given, arrays shown as ``<array>``."""
        return self._row.args if self._row is not None else ()

    @field(group="function", in_table=False)
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments as they were given, arrays shown as ``<array>``."""
        return self._row.kwargs if self._row is not None else {}

    @field(group="function", in_table=False)
    def settings(self) -> Mapping[str, Any]:
        """Arguments by name, arrays and those at their default left out."""
        return {name: value for name, value in self._trace.settings(self._ref).items() if not _holds_hole(value)} if (
            self._kind == Kind.COMPUTE) else {}  # fmt: skip

    @field(group="function")
    def output_index(self) -> int:
        """Position among the arrays that its call returned, from 0."""
        return self._trace.graph.out_index[self._node]

    @field(group="function")
    def in_multi_output(self) -> bool:
        """Whether its call returned several arrays."""
        row = self._row
        return row is not None and not isinstance(row.outs, int)

    @field(group="function")
    def output_name(self) -> str | None:
        """Name of this output where the function names them (``values``, ``indices``)."""
        names = self._func.output_names if self._func is not None else ()
        return names[self.output_index] if self.output_index < len(names) else None

    @field(group="function")
    def container_path(self) -> tuple[int, ...]:
        """Where the array stood in what the call returned; empty for a bare array."""
        row = self._row
        return walk_outs(row.outs)[self.output_index][1] if row is not None else ()

    @field(group="function")
    def is_inplace(self) -> bool:
        """Whether the call overwrote memory of one of its arguments."""
        return self._kind == Kind.COMPUTE and self._ref in self._trace.program.writes

    @field(group="function")
    def grad_fn_class_name(self) -> str | None:
        """Class of the autograd node that made the array, ``ConvolutionBackward0``; None where there is none."""
        return self._meta.grad_fn

    @field(group="function", unit="ns")
    def duration_ns(self) -> int | None:
        """Time from call to return; None for what is no operation."""
        row = self._row
        return row.end_ns - row.start_ns if row is not None and row.end_ns else None

    @field(group="function")
    def autocast(self) -> str | None:
        """dtype that autocast computed in; None where it was off."""
        ambient = self._row.ambient if self._row is not None else None
        return ", ".join(ambient["autocast"].values()) if ambient and ambient.get("autocast") else None

    @field(group="function", in_table=False)
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels seen below the call (traced with ``kernels=True``)."""
        return self._trace.program.kernels.get(self._ref, ()) if self._kind == Kind.COMPUTE else ()

    @field(group="function", in_table=False)
    def code_context(self) -> list[CodeLocation]:
        """The call stack, from the model's own call (``[0]``) inwards to the line that called the operation (``[-1]``)."""
        row = self._row
        return self._trace.locations(row.scope, row.site) if row is not None else []

    # -- parameters ------------------------------------------------------------------------------------------------

    @property
    def params(self) -> list[Param]:
        """The parameters that the call took, in argument order."""
        table = self._trace.param_of_vid
        vids = self._row.ins if self._row is not None else ()
        return [table[vid] for vid in dict.fromkeys(vids) if vid in table]

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

    @field(group="parameters")
    def uses_params(self) -> bool:
        """Whether the call took a parameter."""
        return bool(self.params)

    # -- cost ------------------------------------------------------------------------------------------------------

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int | None:
        """Floating-point operations of the call (a multiply-add is two), counted at its first output; None: unknown."""
        cost = self._trace.cost_of(self)
        return None if cost is None else cost.flops

    @field(group="cost", unit="MACs")
    def macs(self) -> int | None:
        """Multiply-accumulates of the call, counted at its first output; None: unknown."""
        cost = self._trace.cost_of(self)
        return None if cost is None else cost.macs

    # -- graph -----------------------------------------------------------------------------------------------------

    @field(group="graph")
    def parents(self) -> list[str]:
        """Labels of the Ops whose arrays the call took, each once, by first argument position."""
        return self._names(dict.fromkeys(self._shown(self._trace.graph.parents_of(self._node))).keys())  # type: ignore[arg-type]

    @field(group="graph")
    def children(self) -> list[str]:
        """Labels of the Ops that took this array, in the order they ran."""
        return self._names(dict.fromkeys(self._shown(self._trace.graph.children_of(self._node))).keys())  # type: ignore[arg-type]

    def _shown(self, nodes: Sequence[int]) -> list[int]:
        hidden = self._trace.structure.hidden
        return [node for node in nodes if not hidden[node] or hidden[self._node]]

    def parent_ops(self) -> list[Op]:
        """The Ops whose arrays the call took, each once."""
        return self._ops(list(dict.fromkeys(self._shown(self._trace.graph.parents_of(self._node)))))

    def child_ops(self) -> list[Op]:
        """The Ops that took this array, each once."""
        return self._ops(list(dict.fromkeys(self._shown(self._trace.graph.children_of(self._node)))))

    parent_sites = parent_ops
    child_sites = child_ops

    def count(self, selector: Any, matched: bool) -> int:
        """Which match of a counting selector this is, from 1."""
        return self._trace.count_match(selector, self._node)

    @field(group="graph", in_table=False)
    def parent_arg_positions(self) -> dict[str, dict[Any, str]]:
        """Which parent each argument is: ``{'args': {0: 'relu_1_2'}, 'kwargs': {'mask': 'input_2'}}``.

        An argument inside a container has a path: ``{(0, 1): 'relu_1_2'}``.
        """
        positions: dict[str, dict[Any, str]] = {"args": {}, "kwargs": {}}
        row = self._row
        if row is not None:
            paths = hole_paths(row)
            for edge in self._trace.graph.edges_into(self._node):
                if not edge.is_write:
                    path = paths[edge.hole]
                    key = path[0] if len(path) == 1 else path
                    side = "args" if isinstance(path[0], int) else "kwargs"
                    positions[side][key] = self._trace.labels.neighbour(edge.parent)
        return positions

    @field(group="graph", in_table=False)
    def write_parents(self) -> list[str]:
        """Labels of the Ops that overwrote memory of an argument through another array, before this Op read it."""
        edges = self._trace.graph.edges_into(self._node)
        return self._names(list(dict.fromkeys(edge.parent for edge in edges if edge.is_write)))

    @field(group="graph")
    def siblings(self) -> list[str]:
        """Labels of the other Ops that share a parent with it."""
        graph = self._trace.graph
        shared = (child for parent in graph.parents_of(self._node) for child in graph.children_of(parent))
        return self._names([node for node in dict.fromkeys(shared) if node != self._node])

    @field(group="graph")
    def co_parents(self) -> list[str]:
        """Labels of the other Ops that share a child with it."""
        graph = self._trace.graph
        shared = (parent for child in graph.children_of(self._node) for parent in graph.parents_of(child))
        return self._names([node for node in dict.fromkeys(shared) if node != self._node])

    @field(group="graph")
    def is_input(self) -> bool:
        """Whether it is an argument of the model."""
        return self._kind == Kind.INPUT

    @field(group="graph")
    def is_output(self) -> bool:
        """Whether it is what the model returned."""
        return self._kind == Kind.OUTPUT

    @field(group="graph")
    def is_compute(self) -> bool:
        """Whether it is a numbered Op: no input, buffer or output."""
        return self._kind in (Kind.COMPUTE, Kind.SOURCE)

    @field(group="graph")
    def is_output_parent(self) -> bool:
        """Whether the model returned its array."""
        return any(self._trace.graph.kinds[child] == Kind.OUTPUT for child in self._trace.graph.children_of(self._node))

    @field(group="graph")
    def is_orphan(self) -> bool:
        """Whether it is connected to neither an input nor an output."""
        return bool(self._trace.graph.orphans[self._node])

    @field(group="graph")
    def has_input_ancestor(self) -> bool:
        """Whether an input leads to it."""
        return bool(self._trace.graph.from_input[self._node])

    @field(group="graph")
    def has_output_descendant(self) -> bool:
        """Whether it leads to an output."""
        return bool(self._trace.graph.to_output[self._node])

    @field(group="graph")
    def is_internal_source(self) -> bool:
        """Whether its array was made inside the model, from no other Op (``zeros``, ``arange``)."""
        return self.is_compute and not self._trace.graph.parents_of(self._node)

    @field(group="graph")
    def is_internal_sink(self) -> bool:
        """Whether it is computed and reaches no output."""
        return self.is_compute and not self._trace.graph.to_output[self._node]

    @field(group="graph", in_table=False)
    def input_ancestors(self) -> list[str]:
        """Labels of the inputs that lead to it."""
        nodes = self._trace.graph.reachable(self._node, backwards=True)
        return self._names([n for n in sorted(nodes) if self._trace.graph.kinds[n] == Kind.INPUT])

    @field(group="graph", in_table=False)
    def output_descendants(self) -> list[str]:
        """Labels of the outputs that it leads to."""
        nodes = self._trace.graph.reachable(self._node, backwards=False)
        return self._names([n for n in sorted(nodes) if self._trace.graph.kinds[n] == Kind.OUTPUT])

    @field(group="graph", unit="edges")
    def min_distance_from_input(self) -> int | None:
        """Fewest edges from any input; None where none leads here."""
        return _or_none(self._trace.graph.distances_from_input[0][self._node])

    @field(group="graph", unit="edges")
    def max_distance_from_input(self) -> int | None:
        """Most edges from any input; None where none leads here."""
        return _or_none(self._trace.graph.distances_from_input[1][self._node])

    @field(group="graph", unit="edges")
    def min_distance_to_output(self) -> int | None:
        """Fewest edges to any output; None where it leads to none."""
        return _or_none(self._trace.graph.distances_to_output[0][self._node])

    @field(group="graph", unit="edges")
    def max_distance_to_output(self) -> int | None:
        """Most edges to any output; None where it leads to none."""
        return _or_none(self._trace.graph.distances_to_output[1][self._node])

    # -- inputs, outputs, buffers ----------------------------------------------------------------------------------

    @field(group="state")
    def address(self) -> str | None:
        """``input.x``, ``output.logits``, a buffer's address; None for operations."""
        if self._kind == Kind.OUTPUT:
            path = self._trace.program.outputs[self._ref].path
            return f"output.{path}" if path else "output"
        source = self._source
        if source is None or source.kind == "unknown":
            return None
        return f"input.{source.address}" if source.kind == "input" else source.address

    @field(group="state")
    def is_buffer(self) -> bool:
        """Whether it is a version of a buffer."""
        return self._kind == Kind.BUFFER

    @field(group="state")
    def buffer_version(self) -> int | None:
        """Which version of its buffer it is, from 1; None for others."""
        source = self._source
        return source.version if source is not None and source.kind == "buffer" else None

    # -- modules ---------------------------------------------------------------------------------------------------

    @field(group="modules")
    def modules(self) -> list[str]:
        """Labels of the module calls around it, outermost first: ``['mid:1', 'mid.blk:1']``; the model itself left out."""
        return list(module_calls(self._scope))

    @field(group="modules")
    def module(self) -> str | None:
        """Label of the innermost module call around it; None directly in the model."""
        modules = self.modules
        return modules[-1] if modules else None

    @field(group="modules")
    def output_of_module_calls(self) -> list[str]:
        """Labels of the module calls that returned this array, inner before outer; ``self:1`` for the model."""
        calls = [scope.call_label for scope in self._trace.structure.returned_by.get(self._node, ())]
        return [*calls, "self:1"] if self.is_output_parent else calls

    @field(group="modules")
    def is_module_output(self) -> bool:
        """Whether a module returned this array."""
        return bool(self._trace.structure.returned_by.get(self._node))

    @field(group="modules")
    def input_to_module_calls(self) -> list[str]:
        """Labels of the module calls that took this array."""
        return self._trace.taken_by.get(self._node, [])

    # -- conditionals ----------------------------------------------------------------------------------------------

    @field(group="conditionals")
    def bool_value(self) -> bool | None:
        """What the array was when Python read it as a bool (the last time); None where it was not."""
        values = [event.value for event in self._trace.events_of.get(self._vid, ()) if event.kind == "bool"]
        return values[-1] if values else None

    @field(group="conditionals")
    def is_terminal_bool(self) -> bool:
        """Whether Python read the array as a bool."""
        return self.bool_value is not None

    @field(group="conditionals", in_table=False)
    def conditional_branch_stack(self) -> list[tuple[int, str]]:
        """The conditionals around it, outermost first: (id, arm), such as ``(0, 'then')``."""
        return list(self._trace.conditionals.branch_stacks.get(self._node, ()))

    @field(group="conditionals")
    def is_in_conditional_body(self) -> bool:
        """Whether it ran in an arm of a conditional."""
        return bool(self.conditional_branch_stack)

    # -- identity --------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self._node == other._node and self._trace is other._trace

    def __hash__(self) -> int:
        return hash((id(self._trace), self._node))

    def __repr__(self) -> str:
        return f"<Op {self.label} {tuple(self.shape)}>"

    def __str__(self) -> str:
        from .text import describe_op

        return describe_op(self)

    def _repr_html_(self) -> str:
        from .html import record_html

        return record_html(self)

    def module_calls(self) -> list[ModuleCall]:
        """The module calls around it, outermost first."""
        return [self._trace.modules.call(label) for label in self.modules]

    def module_record(self) -> Module:
        """The innermost module around it; the model itself where there is none."""
        return self._trace.modules[self._scope_address()]

    def _scope_address(self) -> str:
        module = self.module
        return module.rpartition(":")[0] if module else "self"


def _or_none(distance: int) -> int | None:
    return None if distance < 0 else distance


def _holds_hole(value: Any) -> bool:
    if value is HOLE:
        return True
    return isinstance(value, tuple | list) and any(_holds_hole(item) for item in value)
