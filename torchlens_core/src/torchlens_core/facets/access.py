"""``module.facets``: the facets of one call of a module, by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ..errors import FacetError, MissingFacet, ValueNotSaved, nearest
from ..interventions.at import At
from ..selectors import module
from .facet import FOUND_LATE, Access, Facet
from .numpy_verbs import NumpyVerbs, verbs_for
from .registry import facets_of

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..records.module_call import ModuleCall
    from ..records.op import Op


class Place(NamedTuple):
    """Where the value of a facet comes from in one call."""

    op: Op
    access: Access


class Facets(Mapping[str, Any]):
    """The facets that one call of a module has, as a mapping from names to values.

    ``facets['q']`` is an array of the framework (numpy in a loaded trace), ``facets['q', 3]`` that of one head;
    ``print(facets)`` shows the menu.
    """

    def __init__(self, call: ModuleCall, head: int | None = None) -> None:
        self._call = call
        self._head = head
        self._known: dict[str, Place | None] = {}
        self._unclear: dict[str, list[Op]] = {}  # the several Ops that are where one should be

    # -- what there is ---------------------------------------------------------------------------------------------

    @cached_property
    def _all(self) -> dict[str, Facet]:
        """What recipes say of the module, and what it returned."""
        node = self._call._trace.modules.tree.find(self._call.address)
        facets = {} if node is None else facets_of(node)
        outputs = self._call.outputs
        for position, op in enumerate(outputs):
            name = "out" if len(outputs) == 1 else f"out{position}"
            facets.setdefault(name, _returned(self._call.address, op, len(outputs) == 1))
        if self._head is None:
            return facets
        return {name: facet for name, facet in facets.items() if "head" in facet.axes}

    def _found(self, name: str) -> Place | None:
        """Where a facet is in this call; looked for once."""
        if name not in self._known:
            self._known[name] = self._find(name, self._all[name]) if name in self._all else None
        return self._known[name]

    @property
    def _places(self) -> dict[str, Place]:
        found = ((name, self._found(name)) for name in self._all)
        return {name: place for name, place in found if place is not None}

    def _find(self, name: str, facet: Facet) -> Place | None:
        """The one Op that holds a facet, or that it is computed from."""
        ops = self._call.ops
        ways: list[tuple[list[Op], Access]] = []
        if facet.site is not None:
            access: Access = "read-only" if facet.read_only else "writable"
            ways.append(([op for op in ops if facet.site.matches(op)], access))
        if facet.find is not None:
            ways.append((list(facet.find(self._call)), "read-only"))
        if facet.computed is not None:
            ways.append(([op for op in ops if facet.computed.at.matches(op)], "computed"))
        for found, access in ways:
            if len(found) == 1:
                return Place(found[0], access)
            if found:
                self._unclear[name] = found
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._found(name) is not None

    def has(self, name: str) -> bool:
        """Whether this call has a facet of this name. Its value may not have been saved."""
        return name in self

    # -- values ----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str | tuple[str, int]) -> Any:
        """The value of a facet, of all heads or of one.

        Raises:
            MissingFacet: the call has no facet of this name, or no such head.
            ValueNotSaved: the values that it takes were not selected by ``save=``.
        """
        if isinstance(key, tuple):
            name, head = key
            return self.head(head)[name]
        facet, place = self._facet(key), self.place(key)
        try:
            if place.access != "computed":
                return self._seen(key, place.op, place.op.out)
            assert facet.computed is not None
            value = facet.computed.function(place.op)
        except ValueNotSaved as error:
            raise ValueNotSaved(self._not_saved(key, facet, error)) from None
        return self._of_head(facet, value)

    def grad(self, name: str) -> Any:
        """The gradient at a facet, seen as its value is: of a loss with respect to the facet alone.

        It is a view of the gradient at the operation that holds it (``op.grad``), so that has to have been saved.
        """
        place = self.place(name)
        if place.access == "computed":
            raise FacetError(
                f"Facet {name!r} of {self._call.call_label} is computed from what {place.op.label} took, so no "
                "gradient has passed through it."
            )
        return self._seen(name, place.op, place.op.grad)

    def head(self, number: int) -> Facets:
        """The facets of one head: those that have an axis of heads, without it."""
        if self._head is not None:
            raise FacetError(f"These are the facets of head {self._head} already.")
        return Facets(self._call, number)

    @property
    def num_heads(self) -> int:
        """How many heads the queries have; of modules without queries, the first facet that has heads."""
        named = [name for name, facet in self._all.items() if "head" in facet.axes and name in self]
        shapes = ((name, self.shape(name)) for name in sorted(named, key=lambda name: name != "q"))
        for name, shape in shapes:
            if shape is not None:
                return shape[self._all[name].axes.index("head")]
        raise MissingFacet(f"No facet of {self._call.call_label} has heads. It has {self._named()}.")

    @property
    def heads(self) -> list[Facets]:
        """The facets of each head."""
        return [self.head(number) for number in range(self.num_heads)]

    # -- about one facet -------------------------------------------------------------------------------------------

    def place(self, name: str) -> Place:
        """The Op that a facet comes from, and its access: ``writable``, ``read-only`` or ``computed``."""
        self._facet(name)
        found = self._found(name)
        if found is not None:
            return found
        if name in self._unclear:
            raise FacetError(
                f"Facet {name!r} of {self._call.call_label} should be one operation, and "
                f"{', '.join(op.label for op in self._unclear[name][:6])} are meant: its recipe does not fit here."
            )
        raise MissingFacet(
            f"{self._call.call_label} ({self._call.cls}) can have a facet {name!r} and did not in this run: none "
            f"of its operations is where it would be. It has {self._named()}."
        )

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a facet, whether saved or not; None where it is computed."""
        place = self.place(name)
        if place.access == "computed":
            return None
        stand_in = np.broadcast_to(np.zeros((), np.uint8), place.op.shape)  # of that shape, in one byte
        return tuple(self._viewed(name, stand_in, cast("Arrays", NumpyVerbs())).shape)

    def why_not_writable(self, name: str) -> str:
        """Why no intervention can act on a facet; empty where one can."""
        facet, place = self._facet(name), self.place(name)
        if place.access == "computed" and facet.computed is not None:
            return facet.computed.why
        return "" if place.access == "writable" else facet.read_only or FOUND_LATE

    def menu(self) -> str:
        """A table: each facet with its axes, its shape, the operation that it comes from and what can be done to it.

        Below it stands why those that are not writable are not.
        """
        from ..show.text import table

        rows, reasons = [], defaultdict(list)
        for name, place in self._places.items():
            facet = self._all[name]
            try:
                shape = str(self.shape(name) or "")
            except FacetError:  # reading it says more
                shape = "does not fit"
            axes = [axis for axis in facet.axes if self._head is None or axis != "head"]
            rows.append([name, ", ".join(axes), shape, place.op.label, place.access, facet.doc])
            if why := self.why_not_writable(name):
                reasons[f"{place.access}: {why}."].append(name)
        notes = [f"{', '.join(names)} {why}" for why, names in reasons.items()]
        return "\n".join([table(["Facet", "Axes", "Shape", "From", "Access", "What it is"], rows), *notes])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _facet(self, name: str) -> Facet:
        facet = self._all.get(name)
        if facet is not None:
            return facet
        of = f"head {self._head} of {self._call.call_label}" if self._head is not None else self._call.call_label
        raise MissingFacet(
            f"There is no facet {name!r} of {of} ({self._call.cls}).{nearest(str(name), self._places)} "
            f"It has {self._named()}. print(module.facets) says what each is; tl.facets.register adds others."
        )

    def _named(self) -> str:
        return ", ".join(self._places) or "none"

    def _seen(self, name: str, op: Op, value: Any) -> Any:
        """A facet in the array of the Op that holds it."""
        if op.has_transformed_value:
            raise FacetError(
                f"What was saved at {op.label} is the result of a transform or has another type, and a facet is a view "
                "of the operation's own array: save that too."
            )
        return self._viewed(name, value, verbs_for(self._call._trace, value))

    def _viewed(self, name: str, array: Any, verbs: Arrays) -> Any:
        facet = self._all[name]
        try:
            for view in facet.views:
                array = view.get(array, verbs)
        except FacetError as error:
            raise FacetError(f"Facet {name!r} of {self._call.call_label}: {error}") from None
        return self._of_head(facet, array)

    def _of_head(self, facet: Facet, value: Any) -> Any:
        if self._head is None:
            return value
        axis = facet.axes.index("head")
        heads = value.shape[axis]
        if not -heads <= self._head < heads:
            raise MissingFacet(f"{self._call.call_label} has {heads} heads here, and no head {self._head}.")
        return At((*[slice(None)] * axis, self._head)).get(value, verbs_for(self._call._trace, value))

    def _not_saved(self, name: str, facet: Facet, error: ValueNotSaved) -> str:
        how = f"tl.module({self._call.address!r}).facet({name!r})"
        if facet.needed is None:
            how = f"tl.in_module({self._call.address!r})"
        return (
            f"Facet {name!r} of {self._call.call_label} was not saved. Run the trace again with save={how} or "
            f"save=True. ({error})"
        )

    def __repr__(self) -> str:
        head = "" if self._head is None else f", head {self._head}"
        return f"<Facets of {self._call.call_label}{head}: {self._named()}>"

    def __str__(self) -> str:
        return f"{self._call.call_label} ({self._call.cls})\n{self.menu()}"


def _returned(address: str, op: Op, alone: bool) -> Facet:
    """What a module returned."""
    if alone:
        return Facet((), "what the module returned", module(address))
    many = "the module returns several arrays, which a selector cannot tell apart as the model runs"
    return Facet((), "one of the arrays that the module returned", find=lambda call: [op], read_only=many)
