"""``bundle.table(...)`` and the summary: one row a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..selectors import Selector
from ..show.quantities import counted
from .metrics import MetricSpec, metric_of
from .table import Table

if TYPE_CHECKING:
    from .bundle import Bundle


def member_table(bundle: Bundle, columns: Sequence[Any], metric: MetricSpec, named: Mapping[str, Any]) -> Table:
    """The facts on each member, and one more column for each site or function."""
    facts = dict.fromkeys(name for told in bundle.facts.values() for name in told)
    asked = {_name(bundle, spec): spec for spec in columns} | dict(named)
    made = {name: _column(bundle, spec, metric) for name, spec in asked.items()}
    rows: list[dict[str, Any]] = [
        {"member": name, **bundle.facts[name], **{column: values[name] for column, values in made.items()}}
        for name in bundle
    ]
    return Table(counted(len(bundle), "member"), ["member", *(name for name in facts if name not in made), *made], rows)


def _name(bundle: Bundle, spec: Any) -> str:
    return str(getattr(spec, "__name__", repr(spec))) if _is_function(spec) else bundle.at(spec).key


def _column(bundle: Bundle, spec: Any, metric: MetricSpec) -> dict[str, Any]:
    """Of each member what a function returns, or how far it is from the reference at a site."""
    if _is_function(spec):
        return {name: spec(trace) for name, trace in bundle.items()}
    site, measured = bundle.at(spec), metric_of(metric)
    return {name: bundle.pair(site, bundle.reference, name).read().measure(measured).value for name in bundle}


def _is_function(spec: Any) -> bool:
    return callable(spec) and not isinstance(spec, Selector)


def summary(bundle: Bundle) -> Table:
    """What ran in each member, how much of it was saved, and its facts."""
    rows = [
        {
            "member": f"{name} (baseline)" if name == bundle.baseline else name,
            "model": trace.model_name,
            "backend": trace.backend_name,
            "ops": trace.num_ops,
            "saved": trace.num_saved_ops,
            **bundle.facts[name],
        }
        for name, trace in bundle.items()
    ]
    columns = dict.fromkeys(column for row in rows for column in row)
    return Table(f"{counted(len(bundle), 'trace')}. {_state(bundle)}", list(columns), rows)


def _state(bundle: Bundle) -> str:
    if bundle.is_structurally_consistent:
        return f"One graph of {counted(len(bundle.sites), 'site')}."
    return f"{counted(len(bundle.shared), 'shared site')} of {len(bundle.sites)}. {bundle.where_they_part()}"
