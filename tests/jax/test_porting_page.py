"""The page on porting: its JAX part runs, and leaves the files that its other part is tested with.

``python -m tests.jax.test_porting_page`` writes them.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import torchlens as tl

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "files" / "porting"
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = ("first_try.safetensors", "second_try.safetensors")


def run_page(folder: Path) -> None:
    """Run the JAX part of the page: it leaves its files in the working directory."""
    page = (ROOT / "docs" / "guides" / "porting.md").read_text(encoding="utf-8")
    (code,) = BLOCK.findall(page)
    file = folder / "port.py"
    file.write_text(code, encoding="utf-8")  # traces look up the source of what ran
    module = sys.modules["port"] = ModuleType("port")
    exec(compile(code, str(file), "exec"), module.__dict__)


def test_the_files_are_those_that_the_page_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "port", ModuleType("port"))
    run_page(tmp_path)
    for name in NAMES:
        bundle = tl.bundle({"now": tl.load(name), "file": tl.load(FILES / name)})
        bundle.assert_structurally_consistent()
        assert bundle.first_divergence() is None, "run: python -m tests.jax.test_porting_page"


if __name__ == "__main__":
    import os
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        run_page(Path(made))
        for each in NAMES:
            shutil.copy(each, FILES / each)
