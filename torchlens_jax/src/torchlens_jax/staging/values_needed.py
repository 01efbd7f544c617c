"""What to say of a model that asks for values as it is staged, when there are none."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from traceback import walk_tb
from typing import Any

import jax

from torchlens_core.errors import CaptureError, NotSupported

from ..lowering import sites

# What JAX raises where Python reads an array that is being staged, or wants to know how large a result is.
ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class NeedsValues(NotSupported):
    """What a compiled program cannot do, and a run with values at hand can."""


class HiddenChoice(CaptureError):
    """A run inside a transformation whose loops or branches depend on values that nobody has there."""


def refuse_hidden(facts: Mapping[Any, Any]) -> None:
    """Raise HiddenChoice where what loops and branches did are arrays that are being staged."""
    if any(isinstance(value, jax.core.Tracer) for value in facts.values()):
        raise HiddenChoice(
            "The model is traced inside a transformation of JAX (jit, vmap ...), where nobody knows how often a "
            "while_loop of it runs, or which branch of a cond: a trace has each iteration. Trace it outside; or trace "
            "the transformed function, tl.trace(jax.jit(model), x)."
        )


def read_at(error: BaseException) -> str:
    """Where a value was asked for: ``'a value is read in forward, model.py:12: ...'``."""
    return f"a value is read{_place(error)}"


def explained(error: BaseException) -> CaptureError:
    """An error that names the place in the model, and says what to do."""
    return CaptureError(
        f"The model reads the value of an array as it runs{_place(error)}. JAX stages programs without values. Where "
        "the value decides between two ways, use jax.lax.cond or jnp.where; where it ends a loop, jax.lax.while_loop; "
        "where it does not depend on the arguments, pass it as a Python number. Or let Python drive: "
        "torchlens_jax.mode('dynamic')."
    )


def _place(error: BaseException) -> str:
    """Of the innermost frame that is the user's."""
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in frames if sites.classify(code.co_filename) == sites.KEEP]
    if not own:
        return ""
    code, line = own[-1]
    text = linecache.getline(code.co_filename, line).strip()
    return f" in {code.co_qualname}, {code.co_filename}:{line}" + (f": {text!r}" if text else "")
