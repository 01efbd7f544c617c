"""Selectors: which Ops to save, stop at, or change. Values that combine with ``&``, ``|`` and ``~``.

A selector is asked about a *site*: an Op of a finished trace, or one that is about to be (:class:`LiveSite`), of which
less is known. ``matches(site)`` answers True, False, or None: *not known yet*. What a selector ``reads`` tells the
planner when it can be answered: ``func`` and ``scope`` once for each pair of function and module call, the rest for
each Op.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .errors import SelectorError, nearest
from .vocabulary import canonical_type

if TYPE_CHECKING:
    from .records.selection import Selection
    from .records.trace import Trace

STATIC: Final = frozenset({"func", "scope"})  # the same for all calls of a function in all calls of a module
LABEL_PATTERN: Final = re.compile(r"(?P<type>[a-z0-9]+?)_(?P<k>\d+)(?:_(?P<total>\d+))?(?::(?P<pass>\d+))?$")


class NotYetKnown(Exception):
    """Raised by a live site that is asked what only a finished trace knows."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a model can have, for checks before the run."""

    modules: frozenset[str]
    has_function: Callable[[str], bool]
    functions: Callable[[], frozenset[str]]


class Selector(ABC):
    """Base of all selectors."""

    reads: frozenset[str]  # of: func, scope, call, index, count, value, parents, output_of, children, label

    @abstractmethod
    def matches(self, site: Any) -> bool | None:
        """True, False, or None where the site cannot tell yet."""

    def check(self, names: Names) -> None:  # noqa: B027  (most selectors name nothing)
        """Raise SelectorError where the selector names what the model cannot have."""

    def parts(self) -> Iterator[Selector]:
        """This selector and all those it is made of."""
        yield self

    def __call__(self, site: Any) -> bool:
        """Whether one Op of a finished trace matches."""
        return bool(self.matches(site))

    def __and__(self, other: Selector) -> Selector:
        return _All(_selector(self), _selector(other))

    def __or__(self, other: Selector) -> Selector:
        return _Any(_selector(self), _selector(other))

    def __invert__(self) -> Selector:
        return _Not(self)

    def __bool__(self) -> bool:
        raise SelectorError(f"{self!r} is neither true nor false: combine selectors with & | ~, not with and/or/not.")

    def nth(self, number: int) -> Selector:
        """The ``number``-th match in the order of the run, from 1; works while the model runs, where labels do not."""
        return _Nth(self, number)

    def sites(self, trace: Trace) -> Selection:
        """The Ops of a trace that match."""
        return trace.find_sites(self)

    def count(self, trace: Trace) -> int:
        """How many Ops of a trace match."""
        return len(self.sites(trace))

    def show(self, trace: Trace) -> str:
        """A table of the matching Ops of a trace."""
        return self.sites(trace).show()


def _selector(value: Any) -> Selector:
    if not isinstance(value, Selector):
        raise SelectorError(f"Selectors combine with selectors; got {value!r}. Wrap a function in tl.where(...).")
    return value


# -- the algebra -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=True)
class _Pair(Selector):
    left: Selector
    right: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.left.reads | self.right.reads)

    def check(self, names: Names) -> None:
        self.left.check(names)
        self.right.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.left.parts()
        yield from self.right.parts()


class _All(_Pair):
    def matches(self, site: Any) -> bool | None:
        left = self.left.matches(site)
        if left is False:
            return False
        right = self.right.matches(site)
        return False if right is False else None if left is None or right is None else True

    def __repr__(self) -> str:
        return f"({self.left!r} & {self.right!r})"


class _Any(_Pair):
    def matches(self, site: Any) -> bool | None:
        left = self.left.matches(site)
        if left is True:
            return True
        right = self.right.matches(site)
        return True if right is True else None if left is None or right is None else False

    def __repr__(self) -> str:
        return f"({self.left!r} | {self.right!r})"


@dataclass(frozen=True)
class _Not(Selector):
    inner: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.inner.reads)

    def matches(self, site: Any) -> bool | None:
        result = self.inner.matches(site)
        return None if result is None else not result

    def check(self, names: Names) -> None:
        self.inner.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.inner.parts()

    def __repr__(self) -> str:
        return f"~{self.inner!r}"


