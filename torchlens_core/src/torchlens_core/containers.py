"""The arrays inside what a model takes and returns: tuples, lists, mappings, dataclasses, and what a framework adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .program import HOLE, Outs

Children = list[tuple[str, Any]]


class Containers:
    """Walks containers of one framework's arrays.

    Args:
        array_type: the class (or classes) of its arrays.
        more: the named parts of containers that only the framework knows; None for what is none.
    """

    def __init__(
        self, array_type: type | tuple[type, ...], more: Callable[[Any], Children | None] = lambda value: None
    ) -> None:
        self._array_type = array_type
        self._more = more

    def children(self, value: Any) -> Children | None:
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
        return self._more(value)

    def leaves(self, value: Any, path: str = "", inside: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
        """All arrays in a container with their paths. A container inside itself is entered once."""
        if isinstance(value, self._array_type):
            yield path, value
        elif id(value) not in inside:
            for name, item in self.children(value) or ():
                yield from self.leaves(item, f"{path}.{name}" if path else name, inside | {id(value)})

    def mirror(self, value: Any, leaf: Callable[[Any], int], inside: frozenset[int] = frozenset()) -> Outs:
        """The nested tuple of value ids in the shape of what a call returned; None for what is no array."""
        if isinstance(value, self._array_type):
            return leaf(value)
        parts = self.children(value) if id(value) not in inside else None
        if parts is None:
            return None
        return tuple(self.mirror(item, leaf, inside | {id(value)}) for _, item in parts)

    def template(self, value: Any, note: Callable[[Any], None]) -> Any:
        """Arguments with a HOLE for each array, which ``note`` is told of in order. Containers of arrays are copied."""
        if isinstance(value, self._array_type):
            note(value)
            return HOLE
        if isinstance(value, tuple | list):
            items = [self.template(item, note) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return {key: self.template(item, note) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self.template(item, note) for item in (value.start, value.stop, value.step)))
        return value
