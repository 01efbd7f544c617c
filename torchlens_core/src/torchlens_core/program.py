"""What ran, as a backend wrote it down: rows, scopes, sources, call sites and events. No values, no labels.

A *Program* is the raw tape of one run. Everything a user sees (edges, layers, labels, costs) is derived from it, once
and lazily, by :mod:`torchlens_core.derived.graph`. The arrays that were kept live beside it, by *value id*.

Value ids ("vids") are consecutive integers. Each array that was seen has one, and each write to an array gives it a new
one: a vid names *an array at a moment*. ``Program.metas[vid]`` describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .derived.frames import Frame, frame_of

if TYPE_CHECKING:
    from .costs import Cost


class _Hole:
    """The place of an array in a template of arguments: the n-th hole of a row is ``row.ins[n]``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<array>"

    def __reduce__(self) -> str:
        return "HOLE"


HOLE = _Hole()


class Func:
    """One distinct callable of a framework, described once and cached for the process.

    ``writes(args, kwargs)`` returns the arrays that a call overwrites; None says that the function never writes.
    """

    __slots__ = (
        "func",
        "gives_written",
        "name",
        "output_names",
        "path",
        "random",
        "silent",
        "type",
        "undefined",
        "writes",
    )

    def __init__(
        self,
        func: Callable[..., Any] | None,
        name: str,
        type: str,
        *,
        path: str | None = None,
        writes: Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]] | None = None,
        random: bool = False,
        undefined: bool = False,
        silent: bool = False,
        gives_written: bool = False,
        output_names: tuple[str, ...] = (),
    ) -> None:
        self.func = func  # None in a loaded trace, until the backend resolves `path`
        self.name = name  # the framework's own name: 'add_', '__getitem__'
        self.type = type  # the common word of all frameworks: 'add', 'getitem'
        self.path = path  # 'toy.relu': what Backend.resolve takes; None: cannot be run from a file
        self.writes = writes
        self.random = random
        self.undefined = undefined  # empty() and the like: the values mean nothing
        self.silent = silent  # a read such as .shape: never an Op
        self.gives_written = gives_written  # what it writes it returns, after its results: arrays never change
        self.output_names = output_names

    def __repr__(self) -> str:
        return f"Func({self.path or self.name})"


Call = (
    tuple[CodeType, int] | Frame
)  # where a Python frame stood: code and instruction offset; a Frame in a loaded trace
Outs = Any  # int (vid) | None | tuple of Outs: mirrors the container that the call returned


class Row(NamedTuple):
    """One call that ran. Backends append plain tuples of this shape in their hot loop."""

    func: Func
    args: tuple[Any, ...]  # template: arrays are HOLE, containers of arrays are copied
    kwargs: Mapping[str, Any]
    ins: Sequence[int]  # vids: which objects were passed, in the order of the holes (positional first, then keywords)
    outs: Outs
    scope: Scope
    site: int  # index into Program.sites
    start_ns: int
    end_ns: int
    ambient: (
        Mapping[str, Any] | None
    )  # framework state that a replay needs (autocast, ...), None where it is the default


ScopeKind = Literal["module", "call", "region"]


class Scope:
    """One call of a module (or a library function seen as its kernels, or a staged region) that rows ran in."""

    __slots__ = (
        "address",
        "call_index",
        "cls",
        "end_ns",
        "first_row",
        "index",
        "ins",
        "kind",
        "last_row",
        "memo",
        "outs",
        "parent",
        "site",
        "start_ns",
    )

    def __init__(
        self, index: int, kind: ScopeKind, address: str, cls: str, parent: Scope | None, site: int, call_index: int
    ) -> None:
        self.index = index  # position in Program.scopes; the root is 0
        self.kind: ScopeKind = kind
        self.address = address  # '' for the root
        self.cls = cls
        self.parent = parent
        self.site = site  # where it was called from: frames from there up to the enclosing scope
        self.call_index = call_index  # 1, 2, ... by address
        self.first_row = 0
        self.last_row = 0  # exclusive
        self.ins: tuple[int, ...] = ()
        self.outs: Outs = None
        self.start_ns = 0
        self.end_ns = 0
        self.memo: dict[Any, Any]  # Func -> Decision, shared by the calls of a module; set by the session

    @property
    def call_label(self) -> str:
        """``features.6:1``; ``self:1`` for the root."""
        return f"{self.address or 'self'}:{self.call_index}"

    def __repr__(self) -> str:
        return f"Scope({self.kind} {self.call_label})"


SourceKind = Literal["input", "param", "buffer", "const", "unknown"]


@dataclass(slots=True)
class Source:
    """An array that no row made: an argument of the model, state, a closed-over constant, or one of unknown origin."""

    kind: SourceKind
    address: str  # 'x', 'features.0.weight'
    vid: int
    aliases: tuple[str, ...] = ()  # other addresses of the same array
    trainable: bool = False  # asks for a gradient
    version: int = 1  # of a buffer
    origin: int = -1  # buffers from version 2 on: the vid of which it is the new value
    row: int = 0  # number of rows that had run when it was first read or written; -1: never
    module: str | None = None  # address of the module that holds it


