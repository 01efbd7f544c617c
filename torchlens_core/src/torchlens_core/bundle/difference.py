"""``bundle.diff(...)``: two members, site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OptionError, nearest
from ..show.quantities import counted
from .metrics import Metric
from .pair import Pair, check_saved
from .sites import Site
from .table import Table


class Difference(Table):
    """Metrics of the difference between two members, one row a site.

    Columns are ``site``; the label in ``b`` where it is another; ``where`` in the model; ``axes``, the order in which
    those of ``b`` were taken, where it is another; one for each metric, with ``a`` as reference; ``agrees``, whether
    the values are equal within the tolerance (None where they cannot be compared); and ``note``, why there is no number
    or what is to be known of the axes.

    Attributes:
        a, b: names of the members.
        sites: the sites, in the order of the rows.
        metrics: what was measured.
    """

    def __init__(
        self,
        pair: tuple[str, str],
        title: str,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        sites: Sequence[Site],
        metrics: Sequence[Metric],
    ) -> None:
        super().__init__(title, columns, rows)
        self.a, self.b = pair
        self.sites = list(sites)
        self.metrics = tuple(metrics)

    @property
    def changed(self) -> Difference:
        """The sites whose values differ by more than rounding, in order."""
        return self._part(f"{self.title}: changed", [n for n, row in enumerate(self.rows) if row["agrees"] is False])

    @property
    def unmatched(self) -> Difference:
        """The sites that one of the two lacks."""
        lacking = [n for n, site in enumerate(self.sites) if site[self.a] is None or site[self.b] is None]
        return self._part(f"{self.title}: in one alone", lacking)

    def most_changed(self, k: int = 10, metric: str | None = None) -> Difference:
        """The ``k`` sites at which a metric (by default the first column) is furthest from that of equal values.

        What has a NaN on one side alone comes first. Sites that differ in nothing, and such without a number, are
        left out.
        """
        chosen = self._metric(metric)
        changes = [chosen.change(row[chosen.name]) for row in self.rows]
        order = sorted((n for n, change in enumerate(changes) if change > 0), key=lambda n: -changes[n])
        return self._part(f"{self.title}: most changed by {chosen.name}", order[:k])

    def _metric(self, name: str | None) -> Metric:
        by_name = {metric.name: metric for metric in self.metrics}
        if name is not None and name not in by_name:
            raise OptionError(
                f"The table has no metric {name!r}.{nearest(name, by_name)} It has {', '.join(by_name)}; "
                "diff(metrics=[...]) measures others."
            )
        return self.metrics[0] if name is None else by_name[name]

    def _part(self, title: str, numbers: Sequence[int]) -> Difference:
        rows, sites = [self.rows[n] for n in numbers], [self.sites[n] for n in numbers]
        return Difference((self.a, self.b), title, self.columns, rows, sites, self.metrics)


def differences(
    pairs: Sequence[Pair],
    metrics: Sequence[Metric],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    depth: bool = False,
) -> Difference:
    """Measure the same two members at sites, at least one, that at least one of the two has.

    Args:
        depth: whether there is a column with the most edges from any input to the Op of ``a``.

    Raises:
        ValueNotSaved: they share sites, and have two values at none of them.
    """
    check_saved(pairs)
    names = pairs[0].names
    other = f"label in {names[1]}"
    rows = []
    for pair in pairs:
        values = pair.read()
        readings = {metric.name: values.measure(metric) for metric in metrics}
        notes = dict.fromkeys(reading.why for reading in readings.values() if reading.why)
        notes |= {values.axes.note: None} if values.axes is not None and values.axes.note else {}
        rows.append(
            {
                "site": pair.site.key,
                other: pair.other_label,
                "where": pair.site.where,
                "depth": None if pair.left is None else pair.left.max_distance_from_input,
                "axes": (values.axes and str(values.axes)) or None,
                **{name: reading.value for name, reading in readings.items()},
                "agrees": values.agree(rtol, atol),
                "note": "; ".join(notes) or None,
            }
        )
    columns = ["site", *_if_any(rows, other), "where", *(["depth"] if depth else []), *_if_any(rows, "axes")]
    columns += [*(metric.name for metric in metrics), "agrees", *_if_any(rows, "note")]
    title = f"{names[0]!r} against {names[1]!r}, {counted(len(rows), 'site')}"
    return Difference(names, title, columns, rows, [pair.site for pair in pairs], metrics)


def _if_any(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """The column where one of the rows has something in it."""
    return [column] if any(row[column] is not None for row in rows) else []
