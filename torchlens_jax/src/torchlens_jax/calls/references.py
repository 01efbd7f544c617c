"""Arrays that change: refused, as what is recorded takes an array for one value."""

from __future__ import annotations

from typing import Any

from torchlens_core.derived.frames import frame_of
from torchlens_core.errors import NotSupported

from ..lowering.sites import place_of


def refuse_references(equation: Any) -> None:
    """Raise NotSupported for an equation that makes or takes a mutable array (``jax.new_ref``).

    What runs by itself, as the kernels of Pallas do, may have them inside.
    """
    if any(type(atom.aval).__name__ == "AbstractRef" for atom in (*equation.invars, *equation.outvars)):
        site = place_of(equation.source_info.traceback).site
        frame = frame_of(*site[0]) if site else None
        place = "" if frame is None else f", at {frame.file}:{frame.line} in {frame.function}"
        raise NotSupported(
            f"The model uses a mutable array (jax.new_ref){place}: its value at each operation cannot be recorded. "
            "Write it with values that are handed on: x = x.at[...].set(...), or the carry of a jax.lax.scan."
        )
