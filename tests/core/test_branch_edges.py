"""The edges at which flow turns to a predicate (IF)."""

from __future__ import annotations

from tests.core.conditional_tracer import traced


def test_predicate_with_several_parents() -> None:
    run = traced("def f(x, y):\n    z = x + y\n    if z * x > y:\n        z = z + 1\n    return z\n", 1, 2)
    assert set(run.branch_edges) == {("add_1", "mul_1"), ("input_1", "mul_1"), ("input_2", "gt_1")}


def test_input_that_serves_a_predicate_alone_is_flow() -> None:
    run = traced("def f(x, flag):\n    return x + 1 if flag.sum() else x\n", 1, 1)
    assert set(run.branch_edges) == {("input_2", "sum_1")}


def test_predicate_that_serves_something_else() -> None:
    run = traced("def f(x):\n    m = x.sum().relu()\n    if m:\n        x = x * m\n    return x\n", 1)
    assert run.branch_edges == {("sum_1", "relu_1"): (0,)}
    assert run.arm_entry_edges == {(0, "then"): [("input_1", "mul_1"), ("relu_1", "mul_1")]}


def test_edge_that_decides_two_conditionals() -> None:
    run = traced("def f(x):\n    s = x.sum()\n    assert s > 0\n    return x + 1 if s < 5 else x\n", 1)
    assert run.branch_edges == {("input_1", "sum_1"): (0, 1)}


def test_bare_input_as_predicate_has_no_edge() -> None:
    run = traced("def f(x):\n    return x + 1 if x else x\n", 1)
    assert (run.arms("ifexp"), run.branch_edges) == (["then"], {})
