"""What a backend says of a framework that is not there, or too old."""

import sys
from types import ModuleType

import numpy as np
import pytest

from torchlens_core.errors import BackendMissing
from torchlens_core.requirements import installed_version, load_framework
from torchlens_core.testing.toy import ToyBackend


def test_the_version_is_what_the_framework_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("framework_made_up")
    made.__version__ = "1.2.3+here"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)
    assert installed_version("framework_made_up", "no-such-distribution") == "1.2.3+here"


def test_else_it_is_that_of_the_distribution() -> None:
    assert installed_version("no_such_module", "numpy") == np.__version__
    assert installed_version("no_such_module", "no-such-distribution") is None


def test_nothing_is_imported_to_find_out() -> None:
    assert "colorsys_never_imported" not in sys.modules
    installed_version("colorsys_never_imported", "numpy")
    assert "colorsys_never_imported" not in sys.modules


def test_one_that_is_missing() -> None:
    with pytest.raises(BackendMissing) as caught:
        load_framework("other", "other", "other>=2.1", None)
    assert str(caught.value) == (
        "The other backend needs other>=2.1, which is not installed: pip install 'other>=2.1'."
    )


@pytest.mark.parametrize("version", ["2.0.9", "1.99", "2"])
def test_one_that_is_too_old(version: str) -> None:
    with pytest.raises(BackendMissing) as caught:
        load_framework("other", "other", "other-cpu>=2.1", version)
    assert str(caught.value) == (
        f"The other backend needs other-cpu>=2.1; other-cpu {version} is installed: pip install -U other-cpu."
    )


@pytest.mark.parametrize(
    ("requires", "version"),
    [
        ("numpy>=2", "2.0.0"),
        ("numpy>=2.0", "2"),
        ("numpy>=2.6", "2.13.0+cpu"),
        ("numpy>=1.9", "1.10"),
        ("numpy>=2.1", "2.1rc1"),
        ("numpy", "0.1"),
    ],
)
def test_one_that_is_new_enough_is_imported(requires: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_framework("other", "colorsys", requires, version)
    assert "colorsys" in sys.modules


def test_a_backend_says_so_by_its_attributes() -> None:
    class Newer(ToyBackend):
        requires = "toy>=7"

    assert ToyBackend().version() == "1.0"
    ToyBackend().load()
    with pytest.raises(BackendMissing, match=r"needs toy>=7; toy 1.0 is installed: pip install -U toy\."):
        Newer().load()
