"""Whether a model, as it is, gives activations that depend on more than the one stimulus."""

from __future__ import annotations

import warnings

from ..errors import ExtractionWarning
from ..program import Scope
from ..records.trace import Trace


def warn_of_training(trace: Trace) -> None:
    """Warn of modules in training mode that drew random numbers, or wrote into their buffers, in this run."""
    found = _random(trace) | _written(trace)
    if not found:
        return
    shown = ", ".join(f"{address or 'the model'} ({why})" for address, why in list(found.items())[:4])
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    warnings.warn(
        f"The model is in training mode: {shown}{more}. Activations then depend on chance, on the other stimuli of the "
        "batch, or on what ran before, and an extraction that is continued is not what it would have been in one go. "
        "Unless you mean that, put the model into evaluation mode first.",
        ExtractionWarning,
        stacklevel=7,  # the caller of extract_dataset
    )


def _random(trace: Trace) -> dict[str, str]:
    training = {info.address for info in trace.program.modules if info.training}
    return {
        address: f"random {row.func.type}"
        for row in trace.program.rows
        if row.func.random and (address := _module(row.scope)) in training
    }


def _written(trace: Trace) -> dict[str, str]:
    training = {info.address for info in trace.program.modules if info.training}
    buffers = (source for source in trace.program.sources if source.kind == "buffer" and source.version > 1)
    return {address: "writes its buffers" for source in buffers if (address := source.module or "") in training}


def _module(scope: Scope | None) -> str:
    while scope is not None and scope.kind != "module":
        scope = scope.parent
    return scope.address if scope is not None else ""
