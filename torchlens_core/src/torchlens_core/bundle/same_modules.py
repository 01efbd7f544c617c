"""``rename='auto'``: which modules of two models are one, where their addresses differ.

Modules that call no others go together in the order in which they were first called, by what they do: the longest
common sequence. A module around others is that which holds the same of them. So ``blocks_0.attention`` is found to be
``blocks.0.attn``, whatever either is called.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..records.module import Module
from ..records.trace import Trace
from .levels import ARRANGING, levelled
from .places import ByBeginning, begins
from .subsequence import common_subsequence


def same_modules(trace: Trace, reference: Trace) -> dict[str, str]:
    """Address in a trace -> that in the reference, for the modules that are called otherwise there.

    What follows from the address of a module around it is left out: ``{'encoder': 'enc'}`` says that ``encoder.fc`` is
    ``enc.fc``.
    """
    ours, theirs = _leaves(trace), _leaves(reference)
    pairs = common_subsequence([_token(module) for module in ours], [_token(module) for module in theirs])
    leaves = {ours[x].address: theirs[y].address for x, y in pairs}
    found = _around(trace, reference, leaves) | leaves
    return _shortened(_between(trace, reference, found) | found)


def likely_names(trace: Trace, reference: Trace) -> dict[str, str]:
    """The same, where the addresses have little in common; empty where they are those of the reference."""
    ours, theirs = set(_called(trace)), set(_called(reference))
    return same_modules(trace, reference) if 2 * len(ours & theirs) < min(len(ours), len(theirs)) else {}


def _leaves(trace: Trace) -> list[Module]:
    """The modules that ran and called no others, in the order in which they were first called."""
    called = [trace.modules[address] for address in _called(trace)]
    return [module for module in called if not any(call.child_calls for call in module.calls)]


def _called(trace: Trace) -> list[str]:
    """Addresses of the modules that were called, in order, the model left out."""
    return list(dict.fromkeys(call.address for call in trace.module_calls if call.address != "self"))


def _token(module: Module) -> str:
    """What a module does: the types of the operations of its first call; of one that has none its class."""
    types = [levelled(op.type) for op in module.calls[0].ops]
    return " ".join(types) or f"class {module.cls}"


def _around(trace: Trace, reference: Trace, leaves: Mapping[str, str]) -> dict[str, str]:
    """The modules around leaves: those that hold the same leaves; where several do, the innermost are one."""
    ours: dict[frozenset[str], list[str]] = {}
    for address in _holding(trace):
        held = frozenset(there for here, there in leaves.items() if begins(here, address))
        ours.setdefault(held, []).append(address)
    theirs: dict[frozenset[str], list[str]] = {}
    found = set(leaves.values())
    for address in _holding(reference):
        theirs.setdefault(frozenset(there for there in found if begins(there, address)), []).append(address)
    return {
        here: there
        for held, addresses in ours.items()
        if held
        for here, there in zip(reversed(addresses), reversed(theirs.get(held, [])), strict=False)
    }


def _between(trace: Trace, reference: Trace, found: Mapping[str, str]) -> dict[str, str]:
    """Of those that are left, the one that ran between the same two: what is one module, and in the other has more."""
    ours, theirs = _gaps(trace, set(found)), _gaps(reference, set(found.values()))
    named = {(found.get(before, before), found.get(after, after)): address for (before, after), address in ours.items()}
    return {address: theirs[gap] for gap, address in named.items() if gap in theirs}


def _gaps(trace: Trace, found: set[str]) -> dict[tuple[str, str], str]:
    """(the module found that was called before, that after) -> the one outermost module between them."""
    gaps: dict[tuple[str, str], str] = {}
    waiting: list[str] = []
    before = ""
    for address in [*_called(trace), ""]:
        if address in found or not address:
            outermost = [a for a in waiting if not any(begins(a, b) and a != b for b in waiting)]
            if len(outermost) == 1:
                gaps[before, address] = outermost[0]
            before, waiting = address, []
        elif not any(begins(inner, address) for inner in found) and not _only_arranges(trace.modules[address]):
            waiting.append(address)
    return gaps


def _only_arranges(module: Module) -> bool:
    """Whether a module computes nothing, as a dropout does outside of training."""
    return all(levelled(op.type) in ARRANGING for op in module.calls[0].ops)


def _holding(trace: Trace) -> list[str]:
    """Addresses of modules that were called and hold others, outer ones first; ``''`` is the model."""
    called = _called(trace)
    return ["", *sorted((a for a in called if any(begins(b, a) and b != a for b in called)), key=len)]


def _shortened(names: Mapping[str, str]) -> dict[str, str]:
    """Without what follows from a shorter address, and without what is called the same."""
    kept: dict[str, str] = {}
    for here in sorted(names, key=len):
        if names[here] != ByBeginning(kept)(here):
            kept[here] = names[here]
    return kept