@dataclass(frozen=True)
class _Nth(Selector):
    inner: Selector
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise SelectorError(f"nth() counts from 1; got {self.number}.")
        if late := self.inner.reads & {"label", "children", "output_of"}:
            raise SelectorError(
                f"{self.inner!r} is answered too late to be counted as the model runs ({sorted(late)})."
            )
        object.__setattr__(self, "reads", self.inner.reads | {"count"})

    def matches(self, site: Any) -> bool | None:
        number = site.number_among(self.inner)
        return None if number is None else bool(number == self.number)

    def check(self, names: Names) -> None:
        self.inner.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.inner.parts()

    def __repr__(self) -> str:
        return f"{self.inner!r}.nth({self.number})"


def counted(selectors: Iterable[Selector]) -> list[Selector]:
    """The selectors whose matches have to be counted (``nth``) to answer these, each once."""
    parts = (part for selector in selectors for part in selector.parts())
    return list(dict.fromkeys(part.inner for part in parts if isinstance(part, _Nth)))


def settled_by_modules(selector: Selector) -> bool:
    """Whether what a live site cannot tell becomes known when a module returns, so that nothing is kept until then.

    Not under ``~``: that an Op is *not* returned by a module is known only when the module has returned without it. Nor
    of a parent, which a module may return after the Op has run.
    """
    if selector.reads & {"label", "children", "value"}:
        return False
    return not any(isinstance(part, _Not | _PrecededBy) and "output_of" in part.reads for part in selector.parts())


# -- what an Op is -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Func(Selector):
    name: str
    output: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", frozenset({"func"} if self.output is None else {"func", "index"}))
        object.__setattr__(self, "_type", canonical_type(self.name))

    def matches(self, site: Any) -> bool | None:
        if site.type != self._type and site.func_name != self.name:  # type: ignore[attr-defined]
            return False
        return self.output is None or bool(site.output_index == self.output)

    def check(self, names: Names) -> None:
        if not names.has_function(self.name):
            raise SelectorError(
                f"No function is called {self.name!r} here.{nearest(self.name, names.functions())} "
                "Use an operation's type ('conv2d', 'maxpool2d') or the framework's own name ('max_pool2d')."
            )

    def __repr__(self) -> str:
        return f"func({self.name!r})" if self.output is None else f"func({self.name!r}, output={self.output})"


@dataclass(frozen=True)
class _Output(Selector):
    key: int | str

    reads = frozenset({"index"})

    def matches(self, site: Any) -> bool | None:
        if not site.in_multi_output:
            return False
        return bool((site.output_index if isinstance(self.key, int) else site.output_name) == self.key)

    def __repr__(self) -> str:
        return f"output({self.key!r})"


# -- where it is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ByAddress(Selector):
    address: str  # 'layer1.0', with the number of a call 'layer1.0:2'; the model is 'self'

    def __post_init__(self) -> None:
        name, _, number = self.address.partition(":")
        object.__setattr__(self, "_name", "" if name == "self" else name)
        object.__setattr__(self, "_number", number)

    def wanted(self, site: Any) -> tuple[str, str]:
        """Address and number of the call ('' for any), under the names by which modules are recorded."""
        return site.module_address(self._name), self._number  # type: ignore[attr-defined]

    def check(self, names: Names) -> None:
        if self._name not in names.modules:  # type: ignore[attr-defined]
            raise SelectorError(
                f"The model has no module {self.address!r}.{nearest(self.address, names.modules)} "
                "print(trace.modules) lists all addresses; 'self' is the model itself."
            )


class _InModule(_ByAddress):
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "reads", frozenset({"scope", "call"} if ":" in self.address else {"scope"}))

    def matches(self, site: Any) -> bool | None:
        address, number = self.wanted(site)
        if not address and number in ("", "1"):
            return True
        return any(_is_call(label, address, number) for label in site.modules)

    def __repr__(self) -> str:
        return f"in_module({self.address!r})"


class _Module(_ByAddress):
    reads = frozenset({"scope", "output_of"})

    def matches(self, site: Any) -> bool | None:
        address, number = self.wanted(site)
        labels = site.returned_by if site.is_live else site.output_of_module_calls
        if any(_is_call(label, address, number) for label in labels):
            return True
        if not site.is_live:
            return False
        return None if not address or any(_is_call(label, address, "") for label in site.modules) else False

    def __repr__(self) -> str:
        return f"module({self.address!r})"


def _is_call(label: str, address: str, number: str) -> bool:
    """Whether a label names a call of the module: the one of that number, any for ''."""
    name, _, call = label.rpartition(":")
    return name == (address or "self") and number in ("", call)


def module_named(selector: Selector) -> str | None:
    """The address that a plain ``tl.module(address)`` names, '' for the model; None for any other selector."""
    return selector._name if isinstance(selector, _Module) else None  # type: ignore[attr-defined]


