"""Conditionals found from source: which arm ran, which Ops and edges belong to it. One small source file a test."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.core.conditional_tracer import traced
from torchlens_core.control_flow.conditionals import Conditional, ControlFlow

IF_ELSE = """
    def f(x):
        y = x + 1
        if y.sum() > 0:
            z = y.relu()
        else:
            z = y.neg()
        return z * 2
"""


@pytest.mark.parametrize("columns", [True, False])
def test_if_else(columns: bool) -> None:
    then = traced(IF_ELSE, 1, columns=columns)
    assert then.arms("if_chain") == ["then"]
    assert then.branch_edges == {("add_1", "sum_1"): (0,)}
    assert then.arm_entry_edges == {(0, "then"): [("add_1", "relu_1")]}
    assert then.stacks == {"relu_1": ((0, "then"),)}
    other = traced(IF_ELSE, -5, columns=columns)
    assert other.arms("if_chain") == ["else"]
    assert other.branch_edges == {("add_1", "sum_1"): (0,)}
    assert other.arm_entry_edges == {(0, "else"): [("add_1", "neg_1")]}
    assert other.stacks == {"neg_1": ((0, "else"),)}


def test_record_of_a_conditional() -> None:
    found = traced(IF_ELSE, 1)["if_chain"]
    assert Path(found.file).name.startswith("model_")
    assert (found.id, found.function, found.function_span) == (0, "f", (2, 0, 8, 16))
    assert (found.statement_span, found.test_span) == ((4, 4, 7, 19), (4, 7, 4, 18))
    assert found.test_spans == {"then": (4, 7, 4, 18)}
    assert found.branch_spans == {"then": (5, 8, 5, 20), "else": (7, 8, 7, 19)}
    assert (found.parent, found.parent_arm) == (None, None)
    (execution,) = found.executions
    assert (execution.scope, execution.order, execution.value, execution.arm) == (0, 3, True, "then")
    (predicate,) = execution.predicates
    assert (predicate.event, predicate.op, predicate.value, predicate.test) == (0, 3, True, 0)
    assert execution.ops == (4,)


def test_records_survive_a_file() -> None:
    flow = traced(IF_ELSE, 1).flow
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(flow), type=ControlFlow) == flow
    assert (
        msgspec.json.decode(msgspec.json.encode(flow.conditionals), type=tuple[Conditional, ...]) == flow.conditionals
    )


def test_if_without_else_not_taken() -> None:
    source = """
        def f(x):
            if x.sum() > 0:
                x = x.relu()
            return x + 1
    """
    not_taken = traced(source, -1)
    assert (not_taken.arms("if_chain"), not_taken.values("if_chain")) == ([None], [False])
    assert not_taken.stacks == {}
    assert not_taken.arm_entry_edges == {}
    assert not_taken.branch_edges == {("input_1", "sum_1"): (0,)}


ELIF = """
    def f(x):
        s = x.sum()
        if s > 10:
            y = x + 1
        elif s > 5:
            y = x + 2
        elif s > 0:
            y = x + 3
        else:
            y = x + 4
        return y
