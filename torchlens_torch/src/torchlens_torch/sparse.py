"""The function mode of a recording: it passes over what nobody asked about, and writes down the rest.

A call that is passed over costs the mode itself and one look-up. No arguments, call sites or sources are noted, so that
there are no edges; values are kept by reference as in a trace, and copied just before a call overwrites them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn

from torchlens_core.plan import Decision, Plan
from torchlens_core.program import ModuleInfo, Row
from torchlens_core.recording.relevance import concerns
from torchlens_core.session import Session

from .capture import Recorder
from .containers import leaves
from .functions import OPENED, TorchFunc, describe
from .memory import meta_of, stamp, storage_of

_PASSED, _GUARDED, _OPENED, _ASKED = range(4)  # over; over, unless it overwrites what is kept; into it; no
_EMPTY: dict[str, Any] = {}
_push = torch._C._push_on_torch_function_stack
_pop = torch._C._pop_torch_function_stack
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


class FunctionKinds(dict[Any, int]):
    """What to do with calls of each function under one plan, found out when it is first called.

    Args:
        plan: what is asked for.
        guards: whether kept values have to be saved from being overwritten.
    """

    def __init__(self, plan: Plan, *, guards: bool) -> None:
        super().__init__()
        self._plan = plan
        self._guards = guards

    def __missing__(self, func: Any) -> int:
        info = describe(func)
        writes = info.writes is not None or info.exposes
        if func in OPENED:
            kind = _OPENED
        elif info.silent or info.event is not None:
            kind = _PASSED
        elif concerns(self._plan, info):
            kind = _ASKED
        else:
            kind = _GUARDED if writes and self._guards else _PASSED
        self[func] = kind
        return kind


class SparseRecorder(Recorder):
    """Records one run under a plan that needs no graph.

    Attributes:
        owner: the module whose output is being kept, or that is watched; what becomes of it is remembered.
        owned: vid of a value kept by reference for a module -> the module, and the id of the array.
    """

    def __init__(
        self,
        session: Session,
        model: Any,
        modules: Mapping[int, ModuleInfo],
        kinds: FunctionKinds,
        risky: Any,
        buffers: Callable[[], frozenset[int]],
    ) -> None:
        super().__init__(session, model, modules)
        self.owner: nn.Module | None = None
        self.owned: dict[int, tuple[nn.Module, int]] = {}
        self._kinds = kinds
        self._risky = risky
        self._rows_for_modules = session.plan.asks_modules  # who asks what a module returned asks what made it
        self._buffers_now = buffers
        self._storages: set[int] = set()  # of what is kept by reference
        self._num_stored = 0  # how much of session.kept_order is in there
        self._meets = False  # whether the call that is about to run overwrites memory in one of them
        self._stamps: dict[int, int | None] = {}  # vid -> version of the array when it was given the vid

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kind = self._kinds[func]
        if kind == _PASSED and not (kwargs and "out" in kwargs):
            return func(*args, **kwargs) if kwargs else func(*args)
        if kind == _OPENED:
            with self:
                return describe(func).opened(*args, **(kwargs or _EMPTY))  # type: ignore[misc]
        info = describe(func)
        if kind == _ASKED:
            session = self.session
            decision = self.constant or session.scope.memo.get(info) or session.decide(info, session.scope)
            if self._rows_for_modules or not decision.is_idle:
                if info.opened is not None:  # a reflected operator: the operation in the order of its operands
                    with self:
                        return info.opened(*args, **(kwargs or _EMPTY))
                return self._asked(info, func, args, kwargs or _EMPTY, decision)
        return self._guarded(info, func, args, kwargs or _EMPTY)

    def _guarded(self, info: TorchFunc, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that nobody asked about, and that may overwrite what is kept."""
        targets = self._targets(info, args, kwargs)
        out = func(*args, **kwargs)
        self._forget(targets)
        return out

    def _asked(
        self,
        info: TorchFunc,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        decision: Decision,
    ) -> Any:
        targets: list[Tensor] | None = None
        if info.writes is not None or info.exposes or "out" in kwargs:
            targets = self._targets(info, args, kwargs) or None
            if targets and self.steers:
                func = self.outcomes.instead_of(info, func, targets)
        start = perf_counter_ns()
        out = func(*args, **kwargs)
        return self._made(info, out, targets, decision, start)

    def of_layer(
        self, info: TorchFunc, run: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a layer that is one call of a function, of which nothing but keeping is wanted, as that call."""
        session = self.session
        decision = self.constant or session.scope.memo.get(info) or session.decide(info, session.scope)
        if decision.slow or (decision.is_idle and not self._rows_for_modules):
            return run(module, *args, **kwargs)
        mode = _pop()  # what is done with the result is no call of the model's
        try:
            targets = self._guard([*args, *kwargs.values()][:1]) if getattr(module, "inplace", False) else None
            start = perf_counter_ns()
            return self._made(info, run(module, *args, **kwargs), targets, decision, start)
        finally:
            _push(mode)

    def _made(self, info: TorchFunc, out: Any, targets: list[Tensor] | None, decision: Decision, start: int) -> Any:
        """Note what a call returned, and do with it what was decided."""
        end = perf_counter_ns()
        session = self.session
        if targets:
            self._forget(targets)
        out, outs = self._register(info, out, targets)
        if outs is None:
            return out
        row = Row(info, (), _EMPTY, (), outs, session.scope, -1, start, end, None)
        session.rows.append(row)
        if decision.slow or out is None or outs.__class__ is not int:
            return self.outcomes.of_call(row, out, outs, targets)
        if decision.keep is not None:
            is_buffer = bool(targets) and id(out) in self._buffers_now()
            self.keep(outs, out.detach().clone() if is_buffer else out, decision)
        if decision.stop:
            self.outcomes.stop(outs)
        return out

    # -- writes ----------------------------------------------------------------------------------------------------

    def _targets(self, info: TorchFunc, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The arrays that a call will overwrite; kept values in their memory are copied first."""
        if info.exposes:
            self.memory.expose(args[0])
            return []
        targets = [] if info.writes is None else [a for a in info.writes(args, kwargs) if isinstance(a, Tensor)]
        if "out" in kwargs:
            targets += [array for _, array in leaves(kwargs["out"])]
        return self._guard(targets)

    def _guard(self, targets: list[Tensor]) -> list[Tensor]:
        """These arrays are about to be overwritten."""
        if targets:
            self._note_storages()
        self._meets = any(storage_of(target) in self._storages for target in targets)
        if self._meets:
            self.memory.before_write(targets)
        return targets

    def _note_storages(self) -> None:
        order = self.session.kept_order
        for vid in order[self._num_stored :]:
            if vid in self.session.values:
                self._storages.add(storage_of(self.session.values[vid][0]))
        self._num_stored = len(order)

    def _forget(self, targets: list[Tensor]) -> None:
        """These arrays have been overwritten: they are other values from here on."""
        for target in targets:
            self.known.pop(id(target), None)
            if self._meets:
                self.memory.after_write(target, 0, 0)

    # -- value ids and values --------------------------------------------------------------------------------------

    def vid_of(self, array: Tensor) -> int:
        """The value id of an array; a new one where it has been written since it was given one, seen or not."""
        if self.is_known(array):
            vid = self.known[id(array)][1]
            if self._stamps.get(vid) == stamp(array):
                return vid
        return self.assign(array)

    def assign(self, array: Tensor) -> int:
        """A new value id."""
        vid = super().assign(array)
        self._stamps[vid] = stamp(array)
        return vid

    def keep(self, vid: int, array: Tensor, decision: Any) -> None:
        """Keep a value as the decision says; of one inside a transform the array in it."""
        session = self.session
        if decision.keep is None:
            return
        if _is_wrapped(array):
            from .transforms import unwrapped

            array = unwrapped(array)[0]
            session.metas[vid] = meta_of(array)
        if decision.keep.is_plain and session.stream is None:
            if self.owner is not None and self._risky.get(self.owner):
                array = array.detach().clone()
            elif self.owner is not None:
                self.owned[vid] = (self.owner, id(array))
        if self.memory.has_exposed:
            super().keep(vid, array, decision)
        else:
            session.keep(vid, array, decision)

    def note_overwritten(self) -> None:
        """Remember, of each module for which an array was kept, whether one was overwritten later in the run."""
        for vid, (module, array) in self.owned.items():
            held, version = self.session.values.get(vid, (None, None))
            if held is not None:
                is_overwritten = id(held) != array or (version is not None and held._version != version)
                self._risky[module] = self._risky.get(module, False) or is_overwritten
