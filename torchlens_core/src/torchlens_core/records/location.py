"""A place in the user's source that an Op was called from."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from ..derived.frames import Frame, source_context, source_line
from .record import Record, field

_MAX_LINES = 200  # of one call


class CodeLocation(Record):
    """One frame of an Op's call stack. Source text is read from the file when it is asked for.

    A loaded trace brings its source text along (file -> line -> text), and no file is read.
    """

    __slots__ = ("_frame", "_source")
    kind = "location"

    def __init__(self, frame: Frame, source: Mapping[str, Mapping[int, str]] | None = None) -> None:
        self._frame = frame
        self._source = source

    # -- place -----------------------------------------------------------------------------------------------------

    @field(group="place")
    def file(self) -> str:
        """Path of the source file."""
        return self._frame.file

    @field(group="place")
    def line_number(self) -> int:
        """Line of the call, from 1."""
        return self._frame.line

    @field(group="place")
    def col_offset(self) -> int:
        """Column of the call, from 0, in UTF-8 bytes; -1 where unknown."""
        return self._frame.col

    @field(group="place")
    def end_line_number(self) -> int:
        """Line on which the call ends."""
        return self._frame.end_line

    @field(group="place")
    def end_col_offset(self) -> int:
        """Column behind the call's last character, in UTF-8 bytes; -1 where unknown."""
        return self._frame.end_col

    # -- function --------------------------------------------------------------------------------------------------

    @field(group="function")
    def func_name(self) -> str:
        """The function's own name."""
        return self._frame.function.rpartition(".")[2]

    @field(group="function")
    def func_qualname(self) -> str:
        """Full name of the function within its file: ``Net.forward``."""
        return self._frame.function

    @field(group="function")
    def code_firstlineno(self) -> int:
        """Line on which the function begins, with its decorators."""
        return self._frame.first_line

    @field(group="function")
    def func_signature(self) -> str | None:
        """``forward(self, x: Tensor) -> Tensor``; None where the source is not at hand."""
        node = self._function_node()
        if node is None:
            return None
        returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
        return f"{node.name}({ast.unparse(node.args)}){returns}"

    @field(group="function")
    def func_docstring(self) -> str | None:
        """Docstring of the function; None where it has none or the source is not at hand."""
        node = self._function_node()
        return None if node is None else ast.get_docstring(node)

    # -- source text -----------------------------------------------------------------------------------------------

    @field(group="source")
    def call_line(self) -> str:
        """The text of the line; empty where there is no source."""
        return self._line(self.line_number).strip()

    @field(group="source")
    def call_expression(self) -> str:
        """The text of the call alone, in one line: ``self.fc(x)``; empty where there is no source or no column."""
        first, last = self.line_number, self.end_line_number
        if self.col_offset < 0 or not self._line(first) or not 0 <= last - first < _MAX_LINES:
            return ""
        lines = [self._line(number).encode() for number in range(first, last + 1)]
        lines[-1] = lines[-1][: self.end_col_offset]
        lines[0] = lines[0][self.col_offset :]
        return " ".join(line.decode(errors="replace").strip() for line in lines)

    @field(group="source")
    def arg_expressions(self) -> list[str]:
        """The arguments of the call as they are written: ``['input', 'self.weight', 'self.bias']``."""
        statement = _first_statement(self.call_expression)
        if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
            return []
        tree = statement.value
        keywords = [f"{k.arg}={ast.unparse(k.value)}" if k.arg else f"**{ast.unparse(k.value)}" for k in tree.keywords]
        return [*map(ast.unparse, tree.args), *keywords]

    @field(group="source")
    def var_names(self) -> list[str]:
        """What the call's result is assigned to: ``['x']`` in ``x = self.fc(x)``; empty for a part of an expression."""
        line, call = self.call_line, self.call_expression
        if not call or self.end_line_number != self.line_number:
            return []
        statement = _first_statement(line)
        if not isinstance(statement, ast.Assign) or ast.get_source_segment(line, statement.value) != call:
            return []
        targets = [t for target in statement.targets for t in getattr(target, "elts", [target])]
        return [ast.unparse(target) for target in targets]

    def source_context(self, num_lines: int = 7) -> list[str]:
        """The lines around the call, ``num_lines`` before and after it at most."""
        return list(self.numbered_context(num_lines).values())

    def numbered_context(self, num_lines: int = 7) -> dict[int, str]:
        """The same lines by their number."""
        first = max(self.line_number - num_lines, 1)
        if self._source is None:
            return dict(enumerate(source_context(self._frame, num_lines), start=first))
        known = self._source.get(self.file, {})
        around = range(first, self.line_number + num_lines + 1)
        return {line: known[line] for line in around if line in known}

    def _line(self, number: int) -> str:
        if self._source is not None:
            return self._source.get(self.file, {}).get(number, "")
        return source_line(self._frame._replace(line=number))

    def _function_node(self) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The function in the tree of the file; None for a lambda, a comprehension, and where there is no source."""
        from ..control_flow.source_tree import Span, is_code_of, path_to, tree_of

        tree = tree_of(self.file) if self._source is None else None
        if tree is None:
            return None
        place = Span(self._frame.line, max(self._frame.col, 0), self._frame.line, max(self._frame.col, 0))
        for node in reversed(path_to(tree, place)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_code_of(node, self._frame):
                return node
        return None

    # -- showing ---------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeLocation) and self._frame == other._frame

    def __hash__(self) -> int:
        return hash(self._frame)

    def _brief(self) -> str:
        return f"{self.file}:{self.line_number} in {self.func_qualname}"

    def __str__(self) -> str:
        from ..show.text import describe_location

        return describe_location(self)


def _first_statement(text: str) -> ast.stmt | None:
    """The first statement of a text; None where it is not whole, such as the head of an ``if``."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return statements[0] if statements else None
