"""Recording the calls of one model: interception installed once, a session for each call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from torchlens_core.backend import Call, Discovery
from torchlens_core.errors import NestedTraceError
from torchlens_core.plan import Plan
from torchlens_core.program import ModuleInfo, Scope
from torchlens_core.recording.relevance import asked_modules, concerns, needs_stack, places, sees_functions
from torchlens_core.recording.steps import Steps
from torchlens_core.session import Halt

from .active import active
from .capture import IDENTITY
from .functions import TorchFunc
from .library_layers import has_hooks, is_plain, one_call, quiet_layers
from .modules import ModuleCalls, watching
from .sharding import hidden_gathering
from .shared import deeper, eager
from .sparse import FunctionKinds, SparseRecorder
from .wrappers import compiled_parts, on_one_device, unwrap

_push = torch._C._push_on_torch_function_stack
_pop = torch._C._pop_torch_function_stack
_height = torch._C._len_torch_function_stack
_QUIET = ModuleInfo("", "a library layer that calls nothing that was asked about")

# Modules whose outputs were kept by reference in an earlier run -> whether they were overwritten later in it. Where
# that is known, what modules return can be recorded with no function mode at all.
_risky: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


class RecordedModel:
    """One model whose calls are steps, and what is known of it under one plan."""

    def __init__(self, model: Any, discovery: Discovery, plan: Plan, steps: Steps) -> None:
        self.is_running = False
        self._model = model
        self._plan = plan
        self._steps = steps
        self._sees_functions = sees_functions(plan)
        self._keeps_references = any(keep.is_plain for keep in plan.keeps) and not steps.streams
        found = [(info, module) for info, module in discovery.modules if module is not None]
        asked = asked_modules(plan)
        self._asked = [module for info, module in found if not asked.isdisjoint((info.address, *info.aliases))]
        is_asked = set(map(id, self._asked))
        inside = places(plan) if self._sees_functions else None
        self._places = inside and {
            id(module) for info, module in found if not inside.isdisjoint((info.address, *info.aliases))
        }
        self._one_call = one_call({type(module) for _, module in found}) if self._sees_functions else {}
        everything = self._sees_functions or needs_stack(plan)
        quiet = quiet_layers({type(module) for _, module in found}, lambda func: concerns(plan, func))
        self._modules: dict[int, ModuleInfo] = {}
        self._classes: list[type] = []
        for info, module in found:
            if everything or id(module) in is_asked or not info.address:
                is_watched = id(module) in is_asked or type(module) not in quiet or not is_plain(module)
                self._modules[id(module)] = info if is_watched or not info.address else _QUIET
                self._classes.append(type(module))
        self.wrappers = compiled_parts(module for _, module in found)
        self._wrapped = {id(w): self._modules[id(unwrap(w))] for w in self.wrappers if id(unwrap(w)) in self._modules}
        self.all_modules = [module for _, module in found]
        # a module that returns what it was given is an operation too: for that it has to be known what it was given
        self._takes = None if self._sees_functions and concerns(plan, IDENTITY) else is_asked
        # of whom it has to be known whether what they make is overwritten after they have returned
        self._owners = [*self._asked, *(module for _, module in found if self._places and id(module) in self._places)]
        self._buffers: frozenset[int] | None = None
        self._guarded, self._unguarded = (FunctionKinds(plan, guards=guards) for guards in (True, False))

    def classes(self) -> list[type]:
        """The classes whose calls have to be reported."""
        roots = [self._model] if isinstance(self._model, nn.Module) else []
        return [*self._classes, *map(type, (*self.wrappers, *roots))]

    def roots(self) -> list[int]:
        """Ids of the modules whose call is a step."""
        return [id(self._model), id(unwrap(self._model))] if isinstance(self._model, nn.Module) else []

    # -- one step --------------------------------------------------------------------------------------------------

    def step(self, call: Call, run: Callable[[], Any]) -> Any:
        """Run one call of the model as a step, and return what it returns."""
        session = self._steps.begin(call)
        guards = self._has_to_guard()
        kinds = self._guarded if guards else self._unguarded
        recorder = SparseRecorder(session, self._model, self._modules, kinds, _risky, self._buffer_ids)
        is_root = isinstance(call.model, nn.Module) and unwrap(call.model) is call.model
        calls = _RecordedCalls(recorder, self._wrapped, self._places, self._one_call, is_root, self._takes)
        watches = self._sees_functions or guards
        if self._takes is None and isinstance(self._model, nn.Module):
            calls.note_inputs(session.scopes[0], call.args, call.kwargs)
        self.is_running = True
        active.calls = calls
        error: BaseException | None = None
        out = None
        is_complete = False
        try:
            if watches and (guards or not self._places):
                out = calls.in_mode(run)
            else:
                out = run()
            out = calls.leave(session.scopes[0], out)
            is_complete = True
        except Halt:
            session.exit(session.scopes[0], None)
            out = None
        except BaseException as raised:
            session.abandon(session.scopes[0])
            error = raised
            raise
        finally:
            active.calls = None
            self.is_running = False
            recorder.note_overwritten()
            if is_complete and self._keeps_references:
                self._note_unused()
            recorder.release()
            self._steps.end(session, out, error)
        return out

    def _note_unused(self) -> None:
        """Have copied what modules make that were not called so far: writes need not be seen on their account."""
        for module in self._owners:
            _risky.setdefault(module, True)

    def _has_to_guard(self) -> bool:
        """Whether a kept reference may be overwritten as far as is known, so that writes have to be seen."""
        if not self._keeps_references:
            return False
        if torch.is_inference_mode_enabled() or self._plan.whens or (self._sees_functions and not self._places):
            return True
        return any(module not in _risky for module in self._owners)

    def _buffer_ids(self) -> frozenset[int]:
        """Ids of the model's buffers, which outlive the run and are written in the next."""
        if self._buffers is None:
            tables = (module._buffers.values() for module in self.all_modules)
            self._buffers = frozenset(id(array) for table in tables for array in table if array is not None)
        return self._buffers