class Meta(NamedTuple):
    """Shape, dtype, device of one array, in the framework's own types (strings in a loaded trace)."""

    shape: tuple[int, ...]
    dtype: Any
    device: Any
    grad_fn: str | None = None  # class name of the autograd node that made it, where there is one


class Event(NamedTuple):
    """An array read as a Python value: ``bool(x)``, ``int(x)``, ``x.item()``."""

    kind: str  # 'bool' | 'int' | 'float' | 'index' | 'item' | 'tolist'
    vid: int
    value: Any
    scope: Scope
    site: int
    row: int  # number of rows that had run


class Change(NamedTuple):
    """An array was put in the place of another: by an intervention, as the model ran.

    Where an operation's result was changed before anything read it, ``new`` is ``old``. What a module returned is
    changed when it returns, when operations inside may have read the old array: ``new`` is the one read from there on.
    """

    row: int  # number of rows that had run
    old: int
    new: int
    whens: tuple[Any, ...]  # what acted, in order: interventions; their texts in a loaded trace


class Output(NamedTuple):
    """One array that the model returned, and where in what it returned."""

    path: str  # '' for a bare array, 'logits', 'pair.0'
    vid: int


@dataclass(slots=True)
class ModuleInfo:
    """What discovery knows of one module of the model, called or not."""

    address: str  # '' for the root
    cls: str
    qualname: str = ""
    aliases: tuple[str, ...] = ()
    training: bool | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # signature, docstring, source file, hooks, own attributes


@dataclass(slots=True)
class Program:
    """The tape of one run. Vids index ``metas``; rows, scopes and sites are referred to by position."""

    backend: str
    model: str  # name of the model's class or function
    rows: list[Row]
    scopes: list[Scope]
    sources: list[Source]
    metas: list[Meta]
    modules: list[ModuleInfo]
    outputs: list[Output]
    events: list[Event]
    sites: list[tuple[Call, ...]]  # interned call sites: calls from the operation outwards, up to the enclosing scope
    writes: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # row -> ((old vid, new vid), ...)
    deps: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # row -> ((hole, last writing row), ...)
    kernels: dict[int, tuple[str, ...]] = field(default_factory=dict)  # row -> kernel names seen below it
    rng: dict[int, Any] = field(default_factory=dict)  # row -> generator state before it; -1: before the run
    batch_dims: dict[int, tuple[int, ...]] = field(default_factory=dict)  # vid -> axes added by vmap
    changes: list[Change] = field(default_factory=list)  # by interventions, in the order in which they were made
    gradient_changes: list[Change] = field(default_factory=list)  # of the gradients at arrays, by interventions
    constants: Mapping[int, Any] = field(default_factory=dict)  # vid -> array at the start, where replay was asked for
    settings: dict[int, Mapping[str, Any]] = field(default_factory=dict)  # row -> arguments by name, once asked for
    costs: dict[int, Cost | None] = field(default_factory=dict)  # row -> its cost; filled when asked for
    facts: dict[str, Any] = field(default_factory=dict)  # started_at, duration_ns, framework_version, halted, error ...
    source: Mapping[str, Mapping[int, str]] | None = None  # file -> line -> text, of a loaded trace; None: read files
    staged: Any = None  # a staged backend's own note of the whole run, where replay was asked for

    def frames(self, site: int) -> tuple[Frame, ...]:
        """Frames of a call site, outermost first, from the enclosing scope's call inwards."""
        if site < 0:
            return ()
        return tuple(call if isinstance(call, Frame) else frame_of(*call) for call in reversed(self.sites[site]))


def walk_outs(outs: Outs) -> list[tuple[int | None, tuple[int, ...]]]:
    """The leaves of ``outs`` in order, each with its path of positions."""
    if outs is None or isinstance(outs, int):
        return [(outs, ())]
    leaves: list[tuple[int | None, tuple[int, ...]]] = []
    for position, item in enumerate(outs):
        leaves += [(vid, (position, *path)) for vid, path in walk_outs(item)]
    return leaves


def hole_paths(row: Row) -> list[tuple[Hashable, ...]]:
    """Where each hole of a row stands: ``(0,)`` positional, ``('weight',)`` keyword, ``(0, 2)`` inside a container."""
    paths: list[tuple[Hashable, ...]] = []

    def walk(value: Any, path: tuple[Hashable, ...]) -> None:
        if value is HOLE:
            paths.append(path)
        elif isinstance(value, tuple | list):
            for position, item in enumerate(value):
                walk(item, (*path, position))
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, (*path, key))
        elif isinstance(value, slice):
            for key, item in (("start", value.start), ("stop", value.stop), ("step", value.step)):
                walk(item, (*path, key))

    for position, item in enumerate(row.args):
        if item is HOLE:
            paths.append((position,))
        else:
            walk(item, (position,))
    for key, item in row.kwargs.items():
        walk(item, (key,))
    return paths


def fill(template: Any, arrays: Sequence[Any]) -> tuple[Any, int]:
    """Put arrays back into a template. Returns the filled structure and how many arrays it took."""
    taken = 0

    def walk(value: Any) -> Any:
        nonlocal taken
        if value is HOLE:
            taken += 1
            return arrays[taken - 1]
        if isinstance(value, tuple):
            items = [walk(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(walk(value.start), walk(value.stop), walk(value.step))
        return value

    return walk(template), taken
