"""Conditionals where the source is missing, changed or known by lines alone, and what reading it costs."""

from __future__ import annotations

import linecache
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.core.conditional_tracer import Run, Traced, load, traced
from torchlens_core.control_flow import branches, source_tree
from torchlens_core.control_flow.conditionals import BoolEvent, ControlFlow, OpPlace, ScopePlace, find_conditionals
from torchlens_core.derived.frames import frame_of


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


def test_deleted_file() -> None:
    run = Run()
    function = load(PLAIN, run)["f"]
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


def test_by_lines_what_shares_a_line_stays_unknown() -> None:
    run = traced("def f(x):\n    return (x + 1 if x > 0 else x + 2) * (x + 3 if x < 0 else x)\n", 1, columns=False)
    assert run.kinds == ["bool"]
    run = traced("def f(x):\n    if x > 0: x = x + 1\n    return x\n", 1, columns=False)
    assert (run.arms("if_chain"), run.stacks) == (["then"], {})
    run = traced("def f(x):\n    if x > 0 and x < 5:\n        x = x + 1\n    return x\n", 1, columns=False)
    assert (run.kinds, run.arms("if_chain"), run.stacks) == (["if_chain"], [None, None], {})


def test_by_lines_operands_on_lines_of_their_own() -> None:
    source = "def f(x):\n    if (x > 0\n            and x < 5):\n        x = x + 1\n    return x\n"
    run = traced(source, 1, columns=False)
    assert (run.asked("if_chain"), run.arms("if_chain")) == ([[True, True]], ["then"])
    assert run.stacks == {"add_1": ((0, "then"),)}


# -- cost --------------------------------------------------------------------------------------------------------------


def test_without_events_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "tree_of", lambda file: pytest.fail("a file was read"))
    site = (frame_of(sys._getframe().f_code, 0),)
    assert find_conditionals([site], [ScopePlace(-1, -1)], [OpPlace(0, 0, 0, ())], []) == ControlFlow()


def test_a_file_is_parsed_once() -> None:
    before = source_tree._parse.cache_info().misses
    run = traced(PLAIN + "# parsed once\n", 1)
    run.run.found()
    assert source_tree._parse.cache_info().misses == before + 1


LONG = """
    def f(x):
        while x.sum() < 20_000:
            x = x + 1
        for _ in range(40_000):
            x = x.relu()
"""


def test_100_000_ops_and_20_000_events_in_linear_time() -> None:
    run = traced(LONG, 0)
    assert (run.run.count, len(run.run.events)) == (100_002, 20_001)
    start = time.perf_counter()
    flow = run.run.found()
    assert time.perf_counter() - start < 5  # 0.7 s on one slow core, of which 0.05 s for the Ops that are in no arm
    (found,) = flow.conditionals
    assert [len(execution.ops) for execution in found.executions] == [1] * 20_000 + [0]
    assert len(flow.branch_edges) == 20_001
