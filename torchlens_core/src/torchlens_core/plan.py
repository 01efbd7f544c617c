"""What the user asked for, compiled: the questions that a backend asks as the model runs are answered from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .errors import SelectorError
from .selectors import LABEL_PATTERN, STATIC, Names, Selector, counted, label, module, module_named, settled_by_modules


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """What to keep of the Ops that a selector matches.

    Attributes:
        selector: which Ops; None means all.
        transform: applied to the array (detached), its result is kept instead: a reduction, a slice ...
        dtype: of what is kept, by name or as the framework's object; None leaves it.
        device: where it is kept; None leaves it.
    """

    selector: Selector | None = None
    transform: Callable[[Any], Any] | None = None
    dtype: Any = None
    device: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether the array itself is kept, so that no copy is needed."""
        return self.transform is None and self.dtype is None and self.device is None

    @property
    def waits_for_children(self) -> bool:
        """Whether an Op that nothing takes is surely not meant."""
        reads = self.selector.reads if self.selector is not None else frozenset()
        return "children" in reads and "label" not in reads


SaveSpec = bool | str | Selector | Keep | Iterable[str | Selector | Keep]


def keep(
    selector: Selector | str | None = None,
    *,
    transform: Callable[[Any], Any] | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Keep:
    """Keep less of each value: ``save=tl.keep(tl.func('relu'), transform=lambda a: a.mean(), dtype='float16')``."""
    return Keep(_Name(selector) if isinstance(selector, str) else selector, transform, dtype, device)


PLAIN = Keep()


class Decision:
    """What to do with one Op: what to keep of it (None: nothing), and whether to stop there.

    ``is_candidate``: what is kept is decided about after the run.
    """

    __slots__ = ("is_candidate", "keep", "slow", "stop")

    def __init__(
        self, keep: Keep | None, *, is_candidate: bool = False, stop: bool = False, slow: bool = False
    ) -> None:
        self.keep = keep
        self.is_candidate = is_candidate
        self.stop = stop
        self.slow = slow  # must be asked again for each Op


NOTHING = Decision(None)
SAVE = Decision(PLAIN)
ASK = Decision(None, slow=True)


class Plan:
    """Compiled ``save=`` and ``halt=``."""

    def __init__(
        self,
        save: SaveSpec = True,
        halt: Selector | str | None = None,
        *,
        lookback: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        device: Any = None,
    ) -> None:
        self.lookback = lookback
        self.halt: Selector | None = _halt(halt)
        self._compile(_keeps(save, transform, device))

    def _compile(self, keeps: Iterable[Keep]) -> None:
        self.keeps = tuple(keeps)
        self.selectors = [item.selector for item in self.keeps if item.selector is not None]
        if self.halt is not None:
            self.selectors.append(self.halt)
        self.reads: frozenset[str] = frozenset().union(*(selector.reads for selector in self.selectors))
        self.saves_everything = any(item.selector is None for item in self.keeps)
        self.is_static = self.reads <= STATIC | {"output_of"}  # modules answer when they return
        self.asks_modules = "output_of" in self.reads  # answered when a module returns
        self._counted = counted(self.selectors)

    def bind(self, names: Names) -> None:
        """Resolve strings to labels and addresses of this model; raise SelectorError for what it cannot have."""
        modules = names.modules
        self._compile(Keep(_by_name(k.selector, modules), k.transform, k.dtype, k.device) for k in self.keeps)
        for selector in self.selectors:
            selector.check(names)

    def only_modules(self) -> frozenset[str] | None:
        """The modules whose outputs are all that is asked for, by address; None where more is."""
        addresses = [module_named(selector) for selector in self.selectors]
        if self.saves_everything or not addresses or None in addresses:
            return None
        return frozenset(address for address in addresses if address is not None)

    def decide(self, site: Any) -> Decision:
        """The answer for one site: a live one, or one of a pair (function, scope) when the plan is static."""
        for selector in self._counted:  # at every site, whatever else the selectors that count are combined with
            site.number_among(selector)
        stop = self.halt is not None and self.halt.matches(site) is True
        candidate: Keep | None = None
        for item in self.keeps:
            answer = True if item.selector is None else item.selector.matches(site)
            if answer:
                return Decision(item, stop=stop)
            if answer is None and candidate is None and not _waits_for_modules(item.selector):
                candidate = item
        return Decision(candidate, is_candidate=candidate is not None, stop=stop)

    def matching(self, site: Any) -> Keep | None:
        """The first Keep whose selector matches a site of the finished trace, or a module's output."""
        for item in self.keeps:
            if item.selector is None or item.selector.matches(site) is True:
                return item
        return None


@dataclass(frozen=True)
class _Name(Selector):
    """A string given as ``save=``, until the model's addresses are known."""

    text: str
    reads = frozenset({"label"})

    def matches(self, site: Any) -> bool | None:
        raise AssertionError("resolved before the run")


def _keeps(save: SaveSpec, transform: Callable[[Any], Any] | None, device: Any) -> Iterable[Keep]:
    if save is False or save is None:
        return
    items = [None] if save is True else list(save) if isinstance(save, list | tuple | set | frozenset) else [save]
    for item in items:
        if isinstance(item, Keep):
            yield Keep(item.selector, item.transform or transform, item.dtype, item.device or device)
        elif item is None or isinstance(item, Selector):
            yield Keep(item, transform, None, device)
        elif isinstance(item, str):
            yield Keep(_Name(item), transform, None, device)
        elif callable(item):
            raise SelectorError(f"save={item!r} is a plain function: wrap it, save=tl.where({item!r}).")
        else:
            raise SelectorError(
                f"save= takes True, False, a selector, a label, tl.keep(...) or a list of them; got {item!r}."
            )


def _by_name(selector: Selector | None, modules: frozenset[str]) -> Selector | None:
    if not isinstance(selector, _Name):
        return selector
    text = selector.text
    if text and (text == "self" or text.partition(":")[0] in modules):
        return module(text)
    if LABEL_PATTERN.match(text):
        return label(text)
    module(text).check(Names(modules, lambda name: False, frozenset))
    return None


def _halt(halt: Selector | str | None) -> Selector | None:
    if halt is None:
        return None
    if isinstance(halt, str):
        halt = label(halt)
    if not isinstance(halt, Selector):
        raise SelectorError(
            f"halt= takes a selector, such as tl.module('layer2') or tl.func('relu').nth(2); got {halt!r}."
        )
    late = halt.reads & {"label", "children"}
    if late:
        raise SelectorError(
            f"halt={halt!r} is known only after the run (labels and followers are), so nothing can stop there. "
            "Use tl.module(address), tl.in_module(address) or tl.func(name).nth(k)."
        )
    return halt


def _waits_for_modules(selector: Selector | None) -> bool:
    return selector is not None and settled_by_modules(selector)
