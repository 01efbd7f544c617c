"""What a trace is made of, its records, and what they ask of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..control_flow.conditionals import ControlFlow
from ..costs import Cost, CostQuery, cost
from ..derived.graph import Graph, Kind
from ..derived.labels import Labels
from ..derived.structure import Structure
from ..dtypes import itemsize
from ..errors import ValueNotSaved
from ..program import HOLE, Change, Event, Program, Scope, fill, walk_outs
from ..values import Values
from .accessors import Accessor, Modules
from .layer import Layer
from .location import CodeLocation
from .lookup import Lookup
from .module_call import ModuleCall
from .op import Op
from .param import Buffer, Param, State
from .record import Record

if TYPE_CHECKING:
    from ..backend import Backend
    from ..gradients.store import GradientStore
    from ..selectors import Selector
    from ..steering.attached import Attached
    from ..steering.places import Place
    from ..steering.recorded import Recorded
    from .trace import Trace

S = TypeVar("S", bound=State)


class TraceBase(Record):
    """The tables of one run, and the records that stand on them. ``Trace`` adds facts, look-up and showing."""

    kind = "trace"

    def __init__(self, program: Program, values: Values, structure: Structure, backend: Backend | None = None) -> None:
        self.program = program
        self.values = values
        self.structure = structure
        self.backend = backend  # None in a loaded trace until a backend is asked for
        self.params_now: Mapping[int, Callable[[], Any]] = {}  # vid -> the parameter while it lives; empty in a file
        self.gradient_store: GradientStore | None = None  # where gradients arrive; None where none were asked for
        self._tape_labels: list[str] = []  # of the nodes of the gradient graph, as far as they have been asked for
        self.recorded: Recorded | None = None  # what a run leaves for later ones; None in a loaded trace
        self.attached: list[Attached] = []  # changes that are prepared
        self.places: dict[Selector, list[Place]] = {}  # where selectors act, once asked for
        self.numbers: dict[Any, dict[int, int]] = {}  # selector that is counted -> node -> number

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
        return Lookup(self._trace)

    @property
    def _trace(self) -> Trace:
        return cast("Trace", self)

    def __iter__(self) -> Iterator[Op]:
        """Inputs, compute Ops and outputs, in the order they ran."""
        return (Op(self._trace, node) for node in self.structure.listed)

    def __len__(self) -> int:
        return len(self.structure.listed)

    # -- records ---------------------------------------------------------------------------------------------------

    @cached_property
    def ops(self) -> Accessor[Op]:
        """All Ops that are shown, by label."""
        return Accessor(Op, lambda: {op.label: op for op in self}, "op")

    @cached_property
    def layers(self) -> Accessor[Layer]:
        """All layers that are shown, by label."""
        return Accessor(
            Layer, lambda: {self.labels.layer(n): Layer(self._trace, n) for n in self.structure.layers}, "layer"
        )

    def layer(self, number: int) -> Layer:
        """A layer by its number in ``labels``."""
        return Layer(self._trace, number)

    @cached_property
    def modules(self) -> Modules:
        """The modules of the model, ``'self'`` first."""
        return Modules(self._trace)

    @cached_property
    def module_calls(self) -> Accessor[ModuleCall]:
        """The calls of modules, in order, by label: ``features.6:1``; ``self:1`` is that of the model."""
        return Accessor(ModuleCall, lambda: self.modules.calls, "module call")

    @cached_property
    def params(self) -> Accessor[Param]:
        """The parameters of the model, used or not, by address."""
        sources = [source for source in self.program.sources if source.kind == "param"]
        aliases = {alias: source.address for source in sources for alias in source.aliases}
        return Accessor(Param, lambda: {s.address: Param(self._trace, s) for s in sources}, "parameter", aliases)

    @cached_property
    def buffers(self) -> Accessor[Buffer]:
        """The buffers of the model, by address, each with its versions."""
        versions: dict[str, list[Any]] = defaultdict(list)
        for source in self.program.sources:
            if source.kind == "buffer":
                versions[source.address].append(source)
        aliases = {alias: all_[0].address for all_ in versions.values() for alias in all_[0].aliases}
        return Accessor(Buffer, lambda: {a: Buffer(self._trace, s) for a, s in versions.items()}, "buffer", aliases)

    @property
    def compute_ops(self) -> list[Op]:
        """The numbered Ops: no inputs, buffers and outputs."""
        return [Op(self._trace, node) for node in self.structure.compute]

    @property
    def orphans(self) -> list[Op]:
        """Ops connected to neither an input nor an output, which lists leave out."""
        orphans = self.graph.orphans
        return [Op(self._trace, node) for node in range(len(self.graph)) if orphans[node]]

    @property
    def conditionals(self) -> ControlFlow:
        """The ``if``s (ternaries, ``while``s, ``assert``s) that read an array, and which arm ran each time."""
        return self.structure.control_flow

    # -- what records ask for --------------------------------------------------------------------------------------

    def value_of(self, op: Op, *, as_numpy: bool = False) -> Any:
        """The kept value of an Op."""
        vid = self.graph.vids[op.raw_index]
        if vid not in self.values:
            raise ValueNotSaved(f"The value of {op.label} was not saved. Run the trace again with {op.how_to_save()}.")
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
            costs[index] = cost(self.query(index))
        return costs[index]

    def query(self, index: int) -> CostQuery:
        """Type and shapes of one call, with its arguments by name."""
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
        return CostQuery(row.func.type, shapes, outs, named)

    def locations(self, scope: Scope | None, site: int) -> list[CodeLocation]:
        """Frames from the model's own call inwards to a call site in a scope."""
        frames = list(self.program.frames(site))
        while scope is not None and scope.parent is not None:
            frames = [*self.program.frames(scope.site), *frames]
            scope = scope.parent
        return [CodeLocation(frame, self.program.source) for frame in frames]

    @cached_property
    def calls_inside(self) -> dict[int, list[Scope]]:
        """Scope of a module call -> the module calls directly inside it, in order."""
        inside: dict[int, list[Scope]] = defaultdict(list)
        for scope in self.program.scopes:
            parent = scope.parent
            while parent is not None and parent.kind != "module":
                parent = parent.parent
            if scope.kind == "module" and parent is not None:
                inside[parent.index].append(scope)
        return inside

    def row_position(self, node: int) -> int:
        """The number of rows that had run when a node came to be."""
        graph = self.graph
        if graph.kinds[node] == Kind.COMPUTE:
            return graph.refs[node]
        return self.program.sources[graph.refs[node]].row

    @cached_property
    def params_below(self) -> dict[str, list[Param]]:
        """Address of a module -> its parameters and those of the modules below it."""
        return _by_ancestor(self.params)

    @cached_property
    def buffers_below(self) -> dict[str, list[Buffer]]:
        """Address of a module -> its buffers and those of the modules below it."""
        return _by_ancestor(self.buffers)

    @cached_property
    def param_of_vid(self) -> dict[int, Param]:
        """Value id -> the parameter that it is."""
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
        return [Op(self._trace, node) for node in self._users.get(vid, ())]

    @cached_property
    def events_of(self) -> dict[int, list[Event]]:
        """Value id -> the times that Python read it."""
        events: dict[int, list[Event]] = defaultdict(list)
        for event in self.program.events:
            events[event.vid].append(event)
        return events

    @cached_property
    def changes_of(self) -> dict[int, list[Change]]:
        """Node -> the changes that interventions made to its value, in order."""
        return self._by_node(self.program.changes)

    @cached_property
    def gradient_changes_of(self) -> dict[int, list[Change]]:
        """Node -> what interventions do to the gradient at it, in order."""
        return self._by_node(self.program.gradient_changes)

    @cached_property
    def steered_nodes(self) -> frozenset[int]:
        """Nodes whose value or gradient interventions change."""
        return frozenset({*self.changes_of, *self.gradient_changes_of})

    def _by_node(self, changes: Iterable[Change]) -> dict[int, list[Change]]:
        found: dict[int, list[Change]] = defaultdict(list)
        for change in changes:
            if self.graph.node_of[change.old] >= 0:
                found[self.graph.node_of[change.old]].append(change)
        return dict(found)

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


def _by_ancestor(states: Iterable[S]) -> dict[str, list[S]]:
    """Parameters or buffers by the address of every module that holds them, at whatever depth; ``''`` is the model."""
    below: dict[str, list[S]] = defaultdict(list)
    for state in states:
        ancestors = {"": None}
        for address in state.holders:
            while address:
                ancestors[address] = None
                address = address.rpartition(".")[0]
        for address in ancestors:
            below[address].append(state)
    return below
