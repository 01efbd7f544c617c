"""Drawings as files: where they go, what is refused, and the options of draw."""

from __future__ import annotations

import functools
import gc
import os
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests.core.pictures import (
    count,
    small_model,
)
from torchlens_core.draw import NodeSpec, draw
from torchlens_core.errors import DrawError, LabelError
from torchlens_core.records.trace import Trace
from torchlens_core.testing.tape import Tape


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- files -------------------------------------------------------------------------------------------------------------


def test_draw_without_arguments_writes_a_pdf_here() -> None:
    drawing = small_model().draw()
    assert drawing.path == Path("modelgraph.pdf")
    assert drawing.path.read_bytes().startswith(b"%PDF-")
    assert os.listdir() == ["modelgraph.pdf"]
    assert repr(drawing) == "<Drawing of Small: 6 nodes, 5 edges, in 'modelgraph.pdf'>"


@pytest.mark.parametrize(
    ("path", "format", "written", "start"),
    [
        ("a", "svg", "a.svg", b"<?xml"),
        ("a.svg", None, "a.svg", b"<?xml"),
        ("a.SVG", None, "a.SVG", b"<?xml"),
        ("a.svg", "svg", "a.svg", b"<?xml"),
        ("a.png", None, "a.png", b"\x89PNG"),
        ("a.dot", None, "a.dot", b"digraph {"),
        ("a", "gv", "a.gv", b"digraph {"),
        ("resnet.v2", None, "resnet.v2.pdf", b"%PDF-"),
        ("deep/er/a", "dot", "deep/er/a.dot", b"digraph {"),
        (Path("a b"), "dot", "a b.dot", b"digraph {"),
    ],
)
def test_where_the_file_goes(path: Any, format: str | None, written: str, start: bytes) -> None:
    drawing = small_model().draw(path, vis_fileformat=format)
    assert str(drawing.path) == written
    assert Path(written).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("path", "format", "message"),
    [
        ("", None, "is the path of the file"),
        (b"a", None, "is the path of the file"),
        ("a/", None, "is a folder"),
        ("..", None, "is a folder"),
        ("a\x00b", None, "invisible characters"),
        ("a\nb", None, "invisible characters"),
        ("gpj\u202e.a", None, "invisible characters"),
        ("CON", None, "a device on Windows"),
        ("x/nul.svg", None, "a device on Windows"),
        ("a.svg", "pdf", "which of the two"),
        ("a", "pfd", "cannot be written as 'pfd'.*Did you mean 'pdf'"),
        ("file.txt/a", "dot", "cannot be written to 'file.txt/a.dot'"),
        ("folder.dot", None, "no file but a folder or device"),
        ("x" * 300, "dot", "cannot be written to"),
    ],
)
def test_names_that_are_refused(path: Any, format: str | None, message: str) -> None:
    Path("file.txt").write_text("")
    Path("folder.dot").mkdir()
    with pytest.raises(DrawError, match=message):
        small_model().draw(path, vis_fileformat=format)
    assert sorted(os.listdir()) == ["file.txt", "folder.dot"], "nothing is left behind"


def test_an_unwritable_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # the superuser may write everywhere; /proc lets nobody
        closed = Path("/proc/self")
    with pytest.raises(DrawError, match=r"cannot be written to .*"):
        small_model().draw(closed / "a.dot")


def test_a_file_is_replaced_in_one_step_and_through_links() -> None:
    Path("real.dot").write_text("old")
    Path("link.dot").symlink_to("real.dot")
    small_model().draw("link.dot")
    assert Path("link.dot").is_symlink()
    assert Path("real.dot").read_text().startswith("digraph")
    assert sorted(os.listdir()) == ["link.dot", "real.dot"]


def test_return_graph_and_no_mode_write_nothing() -> None:
    for options in ({"return_graph": True}, {"vis_mode": "none"}):
        drawing = small_model().draw(**options)
        assert drawing.path is None
        assert repr(drawing) == "<Drawing of Small: 6 nodes, 5 edges>"
    assert not os.listdir()
    assert drawing.save("later.svg") == Path("later.svg") == drawing.path


def test_a_drawing_shows_itself_in_a_notebook() -> None:
    drawing = small_model().draw(return_graph=True)
    svg = drawing._repr_svg_()
    assert svg is not None and svg.startswith("<?xml")
    assert count(svg, "node") == 6
    assert count(svg, "edge") == 5
    assert count(svg, "cluster") == 1
    assert small_model().draw("quiet.dot", vis_save_only=True)._repr_svg_() is None


def _of_trace(trace: Trace, record: Any, spec: NodeSpec) -> NodeSpec | None:
    return spec if record.trace is trace else None


def test_a_drawing_holds_no_trace() -> None:
    trace = small_model()
    gone = weakref.ref(trace)
    drawing = draw(trace, return_graph=True, node_spec_fn=functools.partial(_of_trace, trace))
    del trace
    gc.collect()
    assert gone() is None
    assert drawing.svg


def test_module_draw() -> None:
    assert small_model().modules["box"].draw(return_graph=True).scene.caption[0] == "Small: box (Box)"


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vis_mode": "roled"}, "vis_mode is 'unrolled', 'rolled', 'none'; got 'roled'. Did you mean 'rolled'"),
        ({"direction": "up"}, "direction is 'bottomup', 'topdown', 'leftright'; got 'up'"),
        ({"node_style": "vision"}, "node_style is 'default', 'profiling'"),
        ({"depth": 0}, "depth is how many levels"),
        ({"depth": True}, "depth is how many levels"),
        ({"depth": 1, "vis_call_depth": 2}, "are the same option"),
        ({"theme": "darkk"}, "Did you mean 'dark'"),
        ({"show_buffer_layers": "some"}, "show_buffer_layers is"),
        ({"font_size": 0}, "font_size is a number greater than 0"),
        ({"dpi": -1}, "dpi is a number greater than 0"),
        ({"timeout": float("inf")}, "timeout is a number greater than 0"),
        ({"renderer": "grafviz"}, "Did you mean 'graphviz'"),
        ({"renderer": "dot", "vis_fileformat": "pdf"}, "The renderer 'dot' writes dot, gv; not 'pdf'"),
    ],
)
def test_options_without_such_a_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DrawError, match=message):
        small_model().draw(**options)
    assert not os.listdir()


def test_an_unknown_module() -> None:
    with pytest.raises(LabelError, match="Did you mean 'box'"):
        small_model().draw(module="bax")


def test_aliases_of_options() -> None:
    trace = small_model()
    assert trace.draw(return_graph=True, vis_call_depth=1).dot == trace.draw(return_graph=True, depth=1).dot
    assert trace.draw(return_graph=True, vis_theme="dark").dot == trace.draw(return_graph=True, theme="dark").dot
    assert trace.draw(return_graph=True, show_legend=True).dot == trace.draw(return_graph=True, legend=True).dot


def test_profiling_adds_costs() -> None:
    tape = Tape()
    tape.output(tape.op("relu", tape.input("x", (2, 3)), shape=(2, 3)))
    tape.program.rows[0] = tape.program.rows[0]._replace(start_ns=0, end_ns=1500)
    drawing = draw(tape.trace(), return_graph=True, node_style="profiling")
    assert "6 FLOPs, 0 MACs<BR/>1.5 µs" in drawing.dot
