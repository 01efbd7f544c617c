"""The tutorial *Write a backend* says every job, and its code is the package that stands in the examples."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from torchlens_core.backend import Arrays, Backend
from torchlens_core.hookspecs import torchlens_register_backends, torchlens_register_conformance

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "write_a_backend.md"
PACKAGE = ROOT / "examples" / "stranger_backend" / "src" / "torchlens_tiny"


def test_it_names_every_job() -> None:
    text = PAGE.read_text(encoding="utf-8")
    jobs = {name for contract in (Backend, Arrays) for name in vars(contract) if not name.startswith("_")}
    assert len(jobs) > 50
    assert not (missing := sorted(name for name in jobs if f"`{name}`" not in text)), missing


def members(code: str) -> Iterator[tuple[str, str]]:
    """What code defines: functions, classes member by member, assignments; each by name, with its text."""
    lines = code.splitlines()

    def text(node: ast.stmt) -> str:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        return "\n".join(lines[first - 1 : node.end_lineno]).rstrip()

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                if not any(isinstance(base, ast.Name) and base.id == node.name for base in node.bases):
                    yield f"{prefix}{node.name} is a", ", ".join(map(ast.unparse, node.bases))
                yield from walk(node.body, f"{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                yield prefix + node.name, text(node)
            elif isinstance(node, ast.Assign):
                yield from ((prefix + ast.unparse(target), text(node)) for target in node.targets)

    yield from walk(ast.parse(code).body, "")


def test_its_code_is_the_package() -> None:
    """Where the page defines something again, step by step, the last definition is that of the package."""
    page = "\n".join(
        re.findall(r"^```py(?:thon)?\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    shown = dict(members(page))
    made = {}
    for file in PACKAGE.glob("*.py"):
        made |= dict(members(file.read_text(encoding="utf-8")))
    assert len(made) > 100
    for name, text in made.items():
        assert shown.get(name) == text, f"{name} on the page is not what it is in the package"
    classes = {name.partition(".")[0] for name in made if "." in name}
    more = {name for name in shown if name.partition(".")[0] in classes and "." in name} - made.keys()
    assert not more, f"the package lacks what the page shows: {sorted(more)}"


def test_its_hooks_have_the_names_that_are_asked_for() -> None:
    code = (PACKAGE / "backend.py").read_text(encoding="utf-8")
    for hook in (torchlens_register_backends, torchlens_register_conformance):
        assert f"def {hook.__name__}(register):" in code


def test_it_says_how_long_its_backend_is() -> None:
    lines = len((PACKAGE / "backend.py").read_text(encoding="utf-8").splitlines())
    assert f"whose backend has {lines} lines" in " ".join(PAGE.read_text(encoding="utf-8").split())
