"""The arrays inside what a model takes and returns: what core knows, and what torch's pytrees know."""

from __future__ import annotations

from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

from torchlens_core.containers import Containers


def _registered(value: Any) -> list[tuple[str, Any]] | None:
    """The parts of a container that is registered with torch's pytrees."""
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is None:
        return None
    items, _ = node.flatten_fn(value)
    return [(str(position), item) for position, item in enumerate(items)]


def _rebuilt(value: Any, parts: list[Any]) -> Any:
    """A registered container with other parts."""
    node = pytree.SUPPORTED_NODES[type(value)]
    return node.unflatten_fn(parts, node.flatten_fn(value)[1])


_containers = Containers(Tensor, _registered, _rebuilt)
leaves = _containers.leaves
mirror = _containers.mirror
replaced = _containers.replaced
