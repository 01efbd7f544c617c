"""Positions of frames and the source around them."""

from __future__ import annotations

import linecache
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from torchlens_core.derived.frames import Frame, frame_of, position, source_context, source_line

SOURCE = """\
def here(f):
    return f() + f()


def tabs(f):
\tä = "é"; f(); f()
"""


@pytest.fixture
def code(tmp_path: Path) -> dict[str, CodeType]:
    path = tmp_path / "source.py"
    path.write_text(SOURCE, encoding="utf-8")
    names: dict[str, object] = {}
    exec(compile(SOURCE, str(path), "exec"), names)
    return {name: names[name].__code__ for name in ("here", "tabs")}  # type: ignore[attr-defined]


def calls(code: CodeType) -> list[Frame]:
    """The frames of `code` as they stand when it calls its argument."""
    frames = []

    def called() -> int:
        caller = sys._getframe(1)
        frames.append(frame_of(caller.f_code, caller.f_lasti))
        return 1

    type(called)(code, {})(called)
    return frames


def test_two_calls_on_one_line_differ_by_their_columns(code: dict[str, CodeType]) -> None:
    first, second = calls(code["here"])
    assert first[1:5] == (2, 11, 2, 14)
    assert second[1:5] == (2, 17, 2, 20)
    assert (first.function, first.first_line) == ("here", 1)


def test_columns_count_bytes_of_utf8(code: dict[str, CodeType]) -> None:
    line = '\tä = "é"; f(); f()'.encode()
    assert [line[frame.col : frame.end_col] for frame in calls(code["tabs"])] == [b"f()", b"f()"]


def test_position_and_frame_agree(code: dict[str, CodeType]) -> None:
    for lasti in range(0, len(code["here"].co_code), 2):
        frame = frame_of(code["here"], lasti)
        assert position(code["here"], lasti) == (frame.line, frame.end_line, frame.col, frame.end_col)
        assert frame_of(code["here"], lasti) is frame


def test_function_is_the_qualified_name() -> None:
    def inner() -> None: ...

    assert frame_of(inner.__code__, 0).function.endswith("<locals>.inner")


def test_source_line_and_context(code: dict[str, CodeType]) -> None:
    frame = calls(code["here"])[0]
    assert source_line(frame) == "    return f() + f()"
    assert source_context(frame, 0) == ["    return f() + f()"]
    assert source_context(frame, 2) == ["def here(f):", "    return f() + f()", "", ""]


def test_without_source_text_is_empty(code: dict[str, CodeType]) -> None:
    frame = calls(code["here"])[0]
    Path(frame.file).unlink()
    linecache.checkcache(frame.file)
    assert source_line(frame) == ""
    assert source_context(frame, 3) == []
    assert source_context(frame._replace(file="<string>"), 3) == []
    assert source_line(frame._replace(line=-1)) == ""


def test_without_debug_ranges_lines_are_known_and_columns_are_not() -> None:
    program = (
        "from torchlens_core.derived.frames import frame_of\n"
        "def f(x):\n"
        "    return x()\n"
        "print({frame_of(f.__code__, lasti)[1:5] for lasti in range(4, len(f.__code__.co_code), 2)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "no_debug_ranges", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{(3, -1, 3, -1)}"
