"""The runs of a sweep: every site with every value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InterventionError, OptionError
from ..interventions.action import Action, as_action
from ..interventions.replacing import replace_with
from ..interventions.target import Target
from ..interventions.when import When
from ..records.op import Op
from ..records.trace import Trace
from ..selectors import Selector, label
from .attached import attach, setting
from .places import places, targets

if TYPE_CHECKING:
    from ..backend import Arrays


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: of the member.
        facts: ``site`` and ``value``, as they stand in the table.
        whens: the changes.
    """

    name: str
    facts: dict[str, Any]
    whens: tuple[When, ...]


def grid(baseline: Trace, at: Any, values: Any, action: Any, param: str | None, names: Any) -> list[Run]:
    """The runs: the values of the first site, then of the next. Arguments as of :func:`~.sweep.sweep`."""
    sites, given = _sites(at), _values(values, baseline)
    make = _maker(action, param)
    if not sites or not given:
        raise OptionError("A sweep takes at least one site and one value.")
    pairs = [(site, value) for site in sites for value in given]
    labels = _names(names, pairs, len(sites), len(given))
    return [
        Run(name, {"site": site, "value": value}, _whens(baseline, sites[site], given[value], make))
        for name, (site, value) in zip(labels, pairs, strict=True)
    ]


def _sites(at: Any) -> dict[Any, Any]:
    if isinstance(at, Mapping):
        return dict(at)
    if isinstance(at, str | Selector | Target | Op) or not isinstance(at, Iterable):
        at = [at]
    return {
        (site if isinstance(site, str) else site.label if isinstance(site, Op) else repr(site)): site for site in at
    }


def _values(values: Any, baseline: Trace) -> dict[Any, Any]:
    if isinstance(values, Mapping) and not isinstance(values, Trace):
        return dict(values)
    if isinstance(values, Trace | Action) or callable(values):
        values = [values]
    is_array = baseline.backend is not None and baseline.backend.arrays.is_array(values)
    if is_array or isinstance(values, str) or not isinstance(values, Iterable):
        raise OptionError(
            f"values= is a list of values, or {{name: value}}; got {values!r:.80}. One value: values=[value]."
        )
    named: dict[Any, Any] = {}
    for number, value in enumerate(values):
        name = _text(value)
        named[f"{name} #{number}" if name in named else name] = value
    return named


def _text(value: Any) -> Any:
    """A value as it stands in the table: numbers and texts as they are."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0 and not hasattr(value, "device"):
        value = value.item()  # a number of numpy's
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Trace):
        return value.name
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<array {tuple(shape)}>"
    return repr(value) if isinstance(value, Action) else getattr(value, "__name__", repr(value))


def _maker(action: Any, param: str | None) -> Callable[[Any], Any]:
    """What makes of a value what is put at a site."""
    if action is None:
        if param is not None:
            raise OptionError(f"param={param!r} names an argument of action=, which was not given.")
        return lambda value: value
    if isinstance(action, Action) or not callable(action):
        raise OptionError(f"action= makes an action of each value: tl.scale, not tl.scale(...); got {action!r}.")
    return lambda value: as_action(action(value) if param is None else action(**{param: value}))


def _names(names: Any, pairs: list[tuple[Any, Any]], num_sites: int, num_values: int) -> list[str]:
    if names is not None:
        given = [str(name) for name in names]
        if len(given) != len(pairs) or len(set(given)) < len(given):
            raise OptionError(f"names= gives each of the {len(pairs)} runs a name of its own; got {given!r:.80}.")
        return given
    texts = [
        str(site) if num_values == 1 else str(value) if num_sites == 1 else f"{site} {value}" for site, value in pairs
    ]
    texts = [text.replace("/", "|") or "-" for text in texts]
    seen: Counter[str] = Counter({"baseline": 1})
    unique = []
    for text in texts:
        seen[text] += 1
        unique.append(text if seen[text] == 1 else f"{text} #{seen[text]}")
    return unique


def _whens(baseline: Trace, site: Any, value: Any, make: Callable[[Any], Any]) -> tuple[When, ...]:
    value = make(value)
    if isinstance(value, Trace):
        return _patch(baseline, site, value)
    if isinstance(value, Action):
        return attach(baseline, site, [value]).whens
    return setting(baseline, site, value).whens


def _patch(baseline: Trace, site: Any, clean: Trace) -> tuple[When, ...]:
    """What is at the same site of another trace, in the place of what is there."""
    assert baseline.backend is not None
    arrays = baseline.backend.arrays
    whens: list[When] = []
    for target in targets(baseline, site):
        found = places(baseline, target.selector)
        for place in found:
            op = Op(baseline, place.node)
            part = target.get(_value(clean, op, arrays), arrays)
            own = target if len(found) == 1 else Target(label(op.label), target.views)
            whens.append(When(own, replace_with(part)))
    return tuple(whens)


def _value(clean: Trace, op: Op, arrays: Arrays) -> Any:
    other = clean.lookup.by_name(op.label)
    if not isinstance(other, Op) or other.shape != op.shape:
        raise InterventionError(
            f"{op.label} of shape {op.shape} cannot be given what {clean.name!r} has there ({other!r}): the two ran "
            "different operations, or inputs of different shapes."
        )
    value = other.out
    return value if arrays.is_array(value) else arrays.from_numpy(value)
