"""Which Ops of two traces belong together: properties on random programs, and what a reader would expect."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.bundled import Net, Port, WithoutSecondRelu, X, chain, net
from torchlens_core.bundle import bundle
from torchlens_core.bundle.alignment import Alignment, align, is_same_graph, where_graphs_part
from torchlens_core.bundle.matching import match
from torchlens_core.bundle.places import places, renaming
from torchlens_core.bundle.subsequence import MAX_EDITS, common_subsequence
from torchlens_core.derived.graph import Kind
from torchlens_core.derived.structure import Structure
from torchlens_core.errors import OptionError, UnknownMember
from torchlens_core.program import Program
from torchlens_core.records.trace import Trace
from torchlens_core.testing.strategies import programs
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy import ToyArrays
from torchlens_core.testing.toy_framework import relu
from torchlens_core.tracing import trace
from torchlens_core.values import LiveValues


def of(program: Program) -> Trace:
    return Trace(program, LiveValues(ToyArrays(), {}, {}), Structure(program))


few = settings(max_examples=50)
traces = programs().map(of)


def pairs(alignment: Alignment) -> set[tuple[int, int]]:
    """Nodes of the first and of the second trace that belong together."""
    return {(a, b) for a, b in zip(*alignment.nodes[:2], strict=True) if a >= 0 and b >= 0}


def shown(made: Trace) -> list[int]:
    return [node for node, hidden in enumerate(made.structure.hidden) if not hidden]


def calls_by_label(made: Trace) -> dict[int, tuple[str, ...]]:
    return {node: place.calls for node, place in places(made, str).items()}


class TestProperties:
    @given(programs())
    def test_a_trace_with_itself(self, program: Program) -> None:
        first, second = of(program), of(program)
        alignment = align([first, second])
        assert alignment.graph_of == (0, 0)
        assert list(alignment.nodes[0]) == list(alignment.nodes[1]) == shown(first)
        assert where_graphs_part(first, second) is None

    @given(programs())
    def test_matching_finds_all_of_the_same(self, program: Program) -> None:
        found = list(places(of(program), str).values())
        assert match(found, found) == [(n, n) for n in range(len(found))]

    @few
    @given(traces, traces)
    def test_is_symmetric(self, first: Trace, second: Trace) -> None:
        turned = pairs(align([second, first]))
        assert pairs(align([first, second])) == {(a, b) for b, a in turned}
        assert pairs(align([second, first], reference=1)) == turned

    @few
    @given(traces, traces)
    def test_every_op_has_one_site(self, first: Trace, second: Trace) -> None:
        alignment = align([first, second])
        for column, made in zip(alignment.nodes, (first, second), strict=True):
            assert sorted(node for node in column if node >= 0) == shown(made)
        assert all(a >= 0 or b >= 0 for a, b in zip(*alignment.nodes, strict=True))

    @few
    @given(traces, traces)
    def test_sites_come_in_the_order_of_the_reference(self, first: Trace, second: Trace) -> None:
        alignment = align([first, second])
        assert [node for node in alignment.nodes[0] if node >= 0] == shown(first)
        turned = align([first, second], reference=1)
        assert [node for node in turned.nodes[1] if node >= 0] == shown(second)

    @few
    @given(traces, traces)
    def test_only_ops_of_one_type_belong_together(self, first: Trace, second: Trace) -> None:
        for a, b in pairs(align([first, second])):
            left, right = first.graph.kinds[a], second.graph.kinds[b]
            assert left == right
            assert first.labels.types[first.labels.layer_of[a]] == second.labels.types[second.labels.layer_of[b]]
            assert first.graph.out_index[a] == second.graph.out_index[b]

    @few
    @given(traces, traces)
    def test_within_a_module_call_the_order_is_kept(self, first: Trace, second: Trace) -> None:
        if is_same_graph(first, second):
            return
        left, right = calls_by_label(first), calls_by_label(second)
        shared = {c for calls in left.values() for c in calls} & {c for calls in right.values() for c in calls}
        last: dict[str, int] = {}
        for a, b in sorted(pairs(align([first, second]))):
            if first.graph.kinds[a] != Kind.COMPUTE:
                continue
            call = next((c for c in reversed(left[a]) if c in shared), "")
            assert call == next((c for c in reversed(right[b]) if c in shared), "")
            assert last.get(call, -1) < b
            last[call] = b

    @given(st.lists(traces, min_size=3, max_size=4))
    @settings(max_examples=40)
    def test_of_several_no_op_is_lost(self, several: list[Trace]) -> None:
        alignment = align(several)
        for column, made in zip(alignment.nodes, several, strict=True):
            assert sorted(node for node in column if node >= 0) == shown(made)

    @few
    @given(traces, traces)
    def test_graphs_part_unless_all_is_shared(self, first: Trace, second: Trace) -> None:
        if where_graphs_part(first, second) is None:
            assert len(shown(first)) == len(shown(second))
            assert [op.label for op in first] == [op.label for op in second]
            assert len(pairs(align([first, second]))) == len(shown(first))


class TestSubsequence:
    letters = st.lists(st.sampled_from("abc"), max_size=14)

    @given(letters, letters)
    def test_is_the_longest(self, left: list[str], right: list[str]) -> None:
        found = common_subsequence(left, right)
        assert all(left[x] == right[y] for x, y in found)
        assert found == sorted(found)
        assert len({x for x, _ in found}) == len({y for _, y in found}) == len(found)
        assert len(found) == longest(left, right)

    @given(letters, letters)
    def test_is_symmetric(self, left: list[str], right: list[str]) -> None:
        assert [(y, x) for x, y in common_subsequence(right, left)] == common_subsequence(left, right)

    def test_of_what_differs_in_many_places_is_still_common(self) -> None:
        left = ["a", "b", "c"] * MAX_EDITS
        right = ["c", "d", "a", "a"] * MAX_EDITS
        found = common_subsequence(left, right)
        assert len(found) >= MAX_EDITS
        assert all(left[x] == right[y] for x, y in found)
        assert all(x < x_ and y < y_ for (x, y), (x_, y_) in pairwise(found))


def longest(left: list[str], right: list[str]) -> int:
    """By the textbook's table."""
    row = [0] * (len(right) + 1)
    for item in left:
        above, row = row, [0]
        for y, other in enumerate(right):
            row.append(above[y] + 1 if item == other else max(row[-1], above[y + 1]))
    return row[-1]


