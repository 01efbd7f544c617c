"""A distribution that TorchLens knows nothing of is found by its entry point, and used like any other."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "stranger_backend"
Python = Callable[..., "subprocess.CompletedProcess[str]"]

USE = """
import sys
import numpy as np
import torchlens as tl

(found,) = (each for each in tl.backends() if each.name == "tiny")
print(found.plugin, found.plugin_version, found.framework_version, *found.lacks)
print(sorted(name for name in ("torch", "jax") if name in sys.modules))

from torchlens_tiny.conformance import Linear, ReLU
from torchlens_tiny.framework import Module, Tensor, tanh

class Net(Module):
    def __init__(self):
        self.fc, self.act = Linear(np.eye(4), None), ReLU()

    def forward(self, x):
        return self.act(self.fc(x))

x = Tensor(np.ones((2, 4)))
for log in (tl.trace(Net(), x, backend="tiny"), tl.trace(Net(), x), tl.trace(lambda x: tanh(x), x)):
    print(log.backend_name, [op.label for op in log.compute_ops])
tl.trace(Net(), x).save("net")
print(type(tl.load("net", backend="tiny")["relu"].out).__name__)
"""

FAULT = """
import sys
from torchlens import __main__
from torchlens_tiny.backend import TinyBackend

TinyBackend.seed = TinyBackend.rng = lambda self, state=None: None  # replays draw other numbers
sys.exit(__main__.main(["conformance", "tiny", "replay and validation"]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python where the example is installed, as pip installs it."""
    place, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")
    pip = "-m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation".split()
    subprocess.run([sys.executable, *pip, "--target", place, EXAMPLE], check=True, cwd=folder)
    environment = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


def test_it_is_listed_and_used(python: Python) -> None:
    done = python("-c", USE)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "torchlens-tiny 1.0 1.0 abstract backward recording_backward",
        "[]",
        "tiny ['linear_1_1:1', 'relu_1_2:1']",
        "tiny ['linear_1_1:1', 'relu_1_2:1']",
        "tiny ['tanh_1_1:1']",
        "Tensor",
    ]


def test_the_kit_on_the_command_line(python: Python) -> None:
    done = python("-m", "torchlens", "conformance", "tiny")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "conformance of tiny" in done.stdout and "abstract: a tensor has elements always" in done.stdout
    assert "FAILED" not in done.stdout


def test_a_fault_is_an_exit_status(python: Python) -> None:
    done = python("-c", FAULT)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr
    assert "-- failure 1 of " in done.stdout and "look at: Backend.call" in done.stdout


def test_the_kit_with_pytest(python: Python) -> None:
    options = "-q -p no:cacheprovider --import-mode=importlib -k".split()
    done = python("-m", "pytest", *options, "capture or randomness", "--rootdir", str(EXAMPLE), str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "27 passed, 2 skipped" in done.stdout


def test_a_name_that_is_none(python: Python) -> None:
    done = python("-m", "torchlens", "conformance", "tyni")
    assert done.returncode == 2 and "Did you mean 'tiny'?" in done.stderr
