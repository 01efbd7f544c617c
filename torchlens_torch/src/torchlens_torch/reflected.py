"""Reflected operators. ``2 - x`` calls ``x.__rsub__(2)``: recorded as the operation, operands in their real places."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.overrides import handle_torch_function


@functools.cache
def in_order(reflected: Callable[..., Any]) -> Callable[..., Any]:
    """A function of (left, right) that computes what a reflected operator computes of (right, left)."""

    @functools.wraps(reflected)
    def operator(left: Any, right: Any, **options: Any) -> Any:
        return reflected(right, left, **options)

    operator.is_in_order = True  # type: ignore[attr-defined]
    return operator


def is_in_order(func: Any) -> bool:
    """Whether a function of a reflected operator's name takes its operands in order."""
    return getattr(func, "is_in_order", False)


def calling_in_order(reflected: Callable[..., Any]) -> Callable[..., Any]:
    """What a recorder calls in place of a reflected operator, to be handed the one that takes its operands in order."""
    operator = in_order(reflected)

    def call(*args: Any, **kwargs: Any) -> Any:
        operands = [*args, *(kwargs.pop(name) for name in ("input", "self", "other") if name in kwargs)]
        right, left = operands
        return handle_torch_function(operator, operands, left, right, **kwargs)

    return call
