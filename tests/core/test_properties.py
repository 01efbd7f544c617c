"""What holds of every program, whatever ran: compared with definitions that are plain and slow."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.example_models import Everything
from torchlens_core.derived.graph import Graph, Kind
from torchlens_core.derived.recurrence import is_recurrent
from torchlens_core.derived.structure import Structure
from torchlens_core.errors import SelectorWarning
from torchlens_core.program import Program, walk_outs
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import Selector
from torchlens_core.testing.strategies import programs, selectors
from torchlens_core.testing.toy import ToyArrays
from torchlens_core.testing.toy_framework import Array
from torchlens_core.tracing import trace
from torchlens_core.values import LiveValues

EVERYTHING = (
    ("linear", "relu", "add", "mul", "split", "sort", "sum", "tanh", "input", "output", "buffer"),
    ("self", "mid", "mid.layers.0", "mid.layers.1.act", "act", "act:2", "cell:1", "norm", "self:1"),
    ((), (2, 2), (2, 4)),
)


def made(program: Program, **options: Any) -> Trace:
    return Trace(program, LiveValues(ToyArrays(), {}, {}), Structure(program, **options))


def edges(graph: Graph) -> set[tuple[int, int]]:
    return {(parent, child) for child in range(len(graph)) for parent in graph.parents_of(child)}


# -- nodes and edges ---------------------------------------------------------------------------------------------------


@given(programs())
def test_there_is_a_node_for_each_array_that_an_operation_returned(program: Program) -> None:
    graph = Graph(program)
    returned = [vid for row in program.rows for vid, _ in walk_outs(row.outs) if vid is not None]
    compute = [node for node, kind in enumerate(graph.kinds) if kind == Kind.COMPUTE]
    assert [graph.vids[node] for node in compute] == returned
    assert [program.rows[graph.refs[node]].outs is not None for node in compute] == [True] * len(compute)
    kinds = Counter(map(Kind, graph.kinds))
    assert kinds[Kind.INPUT] == sum(source.kind == "input" for source in program.sources)
    assert kinds[Kind.BUFFER] == sum(source.kind == "buffer" and source.row >= 0 for source in program.sources)
    assert kinds[Kind.OUTPUT] == len(program.outputs)


@given(programs())
def test_parents_come_before_their_children_and_know_each_other(program: Program) -> None:
    graph = Graph(program)
    assert all(parent < child for parent, child in edges(graph))
    for node in range(len(graph)):
        assert all(node in graph.children_of(parent) for parent in graph.parents_of(node))
        assert all(node in graph.parents_of(child) for child in graph.children_of(node))
        assert list(graph.children_of(node)) == sorted(graph.children_of(node))
        assert [edge.parent for edge in graph.edges_into(node)] == list(graph.parents_of(node))


@given(programs())
def test_an_operation_has_the_makers_of_what_it_took_as_parents(program: Program) -> None:
    graph = Graph(program)
    for node, kind in enumerate(graph.kinds):
        if kind == Kind.COMPUTE:
            row, number = program.rows[graph.refs[node]], graph.refs[node]
            took = [graph.node_of[vid] for vid in row.ins if graph.node_of[vid] >= 0]
            wrote = [graph.rows_first[writer] for _, writer in program.deps.get(number, ())]
            assert list(graph.parents_of(node)) == took + wrote


@given(programs())
def test_distances_are_those_of_all_ways(program: Program) -> None:
    graph = Graph(program)

    @cache
    def ways(node: int, origin: Kind, backwards: bool) -> frozenset[int]:
        """Lengths of all ways between a node and the nodes of a kind."""
        if graph.kinds[node] == origin:
            return frozenset({0})
        step = graph.parents_of if backwards else graph.children_of
        return frozenset(1 + length for other in step(node) for length in ways(other, origin, backwards))

    for origin, backwards, (shortest, longest) in (
        (Kind.INPUT, True, graph.distances_from_input),
        (Kind.OUTPUT, False, graph.distances_to_output),
    ):
        for node in range(len(graph)):
            lengths = ways(node, origin, backwards) or {-1}
            assert (shortest[node], longest[node]) == (min(lengths), max(lengths))


@given(programs())
def test_reachable_is_the_closure_of_the_edges(program: Program) -> None:
    graph = Graph(program)
    below: dict[int, set[int]] = defaultdict(set)
    for parent, child in sorted(edges(graph), reverse=True):
        below[parent] |= {child} | below[child]
    for node in range(len(graph)):
        assert graph.reachable(node, backwards=False) == below[node]
        assert graph.reachable(node, backwards=True) == {other for other in list(below) if node in below[other]}
        assert bool(graph.to_output[node]) == any(graph.kinds[n] == Kind.OUTPUT for n in {node, *below[node]})
        assert bool(graph.from_input[node]) == any(
            graph.kinds[other] == Kind.INPUT for other in range(len(graph)) if node == other or node in below[other]
        )


@given(programs())
def test_orphans_are_in_parts_of_the_graph_without_an_end(program: Program) -> None:
    graph = Graph(program)
    part = list(range(len(graph)))  # of each node, by joining the parts of each edge
    for parent, child in edges(graph):
        joined = {part[parent], part[child]}
        part = [min(joined) if number in joined else number for number in part]
    read = {graph.node_of[event.vid] for event in program.events}
    ends = {
        part[node]
        for node, kind in enumerate(graph.kinds)
        if kind in (Kind.INPUT, Kind.OUTPUT)
        or node in read
        or (kind == Kind.BUFFER and program.sources[graph.refs[node]].version > 1)
    }
    assert [bool(orphan) for orphan in graph.orphans] == [part[node] not in ends for node in range(len(graph))]


# -- labels ------------------------------------------------------------------------------------------------------------


@given(programs())
def test_labels_are_unique_and_find_their_ops(program: Program) -> None:
    found = made(program, keep_orphans=True)
    labels = [op.label for op in found]
    assert len(set(labels)) == len(labels)
    for op in found:
        assert found[op.label] == op
        assert found[op.label_short] == op
        assert found[op.ordinal_index] == op
        assert all(found[key] == op for key in op.lookup_keys)
        layer = found[op.layer_label]
        assert op in (layer.ops if op.num_passes > 1 else [layer])


@given(programs())
def test_passes_have_no_gaps_and_come_in_order(program: Program) -> None:
    labels = made(program).labels
    assert sorted(node for nodes in labels.nodes for node in nodes) == list(range(len(labels.layer_of)))
    for layer, nodes in enumerate(labels.nodes):
        assert nodes == sorted(nodes)
        assert [labels.pass_of[node] for node in nodes] == list(range(1, len(nodes) + 1))
        assert {labels.layer_of[node] for node in nodes} == {layer}
    assert [nodes[0] for nodes in labels.nodes] == sorted(nodes[0] for nodes in labels.nodes)


@given(programs())
def test_layers_are_numbered_without_gaps(program: Program) -> None:
    labels = made(program).labels
    numbered = [total for total in labels.total_index if total]
    assert numbered == list(range(1, len(numbered) + 1))
    by_type: dict[str, list[int]] = defaultdict(list)
    for type_, number in zip(labels.types, labels.type_index, strict=True):
        by_type[type_].append(number)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_type.values())


@given(programs(), st.booleans())
def test_numbers_do_not_depend_on_what_is_hidden(program: Program, recurrence: bool) -> None:
    hidden, shown = (made(program, recurrence=recurrence, keep_orphans=keep) for keep in (False, True))
    assert [op.label for op in hidden] == [op.label for op in shown if not op.is_orphan]
    pairs = {(parent, op.label) for op in hidden for parent in op.parents if not parent.startswith("buffer")}
    assert hidden.num_edges == len(pairs)


@given(programs())
def test_passes_of_a_layer_are_one_function_at_one_output(program: Program) -> None:
    found = made(program)
    for layer in found.layers:
        assert len({(op.func_name, op.output_index, tuple(op.param_addresses)) for op in layer.ops}) == 1 or any(
            op.uses_params for op in layer.ops
        )


@given(programs())
def test_without_recurrence_only_shared_parameters_make_passes(program: Program) -> None:
    for layer in made(program, recurrence=False).layers:
        assert layer.num_passes == 1 or all(op.uses_params for op in layer.ops)


@given(programs())
def test_is_recurrent_where_a_pass_fed_by_an_input_reaches_another(program: Program) -> None:
    structure = Structure(program)
    graph, layer_of = structure.graph, structure.labels.layer_of
    expected = any(
        layer_of[other] == layer_of[node]
        for node in range(len(graph))
        if graph.from_input[node]
        for other in graph.reachable(node, backwards=False)
    )
    assert is_recurrent(graph, layer_of) == expected


# -- what is listed, and modules ---------------------------------------------------------------------------------------


@given(programs())
def test_iteration_length_and_index_agree(program: Program) -> None:
    found = made(program)
    listed = list(found)
    assert len(found) == len(listed)
    assert [found[number] for number in range(len(found))] == listed
    assert [found[number - len(found)] for number in range(len(found))] == listed
    assert found[:] == listed
    assert [op.step_index for op in found.compute_ops] == list(range(1, found.num_ops + 1))
    assert not any(op.is_buffer or op.is_orphan for op in listed)


@given(programs())
def test_an_op_is_in_the_calls_that_hold_its_row(program: Program) -> None:
    found = made(program, keep_orphans=True)
    for op in found.compute_ops:
        if op.func_call_id is not None:
            inside = [
                scope.call_label for scope in program.scopes[1:] if scope.first_row <= op.func_call_id < scope.last_row
            ]
            assert op.modules == inside
    for label, call in found.modules.calls.items():
        assert [op for op in call.ops if op.func_call_id is not None] == [
            op for op in found.compute_ops if label in op.modules or (label == "self:1" and op.func_call_id is not None)
        ]


# -- selectors ---------------------------------------------------------------------------------------------------------


@given(programs(), selectors(), selectors())
def test_the_algebra_of_selectors(program: Program, a: Selector, b: Selector) -> None:
    found = made(program, keep_orphans=True)

    def matching(selector: Selector) -> set[str]:
        return {op.label for op in found.find_sites(selector)}

    everything = {found.labels.op(node) for node in range(len(found.graph))}
    assert matching(a & b) == matching(b & a) == matching(a) & matching(b)
    assert matching(a | b) == matching(b | a) == matching(a) | matching(b)
    assert matching(~a) == everything - matching(a)
    assert matching(~(a & b)) == matching(~a | ~b)
    assert matching(~(a | b)) == matching(~a & ~b)
    assert matching(~~a) == matching(a)


@given(selectors(*EVERYTHING))
@settings(max_examples=150)
def test_what_is_saved_as_the_model_runs_is_what_is_found_after_it(selector: Selector) -> None:
    x = Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))
    whole = trace(Everything(), x, keep_orphans=True)
    expected = {whole.graph.vids[op.raw_index] for op in whole.find_sites(selector)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectorWarning)  # it may match nothing
        part = trace(Everything(), x, save=selector)
    assert set(part.values) == expected
    for vid in expected:
        assert np.array_equal(part.values.numpy(vid), whole.values.numpy(vid))


@given(selectors(*EVERYTHING).filter(lambda selector: not selector.reads & {"label", "children", "output_of"}))
@settings(max_examples=80)
def test_a_halt_is_at_the_first_operation_that_matches(selector: Selector) -> None:
    x = Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))
    whole = trace(Everything(), x, keep_orphans=True)
    matching = [op for op in whole.find_sites(selector) if op.is_compute]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectorWarning)  # it may match nothing
        stopped = trace(Everything(), x, halt=selector, save=False)
    if matching:
        assert stopped.halted is not None
        assert stopped.halted.label == matching[0].label
        assert stopped.halted.func_call_id == len(stopped.program.rows) - 1
    else:  # what the model returned may match: then it has come to its end
        assert len(stopped.program.rows) == len(whole.program.rows)
