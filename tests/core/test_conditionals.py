"""Conditionals found from source: which arm ran, which Ops and edges belong to it. One small source file a test."""

from __future__ import annotations

import linecache
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from torchlens_core import branches, source_tree
from torchlens_core.conditionals import BoolEvent, Conditional, ControlFlow, OpPlace, ScopePlace, find_conditionals
from torchlens_core.frames import Frame, frame_of

from tests.core.conditional_tracer import Run, Traced, load, trace


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    def run(source: str, *inputs: float, columns: bool = True) -> Traced:
        return trace(tmp_path, dedent(source), *inputs, columns=columns)

    return run


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
def test_if_else(traced: Any, columns: bool) -> None:
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


def test_record_of_a_conditional(traced: Any) -> None:
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


def test_records_survive_a_file(traced: Any) -> None:
    flow = traced(IF_ELSE, 1).flow
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(flow), type=ControlFlow) == flow
    assert (
        msgspec.json.decode(msgspec.json.encode(flow.conditionals), type=tuple[Conditional, ...]) == flow.conditionals
    )


def test_if_without_else_not_taken(traced: Any) -> None:
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
def test_elif_chain(traced: Any, columns: bool, number: float, arm: str, asked: list[bool]) -> None:
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


def test_tests_of_a_chain_that_ask_no_array(traced: Any) -> None:
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


def test_unknown_arm_stays_unknown(traced: Any) -> None:
    run = traced("def f(x, flag=True):\n    if x.sum() > 5:\n        x + 1\n    elif flag:\n        pass\n", 0)
    assert (run.arms("if_chain"), run.values("if_chain")) == ([None], [None])


def test_nested_ifs(traced: Any) -> None:
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


def test_parent_skips_conditionals_that_asked_no_array(traced: Any) -> None:
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


def test_ternaries_on_one_line(traced: Any) -> None:
    run = traced("def f(x):\n    return (x + 1 if x > 0 else x + 2) * (x + 3 if x < 0 else x + 4)\n", 1)
    first, second = run.flow.conditionals
    assert [c.kind for c in run.flow.conditionals] == ["ifexp", "ifexp"]
    assert (first.executions[0].arm, second.executions[0].arm) == ("then", "else")
    assert run.stacks == {"add_1": ((0, "then"),), "add_2": ((1, "else"),)}
    assert first.statement_span == (2, 12, 2, 37)


def test_two_ifs_on_one_line(traced: Any) -> None:
    run = traced("def f(x):\n    if x > 0: x = x + 1\n    if x > 9: x = x + 2\n    return x if x > 0 else x + 3\n", 1)
    assert [c.executions[0].arm for c in run.flow.conditionals] == ["then", None, "then"]
    assert run.stacks == {"add_1": ((0, "then"),)}


def test_ternary_inside_a_test(traced: Any) -> None:
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
def test_while(traced: Any, columns: bool) -> None:
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
def test_assert(traced: Any, source: str, values: list[bool]) -> None:
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
def test_questions_outside_of_any_test(traced: Any, line: str) -> None:
    run = traced(f"def f(x):\n    {line}\n", 1)
    assert run.kinds == ["bool"]
    (found,) = run.flow.conditionals
    (execution,) = found.executions
    assert execution.arm is None
    assert execution.value is execution.predicates[0].value
    assert found.statement_span is not None
    assert found.branch_spans == {}
    assert list(run.branch_edges) == [("input_1", run.run.labels[execution.predicates[0].op])]


def test_guard_of_a_case(traced: Any) -> None:
    run = traced("def f(x):\n    match 1:\n        case n if x > 0:\n            return x + 1\n", 1)
    assert (run.kinds, run.values("bool")) == (["bool"], [True])
    assert run.stacks == {}


