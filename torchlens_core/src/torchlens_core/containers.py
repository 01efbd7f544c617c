"""The arrays inside what a model takes and returns: tuples, lists, mappings, dataclasses, and what a framework adds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from .program import HOLE, Outs

Children = list[tuple[str, Any]]


class Containers:
    """Walks containers of one framework's arrays.

    Args:
        array_type: the class (or classes) of its arrays.
        more: the named parts of containers that only the framework knows; None for what is none.
        rebuild: such a container again, from other parts.
    """

    def __init__(
        self,
        array_type: type | tuple[type, ...],
        more: Callable[[Any], Children | None] = lambda value: None,
        rebuild: Callable[[Any, list[Any]], Any] = lambda value, parts: value,
    ) -> None:
        self._array_type = array_type
        self._more = more
        self._rebuild = rebuild

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

    def replaced(self, value: Any, arrays: Mapping[int, Any], inside: frozenset[int] = frozenset()) -> Any:
        """A container with other arrays in the place of some, by id. What holds none of these stays the same object."""
        if isinstance(value, self._array_type):
            return arrays.get(id(value), value)
        children = self.children(value) if id(value) not in inside else None
        if not children:
            return value
        parts = [self.replaced(item, arrays, inside | {id(value)}) for _, item in children]
        if all(part is item for part, (_, item) in zip(parts, children, strict=True)):
            return value
        return self._with_parts(value, parts)

    def _with_parts(self, value: Any, parts: list[Any]) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if not isinstance(value, MutableMapping) and not dataclasses.is_dataclass(value):
            return self._rebuild(value, parts)
        copied: Any = copy.copy(value)
        if isinstance(value, MutableMapping):  # before dataclasses: some are both, and keep their fields as items
            for key, part in zip(list(value), parts, strict=True):
                copied[key] = part
        else:
            for field, part in zip(dataclasses.fields(value), parts, strict=True):
                object.__setattr__(copied, field.name, part)
        return copied

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
