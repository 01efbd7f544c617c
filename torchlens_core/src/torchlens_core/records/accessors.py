"""``trace.ops``, ``trace.layers``, ``trace.modules`` ...: records in order, found by name or by number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import LabelError, nearest
from ..facets.tree import ModuleTree
from ..show.quantities import counted
from .module import Module, ModuleCall
from .record import Record

if TYPE_CHECKING:
    from .trace import Trace

R = TypeVar("R", bound=Record)


class Accessor(Generic[R]):
    """An ordered collection of records that integers, slices and names index."""

    def __init__(
        self, record: type[R], make: Callable[[], dict[str, R]], what: str, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.record = record
        self._make = make
        self._what = what
        self._aliases = aliases or {}

    @cached_property
    def _records(self) -> dict[str, R]:
        return self._make()

    def find(self, name: str) -> R | None:
        """The record of this name or alias, None where there is none."""
        return self._records.get(name) or self._records.get(self._aliases.get(name, ""))

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            found = self.find(key)
            if found is None:
                raise LabelError(f"No {self._what} is called {key!r}.{nearest(key, self._records)}")
            return found
        records = list(self._records.values())
        try:
            return records[key]
        except IndexError:
            raise LabelError(f"There are {len(records)} {self._what}s; got index {key}.") from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __iter__(self) -> Iterator[R]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def keys(self) -> list[str]:
        """Names, in order."""
        return list(self._records)

    def values(self) -> list[R]:
        """Records, in order."""
        return list(self._records.values())

    def items(self) -> list[tuple[str, R]]:
        """Names and records, in order."""
        return list(self._records.items())

    def to_pandas(self) -> Any:
        """A data frame with one row a record and one column a field."""
        from ..show.tables import to_pandas

        return to_pandas(self.values(), self.record)

    def __repr__(self) -> str:
        return f"<{self._count()}>"

    def __str__(self) -> str:
        return "\n".join([f"{self._count()}:", *(f"  {record!r}" for record in self)])

    def _repr_html_(self) -> str:
        from ..show.html import list_html

        return list_html(self._count(), self.values())

    def _count(self) -> str:
        return counted(len(self), self._what)


class Modules(Accessor[Module]):
    """The modules: those that were called first, in the order of their first call, ``'self'`` at the head."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        super().__init__(Module, self._all, "module")

    def _all(self) -> dict[str, Module]:
        infos = {info.address: info for info in self._trace.program.modules}
        order = [address for address in self._trace.structure.scopes_by_address if address in infos]
        order += [address for address in infos if address not in self._trace.structure.scopes_by_address]
        return {address or "self": Module(self._trace, infos[address]) for address in order}

    @cached_property
    def _alias_table(self) -> dict[str, str]:
        return {alias: info.address for info in self._trace.program.modules for alias in info.aliases}

    def primary(self, name: str) -> str:
        """The address under which a module of this name is recorded: of its names the first."""
        return self._alias_table.get(name, name)

    def find(self, name: str) -> Module | None:
        """The module of this address or alias, None where there is none."""
        return self._records.get(name) or self._records.get(self.primary(name))

    @cached_property
    def tree(self) -> ModuleTree:
        """The modules as recipes of facets see them."""
        return ModuleTree(self._trace.program.modules, self._trace.program.backend)

    def addresses(self) -> list[str]:
        """All addresses, aliases too."""
        return [*self._records, *self._alias_table]

    @cached_property
    def calls(self) -> dict[str, ModuleCall]:
        """Label of a call -> the call, for all modules."""
        scopes = (scope for scope in self._trace.program.scopes if scope.kind == "module")
        return {scope.call_label: ModuleCall(self._trace, scope) for scope in scopes}

    def call(self, label: str) -> ModuleCall:
        """One call, by its label ``features.6:1``."""
        found = self.calls.get(label)
        if found is None:
            raise LabelError(f"No module call is labelled {label!r}.{nearest(label, self.calls)}")
        return found

    @property
    def never_called(self) -> list[Module]:
        """The modules that the run did not call (containers such as ModuleList among them)."""
        return [module for module in self if not module.num_calls]

    def children_of(self, address: str) -> list[str]:
        """Addresses of the modules directly inside one, ``''`` being the model."""
        return self._children.get(address, [])

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = defaultdict(list)
        for info in self._trace.program.modules:
            if info.address:
                children[self.parent_of(info.address)].append(info.address)
        return children

    @cached_property
    def _known(self) -> set[str]:
        return {info.address for info in self._trace.program.modules}

    def parent_of(self, address: str) -> str:
        """Address of the module around one; lists and the like, whose names addresses have, are none."""
        parent = address.rpartition(".")[0]
        while parent and parent not in self._known:
            parent = parent.rpartition(".")[0]
        return parent
