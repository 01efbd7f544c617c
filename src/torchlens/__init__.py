"""See, save and steer the inside of any neural network, in any framework.

``import torchlens as tl``: a page of names and where they live. A name is loaded when it is first used, so that the
import itself takes next to nothing; none of it imports a framework. For editors and type checkers the same page is
``__init__.pyi``.
"""

import importlib
from typing import Any

__version__ = "3.0.0"

_HOMES = {
    "torchlens_core.bundle": ("Bundle", "Metric", "bundle"),
    "torchlens_core.diagnosis.estimate": ("Estimate", "estimate"),
    "torchlens_core.errors": ("TorchLensError", "TorchLensWarning"),
    "torchlens_core.extraction": ("Extraction", "extract", "extract_dataset", "load_extraction"),
    "torchlens_core.facets.targets": ("facet", "head"),
    "torchlens_core.file": ("Limits", "inspect", "load", "save", "verify"),
    "torchlens_core.interventions.actions": (
        "add", "bwd_hook", "clamp", "grad_clamp", "grad_clip", "grad_noise", "grad_scale", "grad_zero", "mean_ablate",
        "noise", "project_off", "project_onto", "replace_with", "resample_ablate", "scale", "splice_module", "steer",
        "swap_with", "zero_ablate",
    ),
    "torchlens_core.interventions.plan": ("InterventionPlan", "load_plan"),
    "torchlens_core.interventions.when": ("when",),
    "torchlens_core.plan": ("keep",),
    "torchlens_core.plugins": ("backends",),
    "torchlens_core.recording.record": ("record",),
    "torchlens_core.recording.recorder": ("Recorder",),
    "torchlens_core.recording.recording": ("Recording",),
    "torchlens_core.recording.streaming": ("to_disk",),
    "torchlens_core.selectors": (
        "contains", "followed_by", "func", "in_module", "label", "module", "output", "preceded_by", "regex", "where",
    ),
    "torchlens_core.records.trace": ("Trace",),
    "torchlens_core.plucking": ("pluck",),
    "torchlens_core.steering.sweep": ("Sweep", "sweep"),
    "torchlens_core.tracing": ("sites", "trace"),
    "torchlens_core.validate": ("Validation", "validate"),
}  # fmt: skip
_MODULES = ("compat", "errors", "facets")  # of core, as they are
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    """Load a name from its home, once."""
    if name in _MODULES:
        return importlib.import_module(f"torchlens_core.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'torchlens' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return [*_HOME_OF, *_MODULES, "__version__"]
