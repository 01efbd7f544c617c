"""The notebooks of the documentation run as they stand, and give outputs of the kinds that they show."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Number of the cell with what each output is: its text without digits, or that it is a picture."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = output.get("text", "") if output.output_type == "stream" else data.get("text/plain", "")
            shown = "a picture" if "image/png" in data else re.sub(r"[\d.+e-]+", "#", text)
            found.append((f"cell {number}", " ".join(shown.split())))
    return found


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"causal_tracing", "probes_and_autoencoders"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = nbformat.read(path, 4)
    assert "a picture" in dict(outputs(shown)).values()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = nbformat.read(path, 4)
    nbclient.NotebookClient(run, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert outputs(run) == outputs(shown)
