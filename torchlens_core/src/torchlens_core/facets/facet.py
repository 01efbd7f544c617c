"""A facet: a part of what a module computes that has a name, such as the queries of an attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ..interventions.target import View
from ..selectors import Selector

if TYPE_CHECKING:
    from ..records.module_call import ModuleCall
    from ..records.op import Op

Access = Literal["writable", "read-only", "computed"]
FOUND_LATE: Final = "which operation holds it is known only after the run"


@dataclass(frozen=True, slots=True)
class Computed:
    """A facet that no operation has made, worked out from what one took and returned.

    Attributes:
        at: the operation, among those of the module's call.
        function: gives the value, from that Op: see :func:`~torchlens_core.facets.arguments.argument`.
        needs: the Ops whose values it takes, for ``save=``.
        why: why it can only be read: what stands in the place of the operation that would make it.
    """

    at: Selector
    function: Callable[[Op], Any]
    needs: Selector
    why: str


@dataclass(frozen=True, slots=True)
class Facet:
    """Where a facet is, and how it is seen there.

    It is looked for at ``site``, where there is none by ``find``, and where that finds none it is ``computed``.

    Attributes:
        axes: names of the axes of its value, such as ``('batch', 'head', 'position', 'head_dim')``.
        doc: what it is, in one line.
        site: the Op that holds it. A selector that can be answered as the model runs: interventions act there.
        views: how it is seen in the array of that Op, one view of another. Each can be written back.
        find: the Op that holds it, for what is known of a call only when the run is over.
        computed: how it is worked out where no Op holds it.
        read_only: why it cannot be written although it has a site; empty where it can.
    """

    axes: tuple[str, ...]
    doc: str
    site: Selector | None = None
    views: tuple[View, ...] = ()
    find: Callable[[ModuleCall], Sequence[Op]] | None = None
    computed: Computed | None = None
    read_only: str = ""

    @property
    def why_not_writable(self) -> str:
        """Why no intervention can act on it; empty where one can."""
        if self.read_only or self.site is not None:
            return self.read_only
        return self.computed.why if self.computed is not None else FOUND_LATE

    @property
    def needed(self) -> Selector | None:
        """The Ops that have to be kept to read it; None where no selector can mean them before the run."""
        needs = self.computed.needs if self.computed is not None else None
        return needs if self.site is None else self.site if needs is None else self.site | needs
