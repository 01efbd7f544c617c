"""See, save and steer the inside of any neural network, in any framework.

``import torchlens as tl``: a page of names and where they live. A name is loaded when it is first used, so that the
import itself takes next to nothing; none of it imports a framework. For editors and type checkers the same page is
``__init__.pyi``.
"""

import importlib
from typing import Any

__version__ = "3.0.0"

_HOMES = {
    "torchlens_core.errors": ("TorchLensError", "TorchLensWarning"),
    "torchlens_core.file": ("Limits", "inspect", "load", "save", "verify"),
    "torchlens_core.plan": ("keep",),
    "torchlens_core.plugins": ("backends",),
    "torchlens_core.selectors": (
        "contains", "followed_by", "func", "in_module", "label", "module", "output", "preceded_by", "regex", "where",
    ),
    "torchlens_core.records.trace": ("Trace",),
    "torchlens_core.plucking": ("pluck",),
    "torchlens_core.tracing": ("sites", "trace"),
    "torchlens_core.validate": ("Validation", "validate"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    """Load a name from its home, once."""
    if name == "errors":
        return importlib.import_module("torchlens_core.errors")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'torchlens' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return [*_HOME_OF, "errors", "__version__"]
