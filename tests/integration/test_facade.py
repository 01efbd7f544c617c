"""The façade: a page of names that agree with their stub, and an import that brings no framework along."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torchlens as tl
from torchlens_core import hookspecs
from torchlens_core.errors import TorchLensError, TorchLensWarning

ROOT = Path(__file__).parents[2]
STUB = ROOT / "src" / "torchlens" / "__init__.pyi"
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras", "paddle", "mlx", "tinygrad")


MODULES = {"compat", "errors", "facets"}  # names that are modules of core


def stub_names() -> dict[str, tuple[str, str]]:
    """Public name -> module and name that the stub says it is."""
    tree = ast.parse(STUB.read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (node.module or "", alias.name) for node in imports for alias in node.names}


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, away from the checkout."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120)


# -- names -------------------------------------------------------------------------------------------------------------


def test_stub_and_package_have_the_same_names() -> None:
    stub = stub_names()
    assert set(stub) | {"__version__"} == set(dir(tl))
    assert set(stub) - MODULES == set(tl.__all__)


@pytest.mark.parametrize("name", sorted(stub_names()))
def test_every_name_is_what_the_stub_says(name: str) -> None:
    module, attribute = stub_names()[name]
    home = importlib.import_module(f"{module}.{attribute}") if name in MODULES else importlib.import_module(module)
    assert getattr(tl, name) is (home if name in MODULES else getattr(home, attribute))
    assert inspect.getdoc(getattr(tl, name)), f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tracee'"):
        _ = tl.tracee


def test_every_error_and_warning_has_one_root() -> None:
    classes = [value for value in vars(tl.errors).values() if isinstance(value, type)]
    assert len(classes) > 20
    for cls in classes:
        if issubclass(cls, Exception):
            assert issubclass(cls, TorchLensError | TorchLensWarning), cls
            assert inspect.getdoc(cls), cls


def test_all_distributions_have_one_version() -> None:
    found = {
        re.search(r'^version = "(.+)"$', file.read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for file in (ROOT / "pyproject.toml", *ROOT.glob("torchlens_*/pyproject.toml"))
    }
    assert found == {tl.__version__}


# -- frameworks --------------------------------------------------------------------------------------------------------


def test_import_brings_no_framework(tmp_path: Path) -> None:
    """Neither does asking for every public name, nor for the list of backends."""
    code = f"""
import sys
import torchlens as tl
for name in tl.__all__:
    getattr(tl, name)
print([backend.name for backend in tl.backends()])
print(sorted(set({FRAMEWORKS!r}) & set(sys.modules)))
"""
    done = python(code, tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["['torch']", "[]"]), done.stderr


HIDE_TORCH = """
import sys, importlib.metadata
version = importlib.metadata.version

def hidden(name):
    if name == "torch":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = hidden
sys.modules["torch"] = None  # `import torch` raises ImportError
import numpy as np
import torchlens as tl
"""


@pytest.mark.parametrize("backend", ["None", "'torch'"])
def test_a_missing_framework_says_what_to_install(backend: str, tmp_path: Path) -> None:
    code = f"""
{HIDE_TORCH}
print(tl.backends()[0])
try:
    tl.trace(lambda x: x + 1, 1, backend={backend})
except tl.TorchLensError as error:
    print(type(error).__name__, error)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    listed, raised = done.stdout.splitlines()
    assert re.fullmatch(r"torch: torchlens-torch \S+, framework not installed \(needs torch>=2\.6\)", listed)
    assert raised.startswith("BackendMissing ")
    assert "pip install" in raised and "torch" in raised


def test_a_framework_that_is_too_old_says_so(tmp_path: Path) -> None:
    code = """
import importlib.metadata
version = importlib.metadata.version
importlib.metadata.version = lambda name: "2.1.0" if name == "torch" else version(name)
import torchlens as tl
try:
    tl.trace(lambda x: x + 1, 1, backend="torch")
except tl.TorchLensError as error:
    print(type(error).__name__, error)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("BackendMissing The torch backend needs torch>=2.6; torch 2.1.0 is installed:")


def test_a_trace_file_opens_without_the_framework(tmp_path: Path) -> None:
    import torch

    log = tl.trace(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.ones(1, 3))
    tl.save(log, tmp_path / "here")
    code = f"""
{HIDE_TORCH}
log = tl.load("here")
print(log.summary())
print([op.out.shape for op in log], log["relu"].parents)
log.draw("graph.dot")
print("torch" in sys.modules and sys.modules["torch"] is not None)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{log.summary()}\n[(1, 3), (1, 2), (1, 2), (1, 2)] ['linear_1_1']\nFalse\n"
    assert "relu_1_2" in (tmp_path / "graph.dot").read_text()


def test_an_unknown_backend_is_named_with_the_nearest() -> None:
    with pytest.raises(TorchLensError, match=r"No backend 'torh' is installed; .* Did you mean 'torch'\?"):
        tl.trace(lambda x: x, 1, backend="torh")


def test_numpy_arguments_name_no_backend() -> None:
    import numpy as np

    with pytest.raises(TorchLensError, match="No backend recognises"):
        tl.trace(lambda x: x + 1, np.ones(3))


# -- plugins -----------------------------------------------------------------------------------------------------------

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("torchlens_")}


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 3


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    """As a heading of docs/plugins.md, so that a plugin's author finds what the code says."""
    signature = inspect.signature(HOOKS[name])
    arguments = ", ".join(f"{p.name}: {p.annotation}" for p in signature.parameters.values())
    heading = f"### `{name}({arguments}) -> {signature.return_annotation}`"
    assert heading in (ROOT / "docs" / "plugins.md").read_text().splitlines()