class _RecordedCalls(ModuleCalls):
    """Module calls of one step."""

    def __init__(
        self,
        recorder: SparseRecorder,
        wrapped: Mapping[int, ModuleInfo],
        places: set[int] | None,
        one_call: Mapping[type, TorchFunc],
        root_called: bool,
        takes: Collection[int] | None,
    ) -> None:
        super().__init__(recorder, wrapped)
        self._root_called = root_called
        self._takes = takes  # ids of the modules of which it has to be known what they were given; None: all
        self.height = -1  # of the stack of function modes with the recorder's on top; -1 where it is not on it
        self._sparse = recorder
        self._places = places
        self._one_call = one_call
        self._asks_modules = recorder.session.plan.asks_modules

    def run(
        self,
        original: Callable[..., Any],
        module: nn.Module,
        info: ModuleInfo,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a module's call in a scope of its own; a quiet one without the function mode."""
        if info is _QUIET:
            return self._run_quietly(original, module, args, kwargs)
        session = self.session
        scope = session.enter("module", info.address, info.cls, -1)
        if self._takes is None or id(module) in self._takes:
            self.note_inputs(scope, args, kwargs)
        try:
            if self._places and self._sparse.owner is None and id(module) in self._places:
                out = self._run_place(lambda: original(module, *args, **kwargs), module)
            elif (
                (func := self._one_call.get(type(module))) is not None
                and _height() == self.height
                and "forward" not in vars(module)
                and not has_hooks(module)
            ):
                out = self._sparse.of_layer(func, original, module, args, kwargs)
            else:
                out = original(module, *args, **kwargs)
            if not self._asks_modules and self._takes is not None:
                session.exit(scope, None)
                return out
            around, self._sparse.owner = self._sparse.owner, module
            out = self.leave(scope, out)
            self._sparse.owner = around
            return out
        except BaseException:
            if session.scope is not scope.parent:
                session.abandon(scope)
            raise

    def _run_quietly(
        self, original: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if _height() != self.height or has_hooks(module):
            return original(module, *args, **kwargs)
        mode = _pop()
        try:
            return original(module, *args, **kwargs)
        finally:
            _push(mode)

    def _run_place(self, run: Callable[[], Any], module: nn.Module) -> Any:
        """Run one of the modules outside of which no function is meant."""
        self._sparse.owner = module
        try:
            return run() if self.height >= 0 else self.in_mode(run)
        finally:
            self._sparse.owner = None

    def in_mode(self, run: Callable[[], Any]) -> Any:
        """Run something with the function mode on."""
        with self._sparse:
            self.height = _height()
            try:
                return run()
            finally:
                self.height = -1

    def note_inputs(self, scope: Scope, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note what a module was given."""
        with torch._C.DisableTorchFunction():
            scope.ins = self._inputs((*args, *kwargs.values()))

    def leave(self, scope: Scope, out: Any) -> Any:
        """Close a scope that returned ``out``."""
        with torch._C.DisableTorchFunction():
            return super().leave(scope, out)


@contextmanager
def recording(model: Any, discovery: Discovery, plan: Plan, steps: Steps) -> Iterator[Callable[[Call], Any]]:
    """A context in which each call of the model in this thread is a step."""
    if active.calls is not None:
        raise NestedTraceError(
            "A trace or a recording is already running in this thread: the model (or one of its hooks) called "
            "tl.record. Record the inner model by itself, before or after."
        )
    recorded = RecordedModel(model, discovery, plan, steps)
    before = dict(active.recorded or {})
    if any(root in before for root in recorded.roots()):
        raise NestedTraceError(
            "This model is recorded by a Recorder already, in this thread. Give one Recorder all that is wanted: "
            "save=, intervene= and halt= go together."
        )
    with ExitStack() as stack:
        stack.enter_context(watching(recorded.classes()))
        stack.enter_context(eager())
        stack.enter_context(hidden_gathering(recorded.all_modules))
        stack.enter_context(on_one_device(model, recorded.all_modules))
        stack.enter_context(deeper())
        stack.callback(setattr, active, "recorded", before or None)
        active.recorded = before | dict.fromkeys(recorded.roots(), recorded)

        def run(call: Call) -> Any:
            return call.run() if recorded.roots() else recorded.step(call, call.run)

        yield run
