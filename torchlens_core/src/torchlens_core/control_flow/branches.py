"""The conditionals of a source file: which of them a Python frame was testing, and where its arms stand.

A *question* is a place in the source that asks an object for its truth value. Most are in the test of an ``if`` chain,
a ternary, a ``while`` or an ``assert``. All others (``bool(x)``, a filter in a comprehension, the guard of a ``case``,
an ``and`` outside a test) are conditionals of kind ``'bool'``, of which no more is known than that they were asked.

Nothing is guessed: where there is no source, or not the source of the code that ran, the question is a ``'bool'``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from ..derived.frames import Frame
from .source_tree import (
    COMPREHENSIONS,
    Function,
    Span,
    asking_nodes,
    is_code_of,
    path_to,
    span_of,
    stands_at,
    tree_of,
)
from .truth import asking, parts_of

Kind = Literal["if_chain", "ifexp", "while", "assert", "bool"]
_Branching = ast.If | ast.IfExp | ast.While | ast.Assert
_KINDS: dict[type[ast.AST], Kind] = {
    ast.If: "if_chain",
    ast.IfExp: "ifexp",
    ast.While: "while",
    ast.Assert: "assert",
}
_IN_COMPREHENSIONS = re.compile(r"(\.<locals>\.<(listcomp|setcomp|dictcomp|genexpr)>)+$")


class Arm(NamedTuple):
    """One arm of a conditional."""

    name: str  # 'then', 'elif_1', ..., 'else'; 'body' of a while
    span: Span
    owns_lines: bool  # no test and no other arm has anything on its lines


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One conditional in the source. Without source, the only span it has is that of its test."""

    kind: Kind
    file: str
    function: str  # qualified name
    function_span: Span | None  # None of a module too
    span: Span | None  # of a 'bool': the statement that it is part of
    tests: tuple[ast.expr, ...]  # of a 'bool': none
    test_spans: tuple[Span, ...]
    arms: tuple[Arm, ...]  # the n-th runs when the n-th test is the first true one; one more is the `else`
    parent: Statement | None  # the conditional around it in the same function ...
    parent_arm: str | None  # ... and the arm of it in which it stands

    def has_in_tests(self, place: Span) -> bool:
        """Whether an expression of the same function stands in one of the tests, as far as lines or columns tell."""
        return any(span.contains(place) if place.col >= 0 else span.has_line(place.line) for span in self.test_spans)

    def arm_at(self, place: Span) -> int | None:
        """In which arm an expression of the same function stands; None where in none, or where lines do not tell."""
        for number, arm in enumerate(self.arms):
            if arm.span.contains(place) if place.col >= 0 else arm.owns_lines and arm.span.has_line(place.line):
                return number
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A place that asks for a truth value."""

    statement: Statement
    test: int = 0  # which test of the statement
    operand: ast.expr | None = None  # which operand of the test; None where that cannot be told
    own: bool = True  # the operand itself was asked, not something inside it
    always: bool = False  # whoever evaluates the test asks this
    repeats: bool = False  # may be asked any number of times in one evaluation of the test


class Branches:
    """Finds the question that a frame asked: one object for each question and each statement in the source."""

    def __init__(self) -> None:
        self._statements: dict[Hashable, Statement] = {}
        self._questions: dict[Frame, Question] = {}

    def question(self, frame: Frame) -> Question:
        """The question that ``frame`` was asking when it stood at its position."""
        found = self._questions.get(frame)
        if found is None:
            found = self._questions[frame] = self._locate(frame) or self._bare(frame, [])
        return found

    def _locate(self, frame: Frame) -> Question | None:
        tree = tree_of(frame.file)
        if tree is None or frame.line < 1:
            return None
        if frame.col < 0:
            return self._locate_by_line(tree, frame)
        asked = Span(*frame[1:5])
        path = path_to(tree, asked)
        if not any(is_code_of(node, frame) for node in path) or len(path) < 2 or not stands_at(path[-1], asked):
            return None  # the file is not, or no longer, what was compiled
        if isinstance(path[-2], ast.NamedExpr):  # `if m := x:` asks at `m` in Python 3.11, at `m := x` in later ones
            path.pop()
        return self._in_test(path, frame) or self._bare(frame, path)

    def _locate_by_line(self, tree: ast.Module, frame: Frame) -> Question | None:
        """The one question on the frame's line; of several in one test, which test it is."""
        owners = [node for node in ast.walk(tree) if is_code_of(node, frame)]
        if len(owners) != 1:
            return None
        paths = [path_to(tree, span_of(node)) for node in asking_nodes(owners[0])]
        paths = [path for path in paths if span_of(path[-1]).has_line(frame.line)]
        questions = [self._in_test(path, frame) or self._bare(frame, path) for path in paths]
        if len(questions) > 1 and len({(question.statement, question.test) for question in questions}) == 1:
            return Question(questions[0].statement, questions[0].test)
        return questions[0] if len(questions) == 1 else None

    def _in_test(self, path: list[ast.AST], frame: Frame) -> Question | None:
        """The question asked by the last node of ``path``, if it is part of the test of a conditional."""
        holder = _index_of_holder(path)
        if holder is None:
            return None
        statement, test = self._statement(path, holder, frame)
        level = holder + 1
        while level < len(path) - 1 and parts_of(path[level]):
            level += 1
        operand, asked = path[level], path[-1]
        assert isinstance(operand, ast.expr)
        if parts_of(operand):  # an `and` as a whole, which no version known asks
            return Question(statement, test)
        own = operand is asked
        always = all(_always_evaluates(node, part) for node, part in pairwise(path[holder + 1 :]))
        repeats = asking(operand).limit is None if own else _may_ask_often(asked)
        return Question(statement, test, operand, own, always, repeats)

    def _bare(self, frame: Frame, path: list[ast.AST]) -> Question:
        """A question of which only the place is known; ``path`` is empty where there is no source."""
        key = ("bool", frame)
        if key not in self._statements:
            span = next((span_of(node) for node in reversed(path) if isinstance(node, ast.stmt)), None)
            parent, arm = self._around(path, len(path) - 1, frame)
            self._statements[key] = Statement(
                kind="bool",
                file=frame.file,
                function=_IN_COMPREHENSIONS.sub("", frame.function),
                function_span=_function_span(path),
                span=span,
                tests=(),
                test_spans=(Span(*frame[1:5]),),
                arms=(),
                parent=parent,
                parent_arm=arm,
            )
        return Question(self._statements[key])

    def _statement(self, path: list[ast.AST], holder: int, frame: Frame) -> tuple[Statement, int]:
        """The conditional that the node ``path[holder]`` is part of, and the number of that node's test in it."""
        root = holder
        while root > 0 and _is_elif(path[root - 1], path[root]):
            root -= 1
        chain = _chain(path[root])
        key = (frame.file, type(path[root]), span_of(path[root]))
        if key not in self._statements:
            parent, arm = self._around(path, root, frame)
            self._statements[key] = Statement(
                kind=_KINDS[type(path[root])],
                file=frame.file,
                function=_IN_COMPREHENSIONS.sub("", frame.function),
                function_span=_function_span(path),
                span=span_of(path[root]),
                tests=tuple(node.test for node in chain),
                test_spans=tuple(span_of(node.test) for node in chain),
                arms=_arms(chain),
                parent=parent,
                parent_arm=arm,
            )
        return self._statements[key], holder - root

    def _around(self, path: list[ast.AST], index: int, frame: Frame) -> tuple[Statement | None, str | None]:
        """The innermost conditional that has ``path[index]`` in one of its arms, and the name of the arm."""
        for level in range(index - 1, -1, -1):
            node = path[level]
            if isinstance(node, Function | ast.ClassDef):
                break
            if isinstance(node, ast.If | ast.IfExp | ast.While):
                statement, _ = self._statement(path, level, frame)
                arm = statement.arm_at(span_of(path[index]))
                if arm is not None:
                    return statement, statement.arms[arm].name
        return None, None