def matched(a: Any, b: Any, **options: Any) -> list[tuple[str, str]]:
    """Labels that belong together, of what differs in name."""
    made = bundle({"a": trace(a, X), "b": trace(b, X)}, **options)
    return [(site["a"].label_short, site["b"].label_short) for site in made.shared if site["a"] and site["b"]]


class TestByModule:
    def test_an_operation_less(self) -> None:
        assert matched(Net(), WithoutSecondRelu()) == [
            ("input_1:1", "input_1:1"), ("linear_1:1", "linear_1:1"), ("relu_1:1", "relu_1:1"),
            ("linear_2:1", "linear_2:1"), ("linear_3:1", "linear_3:1"), ("output_1:1", "output_1:1"),
        ]  # fmt: skip

    def test_the_right_one_of_several_alike(self) -> None:
        """The ReLU that is left is the one after the second layer, not the first ReLU that comes."""

        class WithoutFirstRelu(Net):
            def forward(self, x: Any) -> Any:
                return self.head(relu(self.second(self.first(x))))

        found = matched(Net(), WithoutFirstRelu())
        assert ("relu_2:1", "relu_1:1") in found

    def test_calls_go_by_address_in_whatever_order(self) -> None:
        tape, other = Tape(), Tape()
        for one, order in ((tape, ("q", "k")), (other, ("k", "q"))):
            x = one.input("x")
            made = {}
            for address in order:
                with one.module(address) as scope:
                    made[address] = scope.outs = one.op("linear", x)
            one.output(one.op("matmul", made["q"], made["k"]))
        made = bundle([tape.trace(), other.trace()])
        assert {(s["0"].module, s["1"].module) for s in made.shared if s.type == "linear"} == {
            ("q:1", "q:1"),
            ("k:1", "k:1"),
        }

    def test_what_no_neighbour_confirms_is_no_pair(self) -> None:
        """Two ways to write attention, each with a reshape that has nothing to do with the other's."""
        fused, plain = Tape(), Tape()
        fused.output(fused.op("linear", fused.op("reshape", fused.op("attention", fused.input("x")))))
        x = plain.input("x")
        plain.output(plain.op("linear", plain.op("matmul", plain.op("reshape", x), x)))
        made = bundle({"fused": fused.trace(), "plain": plain.trace()})
        assert made.shared.labels() == ["input_1", "linear_1_3", "output_1"]

    def test_inputs_go_by_name_then_by_order(self) -> None:
        tape, other = Tape(), Tape()
        tape.output(tape.op("add", tape.input("x"), tape.input("mask")))
        mask, ids = other.input("mask"), other.input("ids")
        other.output(other.op("relu", other.op("add", ids, mask)))
        made = bundle([tape.trace(), other.trace()])
        assert {(s["0"].address, s["1"].address) for s in made.shared if s.type == "input"} == {
            ("input.x", "input.ids"),
            ("input.mask", "input.mask"),
        }

    def test_a_renamed_module(self) -> None:
        plain = matched(Net(), Port())
        assert len(plain) == 7  # calls that the other lacks are no boundary
        made = bundle({"net": trace(WithoutSecondRelu(), X), "port": trace(Port(), X)}, rename={"port": {"body": ""}})
        assert [site.key for site in made.unmatched["port"]] == ["port/relu_2_4"]
        assert made.at("head")["port"] == made["port"]["body.head"]
        by_function = bundle(made.members, rename={"port": lambda address: address.removeprefix("body.")})
        assert by_function.sites.labels() == made.sites.labels()

    def test_the_longest_beginning_counts(self) -> None:
        rename = renaming({"body": "trunk", "body.head": "top"}, trace(Port(), X))
        assert [rename(a) for a in ("body", "body.first", "body.head", "bodyguard", "")] == [
            "trunk", "trunk.first", "top", "bodyguard", "",
        ]  # fmt: skip

    def test_renaming_what_is_not_there_is_an_error(self) -> None:
        with pytest.raises(OptionError, match=r"No module of Port is called 'boddy'. Did you mean 'body'"):
            bundle({"port": trace(Port(), X)}, rename={"port": {"boddy": ""}})
        with pytest.raises(UnknownMember, match="'prot'"):
            bundle({"port": trace(Port(), X)}, rename={"prot": {"body": ""}})

    def test_addresses_that_a_layer_more_has_moved_are_renamed(self) -> None:
        members = {"a": trace(chain(6), X), "b": trace(chain(6, extra=3), X)}
        assert bundle(members).unmatched["b"].labels() == ["b/relu_1_4", "b/linear_6_7"]  # layers.4 with layers.4 ...

        def moved(address: str) -> str:
            head, _, number = address.rpartition(".")
            return address if not head or int(number) < 3 else f"{head}.{'relu' if number == '3' else int(number) - 1}"

        made = bundle(members, rename={"b": moved})
        assert made.unmatched["b"].labels() == ["b/relu_1_4"]
        assert len(made.unmatched["a"]) == 0

    def test_three_members_with_something_of_their_own(self) -> None:
        made = bundle(
            {"net": net(), "less": trace(WithoutSecondRelu(), X), "more": trace(chain(2), X), "same": net()},
            baseline="less",
        )
        assert made.alignment.graph_of[0] == made.alignment.graph_of[3]
        assert {name: len(sites) for name, sites in made.unmatched.items()} == {
            "net": 3, "less": 2, "more": 0, "same": 3,
        }  # fmt: skip
        assert made.at("net/relu_2")["same"] == made["same"]["relu_2"]


@pytest.mark.parametrize("extra", [None, 7, 9_990])
def test_ten_thousand_ops_take_a_moment(extra: int | None) -> None:
    """Flat programs, in which nothing but order tells operations apart: the hardest ones to align."""
    made = []
    for changed in (None, extra):
        tape = Tape()
        x = tape.input("x")
        for number in range(10_000):
            x = tape.op(("linear", "relu", "add")[number % 3], x)
            if number == changed:
                x = tape.op("relu", x)
        tape.output(x)
        made.append(tape.trace())
        assert len(made[-1].labels.types) > 10_000  # worked out by tracing's user, not by alignment
    start = time.process_time()
    alignment = align(made)
    assert time.process_time() - start < 1.0
    assert len(pairs(alignment)) == 10_002
