"""The result of one run: what ran, indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import LabelError
from ..selectors import LABEL_PATTERN, Selector
from .op import Op
from .selection import Selection
from .trace_facts import TraceFacts
from .trace_gradients import TraceGradients
from .trace_steering import TraceSteering

if TYPE_CHECKING:
    from ..diagnosis.extent import Which
    from ..diagnosis.nonfinite import NonFinite, NonFinites
    from ..draw import Drawing


class Trace(TraceFacts, TraceGradients, TraceSteering):
    """Every operation of one run of a model, with its output, its place in the graph and in the module tree.

    ``trace[key]`` finds Ops by position, label, module address or selector; iterating gives inputs, compute Ops and
    outputs in the order they ran. What is derived (labels, layers, distances, costs) is worked out when asked for.
    """

    # -- looking up ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: int | slice | str | Selector) -> Any:
        if isinstance(key, bool) or not isinstance(key, int | slice | str | Selector):
            raise LabelError(f"trace[...] takes an integer, a slice, a name or a selector; got {key!r}.")
        if isinstance(key, int):
            return self.lookup.by_position(key)
        if isinstance(key, slice):
            return [Op(self, node) for node in self.structure.listed[key]]
        if isinstance(key, Selector):
            return self.find_sites(key).one()
        return self.lookup.by_name(key)

    def __contains__(self, key: object) -> bool:
        if isinstance(key, Op):
            return key.trace is self and key.ordinal_index is not None
        if not isinstance(key, str):
            return False
        try:
            self.lookup.by_name(key)
        except LabelError:
            return False
        return True

    def find_sites(self, query: Selector | str) -> Selection:
        """The Ops that match a selector, or that a name means."""
        if isinstance(query, str):
            from ..selectors import label, module

            is_module = query in self.modules or query in self.modules.calls
            query = label(query) if LABEL_PATTERN.match(query) and not is_module else module(query)
        self.numbers.clear()
        hidden = self.structure.hidden
        sites = (Op(self, node) for node in range(len(self.graph)) if not hidden[node])
        return Selection(query, [op for op in sites if query.matches(op)])

    def number_among(self, selector: Selector, node: int) -> int:
        """Which match of a selector a node is, in the order of the run and from 1; 0 where it is none."""
        numbers = self.numbers.get(selector)
        if numbers is None:
            matching = (node for node in range(len(self.graph)) if selector.matches(Op(self, node)))
            numbers = self.numbers[selector] = {node: number for number, node in enumerate(matching, start=1)}
        return numbers.get(node, 0)

    # -- diagnosis -------------------------------------------------------------------------------------------------

    def first_nonfinite(self, which: Which = "nonfinite") -> NonFinite | None:
        """The first Op whose kept value has a NaN or an infinity, and what its call took; None where there is none.

        Args:
            which: ``'nan'``, ``'inf'``, or both. Attention masks hold ``-inf`` on purpose: there, look for ``'nan'``.

        Raises:
            ValueNotSaved: no floating-point value was kept.
        """
        from ..diagnosis.nonfinite import Finder

        return next(Finder(self, which).found(), None)

    def nonfinite(self, which: Which = "nonfinite") -> NonFinites:
        """All Ops whose kept value has a NaN or an infinity, in the order they ran; prints as a table."""
        from ..diagnosis.nonfinite import Finder, NonFinites

        return NonFinites(Finder(self, which).found())

    # -- showing and keeping ---------------------------------------------------------------------------------------

    def summary(self, level: str = "overview") -> str:
        """A table of the top-level modules, and totals. Other levels: :func:`torchlens_core.show.summary.summary`."""
        from ..show.summary import summary

        return summary(self, level)

    def show_call_tree(self, depth: int | None = None) -> str:
        """The module calls as a tree, with their durations; ``depth`` levels of it."""
        from ..show.call_tree import call_tree

        return call_tree(self, depth)

    def to_pandas(self) -> Any:
        """A data frame with one row an Op."""
        return self.ops.to_pandas()

    def draw(self, *args: Any, **options: Any) -> Drawing:
        """Draw the graph. See :func:`torchlens_core.draw.draw` for the options."""
        from ..draw import draw

        return draw(self, *args, **options)

    def save(self, path: Any, **options: Any) -> Any:
        """Write a trace file. See :func:`torchlens.save` for the options."""
        from ..file import save

        return save(self, path, **options)

    def _brief(self) -> str:
        state = "halted" if self.halted else "partial" if self.is_partial else "complete"
        return (
            f"<Trace of {self.model_name} ({self.backend_name}): {self.num_ops} ops, {self.num_layers} layers, {state}>"
        )

    def __str__(self) -> str:
        from ..show.text import describe_trace

        return describe_trace(self)

    def _repr_html_(self) -> str:
        from ..show.html import trace_html

        return trace_html(self)
