"""``bundle.compare_at(...)``: how far apart the members are at one site, or at many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BundleError, UnlikeGraphs, ValueNotSaved
from ..show.quantities import counted
from .metrics import Array, Metric, Reading
from .pair import aligned_values
from .sites import Site
from .table import Table
from .values import in_float64

if TYPE_CHECKING:
    from .bundle import Bundle


class Comparison(Table):
    """One metric at one site or several.

    Of one site it is a table of members against members, each row a reference; of several it has one row a site and
    one column a member, each compared with the bundle's reference. Where there is no number it says why, in ``note``.

    Attributes:
        sites: the sites, in the order of the rows.
        metric: what was measured.
    """

    def __init__(self, bundle: Bundle, sites: Sequence[Site], metric: Metric) -> None:
        self.sites = list(sites)
        self.metric = metric
        self._names = bundle.names
        self._readings: dict[int, dict[tuple[str, str], Reading]] = {}  # site -> the metric for every pair of members
        if len(bundle) < 2:
            raise BundleError("The bundle has one member: there is nothing to compare it with.")
        if len(self.sites) == 1:
            title, columns, rows = self._of_one_site(self.sites[0])
        else:
            title, columns, rows = self._of_many_sites(bundle.reference)
        super().__init__(title, columns, rows)

    # -- one site --------------------------------------------------------------------------------------------------

    def _of_one_site(self, site: Site) -> tuple[str, list[str], list[dict[str, Any]]]:
        values = aligned_values(site)
        if sum(value.array is not None for value in values.values()) < 2:
            raise self._too_few(site, [value.why for value in values.values() if value.why])
        readings = self._pairs(0)
        rows = []
        for name in self._names:
            row: dict[str, Any] = {other: readings[name, other].value for other in self._names}
            note = _notes(readings[name, other].why for other in self._names)
            rows.append({"member": name, **row, "note": note})
        columns = ["member", *self._names, *(["note"] if any(row["note"] for row in rows) else [])]
        return f"{self.metric.name} at {site.key}", columns, rows

    def _too_few(self, site: Site, why: Sequence[str]) -> Exception:
        """The error for a site at which there are not two values to compare."""
        unsaved = [(name, op) for name, op in site.ops.items() if not op.has_saved_value]
        if unsaved:
            how = unsaved[0][1].how_to_save()
            return ValueNotSaved(
                f"At {site.key} there are not two values to compare: {'; '.join(why)}. "
                f"Run the trace of {' and '.join(repr(name) for name, _ in unsaved)} again with {how}."
            )
        if not site.is_shared:
            parts = site.bundle.where_they_part()
            return UnlikeGraphs(f"At {site.key} there are not two values to compare: {'; '.join(why)}. {parts}")
        return ValueNotSaved(f"At {site.key} there are not two values to compare: {'; '.join(why)}.")

    # -- many sites ------------------------------------------------------------------------------------------------

    def _of_many_sites(self, reference: str) -> tuple[str, list[str], list[dict[str, Any]]]:
        if all(not op.has_saved_value for site in self.sites for op in site.ops.values()):
            raise self._too_few(self.sites[0], [f"not saved in {name}" for name in self._names])
        others = [name for name in self._names if name != reference]
        rows = []
        for site in self.sites:
            readings = _against(site, reference, others, self.metric)
            numbers = {name: reading.value for name, reading in readings.items()}
            note = _notes(reading.why for reading in readings.values())
            rows.append({"site": site.key, "where": site.where, **numbers, "note": note})
        columns = ["site", "where", *others, *(["note"] if any(row["note"] for row in rows) else [])]
        return f"{self.metric.name} against {reference!r}, at {counted(len(rows), 'site')}", columns, rows

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _pairs(self, index: int) -> dict[tuple[str, str], Reading]:
        if index not in self._readings:
            self._readings[index] = _pairwise(self.sites[index], self.metric)
        return self._readings[index]

    @cached_property
    def matrices(self) -> Array:
        """The metric for every pair of members at every site: float64 [sites, members, members].

        ``[i, j, k]`` takes member ``j`` as the reference of member ``k``; NaN where there is no number.
        """
        made = np.full((len(self.sites), len(self._names), len(self._names)), np.nan)
        for index in range(len(self.sites)):
            for (row, column), reading in self._pairs(index).items():
                if reading.value is not None:
                    made[index, self._names.index(row), self._names.index(column)] = reading.value
        return made

    @property
    def matrix(self) -> Array:
        """The metric for every pair of members at the one site: float64 [members, members].

        Raises:
            BundleError: there are several sites.
        """
        if len(self.sites) != 1:
            raise BundleError(
                f"There are {len(self.sites)} sites, each with a matrix of its own: comparison.matrices[i], or "
                "compare_at with one site."
            )
        found: Array = self.matrices[0]
        return found


def _pairwise(site: Site, metric: Metric) -> dict[tuple[str, str], Reading]:
    """The metric for every pair of members, those without a value too."""
    values = aligned_values(site)
    wide = {name: in_float64(value.array) for name, value in values.items() if value.array is not None}
    readings: dict[tuple[str, str], Reading] = {}
    for row in values:
        for column in values:
            if (column, row) in readings and metric.symmetric:
                readings[row, column] = readings[column, row]
            elif row in wide and column in wide:
                readings[row, column] = metric.read(wide[row], wide[column])
            else:
                readings[row, column] = Reading(None, values[row if row not in wide else column].why)
    return readings


def _against(site: Site, reference: str, others: Sequence[str], metric: Metric) -> dict[str, Reading]:
    """The metric for each member against the reference."""
    return {name: site.bundle.pair(site, reference, name).read().measure(metric) for name in others}


def _notes(reasons: Any) -> str | None:
    """Reasons, each once."""
    return "; ".join(dict.fromkeys(filter(None, reasons))) or None
