"""``tl.facet(name)`` and ``tl.head(number)``: facets of modules as selectors, to save, find and change.

A facet is known by the recipe of a module, so it stands for a selector and views once the modules of the model are
known: before the run by what discovery found, afterwards by what the trace holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import FacetError, MissingFacet, SelectorError, nearest
from ..interventions.at import At
from ..interventions.target import Target, View
from ..selectors import InModule, Names, OfModule, Selector
from ..selectors.algebra import AnyOf
from .facet import Facet
from .registry import facets_of
from .tree import ModuleNode, ModuleTree

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..interventions.when import When

WHOLE_HEAD = "z"  # the facet that a head means where no other is named: what it gives to the output projection


@dataclass(frozen=True)
class FacetOf(Selector):
    """A facet of modules.

    Attributes:
        of: which modules: ``module(...)``, ``in_module(...)``, or several with ``|``; None for all that have it.
        name: of the facet; None for the contribution of a head.
        number: of the head; None for all heads.
    """

    of: Selector | None = None
    name: str | None = None
    number: int | None = None

    reads = frozenset({"scope"})
    is_facet = True

    def matches(self, site: Any) -> bool | None:
        if site.is_live:
            raise FacetError(
                f"{self!r} is a facet, and here the operation that holds it has to be named: "
                "trace.find_sites(facet).live() gives its selector."
            )
        return resolved(self, site.trace.modules.tree).matches(site)

    def check(self, names: Names) -> None:
        if names.tree is not None:
            resolved(self, names.tree).check(names)

    def __repr__(self) -> str:
        facet = "" if self.name is None else f"facet({self.name!r})"
        head = "" if self.number is None else f"head({self.number})"
        return ".".join(filter(None, (repr(self.of) if self.of is not None else "", facet, head)))


@dataclass(frozen=True)
class AtFacet(Selector):
    """The Ops that hold a facet in one model.

    Attributes:
        inner: what selects them.
        facet: the facet as the user wrote it, by which it is shown.
        absent: what it can mean that no Op of a run is there; for messages.
    """

    inner: Selector
    facet: Selector  # type: ignore[assignment]  # a field, where other selectors have the method
    absent: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.inner.reads)

    @property
    def written(self) -> Selector:
        """The facet."""
        return self.facet

    def matches(self, site: Any) -> bool | None:
        return self.inner.matches(site)

    def check(self, names: Names) -> None:
        self.inner.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.inner.parts()

    def __repr__(self) -> str:
        return repr(self.facet)


@dataclass(frozen=True, slots=True)
class FacetView:
    """How a facet is seen in the array of the Op that holds it: one view of another. Its selector says which it is."""

    views: tuple[View, ...]

    def get(self, array: Any, arrays: Arrays) -> Any:
        """The facet."""
        return Target(_NONE, self.views).get(array, arrays)

    def put(self, array: Any, part: Any, arrays: Arrays) -> Any:
        """A new array: the old one with the facet replaced."""
        return Target(_NONE, self.views).put(array, part, arrays)

    def __repr__(self) -> str:
        return ""


_NONE = FacetOf()  # stands for the selector of a target that is used for its views alone


# -- what users write --------------------------------------------------------------------------------------------------


def facet(name: str) -> Selector:
    """A facet of modules: ``tl.module('h.0.attn') & tl.facet('q')``, or ``tl.module('h.0.attn').facet('q')``.

    By itself it means that facet of all modules that have it. With ``& tl.head(3)`` or ``.head(3)`` one head of it.
    """
    if not isinstance(name, str):
        raise SelectorError(f"tl.facet takes the name of a facet, such as 'q'; got {name!r}.")
    return FacetOf(name=name)


def head(number: int) -> Selector:
    """One head, from 0: of a facet, or with a module alone what the head gives to the output projection (``z``)."""
    if type(number) is not int:
        raise SelectorError(f"tl.head takes the number of a head, from 0; got {number!r}.")
    return FacetOf(number=number)


def joined(left: Selector, right: Selector) -> Selector:
    """``left & right`` where one of them is a facet: the facet of the modules that the other means."""
    if not isinstance(right, FacetOf):
        left, right = right, left
    assert isinstance(right, FacetOf)
    if not isinstance(left, FacetOf):
        left = FacetOf(of=left)
    for field in ("of", "name", "number"):
        if getattr(left, field) is not None and getattr(right, field) is not None:
            raise SelectorError(
                f"{left!r} & {right!r} names two of what there can be one: {field.replace('of', 'module')}."
            )
    return FacetOf(
        left.of if right.of is None else right.of,
        left.name if right.name is None else right.name,
        left.number if right.number is None else right.number,
    )


# -- what they mean in one model ---------------------------------------------------------------------------------------


def resolved(selector: Selector, tree: ModuleTree) -> Selector:
    """The selector with every facet in it replaced by the Ops that hold it, or that it is computed from."""
    if isinstance(selector, FacetOf):
        known = tree.resolved.get(selector)
        if known is None:
            known = tree.resolved[selector] = _held_at(selector, tree)
        return known
    if not any(isinstance(part, FacetOf) for part in selector.parts()) or not is_dataclass(selector):
        return selector
    inner = {each.name: getattr(selector, each.name) for each in fields(selector)}
    changed = {name: resolved(value, tree) for name, value in inner.items() if isinstance(value, Selector)}
    made: Selector = replace(selector, **changed)
    return made


def _held_at(part: FacetOf, tree: ModuleTree) -> Selector:
    """Where a facet is kept."""
    found = []
    for node, facet in _meant(part, tree):
        if facet.needed is None:
            raise SelectorError(
                f"{part!r} cannot be selected: {facet.why_not_writable}. "
                f"save=tl.in_module({node.address!r}) or save=True keeps it."
            )
        found.append(facet.needed)
    return AtFacet(_any(found), part)


def resolved_target(target: Target, tree: ModuleTree) -> Target:
    """The target with facets replaced by the Ops that hold them, and the views in which they are seen there.

    Raises:
        MissingFacet: the module has no such facet.
        FacetError: the facet can only be read, or those of several modules are seen in unlike ways.
    """
    selector = target.selector
    parts = [selector] if isinstance(selector, FacetOf) else []
    if isinstance(selector, AnyOf) and all(isinstance(part, AnyOf | FacetOf) for part in _alternatives(selector)):
        parts = [part for part in _alternatives(selector) if isinstance(part, FacetOf)]
    if not parts:
        if any(isinstance(part, FacetOf) for part in selector.parts()):
            raise FacetError(
                f"{selector!r} mixes a facet with other selectors. An intervention acts on facets alone, several with "
                "'|', or on whole operations: make two of it."
            )
        return target
    found = [(part, facet, _views(part, facet, node)) for part in parts for node, facet in _meant(part, tree)]
    views = found[0][2]
    if any(others != views for _, _, others in found):
        raise FacetError(
            f"{selector!r} means facets that are seen in their arrays in unlike ways: write one tl.when for each."
        )
    sites = [facet.site for _, facet, _ in found if facet.site is not None]
    absent = next((facet.computed.why for _, facet, _ in found if facet.computed is not None), "")
    return Target(AtFacet(_any(sites), selector, absent), (FacetView(views), *target.views))


def with_facets(when: When, tree: ModuleTree) -> When:
    """An intervention on the facets of one model."""
    target = resolved_target(when.target, tree)
    return when if target is when.target else replace(when, target=target)


def _alternatives(selector: Selector) -> list[Selector]:
    if not isinstance(selector, AnyOf):
        return [selector]
    return [*_alternatives(selector.left), *_alternatives(selector.right)]


def _views(part: FacetOf, facet: Facet, node: ModuleNode) -> tuple[View, ...]:
    """How the part is seen, where it can be written."""
    if why := facet.why_not_writable:
        raise FacetError(f"{_named(part, node)} can only be read: {why}.")
    if part.number is None:
        return facet.views
    if "head" not in facet.axes:
        raise FacetError(
            f"{_named(part, node)} has no heads: its axes are {', '.join(facet.axes) or 'those of the array'}."
        )
    return (*facet.views, At((*[slice(None)] * facet.axes.index("head"), part.number)))


def _meant(part: FacetOf, tree: ModuleTree) -> list[tuple[ModuleNode, Facet]]:
    """The modules that a selector means, each with the facet."""
    name = part.name or WHOLE_HEAD
    nodes, are_named = _modules(part, tree)
    found = []
    for node, call in nodes:
        facets = facets_of(node)
        if name in facets:
            found.append((node, _in_call(facets[name], node, call)))
        elif are_named:
            raise MissingFacet(
                f"There is no facet {name!r} of {node.address} ({node.cls}).{nearest(name, facets)} "
                f"It can have {', '.join(facets) or 'none'}; tl.facets.register adds others."
            )
    if not found:
        raise MissingFacet(f"No module that {part!r} means has a facet {name!r}.")
    return found


def _modules(part: FacetOf, tree: ModuleTree) -> tuple[list[tuple[ModuleNode, str]], bool]:
    """The modules that are meant, each with the number of a call ('' for all), and whether each was named."""
    if part.of is None:
        return [(node, "") for node in tree], False
    named = _alternatives(part.of)
    if all(isinstance(each, OfModule) for each in named):
        return [_module(each.address, part, tree) for each in named if isinstance(each, OfModule)], True
    if all(isinstance(each, InModule) for each in named):
        roots = [_module(each.address, part, tree)[0].address for each in named if isinstance(each, InModule)]
        inside = [node for node in tree if any(root == "self" or _is_in(node.address, root) for root in roots)]
        return [(node, "") for node in inside], False
    raise SelectorError(
        f"Facets are of modules: tl.module(address).facet({part.name or 'z'!r}), of all modules in one "
        f"tl.in_module(address) & tl.facet(...), several modules with '|'. Got {part.of!r}."
    )


def _module(address: str, part: FacetOf, tree: ModuleTree) -> tuple[ModuleNode, str]:
    name, _, call = address.partition(":")
    node = tree.find(name)
    if node is None:
        raise SelectorError(f"{part!r}: the model has no module {name!r}.{nearest(name, tree.addresses())}")
    return node, call


def _in_call(facet: Facet, node: ModuleNode, call: str) -> Facet:
    """The facet in one call of the module alone."""
    if not call or facet.site is None:
        return facet
    return replace(facet, site=facet.site & InModule(f"{node.address}:{call}"))


def _is_in(address: str, root: str) -> bool:
    return address == root or address.startswith(f"{root}.")


def _named(part: FacetOf, node: ModuleNode) -> str:
    return repr(replace(part, of=OfModule(node.address)))


def _any(selectors: list[Selector]) -> Selector:
    made = selectors[0]
    for selector in selectors[1:]:
        made = made | selector
    return made
