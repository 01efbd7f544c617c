"""What the tests of a conditional came to, as far as it follows from the truth values that were seen.

Only arrays are seen being asked for their truth value. The other operands of a test (``self.training``, ``x is None``)
may have been true or false; an outcome is known when it is the same in every evaluation that would have asked just what
was asked.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import NamedTuple


class Answer(NamedTuple):
    """A truth value that was seen while tests were evaluated."""

    test: int  # which of the tests
    operand: ast.expr  # which operand of it
    own: bool  # the value of the operand itself, not of something inside it
    value: bool


class Asking(NamedTuple):
    """How an expression asks arrays for truth values when its own is wanted."""

    limit: int | None  # it asks at most so often; None: as often as it has items
    stops_at: bool | None  # the value that ends the asking and decides; None: no value decides
    negated: bool = False  # what it decides is the opposite


_ONCE = Asking(limit=1, stops_at=False)
_BUILTINS = {
    "any": Asking(None, stops_at=True),
    "all": Asking(None, stops_at=False),
    **dict.fromkeys(("max", "min", "sorted"), Asking(None, stops_at=None)),
}
_LIST_METHODS = frozenset({"count", "index", "remove", "sort"})


def asking(expr: ast.AST) -> Asking:
    """How ``expr`` asks: most expressions once, ``a < b < c`` up to twice, ``any(...)`` until something is true."""
    match expr:
        case ast.Call(func=ast.Name(id=name)):
            return _BUILTINS.get(name, _ONCE)
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in _LIST_METHODS:
            return Asking(None, stops_at=None)
        case ast.Compare(ops=[ast.In()]):
            return Asking(None, stops_at=True)
        case ast.Compare(ops=[ast.NotIn()]):
            return Asking(None, stops_at=True, negated=True)
        case ast.Compare(ops=ops) if any(isinstance(op, ast.In | ast.NotIn) for op in ops):
            return Asking(None, stops_at=None)
        case ast.Compare(ops=ops):
            return Asking(len(ops), stops_at=False)
    return _ONCE


def parts_of(expr: ast.AST) -> list[ast.expr]:
    """The parts whose truth makes the truth of ``expr``: of ``and``, ``or``, ``not``, a ternary; else none."""
    match expr:
        case ast.BoolOp():
            return expr.values
        case ast.UnaryOp(op=ast.Not()):
            return [expr.operand]
        case ast.IfExp():
            return [expr.body, expr.orelse]
    return []


def operands(test: ast.expr) -> list[ast.expr]:
    """What stands below the connectives of a test."""
    parts = parts_of(test)
    return [operand for part in parts for operand in operands(part)] if parts else [test]


def outcomes(tests: Sequence[ast.expr], answers: Sequence[Answer]) -> frozenset[int]:
    """Which test was the first true one, ``len(tests)`` standing for none: every possibility that fits the answers.

    One number is certainty. The empty set means that one evaluation of the tests cannot have asked all this.
    """
    ends: set[tuple[int, int]] = set()
    taken = {0}  # how many answers the tests up to here may have taken
    for number, test in enumerate(tests):
        false: set[int] = set()
        for start in taken:
            for value, end in _evaluate(test, answers, start):
                if value:
                    ends.add((number, end))
                else:
                    false.add(end)
        taken = false
    ends |= {(len(tests), end) for end in taken}
    return frozenset(number for number, end in ends if end == len(answers))


def _evaluate(expr: ast.expr, answers: Sequence[Answer], start: int) -> set[tuple[bool, int]]:
    """All that ``expr`` may come to, if it takes answers from ``start`` on: (truth value, how many are taken then)."""
    match expr:
        case ast.BoolOp(op=op, values=values):
            decides = isinstance(op, ast.Or)
            ends: set[tuple[bool, int]] = set()
            taken = {start}
            for value in values:
                results = {result for begin in taken for result in _evaluate(value, answers, begin)}
                ends |= {(truth, end) for truth, end in results if truth is decides}
                taken = {end for truth, end in results if truth is not decides}
            return ends | {(not decides, end) for end in taken}
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return {(not truth, end) for truth, end in _evaluate(operand, answers, start)}
        case ast.IfExp(body=body, orelse=orelse):
            return _evaluate(body, answers, start) | _evaluate(orelse, answers, start)
    return _evaluate_operand(expr, answers, start)


def _evaluate_operand(operand: ast.expr, answers: Sequence[Answer], start: int) -> set[tuple[bool, int]]:
    limit, stops_at, negated = asking(operand)
    end = start
    while end < len(answers) and answers[end].operand is operand and not answers[end].own:
        end += 1
    asked = 0
    while end < len(answers) and answers[end].operand is operand and answers[end].own and asked != limit:
        value = answers[end].value
        end, asked = end + 1, asked + 1
        if value is stops_at:
            return {(value is not negated, end)}
    if asked == limit and stops_at is not None:
        return {((not stops_at) is not negated, end)}
    return {(True, end), (False, end)}
