"""Staging a model: its jaxpr, with module calls noted on the way.

``__call__`` is replaced on the classes of the modules present, for the time of the staging: what runs inside is put in
a named scope that carries a number, and what goes in and comes out is marked.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import CodeType
from typing import Any

import jax

from torchlens_core.callsites import KEEP as KEEP_FRAME
from torchlens_core.callsites import SKIP as SKIP_FRAME
from torchlens_core.callsites import STOP as STOP_FRAME
from torchlens_core.callsites import CallSites
from torchlens_core.errors import NestedTraceError

from ..calls.structure import is_array, is_module, modules_of, state_of, training_mode
from ..lowering import sites
from ..lowering.ir import Call
from ..lowering.layers import LAYERS
from .marks import mark, mark_leaf
from .patching import patched

_KINDS = {sites.KEEP: KEEP_FRAME, sites.STOP: STOP_FRAME}


def _classify(code: CodeType) -> int:
    return _KINDS.get(sites.classify_code(code), SKIP_FRAME)


call_sites = CallSites(_classify)


class Staging(threading.local):
    """The staging of this thread: module calls that were seen, and which is the innermost now."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] | None = None
        self.innermost = -1
        self.open: list[Any] = []  # the modules whose calls are open
        self.addresses: dict[int, tuple[str, Any]] = {}  # id of a module -> its address, and the module
        self.recorded: dict[int, Callable[..., Any]] = {}  # id of a model whose calls are recorded -> what takes them

    def note_modules(self, roots: Iterable[tuple[str, Any]]) -> None:
        """From here on calls of these modules, and of those inside them, are known by their addresses."""
        for prefix, root in roots if self.calls is not None else ():
            for address, module in modules_of(root, prefix):
                self.addresses.setdefault(id(module), (address, module))


staging = Staging()
NESTED = "A trace is already running in this thread: the traced model called tl.trace."


@contextmanager
def noting_calls(classes: Iterable[type], calls: dict[int, Call] | None = None) -> Iterator[dict[int, Call]]:
    """Note calls of modules of these classes in this thread. Yields what is noted, by number: ``calls``, if given."""
    if staging.calls is not None:
        raise NestedTraceError(NESTED)
    staging.calls = calls = {} if calls is None else calls
    staging.innermost = -1
    staging.open = []
    staging.addresses = {}
    try:
        with ExitStack() as stack:
            stack.enter_context(patched(classes, reporting))
            for interceptor in interceptors():
                stack.enter_context(interceptor)
            yield calls
    finally:
        staging.calls = None
        staging.addresses = {}


def interceptors() -> Iterator[AbstractContextManager[Any]]:
    """Of libraries that show their modules' calls themselves, and build the modules as they are called."""
    linen = sys.modules.get("flax.linen")
    if linen is not None:
        yield linen.intercept_methods(
            lambda call, args, kwargs, context: _intercepted(
                call, args, kwargs, context.module, context.method_name, ".".join(context.module.path)
            )
        )
    haiku = sys.modules.get("haiku")
    if haiku is not None:
        yield haiku.intercept_methods(
            lambda call, args, kwargs, context: _intercepted(
                call, args, kwargs, context.module, context.method_name,
                str(getattr(context.module, "module_name", "")).replace("/~/", "/").replace("/", "."),
            )
        )  # fmt: skip


def _intercepted(call: Any, args: Any, kwargs: Any, module: Any, method: str, address: str) -> Any:
    if method != "__call__" or staging.calls is None or not (address or _is_layer(module)):
        return call(*args, **kwargs)
    if _is_open(staging.calls, module):
        return call(*args, **kwargs)
    return noted(call, args, kwargs, address, module, sys._getframe(2), is_built=True)


def reporting(original: Any) -> Callable[..., Any]:
    """A ``__call__`` that notes calls while something is staged, and has those of recorded models recorded."""

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = original.__get__(self, type(self))
        calls = staging.calls
        if calls is None and id(self) in staging.recorded:
            return staging.recorded[id(self)](function, args, kwargs)
        if calls is None or not is_module(self):
            return function(*args, **kwargs)
        known = staging.addresses.get(id(self))
        address = known[0] if known is not None else None
        if (address == "" and not _is_layer(self)) or _is_open(calls, self):
            return function(*args, **kwargs)
        return noted(function, args, kwargs, address, self, sys._getframe(1))

    return __call__


def noted(
    function: Any, args: Any, kwargs: Any, address: str | None, module: Any, frame: Any, *, is_built: bool = False
) -> Any:
    """Call a module, and note its call.

    One whose address is not known was rebuilt from its arrays, by a transformation: the arrays are marked, and tell.
    """
    calls = staging.calls
    assert calls is not None
    uid, parent = len(calls), staging.innermost
    _, site = call_sites.chain(frame)
    cls = type(module)
    calls[uid] = Call(
        uid, address, f"{cls.__module__}.{cls.__qualname__}", parent, tuple(site), training_mode(module), is_built
    )
    staging.innermost = uid
    staging.open.append(module)
    try:
        if address is None:
            for leaf in state_of(module):
                if is_array(leaf.array):
                    mark_leaf(leaf.array, uid, leaf.address)
        args, kwargs = mark((args, kwargs), uid, "in")
        with jax.named_scope(f"tl@{uid}"):
            out = function(*args, **kwargs)
        return mark(out, uid, "out")
    finally:
        staging.innermost = parent
        staging.open.pop()


def _is_layer(module: Any) -> bool:
    """Whether a module is one operation of its library: it is noted even where it is the model itself."""
    cls = type(module)
    return f"{cls.__module__}.{cls.__qualname__}" in LAYERS


def _is_open(calls: dict[int, Call], module: Any) -> bool:
    """Whether the innermost open call is one of this module: its class called that of a base class."""
    return bool(staging.open) and staging.open[-1] is module
