"""A call on arrays that have shapes and no elements: JAX stages it as any other, and nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from torchlens_core.backend import Abstract, Call, Discovery
from torchlens_core.errors import CaptureError, EstimateError

from ..calls.structure import is_dynamic


@contextmanager
def abstract(call: Call, discovery: Discovery) -> Iterator[Abstract]:
    """A context with a call whose arguments are ``jax.ShapeDtypeStruct``; the model's own arrays stay what they are."""
    args, kwargs = jax.tree.map(_without_elements, (call.args, dict(call.kwargs)))
    try:
        yield Abstract(Call(call.model, args, kwargs))
    except CaptureError as error:
        raise EstimateError(str(error)) from error


def _without_elements(leaf: Any) -> Any:
    if not is_dynamic(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False))