COMPOUND = [  # test, truth of a and b, what is asked, what it comes to
    ("not a", (1, 1), [True], False),
    ("not a", (0, 1), [False], True),
    ("a and b", (1, 1), [True, True], True),
    ("a and b", (1, 0), [True, False], False),
    ("a and b", (0, 1), [False], False),
    ("a or b", (1, 1), [True], True),
    ("a or b", (0, 1), [False, True], True),
    ("a or b", (0, 0), [False, False], False),
    ("not (a or not b)", (0, 1), [False, True], True),
    ("not (a or not b)", (0, 0), [False, False], False),
    ("(a and b) or (b and a)", (0, 1), [False, True, False], False),
    ("yes and a", (1, 1), [True], True),
    ("no or a", (0, 1), [False], False),
    ("a and no", (0, 1), [False], False),
    ("a and no", (1, 1), [True], None),  # what `no` was cannot be seen
    ("a or yes", (0, 0), [False], None),
    ("a or yes", (1, 0), [True], True),
    ("a and yes and b", (1, 0), [True, False], False),
    ("(m := a)", (1, 1), [True], True),
    ("bool(a)", (0, 1), [False], False),
    ("(a if yes else b)", (1, 0), [True], True),
    ("(a if no else b) and yes", (1, 0), [False], False),
    ("a > 0 < b", (1, 1), [True, True], True),
    ("a > 0 > b", (1, 1), [True, False], False),
    ("any([a, b])", (0, 1), [False, True], True),
    ("any([a, b])", (0, 0), [False, False], None),  # there might have been a true one that is no array
    ("all([a, b])", (1, 0), [True, False], False),
    ("all([a, b])", (1, 1), [True, True], None),
    ("not any([a, b])", (1, 1), [True], False),
    ("2 in [a, b]", (1, 2), [False, True], True),
    ("2 not in [a, b]", (1, 2), [False, True], False),
    ("bool(a) == no", (1, 1), [True], None),
]


@pytest.mark.parametrize("kind", ["if_chain", "ifexp", "while", "assert"])
@pytest.mark.parametrize(("test", "truth", "asked", "value"), COMPOUND)
def test_compound_tests(
    traced: Any, kind: str, test: str, truth: tuple[int, int], asked: list[bool], value: bool | None
) -> None:
    statement = {
        "if_chain": f"if {test}:\n        pass\n    else:\n        pass",
        "ifexp": f"1 if {test} else 2",
        "while": f"while {test}:\n        break\n    else:\n        pass",
        "assert": f"assert {test}",
    }[kind]
    run = traced(f"def f(a, b, yes=True, no=False):\n    {statement}\n", *truth)
    assert run.kinds == [kind]
    assert run.asked(kind) == [asked]
    assert run.values(kind) == [value]
    arms = {"if_chain": ("then", "else"), "ifexp": ("then", "else"), "while": ("body", "else")}.get(kind, (None, None))
    assert run.arms(kind) == [{True: arms[0], False: arms[1], None: None}[value]]


def test_op_in_an_arm_shows_which_ran(traced: Any) -> None:
    source = """
        def f(x, flag):
            for k in range(3):
                if x > 0 and k < 1:
                    x = x + 1
                else:
                    x = x * 2
            return x
    """
    run = traced(source, 1, 1)
    assert run.arms("if_chain") == ["then", "else", "else"]
    assert list(run.stacks.values()) == [((0, "then"),), ((0, "else"),), ((0, "else"),)]


def test_op_of_a_later_execution_shows_nothing(traced: Any) -> None:
    source = """
        def f(x):
            for k in range(2):
                if k == 1 or (x > 0 and k == 2):
                    x = x + 1
            return x
    """
    run = traced(source, 1)  # the addition is of the second turn, which asked nothing
    assert run.arms("if_chain") == [None]
    assert run.stacks == {}


@pytest.mark.parametrize("columns", [True, False])
def test_every_execution_has_its_own_arm(traced: Any, columns: bool) -> None:
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


def test_early_return(traced: Any) -> None:
    source = "def f(x):\n    if x > 0:\n        return x + 1\n    return x + 2\n"
    assert traced(source, 1).stacks == {"add_1": ((0, "then"),)}
    late = traced(source, -1)
    assert (late.stacks, late.arms("if_chain")) == ({}, [None])


def test_functions_and_modules_called_from_an_arm_belong_to_it(traced: Any) -> None:
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


def test_conditionals_of_called_functions_and_modules(traced: Any) -> None:
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


def test_recursion_tells_activations_apart(traced: Any) -> None:
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


