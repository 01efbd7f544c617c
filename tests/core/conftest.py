"""Core is tested on the toy framework, and on programs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from torchlens_core.plugins import registry
from torchlens_core.testing import toy
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import OPERATIONS, Array

# The same examples in every run, however busy the machine. To look for new ones: derandomize=False, max_examples=2000.
settings.register_profile("core", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")


@pytest.fixture(scope="session", autouse=True)
def toy_backend() -> None:
    """The toy framework's backend, beside those that are installed (in this environment none)."""
    registry().add(toy)


@pytest.fixture(autouse=True)
def _own_operations_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may make an operation under the name of one that is there, which takes its place."""
    for name, made in OPERATIONS.items():
        monkeypatch.setitem(OPERATIONS, name, made)


@pytest.fixture
def x() -> Any:
    """A batch of two rows of four numbers."""
    return Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))


@pytest.fixture
def tape() -> Tape:
    """An empty program."""
    return Tape()
