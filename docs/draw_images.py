"""Writes docs/images: pictures that the examples of the documentation draw. ``python docs/draw_images.py``."""

import contextlib
import io
import re
import runpy
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGES = (DOCS.parent / "README.md", DOCS / "guides" / "quickstart.md", DOCS / "guides" / "drawing.md")


def run(page: Path, folder: Path) -> None:
    """Run the examples of a page in a folder, from a file: pictures show what the source says."""
    code = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    file = folder / f"{page.stem.lower()}.py"
    file.write_text("\n".join(code), encoding="utf-8")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(file))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for page in PAGES:
            run(page, Path(folder))
        shown = {name for page in PAGES for name in re.findall(r"images/(\w+\.svg)", page.read_text(encoding="utf-8"))}
        for name in sorted(shown):
            shutil.copy(Path(folder) / name, DOCS / "images")
