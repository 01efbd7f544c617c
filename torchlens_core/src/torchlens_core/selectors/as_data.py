"""Selectors as JSON, and back: what they are made of is data, except for predicates and what is known after the run.

| | |
|---|---|
| ``{"func": "topk"}``, ``{"func": "topk", "output": 0}`` | ``func('topk')``, ``func('topk', output=0)`` |
| ``{"output": 0}`` | ``output(0)`` |
| ``{"module": "layer1.0"}``, ``{"in_module": "layer1"}`` | ``module('layer1.0')``, ``in_module('layer1')`` |
| ``{"nth": 2, "of": {...}}`` | ``selector.nth(2)`` |
| ``{"all": [...]}``, ``{"any": [...]}``, ``{"not": {...}}`` | ``a & b``, ``a | b``, ``~a`` |
| ``{"preceded_by": {...}}`` | ``preceded_by(selector)`` |
| ``{"facet": "q", "head": 3, "of": {...}}`` | ``module('attn').facet('q').head(3)``; each of the three may be missing |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_
from types import MappingProxyType
from typing import Any, Final

from ..errors import SelectorError, nearest
from .algebra import AllOf, AnyOf, Not, Nth
from .by_function import NthOutput, OfFunction, func, output
from .by_module import InModule, OfModule, in_module, module
from .by_neighbour import FollowedBy, PrecededBy, preceded_by
from .selector import Selector


def to_data(selector: Selector) -> dict[str, Any]:
    """A selector as JSON. Raises SelectorError for one that holds a Python function, or is known only after the run."""
    from ..facets.targets import AtFacet, FacetOf

    match selector:
        case AtFacet():
            return to_data(selector.facet)
        case FacetOf(of, name, head):
            fields = {"facet": name, "head": head, "of": None if of is None else to_data(of)}
            return {field: value for field, value in fields.items() if value is not None}
        case OfFunction(name, None):
            return {"func": name}
        case OfFunction(name, number):
            return {"func": name, "output": number}
        case NthOutput(key):
            return {"output": key}
        case OfModule(address):
            return {"module": address}
        case InModule(address):
            return {"in_module": address}
        case Nth(inner, number):
            return {"nth": number, "of": to_data(inner)}
        case AllOf():
            return {"all": [to_data(part) for part in _flat(selector, AllOf)]}
        case AnyOf():
            return {"any": [to_data(part) for part in _flat(selector, AnyOf)]}
        case Not(inner):
            return {"not": to_data(inner)}
        case PrecededBy(inner) if not isinstance(selector, FollowedBy):
            return {"preceded_by": to_data(inner)}
    raise SelectorError(
        f"{selector!r} cannot be written: what can be is func, module, in_module, output, preceded_by, nth, facet, "
        "head, and what &, | and ~ make of these."
    )


def _flat(selector: Selector, kind: type[AllOf | AnyOf]) -> list[Selector]:
    """The parts that an operator joins; ``a & b & c`` is a pair of a pair, from the left."""
    parts: list[Selector] = []
    while isinstance(selector, kind):
        parts.append(selector.right)
        selector = selector.left
    return [selector, *reversed(parts)]


def from_data(data: Any, path: str) -> Selector:
    """The selector that JSON says. Raises SelectorError, with the place in the JSON, for anything else."""
    parts = _count_objects(data)
    if parts > MAX_PARTS:
        raise SelectorError(f"{path}: the selector is made of {parts} others, and the limit is {MAX_PARTS}.")
    return _read(data, path)


def _count_objects(data: Any) -> int:
    found, waiting = 0, [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found += 1
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _read(data: Any, path: str) -> Selector:
    if not isinstance(data, dict):
        raise SelectorError(f"{path}: a selector is an object such as {{'func': 'relu'}}; this is {data!r:.80}.")
    for name, (fields, make) in _FORMS.items():
        if name in data and set(data) <= fields:
            try:
                return make(data, path)
            except KeyError as error:
                raise SelectorError(f"{path}: {name!r} needs {error} beside it.") from None
    known = sorted(set().union(*(fields for fields, _ in _FORMS.values())))
    unknown = sorted(map(str, set(data) - set(known)))
    raise SelectorError(
        f"{path}: no selector has the fields {sorted(data)}; one of {', '.join(_FORMS)} is what it selects by."
        + (nearest(unknown[0], known) if unknown else "")
    )


def _text(data: Any, path: str) -> str:
    if not isinstance(data, str):
        raise SelectorError(f"{path}: this is a text; it is {data!r:.80}.")
    return data


def _count(data: Any, path: str) -> int:
    if data.__class__ is not int or data < 0:
        raise SelectorError(f"{path}: this is a number from 0; it is {data!r:.80}.")
    return int(data)


def _several(data: Any, path: str, join: Callable[[Selector, Selector], Selector]) -> Selector:
    if not isinstance(data, list) or len(data) < 2:
        raise SelectorError(f"{path}: these are two selectors or more, in a list; it is {data!r:.80}.")
    return reduce(join, [_read(part, f"{path}[{number}]") for number, part in enumerate(data)])


def _function(data: Mapping[str, Any], path: str) -> Selector:
    number = _count(data["output"], f"{path}.output") if "output" in data else None
    return func(_text(data["func"], f"{path}.func"), output=number)


def _output(data: Mapping[str, Any], path: str) -> Selector:
    key, path = data["output"], f"{path}.output"
    return output(key if isinstance(key, str) else _count(key, path))


def _facet(data: Mapping[str, Any], path: str) -> Selector:
    from ..facets.targets import facet, head

    parts = [_read(data["of"], f"{path}.of")] if "of" in data else []
    parts += [facet(_text(data["facet"], f"{path}.facet"))] if "facet" in data else []
    parts += [head(_head(data["head"], f"{path}.head"))] if "head" in data else []
    return reduce(and_, parts)


def _head(data: Any, path: str) -> int:
    if data.__class__ is not int:
        raise SelectorError(f"{path}: this is the number of a head; it is {data!r:.80}.")
    return int(data)


MAX_PARTS: Final = 200  # they are asked one inside the other
Make = Callable[[Mapping[str, Any], str], Selector]
_FORMS: Final[Mapping[str, tuple[frozenset[str], Make]]] = MappingProxyType(
    {
        "func": (frozenset({"func", "output"}), _function),
        "output": (frozenset({"output"}), _output),
        "module": (frozenset({"module"}), lambda d, p: module(_text(d["module"], f"{p}.module"))),
        "in_module": (frozenset({"in_module"}), lambda d, p: in_module(_text(d["in_module"], f"{p}.in_module"))),
        "nth": (frozenset({"nth", "of"}), lambda d, p: _read(d["of"], f"{p}.of").nth(_count(d["nth"], f"{p}.nth"))),
        "facet": (frozenset({"facet", "head", "of"}), _facet),
        "head": (frozenset({"head", "of"}), _facet),
        "all": (frozenset({"all"}), lambda d, p: _several(d["all"], f"{p}.all", and_)),
        "any": (frozenset({"any"}), lambda d, p: _several(d["any"], f"{p}.any", or_)),
        "not": (frozenset({"not"}), lambda d, p: ~_read(d["not"], f"{p}.not")),
        "preceded_by": (
            frozenset({"preceded_by"}),
            lambda d, p: preceded_by(_read(d["preceded_by"], f"{p}.preceded_by")),
        ),
    }
)