def test_function_defined_in_an_arm_and_called_outside(traced: Any) -> None:
    source = """
        def f(x):
            if x > 0:
                g = lambda y: y + 1
            return g(x)
    """
    assert traced(source, 1).stacks == {}


def test_same_function_with_and_without_an_array(traced: Any) -> None:
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


def test_decorated_methods_lambdas_and_comprehensions(traced: Any) -> None:
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


def test_tabs_and_text_beyond_ascii(traced: Any) -> None:
    line = '\t\t"é"; y = größe + 1 if größe < 5 else "ü" * 2'
    run = traced(f"def f(größe):\n\tif größe > 0:\n{line}\n\treturn y\n", 1)
    assert run.stacks == {"lt_1": ((0, "then"),), "add_1": ((0, "then"), (1, "then"))}
    span = run["ifexp"].statement_span
    assert line.encode()[span.col : span.end_col].decode() == 'größe + 1 if größe < 5 else "ü" * 2'


def test_tests_over_several_lines(traced: Any) -> None:
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


# -- edges of predicates -----------------------------------------------------------------------------------------------


def test_predicate_with_several_parents(traced: Any) -> None:
    run = traced("def f(x, y):\n    z = x + y\n    if z * x > y:\n        z = z + 1\n    return z\n", 1, 2)
    assert set(run.branch_edges) == {("add_1", "mul_1"), ("input_1", "mul_1"), ("input_2", "gt_1")}


def test_input_that_serves_a_predicate_alone_is_flow(traced: Any) -> None:
    run = traced("def f(x, flag):\n    return x + 1 if flag.sum() else x\n", 1, 1)
    assert set(run.branch_edges) == {("input_2", "sum_1")}


def test_predicate_that_serves_something_else(traced: Any) -> None:
    run = traced("def f(x):\n    m = x.sum().relu()\n    if m:\n        x = x * m\n    return x\n", 1)
    assert run.branch_edges == {("sum_1", "relu_1"): (0,)}
    assert run.arm_entry_edges == {(0, "then"): [("input_1", "mul_1"), ("relu_1", "mul_1")]}


def test_edge_that_decides_two_conditionals(traced: Any) -> None:
    run = traced("def f(x):\n    s = x.sum()\n    assert s > 0\n    return x + 1 if s < 5 else x\n", 1)
    assert run.branch_edges == {("input_1", "sum_1"): (0, 1)}


def test_bare_input_as_predicate_has_no_edge(traced: Any) -> None:
    run = traced("def f(x):\n    return x + 1 if x else x\n", 1)
    assert (run.arms("ifexp"), run.branch_edges) == (["then"], {})


# -- no source, or not the right one -----------------------------------------------------------------------------------


def compiled(source: str, filename: str, number: float = 1) -> Traced:
    run = Run()
    names: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), names)
    return Traced(run, run.trace(names["f"], (number,)))


def assert_unknown(run: Traced) -> None:
    (found,) = run.flow.conditionals
    assert (found.kind, found.statement_span, found.function_span, found.branch_spans) == ("bool", None, None, {})
    (execution,) = found.executions
    assert (execution.arm, [p.value for p in execution.predicates]) == (None, [True])
    assert run.stacks == {}
    assert run.arm_entry_edges == {}


PLAIN = "def f(x):\n    if x > 0:\n        x = x + 1\n    return x\n"


def test_code_without_a_file() -> None:
    assert_unknown(compiled(PLAIN, "<string>"))


def test_deleted_file(tmp_path: Path) -> None:
    run = Run()
    function = load(tmp_path, PLAIN, run)["f"]
    linecache.getlines(function.__code__.co_filename)
    Path(function.__code__.co_filename).unlink()
    assert_unknown(Traced(run, run.trace(function, (1,))))


@pytest.mark.parametrize(
    "text",
    [
        "# a new line\n" + PLAIN,
        PLAIN.replace("x > 0", "  x > 0"),
        PLAIN.replace("def f", "def g"),
        "if if\n",
        "\0",
        "",
    ],
)
def test_file_that_is_not_what_was_compiled(tmp_path: Path, text: str) -> None:
    path = tmp_path / "changed.py"
    path.write_text(text, encoding="utf-8")
    assert_unknown(compiled(PLAIN, str(path)))


