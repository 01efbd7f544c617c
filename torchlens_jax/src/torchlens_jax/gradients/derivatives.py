"""Which operations of a program JAX cannot differentiate: callbacks, say, and decompositions without a rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from torchlens_core.program import Func

from ..lowering.ir import Op
from ..lowering.lowering import walk
from ..staging.staged import Staged


def without_derivative(staged: Staged) -> dict[Func, str]:
    """Function of an operation -> what JAX says of its derivative, for those that have none. Runs nothing."""
    found = {}
    for item in walk(staged.block):
        if isinstance(item, Op):
            why = _why_not(item, staged)
            if why:
                found[item.func] = why
    return found


def _why_not(item: Op, staged: Staged) -> str:
    avals = [staged.avals[slot] for slot in item.ins]
    floating = [at for at, aval in enumerate(avals) if jnp.issubdtype(aval.dtype, jnp.inexact)]
    if not floating:
        return ""

    def total(*arrays: Any) -> Any:
        outs = item.func.evaluate(list(arrays))  # type: ignore[attr-defined]
        parts = [jnp.real(jnp.sum(out)) for out in outs if jnp.issubdtype(out.dtype, jnp.inexact)]
        return sum(part.astype(jnp.float32) for part in parts) + jnp.float32(0)

    try:
        jax.eval_shape(jax.grad(total, floating), *(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals))
    except Exception as error:  # of whatever type JAX, or a rule of the user's, chooses
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""
