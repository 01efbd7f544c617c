"""Core is tested on the toy framework, and on programs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torchlens_core.plugins import registry
from torchlens_core.testing import toy
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array


@pytest.fixture(scope="session", autouse=True)
def toy_backend() -> None:
    """The toy framework's backend, beside those that are installed (in this environment none)."""
    registry().add(toy)


@pytest.fixture
def x() -> Any:
    """A batch of two rows of four numbers."""
    return Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))


@pytest.fixture
def tape() -> Tape:
    """An empty program."""
    return Tape()
