"""A primitive that does nothing: it says, in the staged program, what a module was given and what it returned.

It is taken out again before the program is compiled; in what is never opened (the body of a custom rule, say) it is the
identity.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

mark_p = Primitive("torchlens_mark")
mark_p.def_impl(lambda x, **params: x)
mark_p.def_abstract_eval(lambda x, **params: x)
mlir.register_lowering(mark_p, lambda ctx, x, **params: [x])
batching.primitive_batchers[mark_p] = lambda args, dims, **params: (mark_p.bind(args[0], **params), dims[0])
# The tangent of what a module returned is none of its outputs, so only the primal is marked.
ad.primitive_jvps[mark_p] = lambda primals, tangents, **params: (mark_p.bind(primals[0], **params), tangents[0])


def mark(value: Any, call: int, kind: str) -> Any:
    """Every array in a container, marked as given to (``'in'``) or returned by (``'out'``) a module call."""

    def leaf(array: Any) -> Any:
        return mark_p.bind(array, call=call, kind=kind, address="") if isinstance(array, jax.Array) else array

    return jax.tree.map(leaf, value)


def mark_write(array: Any, call: int, address: str) -> Any:
    """What a buffer was given, from there on the value of the buffer."""
    return mark_p.bind(array, call=call, kind="write", address=address)


def mark_leaf(array: Any, call: int, address: str) -> None:
    """An array of the module that is called, by its address in the module."""
    mark_p.bind(array, call=call, kind="state", address=address)
