"""Flatten what a model returned into named tensors, by a way of its own: the traces are compared with it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def named_tensors(value: Any) -> dict[str, torch.Tensor]:
    """Return the tensors inside ``value`` by path (``logits``, ``pair.0``), in the order of the containers.

    Tuples, lists, mappings, named tuples, dataclasses and what holds such things in its attributes (output classes of
    the libraries) are opened. Key-value caches and anything else that is no tensor is left out. A lone tensor has the
    path ``""``.
    """
    return dict(_walk(value, ()))


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
        return
    for name, part in _parts(value):
        yield from _walk(part, (*path, name))


def _parts(value: Any) -> list[tuple[str, Any]]:
    if any(kind.__name__.endswith("Cache") for kind in type(value).__mro__):
        return []
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return [(str(index), part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []
