"""``bundle.at(...)``: which sites a name, a selector, a number or an Op of a member means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AmbiguousLabel, LabelError, SelectorError, nearest
from ..records.layer import Layer
from ..records.module import Module
from ..records.module_call import ModuleCall
from ..records.op import Op
from ..records.param import Buffer
from ..selectors import Selector
from .sites import Site, label_of

if TYPE_CHECKING:
    from .bundle import Bundle

SiteSpec = int | str | Selector | Op | Site
SitesSpec = SiteSpec | Sequence[SiteSpec]


def find_sites(bundle: Bundle, spec: SitesSpec) -> list[Site]:
    """The sites that are meant, at least one, in order; of a list those of each item, in its order.

    Raises:
        LabelError: no member has such a site.
        SelectorError: a selector matched nothing in any member.
    """
    if isinstance(spec, Site):
        if spec.bundle is not bundle:
            raise LabelError(f"{spec!r} is a site of another bundle.")
        return [spec]
    if isinstance(spec, Op):
        return [_of_op(bundle, spec)]
    if isinstance(spec, bool) or not isinstance(spec, int | str | Selector | Sequence):
        raise LabelError(
            f"A site is a label, a module address, a selector, an Op, a Site or a number; got {spec!r:.80}."
        )
    if isinstance(spec, int):
        return [bundle.sites[spec]]
    if isinstance(spec, Selector):
        return _of_selector(bundle, spec)
    if isinstance(spec, str):
        return _of_name(bundle, spec)
    return list(dict.fromkeys(site for item in spec for site in find_sites(bundle, item)))


def _of_op(bundle: Bundle, op: Op) -> Site:
    for position, trace in enumerate(bundle.values()):
        if trace is op.trace:
            site = bundle.alignment.site_of[position].get(op.raw_index)
            if site is None:
                raise LabelError(f"{op.label} is an orphan, which is no site.")
            return Site(bundle, site)
    raise LabelError(f"{op!r} is of a trace that is no member of the bundle.")


def _of_selector(bundle: Bundle, selector: Selector) -> list[Site]:
    found = {_of_op(bundle, op) for trace in bundle.values() for op in trace.find_sites(selector)}
    if not found:
        raise SelectorError(f"{selector!r} matched nothing in any member ({', '.join(bundle)}).")
    return sorted(found, key=lambda site: site.index)


def _of_name(bundle: Bundle, name: str) -> list[Site]:
    """What a name means to the reference; to the others, in turn, where it means nothing to that."""
    member, slash, rest = name.partition("/")
    if slash and member in bundle:
        return [_of_op(bundle, op) for op in _ops(bundle[member].lookup.by_name(rest), rest)]
    for other in dict.fromkeys((bundle.reference, *bundle)):
        try:
            found = bundle[other].lookup.by_name(name)
        except AmbiguousLabel:
            raise
        except LabelError:
            continue
        return [_of_op(bundle, op) for op in _ops(found, name)]
    known = {label: None for trace in bundle.values() for label in trace.lookup.names()}
    raise LabelError(f"No member has a site called {name!r}.{nearest(name, known)} print(bundle.sites) lists them all.")


def _ops(found: Any, name: str) -> list[Op]:
    """The Ops that a name means: one, the passes of a layer, or what the calls of a module returned."""
    if isinstance(found, Op):
        return [found]
    if isinstance(found, Layer):
        return found.ops
    if isinstance(found, Module | ModuleCall) and found.outputs:
        return found.outputs
    if isinstance(found, Buffer) and found.versions:
        return found.versions
    raise LabelError(f"{name!r} is no site: {found!r} made no array.")


def only(bundle: Bundle, spec: SiteSpec) -> Site:
    """The one site that is meant.

    Raises:
        LabelError: several are.
    """
    found = find_sites(bundle, spec)
    if len(found) > 1:
        names = ", ".join(site.key for site in found[:8]) + (", ..." if len(found) > 8 else "")
        raise LabelError(f"{_text(spec)} is {len(found)} sites: {names}. Name one, or use compare_at for all of them.")
    return found[0]


def _text(spec: SiteSpec) -> str:
    return label_of(spec) if isinstance(spec, Op) else repr(spec)