"""


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(
    ("number", "arm", "asked"),
    [
        (11, "then", [True]),
        (6, "elif_1", [False, True]),
        (1, "elif_2", [False, False, True]),
        (-1, "else", [False, False, False]),
    ],
)
def test_elif_chain(columns: bool, number: float, arm: str, asked: list[bool]) -> None:
    run = traced(ELIF, number, columns=columns)
    assert run.kinds == ["if_chain"]
    assert run.asked("if_chain") == [asked]
    assert run.arms("if_chain") == [arm]
    assert run.stacks == {"add_1": ((0, arm),)}
    assert run.arm_entry_edges == {(0, arm): [("input_1", "add_1")]}
    assert list(run["if_chain"].branch_spans) == ["then", "elif_1", "elif_2", "else"]
    assert list(run["if_chain"].test_spans) == ["then", "elif_1", "elif_2"]
    # `s` serves nothing but predicates: the flow turns off above it, once
    assert run.branch_edges == {("input_1", "sum_1"): (0,)}


def test_tests_of_a_chain_that_ask_no_array() -> None:
    source = """
        def f(x, training=False):
            if training:
                y = x + 1
            elif x.sum() > 5:
                y = x + 2
            elif not training:
                y = x + 3
            else:
                y = x + 4
            return y
    """
    assert traced(source, 6).arms("if_chain") == ["elif_1"]
    run = traced(source, 0)  # the array's test is false; that `elif_2` ran shows by the Op in it
    assert run.arms("if_chain") == ["elif_2"]
    assert run.stacks == {"add_1": ((0, "elif_2"),)}


def test_unknown_arm_stays_unknown() -> None:
    run = traced("def f(x, flag=True):\n    if x.sum() > 5:\n        x + 1\n    elif flag:\n        pass\n", 0)
    assert (run.arms("if_chain"), run.values("if_chain")) == ([None], [None])


def test_nested_ifs() -> None:
    source = """
        def f(x):
            if x > 0:
                y = x + 1
                if y > 5:
                    y = y * 2
                else:
                    if y > 2:
                        y = y.relu()
                return y
            return x
    """
    run = traced(source, 3)
    outer, middle, inner = run.flow.conditionals
    assert [(c.parent, c.parent_arm) for c in run.flow.conditionals] == [(None, None), (0, "then"), (1, "else")]
    assert [c.executions[0].arm for c in (outer, middle, inner)] == ["then", "else", "then"]
    assert run.stacks["relu_1"] == ((0, "then"), (1, "else"), (2, "then"))
    assert run.stacks["gt_2"] == ((0, "then"),)
    assert run.arm_entry_edges == {
        (0, "then"): [("input_1", "add_1")],
        (1, "else"): [("add_1", "gt_3"), ("add_1", "relu_1")],
        (2, "then"): [("add_1", "relu_1")],
    }


def test_parent_skips_conditionals_that_asked_no_array() -> None:
    source = """
        def f(x):
            if x > 0:
                for k in range(2):
                    if k:
                        x = (x if x > 0 else x.neg()) + 1
            return x
    """
    run = traced(source, 1)
    assert (run["ifexp"].parent, run["ifexp"].parent_arm) == (run["if_chain"].id, "then")


def test_ternaries_on_one_line() -> None:
    run = traced("def f(x):\n    return (x + 1 if x > 0 else x + 2) * (x + 3 if x < 0 else x + 4)\n", 1)
    first, second = run.flow.conditionals
    assert [c.kind for c in run.flow.conditionals] == ["ifexp", "ifexp"]
    assert (first.executions[0].arm, second.executions[0].arm) == ("then", "else")
    assert run.stacks == {"add_1": ((0, "then"),), "add_2": ((1, "else"),)}
    assert first.statement_span == (2, 12, 2, 37)


def test_two_ifs_on_one_line() -> None:
    run = traced("def f(x):\n    if x > 0: x = x + 1\n    if x > 9: x = x + 2\n    return x if x > 0 else x + 3\n", 1)
    assert [c.executions[0].arm for c in run.flow.conditionals] == ["then", None, "then"]
    assert run.stacks == {"add_1": ((0, "then"),)}


def test_ternary_inside_a_test() -> None:
    run = traced("def f(x):\n    if (x if x > 0 else x.neg()):\n        x = x.relu()\n    return x\n", -2)
    assert run.arms("ifexp") == ["else"]
    assert run.arms("if_chain") == ["then"]
    assert run["ifexp"].parent is None  # it is in the test, in no arm
    assert run.stacks == {"neg_1": ((0, "else"),), "relu_1": ((1, "then"),)}


WHILE = """
    def f(x):
        while x.sum() < 10:
            x = x * 2
        else:
            x = x + 1
        return x
