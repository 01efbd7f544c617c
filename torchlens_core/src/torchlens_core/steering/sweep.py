"""``tl.sweep``: one run of a model for each site and each value, as a table and as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle, Table
from ..errors import OptionError
from .grid import Run, grid
from .measures import measures
from .sweeping import Sweeper

if TYPE_CHECKING:
    from ..bundle.metrics import MetricSpec
    from ..plan import SaveSpec
    from ..records.trace import Trace

BASELINE = "baseline"


def sweep(
    model: Any,
    x: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    at: Any,
    values: Any,
    action: Any = None,
    param: str | None = None,
    names: Any = None,
    batched: bool | int = False,
    metric: Any = None,
    save: SaveSpec | None = None,
    progress: bool = False,
    backend: str | None = None,
) -> Sweep:
    """Run a model once for each site and each value put there, and once as it is.

    The model runs once; what follows from each change is replayed from there. Where a replay cannot tell (the model
    takes another path, or computes what cannot be replayed), the model itself runs again. The model, its arguments and
    the generators are left as they were.

    Args:
        model, x, kwargs: as ``model``, ``args`` and ``kwargs`` of ``tl.trace``.
        at: a site (an address, a label, a selector, a part of what one selects: ``tl.module('h.3').at[:, 5]``), a list
            of sites, or ``{name: site}``. A selector that matches several Ops is one site: all are changed.
        values: a list of values, or ``{name: value}``: arrays or numbers to put there, actions, functions of the value
            that is there; with ``action`` its settings. A Trace gives what is at the same site there (patching), and
            can stand alone.
        action: makes an action of each value: ``action=tl.scale, values=[0, 0.5, 1]``.
        param: which argument of ``action`` the values are, by name; by default the first.
        names: names of the runs, in order: the values of one site, then of the next.
        batched: run several at once, stacked along axis 0, which has to be the batch for everything the model computes:
            True for all, or how many at a time. The first is compared with a run by itself. Takes a ``metric``, and
            keeps no traces.
        metric: a function of what the model returned (``lambda out: out[0, 7]``), of the trace where its first
            parameter is called ``trace``, or ``{name: function}``. Its results are columns of the table.
        save: what the members of the bundle keep, as of ``tl.trace``. By default everything; with ``metric`` the runs
            are not kept at all, unless this is given.
        progress: show a progress bar.
        backend: name of the framework's backend.

    Returns:
        A bundle of the runs, with ``'baseline'``; ``.table()`` has one row a run: ``site``, ``value``, metrics.

    Raises:
        InterventionError: a site never ran, or a value does not fit there.
        SweepError: with ``batched``, the batched run does not give what a run by itself gives.
        OptionError: the arguments do not go together.
    """
    if batched and metric is None:
        raise OptionError("batched=True keeps no traces: say with metric= what is to be measured of each run.")
    measured = measures(metric)
    keeps = (metric is None or save not in (None, False)) and not batched
    sweeper = Sweeper(model, x, kwargs, backend, measured, save=save, keeps=keeps, progress=progress)
    with sweeper:
        runs = grid(sweeper.baseline, at, values, action, param, names)
        results = sweeper.batched(runs, batched) if batched else sweeper.one_by_one(runs)
    facts = {BASELINE: sweeper.of_baseline} | {run.name: {**run.facts, **result.measured} for run, result in results}
    members = {BASELINE: sweeper.baseline} | {
        run.name: result.trace for run, result in results if result.trace is not None
    }
    return Sweep(members, [(run, facts[run.name]) for run, _ in results], facts[BASELINE], list(measured))


class Sweep(Bundle):
    """The runs of a sweep: a bundle of those that were kept, and a table of all.

    ``sweep['relu_1 0.5']`` is a run, ``sweep['baseline']`` the one without a change.

    Attributes:
        metrics: names of what was measured.
        of_baseline: what was measured of the run without a change.
    """

    def __init__(
        self,
        members: Mapping[str, Trace],
        runs: list[tuple[Run, dict[str, Any]]],
        of_baseline: Mapping[str, Any],
        metrics: list[str],
    ) -> None:
        facts = {run.name: noted for run, noted in runs if run.name in members}
        super().__init__(members, BASELINE, facts={**facts, BASELINE: of_baseline})
        self._runs = runs
        self.of_baseline = dict(of_baseline)
        self.metrics = metrics

    @cached_property
    def runs(self) -> Table:
        """One row a run: its name, site and value, and what was measured."""
        rows = [{"run": run.name, **noted} for run, noted in self._runs]
        return Table(f"Sweep of {len(rows)} runs", ["run", "site", "value", *self.metrics], rows)

    def table(self, *columns: Any, metric: MetricSpec = "relative_error", **named: Any) -> Table:
        """One row a run; with arguments one row a member that was kept, as of ``Bundle.table``."""
        return super().table(*columns, metric=metric, **named) if columns or named else self.runs

    def to_pandas(self) -> Any:
        """A data frame with one row a run."""
        return self.runs.to_pandas()

    def __str__(self) -> str:
        return repr(self.runs)

    def _repr_html_(self) -> str:
        return self.runs._repr_html_()
