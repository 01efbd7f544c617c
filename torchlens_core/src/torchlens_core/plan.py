"""What the user asked for, compiled: the questions that a backend asks as the model runs are answered from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .diagnosis.extent import Which
from .errors import SelectorError
from .facets.targets import resolved, with_facets
from .interventions.when import When, as_whens, with_reads
from .selectors import LABEL_PATTERN, STATIC, Names, Selector, counted, label, module, module_named, settled_by_modules

if TYPE_CHECKING:
    from .backend import Arrays


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """What to keep of the Ops that a selector matches.

    Attributes:
        selector: which Ops; None means all.
        transform: applied to the array (detached), its result is kept instead: a reduction, a slice ...
        dtype: of what is kept, by name or as the framework's object; None leaves it.
        device: where it is kept; None leaves it.
        streamed: it is written to the disk as it is kept, so that every array has to pass by the session.
    """

    selector: Selector | None = None
    transform: Callable[[Any], Any] | None = None
    dtype: Any = None
    device: Any = None
    streamed: bool = field(default=False, repr=False)

    @property
    def is_own(self) -> bool:
        """Whether it is the Op's own array that is kept, and not what was made of it."""
        return self.transform is None and self.dtype is None and self.device is None

    @property
    def is_plain(self) -> bool:
        """Whether a reference to the array is all that is kept."""
        return self.is_own and not self.streamed

    def result(self, array: Any, arrays: Arrays) -> Any:
        """What is kept of an array, in memory of its own, where that is not the array itself."""
        result = arrays.detach(array)
        if self.transform is not None:
            result = self.transform(result)
        if not arrays.is_array(result):
            return result
        cast = arrays.cast(result, self.dtype, self.device)
        return arrays.copy(cast) if cast is result else cast

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
    """What to do with one Op.

    Attributes:
        keep: what to keep of its value; None keeps nothing.
        is_candidate: what is kept is decided about after the run.
        stop: whether to stop there.
        asks: must be asked again for each Op.
        changes: the interventions that act on it, in order.
        grad: what to keep of the gradient at it; None keeps nothing.
        is_grad_candidate: what is kept of the gradient is decided about after the run.
        slow: there is more to do than to keep the value and to stop: one test in a backend's hot loop.
    """

    __slots__ = ("asks", "changes", "grad", "is_candidate", "is_grad_candidate", "keep", "slow", "stop")

    def __init__(
        self,
        keep: Keep | None = None,
        *,
        is_candidate: bool = False,
        stop: bool = False,
        asks: bool = False,
        changes: tuple[When, ...] = (),
        grad: Keep | None = None,
        is_grad_candidate: bool = False,
    ) -> None:
        self.keep = keep
        self.is_candidate = is_candidate
        self.stop = stop
        self.asks = asks
        self.changes = changes
        self.grad = grad
        self.is_grad_candidate = is_grad_candidate
        self.slow = asks or bool(changes) or grad is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done."""
        return self.keep is None and not self.stop and not self.slow


NOTHING = Decision()
SAVE = Decision(PLAIN)
ASK = Decision(asks=True)


class Plan:
    """Compiled ``save=``, ``halt=``, ``intervene=`` and ``save_grads=``."""

    def __init__(
        self,
        save: SaveSpec = True,
        halt: Selector | str | None = None,
        *,
        intervene: Any = None,
        save_grads: SaveSpec = False,
        lookback: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        grad_transform: Callable[[Any], Any] | None = None,
        device: Any = None,
        raise_on: Which | None = None,
        streams: bool = False,
    ) -> None:
        self.lookback = lookback
        self.raise_on = raise_on  # stop with an error at the first value that is NaN, infinite, or either
        self.halt: Selector | None = _halt(halt)
        self.whens = with_reads(as_whens(intervene))
        keeps = _keeps(save, transform, device)
        if streams:
            keeps = (replace(keep, streamed=True) for keep in keeps)
        self._compile(keeps, _keeps(save_grads, grad_transform, device))

    def _compile(self, keeps: Iterable[Keep], grads: Iterable[Keep]) -> None:
        self.keeps = tuple(keeps)
        self.grads = tuple(grads)
        self.selectors = [item.selector for item in (*self.keeps, *self.grads) if item.selector is not None]
        self.selectors += [when.selector for when in self.whens]
        if self.halt is not None:
            self.selectors.append(self.halt)
        self.reads: frozenset[str] = frozenset().union(*(selector.reads for selector in self.selectors))
        self.saves_everything = any(item.selector is None for item in self.keeps)
        self.is_simple = not self.selectors and not self.grads  # everything is kept, or nothing, and no more is done
        self.is_static = self.reads <= STATIC | {"output_of"}  # modules answer when they return
        self.asks_modules = "output_of" in self.reads  # answered when a module returns
        parts = (part for selector in self.selectors for part in selector.parts())
        self.module_names = frozenset(name for name in map(module_named, parts) if name is not None)
        self._counted = counted(self.selectors)

    @property
    def keeps_every_gradient(self) -> Keep | None:
        """What to keep of the gradients of everything, parameters too; None where only some Ops' were asked for."""
        return next((keep for keep in self.grads if keep.selector is None), None)

    def bind(self, names: Names) -> None:
        """Resolve strings and facets to what they are in this model; raise SelectorError for what it cannot have."""
        named = [[replace(k, selector=_known(k.selector, names)) for k in keeps] for keeps in (self.keeps, self.grads)]
        if names.tree is not None:
            self.whens = tuple(with_facets(when, names.tree) for when in self.whens)
            self.halt = None if self.halt is None else resolved(self.halt, names.tree)
        self._compile(*named)
        for selector in self.selectors:
            selector.check(names)

    def only_modules(self) -> frozenset[str] | None:
        """The modules whose outputs are all that is asked for, by address; None where more is."""
        addresses = [module_named(selector) for selector in self.selectors]
        if any(item.selector is None for item in (*self.keeps, *self.grads)) or not addresses or None in addresses:
            return None
        return frozenset(address for address in addresses if address is not None)

    def decide(self, site: Any) -> Decision:
        """The answer for one site: a live one, or one of a pair (function, scope) when the plan is static."""
        for selector in self._counted:  # at every site, whatever else the selectors that count are combined with
            site.number_among(selector)
        keep, is_candidate = _first(self.keeps, site)
        grad, is_grad_candidate = _first(self.grads, site)
        return Decision(
            keep,
            is_candidate=is_candidate,
            stop=self.halt is not None and self.halt.matches(site) is True,
            changes=tuple(when for when in self.whens if when.selector.matches(site) is True),
            grad=grad,
            is_grad_candidate=is_grad_candidate,
        )

    def matching(self, site: Any) -> Keep | None:
        """The first Keep whose selector matches a site of the finished trace, or a module's output."""
        return _first(self.keeps, site)[0]

    def matching_grad(self, site: Any) -> Keep | None:
        """The first Keep for gradients whose selector matches a site of the finished trace."""
        return _first(self.grads, site)[0]


