"""The two ways to Graphviz, the program and the libraries, and renderers of plugins."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.pictures import (
    count,
    small_model,
)
from torchlens_core.draw import Picture
from torchlens_core.draw import graphviz as graphviz_module
from torchlens_core.draw.graphviz import lay_out
from torchlens_core.draw.renderers import formats, renderers
from torchlens_core.errors import DrawError, PluginWarning
from torchlens_core.hookspecs import hookimpl
from torchlens_core.plugins import registry


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- Graphviz: the program ---------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a `dot` of one's own on the path: the body of a Python script, with `sys` and `Path` at hand."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(body: str) -> Path:
        script = folder / "dot"
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{textwrap.dedent(body)}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    yield install


def test_the_dot_program_is_used_where_there_is_one(program: Any) -> None:
    folder = program(
        """
        here = Path(sys.argv[0]).parent
        here.joinpath("arguments").write_text(" ".join(sys.argv[1:]))
        here.joinpath("given").write_bytes(sys.stdin.buffer.read())
        sys.stdout.write("a picture")
        """
    )
    drawing = small_model().draw("a.svg")
    assert Path("a.svg").read_text() == "a picture"
    assert (folder / "arguments").read_text() == "-Tsvg"
    assert (folder / "given").read_text() == drawing.dot


def test_a_dot_program_that_fails_is_made_up_for(program: Any) -> None:
    program("sys.exit('Format: \"pdf\" not recognized. Use one of: svg')")
    assert lay_out("digraph { a -> b }", "pdf").startswith(b"%PDF-")


def test_a_dot_program_that_cannot_be_started(program: Any) -> None:
    folder = program("")
    (folder / "dot").write_text("#!/no/such/interpreter\n")
    assert count(lay_out("digraph { a -> b }", "svg").decode(), "node") == 2


def test_a_layout_that_takes_too_long(program: Any) -> None:
    program("import time; time.sleep(60)")
    with pytest.raises(DrawError, match=r"the dot program\) has not laid out the graph within 0.5 s. Draw less"):
        small_model().draw("a.svg", timeout=0.5)
    assert not Path("a.svg").exists()


# -- Graphviz: the libraries -------------------------------------------------------------------------------------------


@pytest.fixture
def no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("no_program")
@pytest.mark.parametrize(("format", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF-"), ("png", b"\x89PNG")])
def test_the_libraries_of_pygraphviz_draw_without_a_program(format: str, start: bytes) -> None:
    assert lay_out("digraph { a -> b; a -> b }", format).startswith(start)


@pytest.mark.usefixtures("no_program")
def test_parallel_edges_are_drawn_each() -> None:
    assert count(lay_out("digraph { a -> b; a -> b }", "svg").decode(), "edge") == 2


@pytest.mark.usefixtures("no_program")
def test_the_libraries_can_take_too_long_as_well() -> None:
    edges = "; ".join(f"n{a} -> n{b}" for a in range(60) for b in range(a + 1, 60))
    with pytest.raises(DrawError, match=r"pygraphviz\) has not laid out the graph within 0.3 s"):
        lay_out(f"digraph {{ {edges} }}", "svg", timeout=0.3)


@pytest.mark.usefixtures("no_program")
def test_a_text_that_graphviz_cannot_read_is_an_error() -> None:
    with pytest.raises(DrawError, match=r"Graphviz could not draw the graph as svg\. pygraphviz: "):
        lay_out("digraph {", "svg")


@pytest.mark.usefixtures("no_program")
def test_without_any_graphviz_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import no_such_pygraphviz")
    monkeypatch.setattr(graphviz_module, "_BUNDLED", script)
    with pytest.raises(
        DrawError, match=r"pygraphviz: ModuleNotFoundError.*pip install pygraphviz.*graphviz.org"
    ) as caught:
        small_model().draw("a.svg")
    assert "vis_fileformat='dot' needs neither" in str(caught.value)
    assert small_model().draw(return_graph=True)._repr_svg_() is None, "a notebook shows the repr"
    assert small_model().draw("a.dot").path == Path("a.dot")
    assert not Path("a.svg").exists()


def test_pygraphviz_without_libraries_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pygraphviz.py").write_text("__version__ = '1.14'")
    done = subprocess.run(
        [sys.executable, "-P", str(graphviz_module._BUNDLED), "svg"],
        input=b"digraph { a }",
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert b"pygraphviz 1.14 carries no Graphviz libraries" in done.stderr


# -- renderers ---------------------------------------------------------------------------------------------------------


class Counting:
    """A renderer that writes how many nodes there are."""

    name = "counting"
    formats = ("txt", "svg")

    def render(self, picture: Picture, format: str, timeout: float) -> bytes:
        return f"{len(picture.scene.nodes)} nodes".encode()


class Plugin:
    def __init__(self, *registered: Any) -> None:
        self.registered = registered

    @hookimpl
    def torchlens_register_renderers(self, register: Any) -> None:
        for renderer in self.registered:
            register(renderer)


@pytest.fixture
def plugin() -> Iterator[Any]:
    added: list[Any] = []

    def add(*registered: Any) -> None:
        added.append(Plugin(*registered))
        registry().manager.register(added[-1])

    yield add
    for one in added:
        registry().manager.unregister(one)


def test_hook_torchlens_register_renderers(plugin: Any) -> None:
    plugin(Counting())
    assert list(renderers()) == ["dot", "graphviz", "counting"]
    assert formats()["svg"].name == "graphviz", "the first renderer of a format is its default"
    assert formats()["txt"].name == "counting"
    small_model().draw("a.txt")
    assert Path("a.txt").read_text() == "6 nodes"
    drawing = small_model().draw("b.svg", renderer="counting")
    assert Path("b.svg").read_text() == "6 nodes" == drawing.svg
    assert drawing.render("dot").startswith(b"digraph"), "what it does not write, the default renderer does"


def test_our_own_renderers_are_registered_by_the_hook() -> None:
    renderers()
    names = {impl.plugin_name for impl in registry().manager.hook.torchlens_register_renderers.get_hookimpls()}
    assert "torchlens_core.draw.renderers" in names


def test_broken_renderers_do_not_break_the_others(plugin: Any) -> None:
    plugin(object())
    with pytest.warns(PluginWarning, match="could not register its renderers: TypeError: a renderer has a name"):
        assert list(renderers()) == ["dot", "graphviz"]


def test_two_renderers_of_one_name(plugin: Any) -> None:
    plugin(Counting(), Counting())
    with pytest.warns(PluginWarning, match="Two plugins bring a renderer 'counting'"):
        assert list(renderers()) == ["dot", "graphviz", "counting"]