"""


@pytest.mark.parametrize("columns", [True, False])
def test_while(columns: bool) -> None:
    run = traced(WHILE, 2, columns=columns)  # CPython compiles the test twice: one conditional all the same
    assert run.kinds == ["while"]
    assert run.asked("while") == [[True], [True], [True], [False]]
    assert run.arms("while") == ["body", "body", "body", "else"]
    assert [execution.ops for execution in run["while"].executions] == [(3,), (6,), (9,), (12,)]
    assert run.stacks == {
        "mul_1": ((0, "body"),),
        "mul_2": ((0, "body"),),
        "mul_3": ((0, "body"),),
        "add_1": ((0, "else"),),
    }
    assert list(run.branch_edges) == [("input_1", "sum_1"), ("mul_1", "sum_2"), ("mul_2", "sum_3"), ("mul_3", "sum_4")]
    assert run.arm_entry_edges == {  # each turn is entered anew
        (0, "body"): [("input_1", "mul_1"), ("mul_1", "mul_2"), ("mul_2", "mul_3")],
        (0, "else"): [("mul_3", "add_1")],
    }


@pytest.mark.parametrize(("source", "values"), [("x > 0", [True]), ("not x > 2, 'low'", [True]), ("x > 2", [False])])
def test_assert(source: str, values: list[bool]) -> None:
    run = traced(f"def f(x):\n    assert {source}\n    return x + 1\n", 1)
    assert run.kinds == ["assert"]
    assert (run.values("assert"), run.arms("assert")) == (values, [None])
    assert isinstance(run.run.error, AssertionError) is not values[0]
    assert run.branch_edges == {("input_1", "gt_1"): (0,)}
    assert run["assert"].branch_spans == {}


@pytest.mark.parametrize(
    "line",
    [
        "return bool(x > 0)",
        "return not x > 0",
        "return (x > 0) and x",
        "return (x > 0) or x",
        "return [y for y in [x] if y > 0]",
        "return list(y for y in [x] if y > 0)",
        "return [y + 1 for y in [x] if bool(y > 0)]",
        "return any([x > 0])",
        "return x in [5]",
        "g = lambda: bool(x > 0); return g()",
    ],
)
def test_questions_outside_of_any_test(line: str) -> None:
    run = traced(f"def f(x):\n    {line}\n", 1)
    assert run.kinds == ["bool"]
    (found,) = run.flow.conditionals
    (execution,) = found.executions
    assert execution.arm is None
    assert execution.value is execution.predicates[0].value
    assert found.statement_span is not None
    assert found.branch_spans == {}
    assert list(run.branch_edges) == [("input_1", run.run.labels[execution.predicates[0].op])]


def test_guard_of_a_case() -> None:
    run = traced("def f(x):\n    match 1:\n        case n if x > 0:\n            return x + 1\n", 1)
    assert (run.kinds, run.values("bool")) == (["bool"], [True])
    assert run.stacks == {}


@pytest.mark.parametrize("columns", [True, False])
def test_every_execution_has_its_own_arm(columns: bool) -> None:
    source = """
        def f(x):
            for k in range(4):
                if x.sum() > 0:
                    x = x + -2
                else:
                    x = x + 3
            return x
    """
    run = traced(source, 1, columns=columns)
    assert run.arms("if_chain") == ["then", "else", "then", "else"]
    assert [[run.run.labels[op] for op in e.ops] for e in run["if_chain"].executions] == [
        ["add_1"],
        ["add_2"],
        ["add_3"],
        ["add_4"],
    ]
    assert run.arm_entry_edges == {
        (0, "then"): [("input_1", "add_1"), ("add_2", "add_3")],
        (0, "else"): [("add_1", "add_2"), ("add_3", "add_4")],
    }


def test_early_return() -> None:
    source = "def f(x):\n    if x > 0:\n        return x + 1\n    return x + 2\n"
    assert traced(source, 1).stacks == {"add_1": ((0, "then"),)}
    late = traced(source, -1)
    assert (late.stacks, late.arms("if_chain")) == ({}, [None])


def test_functions_and_modules_called_from_an_arm_belong_to_it() -> None:
    source = """
        class Block(Module):
            def forward(self, x):
                return helper(x).relu()

        block = Block()

        def helper(x):
            return (lambda y: [y + 1 for _ in range(2)][0])(x)

        def f(x):
            x = block(x)
            if x > 0:
                x = block(helper(x))
            return block(x)
    """
    run = traced(source, 1)
    in_arm = {label for label, stack in run.stacks.items() if stack == ((0, "then"),)}
    assert in_arm == {"add_3", "add_4", "add_5", "add_6", "relu_2"}
    assert set(run.stacks) == in_arm


def test_conditionals_of_called_functions_and_modules() -> None:
    source = """
        class Gate(Module):
            def forward(self, x):
                if x > 0:
                    return x + -3
                return x + 5

        gates = [Gate(), Gate()]

        def step(x):
            return x.relu() if x > 1 else x.neg()

        def f(x):
            for gate in gates:
                x = step(gate(x))
            return step(x)
    """
    run = traced(source, 2)
    assert (run["if_chain"].function, run["ifexp"].function) == ("Gate.forward", "step")
    assert run.arms("if_chain") == ["then", "then"]
    assert [execution.scope for execution in run["if_chain"].executions] == [1, 2]
    assert run.arms("ifexp") == ["else", "else", "then"]
    assert run.stacks == {
        "add_1": ((0, "then"),),
        "neg_1": ((1, "else"),),
        "add_2": ((0, "then"),),
        "neg_2": ((1, "else"),),
        "relu_1": ((1, "then"),),
    }


def test_recursion_tells_activations_apart() -> None:
    source = """
        def f(x):
            if x < 8:
                y = f(x * 2)
                return y + 1
            return x.relu()
    """
    run = traced(source, 2)
    assert run.arms("if_chain") == ["then", "then", None]
    assert run.stacks["relu_1"] == ((0, "then"), (0, "then"))
    assert run.stacks["add_1"] == ((0, "then"), (0, "then"))
    assert run.stacks["add_2"] == ((0, "then"),)


def test_function_defined_in_an_arm_and_called_outside() -> None:
    source = """
        def f(x):
            if x > 0:
                g = lambda y: y + 1
            return g(x)
    """
    assert traced(source, 1).stacks == {}


def test_same_function_with_and_without_an_array() -> None:
    source = """
        def g(x, flag):
            if flag:
                return x + 1
            return x

        def f(x):
            return g(g(x, x > 0), True)
    """
    run = traced(source, 1)  # the second call asked no array: it is no execution, and its Op in no arm
    assert run.arms("if_chain") == ["then"]
    assert run.stacks == {"add_1": ((0, "then"),)}


def test_decorated_methods_lambdas_and_comprehensions() -> None:
    source = """
        import functools

        def twice(fn):
            @functools.wraps(fn)
            def wrapped(*args):
                return fn(*args) + 1
            return wrapped

        class Net(Module):
            @twice
            @twice
            def forward(self, x):
                return x * 2 if x > 0 else x

        net = Net()
        pick = lambda x: x.neg() if x > 3 else x

        def f(x):
            return [pick(net(y)) if y > 0 else y for y in (x, x)][0]
    """
    run = traced(source, 1)
    by_function = {c.function: [e.arm for e in c.executions] for c in run.flow.conditionals}
    assert by_function == {"Net.forward": ["then"] * 2, "<lambda>": ["then"] * 2, "f": ["then"] * 2}
    ids = {c.function: c.id for c in run.flow.conditionals}
    assert run.stacks["mul_1"] == ((ids["f"], "then"), (ids["Net.forward"], "then"))
    assert run.stacks["add_1"] == ((ids["f"], "then"),)


def test_tabs_and_text_beyond_ascii() -> None:
    line = '\t\t"é"; y = größe + 1 if größe < 5 else "ü" * 2'
    run = traced(f"def f(größe):\n\tif größe > 0:\n{line}\n\treturn y\n", 1)
    assert run.stacks == {"lt_1": ((0, "then"),), "add_1": ((0, "then"), (1, "then"))}
    span = run["ifexp"].statement_span
    assert line.encode()[span.col : span.end_col].decode() == 'größe + 1 if größe < 5 else "ü" * 2'


def test_tests_over_several_lines() -> None:
    source = """
        def f(x):
            if (x
                    .sum()
                    .relu()
                    and x
                    .neg()
                    .relu()):
                return x + 1
            elif (
                x.neg()
            ):
                return x + 2
    """
    run = traced(source, 1)
    assert (run.asked("if_chain"), run.arms("if_chain")) == ([[True, False, True]], ["elif_1"])
