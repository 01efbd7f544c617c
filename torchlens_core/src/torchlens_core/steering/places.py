"""Where on the tape a selector acts: which array, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..derived.graph import Kind
from ..errors import InterventionError, LabelError
from ..facets.targets import resolved_target
from ..interventions.target import Target
from ..records.layer import Layer
from ..records.module import Module
from ..records.op import Op
from ..records.selection import Selection
from ..selectors import Selector, asks_for_call, label, module

if TYPE_CHECKING:
    from ..records.trace import Trace


class Place(NamedTuple):
    """One array at one moment of a recorded run."""

    moment: int  # number of rows that had run
    vid: int
    node: int


def places(trace: Trace, selector: Selector) -> list[Place]:
    """Where a selector acts, in the order of the run.

    As while the model runs, what a module returned is changed when it returns it, all else as soon as it is there.
    """
    found = trace.places.get(selector)
    if found is None:
        found = sorted(_place(trace, op.raw_index, selector) for op in trace.find_sites(selector))
        trace.places[selector] = found
    return found


def _place(trace: Trace, node: int, selector: Selector) -> Place:
    graph, program = trace.graph, trace.program
    vid, kind = graph.vids[node], graph.kinds[node]
    if kind == Kind.OUTPUT:
        return Place(len(program.rows), vid, node)
    if kind != Kind.COMPUTE:
        return Place(max(program.sources[graph.refs[node]].row, 0), vid, node)
    moments = [graph.refs[node] + 1, *(change.row for change in program.changes if change.new == vid)]
    if "output_of" in selector.reads:
        op = Op(trace, node)
        calls = trace.structure.returned_by.get(node, ())
        moments += [call.last_row for call in calls if asks_for_call(selector, op, call.call_label)][:1]
    return Place(max(moments), vid, node)


def targets(trace: Trace, site: Any) -> list[Target]:
    """What the user calls a site, as selectors and parts of what they select; at least one.

    Args:
        trace: whose site it is.
        site: an Op of the trace or of one that it comes from, a label, a module's address, a selector, a part of what
            one selects (``.at[...]``, a facet), what ``find_sites`` gave, or several of these.

    Raises:
        InterventionError: it never ran, or is none of these.
        LabelError: there is nothing of this name.
    """
    if isinstance(site, Selection) or (isinstance(site, Iterable) and not isinstance(site, str | Selector | Target)):
        found = [target for item in site for target in targets(trace, item)]
        if not found:
            raise InterventionError(f"{site!r} is no site: it is empty.")
        return found
    if isinstance(site, Op):
        if site.trace.structure is not trace.structure:
            raise InterventionError(f"{site.label} is an Op of another run: name it by its label, or use a selector.")
        return [Target(label(site.label))]
    if isinstance(site, str):
        return [Target(_named(trace, site))]
    target = site if isinstance(site, Target) else Target(site) if isinstance(site, Selector) else None
    if target is None:
        raise InterventionError(
            "A site is an Op, a label, a module's address, a selector, or a part of what one selects (.at[...]); "
            f"got {site!r:.80}."
        )
    target = resolved_target(target, trace.modules.tree)
    if not places(trace, target.selector):
        types = ", ".join(sorted({op.type for op in trace.compute_ops})[:12])
        raise InterventionError(
            f"{target!r} never ran: nothing in this trace matches. What ran are {types}; "
            "trace.find_sites(selector) shows what a selector matches."
        )
    return [target]


def _named(trace: Trace, name: str) -> Selector:
    """The selector that a name means."""
    if name in trace.modules or name in trace.modules.calls:
        selector = module(name)
        if not places(trace, selector):
            raise InterventionError(
                f"The module {name!r} never ran, or returned no array, so nothing can be changed there."
            )
        return selector
    found = trace.lookup.by_name(name)
    if isinstance(found, Op):
        return label(found.label)
    if isinstance(found, Layer):
        return label(found.layer_label)
    if isinstance(found, Module):
        return module(found.address)
    raise LabelError(
        f"{name!r} is {found!r}, which the model holds and no operation makes: change it in the model, and trace again."
    )


def live(trace: Trace, target: Target) -> Target:
    """The same target for a new run of the model, while which labels and followers are not known yet.

    Raises:
        SelectorError: no operation makes the array: an input, a buffer.
    """
    if target.selector.reads & {"label", "children"}:
        return Target(trace.find_sites(target.selector).live(), target.views)
    return target
