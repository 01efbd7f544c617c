"""Selectors: which Ops to save, stop at, or change. Values that combine with ``&``, ``|`` and ``~``.

A selector is asked about a *site*: an Op of a finished trace, or one that is about to be (:class:`LiveSite`), of which
less is known. ``matches(site)`` answers True, False, or None: *not known yet*. What a selector ``reads`` tells the
planner when it can be answered: ``func`` and ``scope`` once for each pair of function and module call, the rest for
each Op.
"""

from .algebra import Nth, counted
from .by_function import func, output
from .by_label import LABEL_PATTERN, contains, label, regex
from .by_module import InModule, OfModule, asks_for_call, in_module, module, module_named, settled_by_modules
from .by_neighbour import followed_by, preceded_by
from .by_value import where
from .selector import STATIC, Names, NotYetKnown, Selector

__all__ = [
    "LABEL_PATTERN", "STATIC", "InModule", "Names", "NotYetKnown", "Nth", "OfModule", "Selector", "asks_for_call",
    "contains", "counted", "followed_by", "func", "in_module", "label", "module", "module_named", "output",
    "preceded_by", "regex", "settled_by_modules", "where",
]  # fmt: skip
