"""Guide pages whose code needs JAX (blocks of ``py``): it runs as it stands, and prints what the page says it prints.

The page on porting leaves the files that its other part is tested with; ``python -m tests.jax.test_pages`` writes them.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import torchlens as tl
from tests.pages import run_page
from torchlens_core.plugins import registry

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = [page for page in sorted(GUIDES.glob("*.md")) if re.search(r"^```py$", page.read_text("utf-8"), re.MULTILINE)]
FILES = ROOT / "docs" / "files" / "porting"
NAMES = ("first_try.safetensors", "second_try.safetensors")


def run(page: Path, folder: Path) -> list[str]:
    return run_page(page.read_text(encoding="utf-8"), folder, "py")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder; of what an example registers nothing stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    yield
    registry.cache_clear()


def test_there_are_pages() -> None:
    assert {"jax", "porting"} <= {page.stem for page in PAGES}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page: Path, tmp_path: Path) -> None:
    assert not (wrong := run(page, tmp_path)), "\n".join(wrong)


@pytest.mark.usefixtures("elsewhere")
def test_the_files_are_those_that_the_page_makes(tmp_path: Path) -> None:
    run(GUIDES / "porting.md", tmp_path)
    for name in NAMES:
        bundle = tl.bundle({"now": tl.load(name), "file": tl.load(FILES / name)})
        bundle.assert_structurally_consistent()
        assert bundle.first_divergence() is None, "run: python -m tests.jax.test_pages"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        run(GUIDES / "porting.md", Path(made))
        for each in NAMES:
            shutil.copy(each, FILES / each)
