"""``tl.bundle``: several traces held side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import BundleError, OptionError, UnknownMember, UnlikeGraphs, ValueNotSaved, nearest
from ..records.trace import Trace
from ..show.quantities import counted
from ..show.untrusted import visible
from .alignment import Alignment, align, where_graphs_part
from .axes_matching import MatchedAxes
from .comparison import Comparison
from .decomposed import join_by_value, part_unlike
from .difference import Difference, differences
from .divergence import Divergence, first_divergence
from .lookup import SiteSpec, SitesSpec, find_sites, only
from .member_table import member_table, summary
from .members import Facts, Members, checked_facts, named_traces
from .metrics import Array, MetricSpec, metric_of, metrics_of
from .pair import Pair, aligned_values, in_run_order
from .places import Rename, RenameSpec, renaming
from .relationship import Relationship
from .same_modules import likely_names, same_modules
from .sites import Site, Sites
from .table import Table

if TYPE_CHECKING:
    from ..draw.drawing import Drawing

RenameSpecs = Mapping[str, RenameSpec] | Literal["auto"] | None
DIFF_METRICS = ("relative_error", "cosine", "max_abs")


def bundle(
    members: Members,
    baseline: str | None = None,
    *,
    facts: Facts | None = None,
    rename: RenameSpecs = None,
) -> Bundle:
    """Hold several traces side by side, to compare what they computed.

    Nothing is compared before it is asked for. Live and loaded traces go together, of whatever framework: values are
    compared as numpy arrays.

    Args:
        members: traces by name, ``{'clean': a, 'patched': b}``; of a list the names are ``'0'``, ``'1'`` ...
        baseline: the member that others are compared with, and whose labels name the sites; without it, the first.
        facts: what is known of members, as columns of ``bundle.table()``: ``{'patched': {'layer': 3}}``.
        rename: for members whose modules have other addresses than the baseline's: what turns theirs into those, a
            mapping of beginnings ``{'port': {'encoder.layers': 'blocks'}}``, a function, or ``'auto'``, by what modules
            do and in which order. ``'auto'`` alone is meant for all.

    Raises:
        BundleError: there are no members, a name is taken twice, something is no trace.
        UnknownMember: the baseline, or somebody renamed, is no member.
    """
    return Bundle(members, baseline, facts=facts, rename=rename)


class Bundle(Mapping[str, Trace]):
    """Several traces by name.

    ``bundle['clean']`` is a member; iterating gives names, as of a dict. Which Ops belong together is worked out when
    first asked for: by label where the members ran one graph; by module call, and in it by type and order, elsewhere.

    Attributes:
        baseline: name of the member that was named so; None where none was.
        facts: what is known of each member.
        renamed: of members whose modules have other addresses, what turns these into the reference's.
    """

    def __init__(
        self,
        members: Members,
        baseline: str | None = None,
        *,
        facts: Facts | None = None,
        rename: RenameSpecs = None,
    ) -> None:
        self._members = named_traces(members)
        self._positions = {name: position for position, name in enumerate(self._members)}
        self.baseline = baseline
        if baseline is not None:
            self.position(baseline)
        self.facts = checked_facts(facts, self._members)
        self.renamed = self._renamed(rename)
        self._renames = {self.position(name): renaming(spec, self[name]) for name, spec in self.renamed.items()}
        self._matched: dict[tuple[str, str], MatchedAxes] = {}

    def _renamed(self, asked: RenameSpecs) -> dict[str, Mapping[str, str] | Rename]:
        """Of each member whose modules have other addresses, what turns them into those of the reference."""
        if isinstance(asked, str):
            asked = dict.fromkeys((name for name in self if name != self.reference), asked)
        found: dict[str, Mapping[str, str] | Rename] = {}
        for name, spec in (asked or {}).items():
            if isinstance(spec, str) and spec != "auto":
                raise OptionError(f"rename is 'auto', a mapping of beginnings or a function; got {spec!r:.80}.")
            found[name] = same_modules(self[name], self[self.reference]) if isinstance(spec, str) else spec
        return found

    # -- members ---------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Trace:
        self.position(name)
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def names(self) -> list[str]:
        """Names of the members, in order."""
        return list(self._members)

    @property
    def members(self) -> dict[str, Trace]:
        """The members by name."""
        return dict(self._members)

    @property
    def reference(self) -> str:
        """The member whose labels name the sites and that others are compared with: the baseline, else the first."""
        return self.baseline if self.baseline is not None else next(iter(self._members))

    def position(self, name: str) -> int:
        """Which member it is, from 0.

        Raises:
            UnknownMember: there is none of this name.
        """
        if not isinstance(name, str) or name not in self._positions:
            near = nearest(name, self._positions) if isinstance(name, str) else ""
            raise UnknownMember(f"The bundle has no member {name!r}.{near} It has {', '.join(self._positions)}.")
        return self._positions[name]

    # -- sites -----------------------------------------------------------------------------------------------------

    @cached_property
    def alignment(self) -> Alignment:
        """Which nodes of the members belong together."""
        traces, reference = list(self._members.values()), self.position(self.reference)
        found = part_unlike(align(traces, reference, self._renames), traces, reference)
        return join_by_value(found, traces, reference)

    @property
    def sites(self) -> Sites:
        """All sites, in the order of the reference's run: inputs, buffers, operations, outputs.

        What the reference lacks follows what ran before it in the member that has it.
        """
        return Sites(self, range(len(self.alignment)))

    @property
    def shared(self) -> Sites:
        """The sites that all members have."""
        columns = self.alignment.nodes
        return Sites(self, [n for n in range(len(self.alignment)) if all(column[n] >= 0 for column in columns)])

    @property
    def unmatched(self) -> dict[str, Sites]:
        """Of each member, the sites that it has and another member lacks."""
        columns = self.alignment.nodes
        partly = [n for n in range(len(self.alignment)) if any(column[n] < 0 for column in columns)]
        return {name: Sites(self, [n for n in partly if columns[i][n] >= 0]) for i, name in enumerate(self)}

    def at(self, site: SiteSpec) -> Site:
        """The Ops of all members at one site: a mapping from their names.

        Args:
            site: a label (of the reference; ``'patched/relu_1'`` for that of another member), a module address, a
                selector that matches one site, an Op of a member, or a number.

        Raises:
            LabelError: no member has it, or several sites are meant.
            SelectorError: the selector matches nothing.
        """
        return only(self, site)

    node = at

    def stack(self, site: SiteSpec) -> Array:
        """The values of all members at one site: an array [members, ...], of the element type that fits all.

        Where members have other layouts, the axes are those of the reference.

        Raises:
            UnlikeGraphs: a member lacks the site, or has another shape there.
            ValueNotSaved: the value of a member was not saved.
        """
        found = self.at(site)
        for name, op in found.items():
            if op is None:
                raise UnlikeGraphs(f"{name!r} lacks {found.key}. {self.where_they_part()}")
            if not op.has_saved_value:
                raise ValueNotSaved(
                    f"{found.key} was not saved in {name!r}. Run its trace again with {op.how_to_save()}."
                )
        values = list(aligned_values(found).values())
        arrays = [value.array for value in values if value.array is not None]
        if len(arrays) < len(values):
            raise BundleError(f"{found.key} cannot be stacked: {next(value.why for value in values if value.why)}.")
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(f"{name!r} {array.shape}" for name, array in zip(found, arrays, strict=True))
            raise UnlikeGraphs(f"The values at {found.key} have several shapes: {shapes}.")
        return np.stack(arrays)

    # -- how members are related -----------------------------------------------------------------------------------

    @property
    def is_structurally_consistent(self) -> bool:
        """Whether all members ran one graph: the same operations in the same order, with the same parents."""
        return all(self._parting(self.reference, name) is None for name in self)

    def _parting(self, a: str, b: str) -> Any:
        first, second = (self.alignment.graph_of[self.position(name)] for name in (a, b))
        return None if first == second else where_graphs_part(self[a], self[b])

    def relationship(self, a: str | None = None, b: str | None = None) -> Relationship:
        """What two members have in common, and where their graphs part. Arguments as of :meth:`diff`."""
        a, b = self._pair(a, b)
        left, right = (self.alignment.nodes[self.position(name)] for name in (a, b))
        both = sum(x >= 0 and y >= 0 for x, y in zip(left, right, strict=True))
        only_a, only_b = (sum(node >= 0 for node in column) - both for column in (left, right))
        renamed = {name: spec for name, spec in self.renamed.items() if name in (a, b) and isinstance(spec, Mapping)}
        parting = self._parting(a, b)
        likely = likely_names(self[b], self[a]) if parting is not None and not self.renamed else {}
        return Relationship(a, b, both, only_a, only_b, parting, renamed, likely)

    def where_they_part(self) -> str:
        """In words, where the graph of the first member that has another one parts from the reference's."""
        for name in self:
            if self._parting(self.reference, name) is not None:
                return str(self.relationship(self.reference, name))
        return f"All members have one graph of {counted(len(self.alignment), 'site')}."

    def assert_structurally_consistent(self) -> Bundle:
        """This bundle.

        Raises:
            UnlikeGraphs: its members did not run one graph; the message says where they part.
        """
        if not self.is_structurally_consistent:
            raise UnlikeGraphs(self.where_they_part())
        return self

    # -- comparing -------------------------------------------------------------------------------------------------

    def compare_at(self, sites: SitesSpec, metric: MetricSpec = "relative_error") -> Comparison:
        """One metric at one site or several.

        Args:
            sites: as of :meth:`at`, where a name or a selector may also mean several; or a list of such.
            metric: ``'relative_error'``, ``'cosine'``, ``'cka'``, ``'max_abs'``, ``'mean_abs'``, ``'mse'``; a function
                of two arrays (numpy, float64 or complex128) that returns a number; or a ``tl.Metric``.

        Returns:
            Of one site, members against members (``.matrix``, float64 [members, members]). Of several, a table with a
            row for each site, every member compared with the reference.

        Raises:
            LabelError, SelectorError: no member has such a site.
            ValueNotSaved: there are not two values to compare; the message says what to save.
            UnlikeGraphs: the one site that is meant is in one member alone.
            OptionError: there is no such metric.
        """
        return Comparison(self, find_sites(self, sites), metric_of(metric))

    def diff(
        self,
        a: str | None = None,
        b: str | None = None,
        metrics: MetricSpec | Iterable[MetricSpec] = DIFF_METRICS,
        *,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> Difference:
        """Two members at all sites, in order: a table of metrics.

        Args:
            a, b: names of members; ``a`` is the reference. One name alone is compared with the baseline (or the first
                member); none are needed in a bundle of two.
            metrics: as of :meth:`compare_at`.
            rtol, atol: what counts as equal in the column ``agrees``; by default what rounding does to the element
                type: see :meth:`first_divergence`.

        Raises:
            BundleError: there is one member, or more than two and none was named.
            ValueNotSaved: there is no site at which both values were saved.
        """
        return differences(self._pairs(a, b), metrics_of(metrics), rtol=rtol, atol=atol)

    def most_changed(
        self, k: int = 10, metric: MetricSpec = "relative_error", *, a: str | None = None, b: str | None = None
    ) -> Difference:
        """The ``k`` sites at which two members differ most. Arguments as of :meth:`diff`."""
        return self.diff(a, b, [metric]).most_changed(k)

    def divergence(
        self,
        a: str | None = None,
        b: str | None = None,
        metrics: MetricSpec | Iterable[MetricSpec] = ("relative_error", "cosine"),
        *,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> Difference:
        """How two members come apart along the depth: :meth:`diff` at the operations that both have saved.

        Its column ``depth`` is the largest number of edges from an input, in ``a``.
        """
        pairs = self._pairs(a, b)
        computed = [pair for pair in pairs if pair.is_saved and pair.left is not None and pair.left.is_compute]
        return differences(computed or pairs, metrics_of(metrics), rtol=rtol, atol=atol, depth=True)

    def first_divergence(
        self,
        rtol: float | None = None,
        atol: float | None = None,
        *,
        a: str | None = None,
        b: str | None = None,
    ) -> Divergence | None:
        """The first operation, in the order of the run, whose values differ; None where none do.

        As everything before it agrees, it is where the difference begins, if all values were saved; the result says
        what it took, where it was called, and which of its settings differ. Where the graphs differ, what one member
        alone ran is passed over, and told.

        Args:
            rtol, atol: arrays agree where ``max |a - b| <= atol + rtol * max(|a|, |b|)``, the largest elements of the
                arrays. By default, with ``eps`` that of the (coarser) element type, ``rtol = eps ** (2/3)`` (float32:
                2.4e-5) and ``atol = 0``; integers and booleans have to be equal. What two implementations round to
                next to nothing (the mean of what has mean 0) needs an ``atol``.
            a, b: names of members, as of :meth:`diff`.

        Raises:
            ValueNotSaved: there is no site at which both values were saved.
        """
        return first_divergence(self._pairs(a, b), rtol, atol)

    def draw(
        self,
        vis_outpath: str | os.PathLike[str] = "divergence",
        metric: MetricSpec = "relative_error",
        *,
        a: str | None = None,
        b: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        **options: Any,
    ) -> Drawing:
        """Draw the graph of one member, each Op coloured by how far another member is from it.

        Green is equal up to rounding; from yellow to red goes the scale of the metric, 1e-6 to 1; grey has no number,
        and a dashed outline an Op that ``b`` lacks. What ``b`` alone ran stands in the caption.

        Args:
            vis_outpath: the file, with or without its ending.
            metric: as of :meth:`compare_at`.
            a, b: names of members, as of :meth:`diff`; the graph is that of ``a``.
            rtol, atol: what counts as equal, as of :meth:`first_divergence`.
            options: of :meth:`Trace.draw`; ``node_spec_fn`` is given the coloured nodes.
        """
        from .picture import Measured, draw

        pairs = self._pairs(a, b)
        measured = Measured(pairs, metric_of(metric), rtol, atol)
        alone = [pair.right for pair in pairs if pair.left is None and pair.right is not None]
        return draw(measured, self[pairs[0].names[0]], alone, vis_outpath, options)

    def table(self, *columns: Any, metric: MetricSpec = "relative_error", **named: Any) -> Table:
        """One row a member: its facts, and what is asked for.

        Args:
            columns: each a site (as of :meth:`at`), where the member is compared with the reference; or a function of
                a Trace, whose result is shown. They are named after the site or the function.
            metric: of the comparison at sites, as of :meth:`compare_at`.
            named: the same under names of your own: ``logit=lambda trace: trace['output_1'].numpy()[0, 7]``.

        Returns:
            A table with a column ``member``, one for each fact, and those asked for.
        """
        return member_table(self, columns, metric, named)

    # -- pairs of members ------------------------------------------------------------------------------------------

    def _pair(self, a: str | None, b: str | None) -> tuple[str, str]:
        """The two members that are meant."""
        for name in (a, b):
            if name is not None:
                self.position(name)
        if a is not None and b is not None:
            return a, b
        given = a if a is not None else b
        if len(self) < 2:
            raise BundleError(f"The bundle has one member, {self.names[0]!r}: there is nothing to compare it with.")
        if given is not None and given != self.reference:
            return self.reference, given
        others = [name for name in self if name != self.reference]
        if len(others) > 1:
            raise BundleError(
                f"The bundle has {len(self)} members: say which two to compare, or which one with {self.reference!r} "
                f"({', '.join(others)})."
            )
        return self.reference, others[0]

    def _pairs(self, a: str | None, b: str | None) -> list[Pair]:
        """The two members at every site that one of them has."""
        names = self._pair(a, b)
        pairs = (self.pair(site, *names) for site in self.sites)
        return [pair for pair in pairs if pair.left is not None or pair.right is not None]

    def pair(self, site: Site, a: str, b: str) -> Pair:
        """Two members at a site."""
        return Pair(site, a, b, self.matched_axes(a, b))

    def matched_axes(self, a: str, b: str) -> MatchedAxes:
        """How the axes of ``b`` go onto those of ``a``, site by site."""
        if (a, b) not in self._matched:
            self._matched[a, b] = MatchedAxes(in_run_order([Pair(site, a, b) for site in self.sites]))
        return self._matched[a, b]

    # -- showing ---------------------------------------------------------------------------------------------------

    def summary(self) -> Table:
        """One row a member: what ran, how much of it was saved, and its facts."""
        return summary(self)

    def __repr__(self) -> str:
        return visible(f"<Bundle of {counted(len(self), 'trace')}: {', '.join(self)}>")

    def __str__(self) -> str:
        return repr(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
