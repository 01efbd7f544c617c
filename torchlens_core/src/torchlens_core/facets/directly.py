"""The n-th operation of a type that a module's own code calls, counted anew in each call of the module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..selectors import Names, Selector, func, module
from ..vocabulary import canonical_type


@dataclass(frozen=True)
class Directly(Selector):
    """See :func:`directly`."""

    address: str
    function: str
    number: int

    reads = frozenset({"func", "scope", "call"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "_type", canonical_type(self.function))
        object.__setattr__(self, "_name", "" if self.address == "self" else self.address)

    def matches(self, site: Any) -> bool | None:
        if site.type != self._type:  # type: ignore[attr-defined]
            return False
        return bool(site.number_in_call(site.module_address(self._name)) == self.number)  # type: ignore[attr-defined]

    def check(self, names: Names) -> None:
        func(self.function).check(names)
        module(self.address).check(names)

    def __repr__(self) -> str:
        return f"directly({self.address!r}, {self.function!r}, {self.number})"


def directly(address: str, function: str, number: int = 1) -> Selector:
    """The ``number``-th operation of a type in each call of a module, from 1, of those in no module inside it."""
    return Directly(address, function, number)
