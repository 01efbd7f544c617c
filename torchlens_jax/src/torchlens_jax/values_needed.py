"""What to say of a model that asks for values as it is staged, when there are none."""

from __future__ import annotations

import linecache
from traceback import walk_tb

import jax

from torchlens_core.errors import CaptureError

from . import sites

# What JAX raises where Python reads an array that is being staged.
ERRORS = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


def explained(error: BaseException) -> CaptureError:
    """An error that names the place in the model, and says what to do."""
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in frames if sites.classify(code.co_filename) == sites.KEEP]
    place = ""
    if own:
        code, line = own[-1]
        text = linecache.getline(code.co_filename, line).strip()
        place = f" in {code.co_qualname}, {code.co_filename}:{line}" + (f": {text!r}" if text else "")
    return CaptureError(
        f"The model reads the value of an array as it runs{place}. JAX stages programs without values. Where the value "
        "decides between two ways, use jax.lax.cond or jnp.where; where it ends a loop, jax.lax.while_loop; where it "
        "does not depend on the arguments, pass it as a Python number."
    )
