"""Selectors by module: what it returned, what ran inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import SelectorError, nearest
from .algebra import Not
from .by_neighbour import PrecededBy
from .selector import Names, Selector


@dataclass(frozen=True)
class _ByAddress(Selector):
    address: str  # 'layer1.0', with the number of a call 'layer1.0:2'; the model is 'self'

    def __post_init__(self) -> None:
        name, _, number = self.address.partition(":")
        object.__setattr__(self, "_name", "" if name == "self" else name)
        object.__setattr__(self, "_number", number)

    def wanted(self, site: Any) -> tuple[str, str]:
        """Address and number of the call ('' for any), under the names by which modules are recorded."""
        return site.module_address(self._name), self._number  # type: ignore[attr-defined]

    def check(self, names: Names) -> None:
        if self._name not in names.modules:  # type: ignore[attr-defined]
            raise SelectorError(
                f"The model has no module {self.address!r}.{nearest(self.address, names.modules)} "
                "print(trace.modules) lists all addresses; 'self' is the model itself."
            )


class InModule(_ByAddress):
    """``tl.in_module(address)``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "reads", frozenset({"scope", "call"} if ":" in self.address else {"scope"}))

    def matches(self, site: Any) -> bool | None:
        address, number = self.wanted(site)
        if not address and number in ("", "1"):
            return True
        return any(_is_call(label, address, number) for label in site.modules)

    def __repr__(self) -> str:
        return f"in_module({self.address!r})"


class OfModule(_ByAddress):
    """``tl.module(address)``."""

    reads = frozenset({"scope", "output_of"})

    def matches(self, site: Any) -> bool | None:
        address, number = self.wanted(site)
        labels = site.returned_by if site.is_live else site.output_of_module_calls
        if any(_is_call(label, address, number) for label in labels):
            return True
        if not site.is_live:
            return False
        return None if not address or any(_is_call(label, address, "") for label in site.modules) else False

    def __repr__(self) -> str:
        return f"module({self.address!r})"


def _is_call(label: str, address: str, number: str) -> bool:
    """Whether a label names a call of the module: the one of that number, any for ''."""
    name, _, call = label.rpartition(":")
    return name == (address or "self") and number in ("", call)


def module_named(selector: Selector) -> str | None:
    """The address that a plain ``tl.module(address)`` names, '' for the model; None for any other selector."""
    return selector._name if isinstance(selector, OfModule) else None  # type: ignore[attr-defined]


def asks_for_call(selector: Selector, site: Any, call: str) -> bool:
    """Whether a selector names the module whose call has this label, among whatever else it asks for."""
    return any(isinstance(part, OfModule) and _is_call(call, *part.wanted(site)) for part in selector.parts())


def settled_by_modules(selector: Selector) -> bool:
    """Whether what a live site cannot tell becomes known when a module returns, so that nothing is kept until then.

    Not under ``~``: that an Op is *not* returned by a module is known only when the module has returned without it. Nor
    of a parent, which a module may return after the Op has run.
    """
    if selector.reads & {"label", "children", "value"}:
        return False
    return not any(isinstance(part, Not | PrecededBy) and "output_of" in part.reads for part in selector.parts())


def module(address: str) -> Selector:
    """The Op (or Ops) that a module finally returned, after its hooks.

    ``'features.6:2'`` names one call, ``'self'`` the model.
    """
    return OfModule(address)


def in_module(address: str) -> Selector:
    """Every Op that ran inside a module, at any depth."""
    return InModule(address)
