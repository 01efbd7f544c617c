"""The arrays inside what a model takes and returns: tuples, lists, dicts, dataclasses, and what torch's pytrees know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor


def children(value: Any) -> list[tuple[str, Any]] | None:
    """The named parts of a container, None for what is none."""
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        if names is None:
            return [(str(position), item) for position, item in enumerate(value)]
        return list(zip(names, value, strict=True))
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is not None:
        items, _ = node.flatten_fn(value)
        return [(str(position), item) for position, item in enumerate(items)]
    return None


def leaves(value: Any, path: str = "", open_containers: frozenset[int] = frozenset()) -> Iterator[tuple[str, Tensor]]:
    """All arrays in a container with their paths. A container inside itself is entered once."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if id(value) in open_containers:
        return
    for name, item in children(value) or ():
        yield from leaves(item, f"{path}.{name}" if path else name, open_containers | {id(value)})


def mirror(value: Any, leaf: Callable[[Tensor], int]) -> Any:
    """The nested tuple of value ids in the shape of what a call returned; None for what is no array."""
    if isinstance(value, Tensor):
        return leaf(value)
    parts = children(value)
    return None if parts is None else tuple(mirror(item, leaf) for _, item in parts)
