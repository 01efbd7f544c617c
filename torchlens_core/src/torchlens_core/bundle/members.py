"""What a bundle is made of: named traces, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import BundleError, nearest
from ..records.trace import Trace

Facts = Mapping[str, Mapping[str, Any]]
_TAKEN = ("member", "site", "where", "note")
Members = Mapping[str, Trace] | Iterable[Trace] | Iterable[tuple[str, Trace]]


def named_traces(given: Members) -> dict[str, Trace]:
    """The traces by name; those of a plain list are called ``'0'``, ``'1'`` ...

    Raises:
        BundleError: there are none, a name is taken twice or is no text, or something is no Trace.
    """
    if isinstance(given, Trace) or not isinstance(given, Iterable):
        raise BundleError(
            "A bundle takes a mapping of names to traces, {'clean': a, 'patched': b}, or a list of traces; "
            f"got {given!r:.80}."
        )
    pairs = list(given.items()) if isinstance(given, Mapping) else [_pair(n, item) for n, item in enumerate(given)]
    if not pairs:
        raise BundleError("A bundle has at least one member; got none.")
    named: dict[str, Trace] = {}
    for name, trace in pairs:
        if not isinstance(name, str) or not name or "/" in name:
            raise BundleError(f"The name of a member is a text without '/'; got {name!r:.80}.")
        if name in _TAKEN:
            raise BundleError(f"A member cannot be called {name!r}: tables have a column of that name.")
        if name in named:
            raise BundleError(f"Two members are called {name!r}: names tell them apart.")
        if not isinstance(trace, Trace):
            raise BundleError(
                f"The member {name!r} is no Trace but of type {type(trace).__name__}. "
                "tl.trace(model, x) makes traces, tl.load(path) reads them."
            )
        named[name] = trace
    return named


def _pair(number: int, item: Any) -> tuple[Any, Any]:
    return item if isinstance(item, tuple) and len(item) == 2 else (str(number), item)


def checked_facts(facts: Facts | None, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is known of each member, an empty dict of those of which nothing is.

    Raises:
        BundleError: facts are told of somebody who is no member, or are no mapping.
    """
    known = {name: dict[str, Any]() for name in names}
    for name, told in (facts or {}).items():
        if name not in known:
            raise BundleError(f"There are facts on {name!r}, who is no member.{nearest(str(name), known)}")
        if not isinstance(told, Mapping):
            raise BundleError(f"The facts on {name!r} are a mapping, such as {{'layer': 3}}; got {told!r:.80}.")
        if "member" in told:
            raise BundleError(f"A fact on {name!r} is called 'member': tables have a column of that name.")
        known[name] = dict(told)
    return known