@dataclass(frozen=True)
class _Name(Selector):
    """A string given as ``save=``, until the model's addresses are known."""

    text: str
    reads = frozenset({"label"})

    def matches(self, site: Any) -> bool | None:
        raise AssertionError("resolved before the run")


def unresolved(selector: Selector) -> str | None:
    """The string that was given in place of a selector, until the plan is bound to a model; None for selectors."""
    return selector.text if isinstance(selector, _Name) else None


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


def _known(selector: Selector | None, names: Names) -> Selector | None:
    """What a string means in a model, and the Ops that hold a facet; any other selector as it is."""
    if not isinstance(selector, _Name):
        return selector if selector is None or names.tree is None else resolved(selector, names.tree)
    text, modules = selector.text, names.modules
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


def _first(keeps: Iterable[Keep], site: Any) -> tuple[Keep | None, bool]:
    """The first Keep that means a site, or else the first that may; and whether it only may."""
    candidate: Keep | None = None
    for item in keeps:
        answer = True if item.selector is None else item.selector.matches(site)
        if answer:
            return item, False
        if answer is None and candidate is None and not _waits_for_modules(item.selector):
            candidate = item
    return candidate, candidate is not None


def _waits_for_modules(selector: Selector | None) -> bool:
    return selector is not None and settled_by_modules(selector)
