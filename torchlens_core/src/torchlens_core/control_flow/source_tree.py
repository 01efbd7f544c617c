"""The syntax tree of a source file, and the nodes in it that a position or a code object stands for."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..derived.frames import Frame
from .truth import asking, operands, parts_of

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
COMPREHENSIONS: dict[type[ast.AST], str] = {  # and the names of their code objects
    ast.ListComp: "<listcomp>",
    ast.SetComp: "<setcomp>",
    ast.DictComp: "<dictcomp>",
    ast.GeneratorExp: "<genexpr>",
}


class Span(NamedTuple):
    """A stretch of source: lines from 1, columns from 0 in UTF-8 bytes, the end column exclusive."""

    line: int
    col: int
    end_line: int
    end_col: int

    def contains(self, other: Span) -> bool:
        """Whether all of ``other`` lies within this span."""
        return self[:2] <= other[:2] and other[2:] <= self[2:]

    def has_line(self, line: int) -> bool:
        """Whether this span reaches over some of ``line``."""
        return self.line <= line <= self.end_line

    def shares_line(self, other: Span) -> bool:
        """Whether some line has something of both."""
        return self.line <= other.end_line and other.line <= self.end_line


def tree_of(file: str) -> ast.Module | None:
    """The tree of a file or of a notebook's cell; None where there is no source, or none that parses."""
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    return _parse("".join(lines)) if lines else None


@lru_cache(maxsize=8)  # few: a tree takes far more memory than its text
def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def span_of(node: ast.AST) -> Span:
    """Where a statement or an expression stands, decorators included."""
    start = min([node, *getattr(node, "decorator_list", [])], key=lambda part: part.lineno)
    return Span(start.lineno, start.col_offset, node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def path_to(tree: ast.AST, span: Span) -> list[ast.AST]:
    """The nodes around ``span``, from ``tree`` inwards."""
    deepest: _Link = (tree, None)
    level = [deepest]
    while level:
        level = [(child, link) for link in level for child in ast.iter_child_nodes(link[0]) if _may_hold(child, span)]
        # several in Python 3.11, where the parts of an f-string overlap: what goes deepest is right
        deepest = next((link for link in level if hasattr(link[0], "lineno")), deepest)
    path = []
    link: _Link | None = deepest
    while link is not None:
        path.append(link[0])
        link = link[1]
    return path[::-1]


_Link = tuple[ast.AST, "_Link | None"]  # a node and the way to it


def _may_hold(node: ast.AST, span: Span) -> bool:
    return not hasattr(node, "lineno") or span_of(node).contains(span)  # `ast.arguments` and the like have no span


def stands_at(node: ast.AST, place: Span) -> bool:
    """Whether ``place`` is the position of ``node``; that of a method on a line of its own begins at its name."""
    span = span_of(node)
    if span == place:
        return True
    target = node.func if isinstance(node, ast.Call) else node
    return isinstance(target, ast.Attribute) and span[2:] == place[2:] and target.end_lineno == place.line


def is_code_of(node: ast.AST, frame: Frame) -> bool:
    """Whether ``node`` is the function (class body, comprehension, ...) whose code the frame ran."""
    name = frame.function.rpartition(".")[2]
    if isinstance(node, ast.Module):
        return name == "<module>"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        own_name: str | None = node.name
    else:
        own_name = "<lambda>" if isinstance(node, ast.Lambda) else COMPREHENSIONS.get(type(node))
    return name == own_name and frame.first_line == span_of(node).line


def asking_nodes(owner: ast.AST) -> Iterator[ast.AST]:
    """The nodes in the code of ``owner`` that ask for truth values: operands of tests, and what asks by itself."""
    tested: set[ast.AST] = set()  # tests and all that they are put together from
    todo = list(ast.iter_child_nodes(owner))
    while todo:
        node = todo.pop()
        for test in _tests_of(node):
            tested.add(test)
            yield from operands(test)
        if node in tested:
            tested.update(parts_of(node))
        elif _asks_by_itself(node):
            yield node
        if not _has_own_code(node):
            todo += ast.iter_child_nodes(node)


def _tests_of(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.If() | ast.IfExp() | ast.While() | ast.Assert():
            return [node.test]
        case ast.comprehension():
            return node.ifs
        case ast.match_case(guard=ast.expr() as guard):
            return [guard]
    return []


def _asks_by_itself(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="bool")):
            return True
    return bool(parts_of(node)) or asking(node).limit != 1


def _has_own_code(node: ast.AST) -> bool:
    if isinstance(node, Function | ast.ClassDef | ast.GeneratorExp):
        return True
    return type(node) in COMPREHENSIONS and sys.version_info < (3, 12)
