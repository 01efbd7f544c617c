"""The modules of a model as recipes see them: the same before the run, after it, and in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..program import ModuleInfo
from ..selectors import Selector


class ModuleTree:
    """All modules of one model, by address.

    Attributes:
        backend: name of the framework's backend.
    """

    def __init__(self, infos: Iterable[ModuleInfo], backend: str) -> None:
        self.backend = backend
        self.resolved: dict[Selector, Selector] = {}  # facets as selectors, once asked for
        self._infos: dict[str, ModuleInfo] = {}
        for info in infos:
            self._infos[info.address] = info
            self._infos.update(dict.fromkeys(info.aliases, info))

    def find(self, address: str) -> ModuleNode | None:
        """The module of this address or alias, ``''`` or ``'self'`` for the model; None where there is none."""
        info = self._infos.get("" if address == "self" else address)
        return None if info is None else ModuleNode(self, info)

    def __iter__(self) -> Iterator[ModuleNode]:
        """Each module once."""
        return (ModuleNode(self, info) for address, info in self._infos.items() if address == info.address)

    def addresses(self) -> list[str]:
        """All addresses, aliases too."""
        return ["self" if address == "" else address for address in self._infos]


class ModuleNode:
    """One module: its class, its own attributes, and the modules in it.

    Attributes are what discovery keeps: numbers, strings and short lists as they are, of all else the type.
    """

    __slots__ = ("_info", "tree")

    def __init__(self, tree: ModuleTree, info: ModuleInfo) -> None:
        self.tree = tree
        self._info = info

    @property
    def address(self) -> str:
        """``blocks.0.attn``; ``self`` for the model."""
        return self._info.address or "self"

    @property
    def cls(self) -> str:
        """Name of its class."""
        return self._info.cls

    @property
    def qualname(self) -> str:
        """Full name of its class."""
        return self._info.qualname

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its own attributes."""
        found: Mapping[str, Any] = self._info.facts.get("attributes", {})
        return found

    def number(self, *names: str) -> int | None:
        """The first of these attributes that is a positive whole number."""
        values = (self.attributes.get(name) for name in names)
        return next((value for value in values if type(value) is int and value > 0), None)

    def path(self, child: str) -> str:
        """The address of a module in it: ``path('mlp.fc1')`` is ``blocks.0.mlp.fc1``."""
        return f"{self._info.address}.{child}" if self._info.address else child

    def child(self, path: str) -> ModuleNode | None:
        """The module at a path below it; None where there is none."""
        return self.tree.find(self.path(path))

    def has(self, *paths: str) -> bool:
        """Whether there is a module at each of these paths below it."""
        return all(self.child(path) is not None for path in paths)

    def first(self, *paths: str) -> ModuleNode | None:
        """The first of these modules that it has."""
        return next((found for path in paths if (found := self.child(path)) is not None), None)

    def __repr__(self) -> str:
        return f"<ModuleNode {self.address} ({self.cls})>"
