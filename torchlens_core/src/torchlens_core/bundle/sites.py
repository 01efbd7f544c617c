"""Sites of a bundle: one place in the program, with the Op that each member ran there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from ..errors import LabelError
from ..records.op import Op
from ..show.quantities import counted
from .table import Table

if TYPE_CHECKING:
    from .bundle import Bundle


class Site(Mapping[str, Op | None]):
    """One aligned site, a mapping from the names of the members to their Ops there; None for those that lack it."""

    __slots__ = ("_bundle", "index")

    def __init__(self, bundle: Bundle, index: int) -> None:
        self._bundle = bundle
        self.index = index  # position in bundle.sites

    # -- members ---------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Op | None:
        trace = self._bundle[name]
        node = self._bundle.alignment.nodes[self._bundle.position(name)][self.index]
        return Op(trace, node) if node >= 0 else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle)

    def __len__(self) -> int:
        return len(self._bundle)

    @property
    def ops(self) -> dict[str, Op]:
        """The Ops of the members that have the site."""
        return {name: op for name, op in self.items() if op is not None}

    @property
    def is_shared(self) -> bool:
        """Whether all members have it."""
        return len(self.ops) == len(self)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def _owner(self) -> tuple[str, Op]:
        """The member that names it: the reference where that has the site, else the first that has."""
        reference = self._bundle.reference
        op = self[reference]
        return (reference, op) if op is not None else next(iter(self.ops.items()))

    @property
    def key(self) -> str:
        """Its name: the label in the reference, ``relu_1_2``; ``patched/tanh_1_2`` of a site that the reference lacks.

        A label has its pass (``relu_1_2:3``) where the layer has several.
        """
        name, op = self._owner
        label = label_of(op)
        return label if name == self._bundle.reference else f"{name}/{label}"

    @property
    def type(self) -> str:
        """Type of the operation: ``conv2d``."""
        return self._owner[1].type

    @property
    def module(self) -> str | None:
        """Label of the innermost module call around it; None directly in the model."""
        return self._owner[1].module

    @property
    def where(self) -> str | None:
        """Where it is in the model: label of the innermost module call; of inputs, buffers and outputs the address."""
        op = self._owner[1]
        return op.module if op.is_compute else op.address

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the array in each member that has the site."""
        return {name: op.shape for name, op in self.ops.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Site) and self._bundle is other._bundle and self.index == other.index

    def __hash__(self) -> int:
        return hash((id(self._bundle), self.index))

    def __repr__(self) -> str:
        members = ", ".join(f"{name}: {'-' if op is None else label_of(op)}" for name, op in self.items())
        return f"<Site {self.key} ({members})>"

    @property
    def bundle(self) -> Bundle:
        """The bundle that it is a site of."""
        return self._bundle


class Sites(Sequence[Site]):
    """Sites of a bundle in order."""

    def __init__(self, bundle: Bundle, indices: Sequence[int]) -> None:
        self._bundle = bundle
        self._indices = indices

    @overload
    def __getitem__(self, key: int) -> Site: ...
    @overload
    def __getitem__(self, key: slice) -> Sites: ...
    def __getitem__(self, key: int | slice) -> Site | Sites:
        if isinstance(key, slice):
            return Sites(self._bundle, self._indices[key])
        try:
            return Site(self._bundle, self._indices[key])
        except IndexError:
            raise LabelError(f"There are {counted(len(self), 'site')}; got index {key}.") from None

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Site]:
        return (Site(self._bundle, index) for index in self._indices)

    def labels(self) -> list[str]:
        """Their names."""
        return [site.key for site in self]

    def table(self) -> Table:
        """One row a site: its name, where it is, and the label in each member."""
        rows = (
            {"site": site.key, "where": site.where, **{name: label_of(op) for name, op in site.ops.items()}}
            for site in self
        )
        return Table(counted(len(self), "site"), ("site", "where", *self._bundle.names), rows)

    def to_pandas(self) -> Any:
        """A data frame with one row a site."""
        return self.table().to_pandas()

    def __str__(self) -> str:
        return repr(self.table())

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'site')}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def label_of(op: Op) -> str:
    """The label of an Op, with its pass where its layer has several."""
    return op.label if op.num_passes > 1 else op.layer_label
