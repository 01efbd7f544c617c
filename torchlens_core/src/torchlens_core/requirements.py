"""The framework that a backend needs: its version, and whether that is new enough. Nothing is imported to find out."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
import sys

from .errors import BackendMissing


def installed_version(module: str, package: str) -> str | None:
    """The version of a framework: as it says where it is imported, else as it was installed; None for neither."""
    version = getattr(sys.modules.get(module), "__version__", None)
    if version is not None:
        return str(version)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.lru_cache(maxsize=64)  # asked at each run
def load_framework(backend: str, module: str, requires: str, version: str | None) -> None:
    """Import a framework.

    Args:
        requires: what is needed of it, as a requirement: ``'numpy>=2'``.
        version: what is installed.

    Raises:
        BackendMissing: it is not there or too old; says what to install.
    """
    if version is None:
        raise BackendMissing(
            f"The {backend} backend needs {requires}, which is not installed: pip install {requires!r}."
        )
    wanted = re.search(r">=\s*([\d.]+)", requires)
    if wanted is not None and _numbers(version) < _numbers(wanted[1]):
        package = re.split(r"[\s<>=!~\[;]", requires, maxsplit=1)[0]
        raise BackendMissing(
            f"The {backend} backend needs {requires}; {package} {version} is installed: pip install -U {package}."
        )
    importlib.import_module(module)


def _numbers(version: str) -> tuple[int, ...]:
    """The release that a version is of: ``2.13.0+cpu`` is (2, 13), and so is ``2.13rc1``."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    found = [int(part) for part in numbers[0].split(".")] if numbers else []
    while found and not found[-1]:
        found.pop()  # 2.0 is as new as 2
    return tuple(found)