def test_source_of_a_notebook_cell() -> None:
    linecache.cache["<cell 1>"] = (len(PLAIN), None, PLAIN.splitlines(keepends=True), "<cell 1>")
    assert compiled(PLAIN, "<cell 1>").arms("if_chain") == ["then"]


def test_event_without_any_frame() -> None:
    flow = find_conditionals([], [ScopePlace(-1, -1)], [], [BoolEvent(-1, True, 0, -1, 0)])
    (found,) = flow.conditionals
    assert (found.kind, found.file, found.executions[0].predicates[0].op) == ("bool", "", -1)


# -- without columns ---------------------------------------------------------------------------------------------------


def test_by_lines_what_shares_a_line_stays_unknown(traced: Any) -> None:
    run = traced("def f(x):\n    return (x + 1 if x > 0 else x + 2) * (x + 3 if x < 0 else x)\n", 1, columns=False)
    assert run.kinds == ["bool"]
    run = traced("def f(x):\n    if x > 0: x = x + 1\n    return x\n", 1, columns=False)
    assert (run.arms("if_chain"), run.stacks) == (["then"], {})
    run = traced("def f(x):\n    if x > 0 and x < 5:\n        x = x + 1\n    return x\n", 1, columns=False)
    assert (run.kinds, run.arms("if_chain"), run.stacks) == (["if_chain"], [None, None], {})


def test_by_lines_operands_on_lines_of_their_own(traced: Any) -> None:
    source = "def f(x):\n    if (x > 0\n            and x < 5):\n        x = x + 1\n    return x\n"
    run = traced(source, 1, columns=False)
    assert (run.asked("if_chain"), run.arms("if_chain")) == ([[True, True]], ["then"])
    assert run.stacks == {"add_1": ((0, "then"),)}


# -- cost --------------------------------------------------------------------------------------------------------------


def test_without_events_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "tree_of", lambda file: pytest.fail("a file was read"))
    site = (frame_of(sys._getframe().f_code, 0),)
    assert find_conditionals([site], [ScopePlace(-1, -1)], [OpPlace(0, 0, 0, ())], []) == ControlFlow()


def test_a_file_is_parsed_once(traced: Any) -> None:
    before = source_tree._parse.cache_info().misses
    run = traced(WHILE + "    # parsed once\n", 2)
    run.run.found()
    assert source_tree._parse.cache_info().misses == before + 1


@pytest.mark.parametrize("repeats", [1, 30_000])
def test_100_000_ops_in_linear_time(tmp_path: Path, repeats: int) -> None:
    frames = run_of_while(tmp_path)
    sites = [*frames, tuple(Frame("other.py", line, 0, line, 9, "g", 1) for line in range(20))]
    ops = [OpPlace(0, -1, 0, (), True)]
    events = []
    for turn in range(repeats):  # sum, lt, bool, mul
        top = len(ops) - 1
        ops += [OpPlace(0, 0, 3 * turn, (top,)), OpPlace(0, 0, 3 * turn + 1, (top + 1,))]
        events.append(BoolEvent(top + 2, True, 0, 1, 3 * turn + 2))
        ops.append(OpPlace(0, 2, 3 * turn + 2, (top,)))
    ops += [OpPlace(0, 3, order, (len(ops) - 1,)) for order in range(3 * repeats, 100_000)]
    start = time.perf_counter()
    flow = find_conditionals(sites, [ScopePlace(-1, -1)], ops, events)
    assert time.perf_counter() - start < 5  # measured: 0.1 s and 0.6 s
    assert [execution.ops for execution in flow.conditionals[0].executions][-1] == (3 * repeats,)
    assert len(flow.branch_edges) == repeats


def run_of_while(folder: Path) -> list[tuple[Frame, ...]]:
    """The sites of a run of WHILE: the sum, the asking, the product."""
    run = Run()
    run.trace(load(folder, dedent(WHILE), run)["f"], (9,))
    sites = list(run.sites)
    return [sites[run.ops[1].site], sites[run.events[0].site], sites[run.ops[3].site]]
