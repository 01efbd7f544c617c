"""Which calls have to be seen for a plan without a graph, and where: everything else runs as if nobody watched.

Three answers, as selectors give them: True, False, and None for *that depends on more*.
"""

from __future__ import annotations

from ..errors import SelectorError
from ..facets.targets import FacetOf
from ..plan import Plan, unresolved
from ..program import Func
from ..selectors import LABEL_PATTERN, Nth, Selector, settled_by_modules
from ..selectors.algebra import AllOf, AnyOf, Not
from ..selectors.by_function import OfFunction
from ..selectors.by_label import HasLabel
from ..selectors.by_module import InModule, OfModule
from ..selectors.by_neighbour import PrecededBy
from ..vocabulary import canonical_type

_PLACE = frozenset({"scope", "call", "output_of"})  # what a module knows of what it returns
_LATE = frozenset({"label", "children", "parents"})  # what only a graph tells
_UNMADE = frozenset({"input", "buffer", "source"})


def concerns(plan: Plan, func: Func) -> bool:
    """Whether some call of a function may be meant, so that its calls have to be seen."""
    return plan.saves_everything or any(_told_by(func, selector) is not False for selector in plan.selectors)


def sees_functions(plan: Plan) -> bool:
    """Whether calls of functions have to be seen at all; otherwise what modules return is everything."""
    return plan.saves_everything or not all(map(_is_of_module, plan.selectors))


def places(plan: Plan) -> frozenset[str] | None:
    """The modules outside of which no function is meant, by address; None where there is no such limit."""
    if plan.saves_everything:
        return None
    found = [_within(selector) for selector in plan.selectors if not _is_of_module(selector)]
    known = [place for place in found if place is not None]
    return frozenset().union(*known) if len(known) == len(found) else None


def asked_modules(plan: Plan) -> frozenset[str]:
    """The modules that selectors name, by address: their calls have to be seen; '' is the model's."""
    parts = (part for selector in plan.selectors for part in selector.parts())
    return frozenset(_name(part) for part in parts if isinstance(part, InModule | OfModule))


def has_facets(plan: Plan) -> bool:
    """Whether a selector means facets, which are looked for in what the modules hold."""
    return any(isinstance(part, FacetOf) for selector in plan.selectors for part in selector.parts())


def named_modules(plan: Plan) -> frozenset[str] | None:
    """Addresses of the modules whose outputs are everything that is asked for; None where more has to be known."""
    if plan.saves_everything:
        return None
    names: list[str] = []
    for selector in plan.selectors:
        text = unresolved(selector)
        if text is not None:
            names.append(text.partition(":")[0])
        elif isinstance(selector, OfModule):
            names.append(_name(selector))
        else:
            return None
    return frozenset("" if name == "self" else name for name in names)


def needs_stack(plan: Plan) -> bool:
    """Whether the calls of all modules have to be seen, though calls of functions need not: for ``in_module``."""
    return any(isinstance(part, InModule) for selector in plan.selectors for part in selector.parts())


def check(plan: Plan) -> None:
    """Raise SelectorError for what only a graph can tell, with what to use instead."""
    for selector in plan.selectors:
        late = _LATE & selector.reads
        if late or (not settled_by_modules(selector) and _negates_a_module(selector)):
            raise SelectorError(
                f"{selector!r} is answered by the graph, and a recording has none. {_instead(selector)}"
                "tl.trace(model, x, save=...) records the graph."
            )
        for part in selector.parts():
            if isinstance(part, OfFunction) and part.name in _UNMADE:
                raise SelectorError(
                    f"{part!r} means arrays that no operation computes, and a recording sees operations alone. "
                    "tl.trace(model, x, save=...) has these."
                )


def _instead(selector: Selector) -> str:
    part = next((each for each in selector.parts() if isinstance(each, HasLabel | PrecededBy)), None)
    if isinstance(part, HasLabel) and (match := LABEL_PATTERN.match(part.name)):
        number = match["pass"] or match["k"]
        return (
            f"As the model runs, tl.func({match['type']!r}).nth({number}) selects by the number of the call, "
            "tl.module(address) what a module returns. "
        )
    if part is None:
        return "As the model runs, tl.func(name), tl.module(address) and tl.in_module(address) can be told. "
    return "As the model runs, tl.func(name) & tl.in_module(address) can be told. "


def _negates_a_module(selector: Selector) -> bool:
    return any(isinstance(part, Not) and "output_of" in part.reads for part in selector.parts())


def _is_of_module(selector: Selector) -> bool:
    """Whether it means what modules return, and is answered when they do: no call of a function tells of it."""
    if isinstance(selector, OfModule):
        return True
    if isinstance(selector, AnyOf):
        return _is_of_module(selector.left) and _is_of_module(selector.right)
    if isinstance(selector, AllOf):
        pairs = ((selector.left, selector.right), (selector.right, selector.left))
        return any(_is_of_module(one) and other.reads <= _PLACE for one, other in pairs)
    return False


def _told_by(func: Func, selector: Selector) -> bool | None:
    """What a function alone tells of a selector."""
    if _is_of_module(selector):
        return False
    if isinstance(selector, OfFunction):
        if canonical_type(selector.name) != func.type and selector.name != func.name:
            return False
        return True if selector.output is None else None
    if isinstance(selector, AllOf):
        parts = [part for part in (selector.left, selector.right) if not _is_of_module(part)]
        answers = [_told_by(func, part) for part in parts]
        return False if False in answers else None if None in answers or len(parts) < 2 else True
    if isinstance(selector, AnyOf):
        answers = [_told_by(func, part) for part in (selector.left, selector.right)]
        return True if True in answers else None if None in answers else False
    if isinstance(selector, Not):
        return False if _told_by(func, selector.inner) is True else None
    if isinstance(selector, Nth) and _told_by(func, selector.inner) is False:
        return False
    return None


def _within(selector: Selector) -> frozenset[str] | None:
    """Modules outside of which a selector matches nothing; None where none is known."""
    if isinstance(selector, InModule | OfModule):
        return frozenset({_name(selector)}) if _name(selector) else None
    if isinstance(selector, AnyOf):
        left, right = _within(selector.left), _within(selector.right)
        return None if left is None or right is None else left | right
    if isinstance(selector, AllOf):
        return _within(selector.left) or _within(selector.right)
    return _within(selector.inner) if isinstance(selector, Nth) else None


def _name(selector: InModule | OfModule) -> str:
    name = selector.address.partition(":")[0]
    return "" if name == "self" else name