# -- what it is called -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Label(Selector):
    name: str
    reads = frozenset({"func", "label"})

    def matches(self, site: Any) -> bool | None:
        if site.is_live:
            match = LABEL_PATTERN.match(self.name)
            return None if match is None or match["type"] == site.type else False
        return self.name in (site.label, site.layer_label, site.label_short, site.layer_label_short)

    def check(self, names: Names) -> None:
        match = LABEL_PATTERN.match(self.name)
        if match is None:
            raise SelectorError(
                f"{self.name!r} is no label: labels look like 'relu_1_2', 'relu_1' or 'relu_1_2:1'. "
                "For a module use tl.module(address), for a function tl.func(name)."
            )
        if not names.has_function(match["type"]):
            raise SelectorError(
                f"No function is of type {match['type']!r}, so there can be no {self.name!r}."
                f"{nearest(match['type'], names.functions())}"
            )

    def __repr__(self) -> str:
        return f"label({self.name!r})"


@dataclass(frozen=True)
class _Contains(Selector):
    text: str
    reads = frozenset({"label"})

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else self.text.lower() in site.label.lower()

    def __repr__(self) -> str:
        return f"contains({self.text!r})"


@dataclass(frozen=True)
class _Regex(Selector):
    pattern: str
    reads = frozenset({"label"})

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except re.error as error:
            raise SelectorError(f"{self.pattern!r} is no regular expression: {error}.") from None

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else self._compiled.search(site.label) is not None  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"regex({self.pattern!r})"


# -- what it holds, and what is around it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Where(Selector):
    predicate: Callable[[Any], Any]
    name_hint: str | None = None
    reads = frozenset({"value"})

    def matches(self, site: Any) -> bool | None:
        try:
            return bool(self.predicate(site))
        except NotYetKnown:
            return None

    def __repr__(self) -> str:
        return f"where({self.name_hint or getattr(self.predicate, '__name__', self.predicate)!r})"


@dataclass(frozen=True)
class _PrecededBy(Selector):
    selector: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.selector.reads | {"parents"})

    def matches(self, site: Any) -> bool | None:
        return _any(self.selector.matches(parent) for parent in site.parent_sites())

    def check(self, names: Names) -> None:
        self.selector.check(names)

    def parts(self) -> Iterator[Selector]:
        yield self
        yield from self.selector.parts()

    def __repr__(self) -> str:
        return f"preceded_by({self.selector!r})"


class _FollowedBy(_PrecededBy):
    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.selector.reads | {"children"})

    def matches(self, site: Any) -> bool | None:
        return None if site.is_live else _any(self.selector.matches(child) for child in site.child_sites())

    def __repr__(self) -> str:
        return f"followed_by({self.selector!r})"


def _any(answers: Iterator[bool | None]) -> bool | None:
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


# -- the public constructors -------------------------------------------------------------------------------------------


def func(name: str, *, output: int | None = None) -> Selector:
    """Ops of one function, by type (``'maxpool2d'``) or by the framework's name (``'max_pool2d'``).

    ``output`` picks one array of a function that returns several.
    """
    return _Func(name, output)


def module(address: str) -> Selector:
    """The Op (or Ops) that a module finally returned, after its hooks.

    ``'features.6:2'`` names one call, ``'self'`` the model.
    """
    return _Module(address)


def in_module(address: str) -> Selector:
    """Every Op that ran inside a module, at any depth."""
    return _InModule(address)


def label(name: str) -> Selector:
    """One Op or layer by its label. Labels are final only after the run: as ``save=`` its type is kept until then."""
    return _Label(name)


def contains(text: str) -> Selector:
    """Ops whose label contains ``text``, in any case. As ``save=`` it keeps every Op until the run is over."""
    return _Contains(text)


def regex(pattern: str) -> Selector:
    """Ops whose label a regular expression finds. As ``save=`` it keeps every Op until the run is over."""
    return _Regex(pattern)


def where(predicate: Callable[[Any], Any], name_hint: str | None = None) -> Selector:
    """Ops for which ``predicate(op)`` is true. It may read ``op.out``; what only a finished run knows is asked then."""
    return _Where(predicate, name_hint)


def output(key: int | str) -> Selector:
    """One output, by position or name, of functions that return several arrays."""
    return _Output(key)


def followed_by(selector: Selector) -> Selector:
    """Ops whose array an Op that matches ``selector`` takes. Known later: see ``lookback=`` of :func:`trace`."""
    return _FollowedBy(_selector(selector))


def preceded_by(selector: Selector) -> Selector:
    """Ops that take the array of an Op that matches ``selector``."""
    return _PrecededBy(_selector(selector))
