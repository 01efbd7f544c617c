"""Random programs: whatever is said of a conditional is what Python did."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.conditional_tracer import Run, Value, load

# `a`, `b` and `c` are arrays, `p` and `q` plain bools
OPERANDS = st.sampled_from(
    [
        *("a", "b", "c", "p", "q", "a > 0", "bool(b)", "b.sum() > 0"),
        *("any([a, c])", "all([b, c])", "0 < c < 2", "1 in [a, b]", "max(a, c)", "bool(a) == q", "(m := c)"),
    ]
)


def connect(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        parts.map("not ({})".format),
        st.tuples(parts, st.sampled_from(["and", "or"]), parts).map(lambda three: "({}) {} ({})".format(*three)),
        st.tuples(parts, parts).map(lambda two: "({}) if p else ({})".format(*two)),
    )


TESTS = st.recursive(OPERANDS, connect, max_leaves=5)
ROWS = st.lists(st.tuples(*[st.integers(0, 1)] * 5), min_size=1, max_size=5)


def program(tests: list[str]) -> str:
    lines = ["def f(turns, one, arms):", "    for a, b, c, p, q in turns:"]
    for number, test in enumerate(tests):
        lines += [f"        {'elif' if number else 'if'} {test}:", f"            arms.append({number}); one + 1"]
    lines += ["        else:", f"            arms.append({len(tests)}); one + 1", "        one + 2", ""]
    return "\n".join(lines)


@settings(max_examples=300, deadline=None)
@given(st.lists(TESTS, min_size=1, max_size=3), ROWS, st.booleans())
def test_what_is_known_is_true(tests: list[str], rows: list[tuple[int, ...]], columns: bool) -> None:
    run = Run(columns=columns)
    arms: list[int] = []  # of each turn
    first_events: list[int] = []  # of each turn
    first_ops: list[int] = []

    def turns(one: Value) -> Iterator[tuple[Any, ...]]:
        for a, b, c, p, q in rows:
            first_events.append(len(run.events))
            first_ops.append(len(run.ops))
            yield *(Value(run, number, one.op) for number in (a, b, c)), bool(p), bool(q)

    function = load(program(tests), run)["f"]
    flow = run.trace(lambda one: function(turns(one), one, arms), (1,))

    names = ["then", *(f"elif_{k}" for k in range(1, len(tests))), "else"]
    chain = [conditional for conditional in flow.conditionals if conditional.kind == "if_chain"]
    executions = [execution for conditional in chain for execution in conditional.executions]
    # without columns the array asked by `a if p else b` may be any of the three
    assert not columns or sum(len(execution.predicates) for execution in executions) == len(run.events)
    for execution in executions:
        asked_in = {bisect_right(first_events, predicate.event) - 1 for predicate in execution.predicates}
        assert len(asked_in) == 1, "one execution was made of several turns"
        arm = arms[asked_in.pop()]
        assert execution.arm in (names[arm], None)
        assert execution.value in (arm < len(tests), None)
    for op, stack in flow.branch_stacks.items():
        assert stack == ((chain[0].id, names[arms[bisect_right(first_ops, op) - 1]]),)
