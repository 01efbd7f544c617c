"""Which layers are asked for, and under which names they are given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import OptionError
from ..selectors import Selector

LayerSpec = str | Selector | Iterable[str | Selector] | Mapping[str, str | Selector]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that was asked for.

    Attributes:
        key: what it is called in the result; None where each Op found is called by its label.
        target: a label, a module's address, or a selector.
    """

    key: str | None
    target: str | Selector

    @property
    def text(self) -> str:
        """The target in one line: how it was asked for."""
        return self.target if isinstance(self.target, str) else repr(self.target)


def wanted(layers: LayerSpec) -> list[Wanted]:
    """``layers=``, one by one.

    Raises:
        OptionError: nothing is asked for, one name twice, or something that is neither name nor selector.
    """
    if isinstance(layers, str | Selector):
        layers = [layers]
    if isinstance(layers, Mapping):
        made = [Wanted(key, target) for key, target in layers.items()]
    elif isinstance(layers, Iterable):
        made = [Wanted(target if isinstance(target, str) else None, target) for target in layers]
    else:
        raise OptionError(f"layers= takes names, selectors, or a dict of them by alias; got {layers!r}.")
    if not made:
        raise OptionError("layers= is empty: name at least one layer. tl.sites(model, x) lists them.")
    seen: set[str | Selector] = set()
    for each in made:
        if not isinstance(each.target, str | Selector) or not (each.key is None or isinstance(each.key, str)):
            raise OptionError(
                f"layers= takes labels ('relu_1_2'), addresses of modules ('layer3') and selectors; got {each.target!r}"
                + ("." if each.key in (None, each.target) else f" under {each.key!r}.")
            )
        name = each.target if each.key is None else each.key
        if name in seen:
            raise OptionError(f"layers= asks for {name!r} twice.")
        seen.add(name)
    return made
