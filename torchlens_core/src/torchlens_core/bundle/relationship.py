"""How two members are related: one graph, or where theirs part."""

from __future__ import annotations

from dataclasses import dataclass

from ..records.op import Op
from ..show.quantities import counted
from ..show.untrusted import visible
from .sites import label_of


@dataclass(frozen=True)
class Relationship:
    """What two members have in common.

    Attributes:
        a, b: their names.
        num_shared: sites that both have.
        num_only_a, num_only_b: sites that the other lacks.
        parting: the first Ops, in the order of the runs, at which their graphs differ, None on the side that had ended;
            None altogether where they have one graph.
    """

    a: str
    b: str
    num_shared: int
    num_only_a: int
    num_only_b: int
    parting: tuple[Op | None, Op | None] | None

    @property
    def is_same_graph(self) -> bool:
        """Whether both ran the same operations in the same order, with the same parents."""
        return self.parting is None

    def __str__(self) -> str:
        if self.parting is None:
            return f"{self.a!r} and {self.b!r} have one graph of {counted(self.num_shared, 'site')}."
        first, second = self.parting
        return visible(
            f"{self.a!r} and {self.b!r} share {counted(self.num_shared, 'site')}, {self.a!r} alone has "
            f"{self.num_only_a}, {self.b!r} alone {self.num_only_b}. Their graphs part where "
            f"{self.a!r} {_ran(first)} and {self.b!r} {_ran(second)}.",
            1000,
        )


def _ran(op: Op | None) -> str:
    if op is None:
        return "had ended"
    where = f" in {op.module}" if op.module else ""
    parents = ", ".join(op.parents[:3]) + (", ..." if len(op.parents) > 3 else "")
    return f"ran {label_of(op)} ({op.type}{f' of {parents}' if parents else ''}){where}"
