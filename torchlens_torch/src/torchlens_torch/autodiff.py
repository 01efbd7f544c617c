"""Gradients of functions by autograd, and at places inside of a computation, to whose graph nothing is added."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from torchlens_core.errors import GradientError

from .outcomes import alias


def grad(function: Callable[..., Tensor], arrays: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """The value of a scalar function of tensors, and its gradient with respect to each; None where it is not one."""
    leaves = [array.detach().requires_grad_() for array in arrays]
    with torch.enable_grad():
        value = function(*leaves)
    return value.detach(), _gradients(value, leaves)


def gradients_at(function: Callable[[Any], Tensor]) -> dict[Hashable, Tensor | None]:
    """See :meth:`torchlens_core.backend.Backend.gradients_at`."""
    tape = _Edges()
    with torch.enable_grad():
        value = function(tape)
    return dict(zip(tape.edges, _gradients(value, list(tape.edges.values())), strict=True))


def _gradients(value: Tensor, at: Sequence[Tensor | GradientEdge]) -> list[Tensor | None]:
    if not value.requires_grad or not at:
        raise GradientError(
            "What was to be differentiated does not depend on floating-point values of the model: it was made of "
            "others, or cut from the gradient tape (detach, no_grad)."
        )
    return list(torch.autograd.grad(value, at, allow_unused=True))


class _Edges:
    """Notes where in autograd's graph the arrays are."""

    def __init__(self) -> None:
        self.edges: dict[Hashable, GradientEdge] = {}
        self._tapped: set[tuple[Any, int]] = set()

    def start(self, array: Tensor, *, is_written: bool) -> Tensor:
        if not (array.is_floating_point() or array.is_complex()):
            return array.clone() if is_written else array
        leaf = array.detach().requires_grad_()
        return leaf.clone() if is_written else leaf  # what autograd calls a leaf cannot be written in place

    def tap(self, key: Hashable, array: Tensor, *, is_written: bool) -> Tensor:
        if not array.requires_grad:
            if is_written or not (array.is_floating_point() or array.is_complex()):
                return array
            array = _leaf(array)
        edge = get_gradient_edge(array)
        if (
            edge.node,
            edge.output_nr,
        ) in self._tapped:  # handed on as it came: a place of its own, for who reads it there
            array = alias(array)
            edge = get_gradient_edge(array)
        self._tapped.add((edge.node, edge.output_nr))
        self.edges[key] = edge
        return array


def _leaf(array: Tensor) -> Tensor:
    """An array that depends on no parameter and no input (a buffer, one made inside), as the start of a gradient.

    It is copied, as autograd lets nobody write to a leaf or to views of it; a view stays with who shares its memory.
    """
    leaf = array.detach().requires_grad_()
    return leaf if array._is_view() else leaf.clone()
