"""What can be said of a run as a whole: counts, the shape of its graph, memory, time and cost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ..costs import Cost, total
from ..derived.graph import Kind
from .op import Op
from .record import field
from .trace_base import TraceBase


class TraceFacts(TraceBase):
    """Declared fields of a Trace."""

    # -- the run ---------------------------------------------------------------------------------------------------

    @field(group="run")
    def model_name(self) -> str:
        """Name of the model's class, or of the function."""
        return self.program.model

    @field(group="run")
    def backend_name(self) -> str:
        """Name of the backend that ran the model."""
        return self.program.backend

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was noted of the run, as it is kept: ``started_at``, ``duration_ns``, ``framework_version`` ..."""
        return self.program.facts

    @field(group="run")
    def framework_version(self) -> str | None:
        """Version of the framework that ran the model."""
        return self.facts.get("framework_version")

    @field(group="run")
    def options(self) -> dict[str, Any]:
        """The options of the call that were given: ``{'save': "func('relu')", 'detach': True}``."""
        return dict(self.facts.get("options", {}))

    @field(group="run", unit="s")
    def started_at(self) -> float | None:
        """When the run began, in seconds since 1970-01-01 UTC."""
        return self.facts.get("started_at")

    @field(group="run")
    def is_partial(self) -> bool:
        """Whether the run ended before the model returned."""
        return "halted" in self.facts or "error" in self.facts

    @property
    def halted(self) -> Op | None:
        """The Op at which ``halt=`` stopped the run; None where it did not."""
        vid = self.facts.get("halted")
        return None if vid is None else Op(self._trace, self.graph.node_of[vid])

    @field(group="run")
    def error(self) -> str | None:
        """What the model raised: ``ValueError: ...``; None where it raised nothing."""
        return self.facts.get("error")

    @field(group="run")
    def mode(self) -> str | None:
        """How the model was run, of a backend that has several ways and did not take its usual one: ``'dynamic'``."""
        return self.facts.get("mode")

    @field(group="run")
    def mode_reason(self) -> str | None:
        """Why it was run in that way; None where it was run as usual."""
        return self.facts.get("mode_reason")

    # -- time ------------------------------------------------------------------------------------------------------

    @field(group="time", unit="ns")
    def duration_ns(self) -> int | None:
        """Time from the start of the run to its end, with preparing and putting back."""
        return self.facts.get("duration_ns")

    @field(group="time", unit="ns")
    def forward_duration_ns(self) -> int:
        """Time of the model's own call, with what recording added to it."""
        root = self.program.scopes[0]
        return max(root.end_ns - root.start_ns, 0)

    @field(group="time", unit="ns")
    def func_duration_ns(self) -> int:
        """Time inside the framework's functions: the sum over all calls."""
        return sum(row.end_ns - row.start_ns for row in self.program.rows if row.end_ns)

    # -- counts ----------------------------------------------------------------------------------------------------

    @field(group="counts")
    def num_ops(self) -> int:
        """Compute Ops that ran, repeats counted."""
        return len(self.structure.compute)

    @field(group="counts")
    def num_layers(self) -> int:
        """Distinct layers of compute Ops."""
        return len({self.labels.layer_of[node] for node in self.structure.compute})

    @field(group="counts")
    def num_edges(self) -> int:
        """Distinct pairs of parent and child, inputs and outputs included, buffers not."""
        return self.structure.num_edges

    @field(group="counts")
    def num_layer_edges(self) -> int:
        """Distinct pairs of parent layer and child layer, inputs and outputs included, buffers not."""
        layer_of = self.labels.layer_of
        pairs = {
            (layer_of[parent], layer_of[node])
            for node in self.structure.listed
            for parent in self.graph.parents_of(node)
            if self.graph.kinds[parent] != Kind.BUFFER
        }
        return len(pairs)

    @field(group="counts")
    def num_modules(self) -> int:
        """Modules of the model, itself and those that were not called among them."""
        return len(self.program.modules)

    @field(group="counts")
    def num_module_calls(self) -> int:
        """Calls of modules, that of the model among them."""
        return len(self.modules.calls)

    @field(group="counts")
    def num_saved_ops(self) -> int:
        """Ops whose value was kept."""
        return len(self.saved_ops)

    @field(group="counts")
    def num_params(self) -> int:
        """Parameter elements of the model, shared ones once."""
        return sum(param.num_params for param in self.params)

    @field(group="counts")
    def num_params_trainable(self) -> int:
        """Trainable ones of them."""
        return sum(param.num_params for param in self.params if param.is_trainable)

    @field(group="counts")
    def num_param_tensors(self) -> int:
        """Parameter arrays of the model, shared ones once."""
        return len(self.params)

    # -- graph -----------------------------------------------------------------------------------------------------

    def _labels_of(self, nodes: Iterable[int]) -> list[str]:
        return list(dict.fromkeys(self.labels.layer(self.labels.layer_of[node]) for node in nodes))

    def _labels_of_kind(self, kind: Kind) -> list[str]:
        hidden = self.structure.hidden
        return self._labels_of(node for node, its in enumerate(self.graph.kinds) if its == kind and not hidden[node])

    @field(group="graph")
    def input_layers(self) -> list[str]:
        """Labels of the inputs."""
        return self._labels_of_kind(Kind.INPUT)

    @field(group="graph")
    def output_layers(self) -> list[str]:
        """Labels of the outputs."""
        return self._labels_of_kind(Kind.OUTPUT)

    @field(group="graph")
    def buffer_layers(self) -> list[str]:
        """Labels of the buffer versions that were read or written."""
        return self._labels_of_kind(Kind.BUFFER)

    @field(group="graph")
    def layers_with_params(self) -> list[str]:
        """Labels of the layers that take parameters."""
        return self._labels_of(op.raw_index for op in self.compute_ops if op.uses_params)

    @field(group="graph")
    def internal_source_layers(self) -> list[str]:
        """Labels of the layers whose arrays were made inside the model, from no other."""
        return self._labels_of(op.raw_index for op in self.compute_ops if op.is_internal_source)

    @field(group="graph")
    def internal_sink_layers(self) -> list[str]:
        """Labels of the layers that were computed and reach no output."""
        return self._labels_of(op.raw_index for op in self.compute_ops if op.is_internal_sink)

    @field(group="graph")
    def is_recurrent(self) -> bool:
        """Whether one pass of a layer, fed by an input, reaches another pass of it."""
        return self.structure.is_recurrent

    @field(group="graph")
    def recurrent_layers(self) -> list[str]:
        """Labels of the layers with several passes."""
        return [layer.layer_label for layer in self.layers if layer.num_passes > 1]

    @field(group="graph")
    def max_passes(self) -> int:
        """Passes of the layer that has most."""
        return max((layer.num_passes for layer in self.layers), default=0)

    @field(group="graph")
    def is_branching(self) -> bool:
        """Whether an Op has several children."""
        return self.max_out_degree > 1

    @field(group="graph")
    def branching_factor(self) -> float:
        """Children of a compute Op on average."""
        return sum(map(len, self._children)) / len(self._children) if self._children else 0.0

    @field(group="graph")
    def max_in_degree(self) -> int:
        """Parents of the Op that has most."""
        return max((len(set(self.graph.parents_of(node))) for node in self.structure.listed), default=0)

    @field(group="graph")
    def max_out_degree(self) -> int:
        """Children of the Op that has most."""
        return max((len(set(self.graph.children_of(node))) for node in self.structure.listed), default=0)

    @property
    def _children(self) -> list[set[int]]:
        return [set(self.graph.children_of(node)) for node in self.structure.compute]

    @field(group="graph")
    def num_conditionals(self) -> int:
        """Places in the source that read an array as a bool: ``if``, ternary, ``while``, ``assert``, ``bool(x)``."""
        return len(self.conditionals.conditionals)

    @field(group="graph")
    def has_conditional_branching(self) -> bool:
        """Whether an Op ran in an arm of a conditional."""
        return bool(self.conditionals.branch_stacks)

    @field(group="graph", in_table=False)
    def conditional_branch_edges(self) -> list[tuple[str, str]]:
        """IF edges: where the flow turns off towards a predicate, as pairs of labels."""
        name = self.labels.neighbour
        return [(name(parent), name(child)) for parent, child in self.conditionals.branch_edges]

    @field(group="graph", in_table=False)
    def conditional_arm_entry_edges(self) -> dict[tuple[int, str], list[tuple[str, str]]]:
        """(conditional, arm) -> the edges from outside the arm to an Op in it, as pairs of labels."""
        name = self.labels.neighbour
        entries = self.conditionals.arm_entry_edges
        return {key: [(name(parent), name(child)) for parent, child in edges] for key, edges in entries.items()}

    @field(group="graph")
    def graph_hash(self) -> str:
        """Hash of the types of the Ops and of the edges: equal where two runs did the same, whatever the shapes."""
        digest = hashlib.sha256()
        position = self.structure.position
        for op in (Op(self._trace, node) for node in self.structure.listed):
            parents = [position[parent] for parent in self.graph.parents_of(op.raw_index) if parent in position]
            digest.update(f"{op.type}{op.output_index}{parents};".encode())
        return digest.hexdigest()

    # -- memory ----------------------------------------------------------------------------------------------------

    @field(group="memory", unit="bytes")
    def activation_nbytes(self) -> int:
        """Size of the arrays of all compute Ops, each for itself: views and overwritten arrays count too."""
        return sum(op.nbytes for op in self.compute_ops)

    @property
    def saved_ops(self) -> list[Op]:
        """The Ops whose value was kept."""
        return [op for op in self if op.has_saved_value]

    @field(group="memory", unit="bytes")
    def saved_nbytes(self) -> int:
        """Size of the kept values, buffers among them, each for itself; what a transform made, where it is an array."""
        return sum(self._kept_nbytes(vid) for vid in self.values)

    def _kept_nbytes(self, vid: int) -> int:
        return getattr(self.values.numpy(vid), "nbytes", 0) if self.values.is_transformed(vid) else self.nbytes(vid)

    @field(group="memory", unit="bytes")
    def param_nbytes(self) -> int:
        """Memory of the model's parameters, shared ones once."""
        return sum(param.nbytes for param in self.params)

    # -- cost ------------------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> list[int]:
        """The calls that made the compute Ops, each once."""
        graph = self.graph
        return list(dict.fromkeys(graph.refs[n] for n in self.structure.compute if graph.kinds[n] == Kind.COMPUTE))

    @property
    def cost(self) -> tuple[Cost, int]:
        """FLOPs and MACs of the run, and of how many calls they are unknown."""
        return total(self.row_cost(row) for row in self._rows)

    @field(group="cost", unit="FLOPs")
    def flops(self) -> int:
        """FLOPs of the run (a multiply-add is two); calls of unknown cost are left out, see ``num_unknown_costs``."""
        return self.cost[0].flops

    @field(group="cost", unit="MACs")
    def macs(self) -> int:
        """Multiply-accumulates of the run; calls of unknown cost are left out."""
        return self.cost[0].macs

    @field(group="cost")
    def num_unknown_costs(self) -> int:
        """Calls whose cost is unknown."""
        return self.cost[1]

    def _by_type(self, quantity: str) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for row in self._rows:
            counts[self.program.rows[row].func.type] += getattr(self.row_cost(row), quantity, 0)
        return dict(counts.most_common())

    @field(group="cost", unit="FLOPs", in_table=False)
    def flops_by_type(self) -> dict[str, int]:
        """FLOPs by type of operation, the largest first; unknown ones are left out."""
        return self._by_type("flops")

    @field(group="cost", unit="MACs", in_table=False)
    def macs_by_type(self) -> dict[str, int]:
        """Multiply-accumulates by type of operation, the largest first; unknown ones are left out."""
        return self._by_type("macs")
