"""The examples of the documentation run as they stand, and print what the page says they print.

Of each page every ```python block runs, top to bottom, in one namespace and in an empty folder. A ```text block that
follows one is what it prints; ``...`` in it stands for anything.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from docs import generate_api
from tests.pages import BLOCK, run_page
from torchlens_core.plugins import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder; of what an example registers nothing stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples(page: Path, tmp_path: Path) -> None:
    for file in (ROOT / "docs" / "files" / page.stem).glob("*"):  # what a page's part for another framework leaves
        shutil.copy(file, tmp_path)
    assert not (wrong := run_page(page.read_text(encoding="utf-8"), tmp_path)), "\n".join(wrong)
    for picture in tmp_path.glob("*.svg"):
        shown = ROOT / "docs" / "images" / picture.name
        if shown.exists():
            assert texts(shown) == texts(picture), f"run: python docs/draw_images.py ({picture.name} has changed)"


def texts(picture: Path) -> list[str]:
    """What is written in a picture, wherever the layout has put it."""
    return sorted(re.findall(r"<text[^>]*>([^<]*)<", picture.read_text(encoding="utf-8")))


@pytest.mark.usefixtures("elsewhere")
def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = "```python\nx = 1\nprint(x, 'and more')\n```\n\n```text\n{}\n```\n"
    assert run_page(page.format("1 and ..."), tmp_path) == []
    assert len(run_page(page.format("2 and ..."), tmp_path)) == 1


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there, and headings that are in them."""
    for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which is not there"
        if heading:
            assert heading in headings(file), f"{name_of(page)} links to {target}; there are {sorted(headings(file))}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert generate_api.PAGE.read_text(encoding="utf-8") == generate_api.page(), "run: python docs/generate_api.py"


def test_the_files_that_the_architecture_names_are_there() -> None:
    files = {file.name for source in ROOT.glob("*/src/*") for file in source.rglob("*.py")}
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    assert len(named) > 40
    assert not (missing := named - files), f"docs/architecture.md names {sorted(missing)}"


def test_every_page_can_be_reached() -> None:
    """From the README, by links."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = LINK.findall(page.read_text(encoding="utf-8"))
        files = [(page.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target]
        waiting += [file for file in files if file.suffix == ".md" and file.exists()]
    assert not (lost := set(PAGES) - reached), f"no link leads to {sorted(map(name_of, lost))}"
