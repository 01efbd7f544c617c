"""The result of one run: what ran, indexed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from .accessors import Accessor, Modules

# from .conditionals import Conditionals
from .costs import Cost, CostQuery, cost, total
from .dtypes import itemsize
from .errors import LabelError, ValueNotSaved
from .graph import Graph, Kind
from .labels import Labels
from .layer import Layer
from .location import CodeLocation
from .lookup import Lookup
from .op import Op
from .param import Buffer, Param
from .program import HOLE, Event, Program, Scope, fill, walk_outs
from .selection import Selection
from .selectors import LABEL_PATTERN, Selector
from .structure import Structure
from .values import Values

if TYPE_CHECKING:
    from .backend import Backend


class Trace:
    """Every operation of one run of a model, with its output, its place in the graph and in the module tree.

    ``trace[key]`` finds Ops by position, label, module address or selector; iterating gives inputs, compute Ops and
    outputs in the order they ran. What is derived (labels, layers, distances, costs) is worked out when first asked for.
    """

    def __init__(self, program: Program, values: Values, structure: Structure, backend: Backend | None = None) -> None:
        self.program = program
        self.values = values
        self.structure = structure
        self.backend = backend  # None in a loaded trace until a backend is asked for
        self._counts: dict[Any, set[int]] = {}

    # -- what it is made of ----------------------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """Nodes and edges, in columns."""
        return self.structure.graph

    @property
    def labels(self) -> Labels:
        """Names of nodes and layers."""
        return self.structure.labels

    @cached_property
    def lookup(self) -> Lookup:
        """Names to records."""
        return Lookup(self)

    @property
    def model_name(self) -> str:
        """Name of the model's class, or of the function."""
        return self.program.model

    @property
    def backend_name(self) -> str:
        """Name of the backend that ran the model."""
        return self.program.backend

    @property
    def facts(self) -> Mapping[str, Any]:
        """When and on what it ran: ``started_at``, ``duration_ns``, ``framework_version`` ..."""
        return self.program.facts

    # -- looking up ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: int | slice | str | Selector) -> Any:
        if isinstance(key, bool) or not isinstance(key, int | slice | str | Selector):
            raise LabelError(f"trace[...] takes an integer, a slice, a name or a selector; got {key!r}.")
        if isinstance(key, int):
            return self.lookup.by_position(key)
        if isinstance(key, slice):
            return [Op(self, node) for node in self.structure.listed[key]]
        if isinstance(key, Selector):
            return self.find_sites(key).one()
        return self.lookup.by_name(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            self.lookup.by_name(key)
        except LabelError:
            return False
        return True

    def __iter__(self) -> Iterator[Op]:
        return (Op(self, node) for node in self.structure.listed)

    def __len__(self) -> int:
        return len(self.structure.listed)

    def find_sites(self, query: Selector | str) -> Selection:
        """The Ops that match a selector, or that a name means."""
        if isinstance(query, str):
            from .selectors import label, module

            query = label(query) if LABEL_PATTERN.match(query) else module(query)
        self._counts.clear()
        return Selection(query, [op for op in self if query.matches(op)])

    def count_match(self, selector: Any, node: int) -> int:
        """Which match of a counting selector a node is, from 1."""
        seen = self._counts.setdefault(selector, set())
        seen.add(node)
        return len(seen)

    # -- records ---------------------------------------------------------------------------------------------------

    @cached_property
    def ops(self) -> Accessor[Op]:
        """All Ops that are shown, by label."""
        return Accessor(Op, lambda: {op.label: op for op in self}, "op")

    @cached_property
    def layers(self) -> Accessor[Layer]:
        """All layers that are shown, by label."""
        records = lambda: {self.labels.layer(layer): Layer(self, layer) for layer in self.structure.layers}  # noqa: E731
        return Accessor(Layer, records, "layer")

    def layer(self, number: int) -> Layer:
        return Layer(self, number)

    @cached_property
    def modules(self) -> Modules:
        """The modules of the model, ``'self'`` first."""
        return Modules(self)

    @cached_property
    def params(self) -> Accessor[Param]:
        """The parameters of the model, used or not, by address."""
        sources = [source for source in self.program.sources if source.kind == "param"]
        aliases = {alias: source.address for source in sources for alias in source.aliases}
        return Accessor(Param, lambda: {s.address: Param(self, s) for s in sources}, "parameter", aliases)

    @cached_property
    def buffers(self) -> Accessor[Buffer]:
        """The buffers of the model, by address, each with its versions."""
        versions: dict[str, list[Any]] = defaultdict(list)
        for source in self.program.sources:
            if source.kind == "buffer":
                versions[source.address].append(source)
        aliases = {alias: all_[0].address for all_ in versions.values() for alias in all_[0].aliases}
        return Accessor(Buffer, lambda: {a: Buffer(self, s) for a, s in versions.items()}, "buffer", aliases)

    @property
    def compute_ops(self) -> list[Op]:
        """The numbered Ops: no inputs, buffers and outputs."""
        return [Op(self, node) for node in self.structure.compute]

    @property
    def orphans(self) -> list[Op]:
        """Ops connected to neither an input nor an output, which lists leave out."""
        orphans = self.graph.orphans
        return [Op(self, node) for node in range(len(self.graph)) if orphans[node]]

    @property
    def conditionals(self) -> ControlFlow:
        """The ``if``s (ternaries, ``while``s, ``assert``s) that read an array, and which arm ran each time."""
        return self.structure.control_flow

    @property
    def conditional_branch_edges(self) -> list[tuple[str, str]]:
        """IF edges: where the flow turns off towards a predicate, as pairs of labels."""
        name = self.labels.neighbour
        return [(name(parent), name(child)) for parent, child in self.conditionals.branch_edges]

    @property
    def conditional_arm_entry_edges(self) -> dict[tuple[int, str], list[tuple[str, str]]]:
        """(conditional, arm) -> the edges from outside the arm to an Op in it, as pairs of labels."""
        name = self.labels.neighbour
        entries = self.conditionals.arm_entry_edges
        return {key: [(name(parent), name(child)) for parent, child in edges] for key, edges in entries.items()}

    def _labels_of(self, kind: Kind) -> list[str]:
        return [
            self.labels.layer(self.labels.layer_of[n]) for n in self.structure.listed if self.graph.kinds[n] == kind
        ]

    @property
    def input_layers(self) -> list[str]:
        """Labels of the inputs."""
        return self._labels_of(Kind.INPUT)

    @property
    def output_layers(self) -> list[str]:
        """Labels of the outputs."""
        return self._labels_of(Kind.OUTPUT)

    # -- counts ----------------------------------------------------------------------------------------------------

    @property
    def num_ops(self) -> int:
        """Compute Ops that ran, repeats counted."""
        return len(self.structure.compute)

    @property
    def num_layers(self) -> int:
        """Distinct layers of compute Ops."""
        return len({self.labels.layer_of[node] for node in self.structure.compute})

    @property
    def num_edges(self) -> int:
        """Distinct pairs of parent and child, inputs and outputs included, buffers not."""
        return self.structure.num_edges

    @property
    def num_params(self) -> int:
        """Parameter elements of the model, shared ones once."""
        return sum(param.num_params for param in self.params)

    @property
    def num_params_trainable(self) -> int:
        """Trainable ones of them."""
        return sum(param.num_params for param in self.params if param.is_trainable)

    @property
    def is_recurrent(self) -> bool:
        """Whether one pass of a layer, fed by an input, reaches another pass of it."""
        return self.structure.is_recurrent

    @property
    def is_branching(self) -> bool:
        """Whether an Op has several children."""
        graph = self.graph
        return any(len(set(graph.children_of(node))) > 1 for node in self.structure.listed)

    @property
    def has_conditional_branching(self) -> bool:
        """Whether an Op ran in an arm of a conditional."""
        return any(op.is_in_conditional_body for op in self.compute_ops) if self.program.events else False

    @property
    def saved_ops(self) -> list[Op]:
        """The Ops whose value was kept."""
        return [op for op in self if op.has_saved_value]

    @property
    def saved_nbytes(self) -> int:
        """Bytes of the kept values, an array that several Ops share counted once."""
        return sum(self.nbytes(vid) for vid in self.values)

    @cached_property
    def cost(self) -> tuple[Cost, int]:
        """FLOPs and MACs of the run, and of how many calls they are unknown."""
        rows = dict.fromkeys(self.graph.refs[n] for n in self.structure.compute if self.graph.kinds[n] == Kind.COMPUTE)
        return total(self.row_cost(row) for row in rows)

    @property
    def flops(self) -> int:
        """FLOPs of the run (a multiply-add is two); calls of unknown cost are left out, see ``cost``."""
        return self.cost[0].flops

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the run; calls of unknown cost are left out."""
        return self.cost[0].macs

    @property
    def halted(self) -> Op | None:
        """The Op at which ``halt=`` stopped the run; None where it did not."""
        vid = self.program.facts.get("halted")
        return None if vid is None else Op(self, self.graph.node_of[vid])

    @property
    def is_partial(self) -> bool:
        """Whether the run ended before the model returned."""
        return "halted" in self.program.facts or "error" in self.program.facts

    # -- what records ask for --------------------------------------------------------------------------------------

    def value_of(self, op: Op, *, as_numpy: bool = False) -> Any:
        """The kept value of an Op."""
        vid = self.graph.vids[op.raw_index]
        if vid not in self.values:
            raise ValueNotSaved(_not_saved(op))
        return self.values.numpy(vid) if as_numpy else self.values[vid]

    def nbytes(self, vid: int) -> int:
        """Size of an array by its shape and dtype, in bytes."""
        meta = self.program.metas[vid]
        return int(prod(meta[0]) * itemsize(self.dtype_name(meta[1])))

    def dtype_name(self, dtype: Any) -> str:
        """``float32``, whatever the framework calls it."""
        return dtype if isinstance(dtype, str) or self.backend is None else self.backend.arrays.dtype_name(dtype)

    def settings(self, row: int) -> Mapping[str, Any]:
        """The arguments of a call by name, defaults left out, arrays as holes."""
        found = self.program.settings.get(row)
        if found is None and self.backend is not None:
            record = self.program.rows[row]
            found = self.program.settings[row] = dict(self.backend.settings(record, record.func))
        return found or {}

    def cost_of(self, op: Op) -> Cost | None:
        """Cost of the call that made an Op, counted at its first output."""
        if op.func_call_id is None:
            return Cost(0, 0)
        return self.row_cost(op.func_call_id) if op.output_index == 0 else Cost(0, 0)

    def row_cost(self, index: int) -> Cost | None:
        """Cost of one call; None where it is unknown."""
        costs = self.program.costs
        if index not in costs:
            costs[index] = self._find_cost(index)
        return costs[index]

    def _find_cost(self, index: int) -> Cost | None:
        row, metas = self.program.rows[index], self.program.metas
        shapes = tuple(tuple(metas[vid][0]) for vid in row.ins)
        named, taken = {}, 0
        for name, value in self.settings(index).items():
            if value is HOLE:
                named[name] = shapes[taken]
                taken += 1
            else:
                named[name], used = fill(value, shapes[taken:])
                taken += used
        outs = tuple(tuple(metas[vid][0]) for vid, _ in walk_outs(row.outs) if vid is not None)
        return cost(CostQuery(row.func.type, shapes, outs, named))

    def locations(self, scope: Scope | None, site: int) -> list[CodeLocation]:
        """Frames from the model's own call inwards to a call site in a scope."""
        frames = list(self.program.frames(site))
        while scope is not None and scope.parent is not None:
            frames = [*self.program.frames(scope.site), *frames]
            scope = scope.parent
        return [CodeLocation(frame, self.program.source) for frame in frames]

    def row_position(self, node: int) -> int:
        """The number of rows that had run when a node came to be."""
        graph = self.graph
        if graph.kinds[node] == Kind.COMPUTE:
            return graph.refs[node]
        return self.program.sources[graph.refs[node]].row

    @cached_property
    def param_of_vid(self) -> dict[int, Param]:
        by_address = {param.address: param for param in self.params}
        return {s.vid: by_address[s.address] for s in self.program.sources if s.kind == "param"}

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        users: dict[int, list[int]] = defaultdict(list)
        for node in self.structure.compute:
            if self.graph.kinds[node] == Kind.COMPUTE:
                for vid in set(self.program.rows[self.graph.refs[node]].ins):
                    if vid in self.param_of_vid:
                        users[vid].append(node)
        return users

    def users_of(self, vid: int) -> list[Op]:
        """The Ops that took a parameter."""
        return [Op(self, node) for node in self._users.get(vid, ())]

    @cached_property
    def events_of(self) -> dict[int, list[Event]]:
        """Value id -> the times that Python read it."""
        events: dict[int, list[Event]] = defaultdict(list)
        for event in self.program.events:
            events[event.vid].append(event)
        return events

    @cached_property
    def taken_by(self) -> dict[int, list[str]]:
        """Node -> labels of the module calls that took its array."""
        taken: dict[int, list[str]] = defaultdict(list)
        for scope in self.program.scopes:
            if scope.kind == "module" and scope.parent is not None:
                for vid in dict.fromkeys(scope.ins):
                    if self.graph.node_of[vid] >= 0:
                        taken[self.graph.node_of[vid]].append(scope.call_label)
        return taken

    # -- showing and keeping ---------------------------------------------------------------------------------------

    def summary(self) -> str:
        """A table of the top-level modules, and totals."""
        from .summary import summary

        return summary(self)

    def to_pandas(self) -> Any:
        """A data frame with one row an Op."""
        return self.ops.to_pandas()

    def draw(self, *args: Any, **options: Any) -> Any:
        """Draw the graph. See :func:`torchlens_core.draw.draw` for the options."""
        from .draw import draw

        return draw(self, *args, **options)

    def save(self, path: Any, **options: Any) -> Any:
        """Write a trace file. See :func:`torchlens.save` for the options."""
        from .file import save

        return save(self, path, **options)

    def __repr__(self) -> str:
        state = "halted" if self.halted else "partial" if self.is_partial else "complete"
        return (
            f"<Trace of {self.model_name} ({self.backend_name}): {self.num_ops} ops, {self.num_layers} layers, {state}>"
        )

    def __str__(self) -> str:
        from .text import describe_trace

        return describe_trace(self)

    def _repr_html_(self) -> str:
        from .html import trace_html

        return trace_html(self)


def _not_saved(op: Op) -> str:
    how = f"tl.func({op.func_name!r})" if op.is_compute else f"tl.label({op.layer_label!r})"
    return f"The value of {op.label} was not saved. Run the trace again with save=True, save={how} or save={op.layer_label!r}."
