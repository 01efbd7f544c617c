"""How two members are related: one graph, or where theirs part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..records.op import Op
from ..show.quantities import counted
from ..show.untrusted import visible
from .sites import label_of

_SHOWN = 8  # names of modules


@dataclass(frozen=True)
class Relationship:
    """What two members have in common.

    Attributes:
        a, b: their names.
        num_shared: sites that both have.
        num_only_a, num_only_b: sites that the other lacks.
        parting: the first Ops, in the order of the runs, at which their graphs differ, None on the side that had ended;
            None altogether where they have one graph.
        renamed: member -> what its modules are called in the bundle, where they have other addresses.
        likely: addresses in ``b`` -> those in ``a`` that ``rename='auto'`` would find, where the two share little.
    """

    a: str
    b: str
    num_shared: int
    num_only_a: int
    num_only_b: int
    parting: tuple[Op | None, Op | None] | None
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    likely: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_same_graph(self) -> bool:
        """Whether both ran the same operations in the same order, with the same parents."""
        return self.parting is None

    def __str__(self) -> str:
        return visible(" ".join([self._graphs(), *self._names()]), 2000)

    def _graphs(self) -> str:
        if self.parting is None:
            return f"{self.a!r} and {self.b!r} have one graph of {counted(self.num_shared, 'site')}."
        first, second = self.parting
        return (
            f"{self.a!r} and {self.b!r} share {counted(self.num_shared, 'site')}, {self.a!r} alone has "
            f"{self.num_only_a}, {self.b!r} alone {self.num_only_b}. Their graphs part where "
            f"{self.a!r} {_ran(first)} and {self.b!r} {_ran(second)}."
        )

    def _names(self) -> list[str]:
        told = [(name, _listed(names)) for name, names in self.renamed.items()]
        found = [f"Modules of {name!r} are meant by other names: {names}." for name, names in told if names]
        if self.likely:
            found.append(f"rename='auto' would take modules of {self.b!r} for others: {_listed(self.likely)}.")
        return found


def _listed(names: Mapping[str, str]) -> str:
    shown = [f"{old or 'the model'} is {new or 'the model'}" for old, new in list(names.items())[:_SHOWN]]
    return ", ".join(shown) + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _ran(op: Op | None) -> str:
    if op is None:
        return "had ended"
    where = f" in {op.module}" if op.module else ""
    parents = ", ".join(op.parents[:3]) + (", ..." if len(op.parents) > 3 else "")
    return f"ran {label_of(op)} ({op.type}{f' of {parents}' if parents else ''}){where}"