def _function_span(path: list[ast.AST]) -> Span | None:
    return next((span_of(node) for node in reversed(path) if isinstance(node, Function)), None)


def _is_elif(node: ast.AST, inner: ast.AST) -> bool:
    """Whether ``inner`` is the ``elif`` of ``node``; the ``if`` of an ``else: if`` stands further to the right."""
    if not isinstance(node, ast.If) or not isinstance(inner, ast.If):
        return False
    return node.orelse == [inner] and node.col_offset == inner.col_offset


def _chain(head: ast.AST) -> list[_Branching]:
    """``head`` and the ``elif``s that follow it."""
    assert isinstance(head, _Branching)
    chain = [head]
    while isinstance(head, ast.If) and head.orelse and _is_elif(head, head.orelse[0]):
        head = head.orelse[0]
        assert isinstance(head, ast.If)
        chain.append(head)
    return chain


def _arms(chain: list[_Branching]) -> tuple[Arm, ...]:
    parts: list[tuple[str, list[ast.stmt]]] = []
    otherwise: list[ast.stmt] = []
    for number, node in enumerate(chain):
        if isinstance(node, ast.Assert):
            return ()
        if isinstance(node, ast.IfExp):
            return (Arm("then", span_of(node.body), False), Arm("else", span_of(node.orelse), False))
        name = "body" if isinstance(node, ast.While) else f"elif_{number}" if number else "then"
        parts.append((name, node.body))
        otherwise = node.orelse
    if otherwise:
        parts.append(("else", otherwise))
    spans = [Span(*span_of(body[0])[:2], *span_of(body[-1])[2:]) for _, body in parts]
    tests = [span_of(node.test) for node in chain]
    return tuple(
        Arm(name, span, not any(span.shares_line(other) for other in (*tests, *spans) if other is not span))
        for (name, _), span in zip(parts, spans, strict=True)
    )


def _index_of_holder(path: list[ast.AST]) -> int | None:
    """Which node of ``path`` is the innermost conditional that has the rest of the path in its test."""
    for level in range(len(path) - 2, -1, -1):
        node = path[level]
        if isinstance(node, _Branching) and node.test is path[level + 1]:
            return level
        is_plain = isinstance(node, ast.expr | ast.keyword) and not isinstance(node, ast.Lambda)
        if not is_plain or type(node) in COMPREHENSIONS:
            return None
    return None


def _always_evaluates(node: ast.AST, part: ast.AST) -> bool:
    """Whether every evaluation of ``node`` evaluates ``part`` of it."""
    if isinstance(node, ast.BoolOp):
        return part is node.values[0]
    if isinstance(node, ast.Compare):
        return part is node.left or part is node.comparators[0]
    return not isinstance(node, ast.IfExp)


def _may_ask_often(node: ast.AST) -> bool:
    """Whether ``node``, evaluated once, may ask any number of arrays: calls may, but for ``bool(x)``."""
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id == "bool")
    return asking(node).limit != 1
