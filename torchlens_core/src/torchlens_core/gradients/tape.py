"""The framework's own gradient graph, as a backend found it: nodes, and what a backward pass did with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Pairing = Literal["paired", "inferred", ""]


@dataclass(slots=True, eq=False)
class TapeNode:
    """One function of the gradient graph.

    Attributes:
        name: its class: ``AddmmBackward0``.
        type: what it is the derivative of, in lower case: ``addmm``; ``accumulategrad`` for the end at a leaf.
        is_custom: written by a user, and not the framework's.
        vids: of the Ops that it belongs to, several where a call returned several arrays; empty where it belongs to
            none, or that is unknown.
        pairing: how that is known: the Op's array came from it (``'paired'``), or it was made within the Op's call
            (``'inferred'``).
        leaf: of an accumulating node the vid of the parameter or input; -1 elsewhere.
        next: numbers of the nodes that its gradients go to, in order; those without one are left out.
        order: 1 for derivatives of the model, 2 for derivatives of those (``create_graph=True``), and so on.
        origin: index of the backward pass that made it; 0 for the forward run.
    """

    name: str
    type: str
    is_custom: bool = False
    vids: tuple[int, ...] = ()
    pairing: Pairing = ""
    leaf: int = -1
    next: tuple[int, ...] = ()
    order: int = 1
    origin: int = 0


class GradientMeta(NamedTuple):
    """Shape and element type of a gradient that went through a node."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(slots=True, eq=False)
class TapeCall:
    """One call of a node in a backward pass.

    Attributes:
        node: its number.
        grad_outputs: what it took: gradients with respect to what the forward function returned.
        grad_inputs: what it gave: gradients with respect to what the forward function took.
        duration_ns: None where the framework does not wait for the device.
    """

    node: int
    grad_outputs: tuple[GradientMeta | None, ...]
    grad_inputs: tuple[GradientMeta | None, ...] = ()
    duration_ns: int | None = None
