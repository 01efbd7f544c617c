"""A staged program as operations at the level of functions: what is between a jaxpr and the tape.

Values are numbered by *slot*: one for each array that the program text makes. In a loop a slot has one value an
iteration. Jaxprs that are called are opened, each call with slots of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from torchlens_core.program import Func

Slot = int
Site = tuple[tuple[CodeType, int], ...]  # calls from the operation outwards, up to the enclosing module call


@dataclass(slots=True)
class Call:
    """One call of a module, as the program was staged."""

    uid: int
    address: str | None  # None: to be told by the arrays that it holds
    cls: str
    parent: int  # uid; -1 for the model itself
    site: Site
    training: bool | None = None
    is_built: bool = False  # the module was built as the model ran
    staged_address: str | None = None  # as it was known when it was staged

    def __post_init__(self) -> None:
        self.staged_address = self.address


@dataclass(slots=True)
class Op:
    """One operation: equations that make up one call of a library's function."""

    func: Func
    args: tuple[Any, ...]  # template: HOLE for each array, literals as they are
    ins: tuple[Slot, ...]
    outs: tuple[Slot, ...]
    call: int  # uid of the module call around it
    site: Site
    is_layer: bool = False  # a whole module of a library
    state: tuple[Slot, ...] = ()  # of what a layer makes, what it does not return: new state
    writes: tuple[tuple[Slot, Slot], ...] = ()  # of what it makes, the new state of modules, each with the old
    returned: tuple[Slot, ...] = ()  # of that state, what the model returns


@dataclass(slots=True)
class Taken:
    """A module was given an array."""

    call: int
    slot: Slot


@dataclass(slots=True)
class Returned:
    """A module returned an array, which is ``new`` from there on."""

    call: int
    old: Slot
    new: Slot
    is_pass_through: bool = False  # it was given this array


@dataclass(slots=True)
class Wrote:
    """A buffer was given another value, and is ``new`` for those who read it from there on."""

    call: int
    address: str
    old: Slot
    new: Slot


@dataclass(slots=True)
class Scan:
    """``jax.lax.scan``: a body run a known number of times."""

    body: Block
    length: int
    reverse: bool
    unroll: int
    consts: tuple[Slot, ...]
    init: tuple[Slot, ...]
    xs: tuple[Slot, ...]
    carry_outs: tuple[Slot, ...]
    ys: tuple[Slot, ...]
    call: int
    site: Site
    number: int  # among the regions of the program


@dataclass(slots=True)
class While:
    """``jax.lax.while_loop``: a body run while a condition holds."""

    condition: Block
    body: Block
    condition_consts: tuple[Slot, ...]
    body_consts: tuple[Slot, ...]
    init: tuple[Slot, ...]
    outs: tuple[Slot, ...]
    call: int
    site: Site
    number: int


@dataclass(slots=True)
class Switch:
    """``jax.lax.cond`` and ``switch``: one of several branches runs."""

    index: Slot
    branches: tuple[Block, ...]
    operands: tuple[Slot, ...]
    outs: tuple[Slot, ...]
    call: int
    site: Site
    number: int


@dataclass(slots=True)
class Ruled:
    """A call of a function that has a derivative rule of its own, looked into: its items, and the call as a whole.

    The items compute the same values; differentiated is the whole, as they do not know the rule.
    """

    func: Func
    ins: tuple[Slot, ...]  # of ``func``
    body: Block  # its items take slots from around, so it has no ``ins``
    outs: tuple[Slot, ...]  # what ``body.outs`` are from there on


Item = Op | Taken | Returned | Wrote | Scan | While | Switch | Ruled


@dataclass(slots=True)
class Block:
    """A straight line of items, with what it takes and returns."""

    ins: tuple[Slot, ...]
    items: list[Item] = field(default_factory=list)
    outs: tuple[Slot, ...] = ()
    consts: dict[Slot, Any] = field(default_factory=dict)  # arrays, and literals that are returned
