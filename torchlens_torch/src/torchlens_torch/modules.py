"""Module calls: ``__call__`` is replaced on the classes present in the model, for the time of the run.

Not global forward hooks: those run before the user's own hooks, and so miss what a hook returns instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from torchlens_core.backend import Call
from torchlens_core.program import ModuleInfo

from . import callsites
from .active import active
from .capture import Recorder
from .containers import leaves, mirror
from .patches import replaced_calls


def watching(classes: Iterable[type]) -> AbstractContextManager[None]:
    """Module calls of these classes are reported to the recorder of their thread."""
    return replaced_calls(classes, _reporting)


def _reporting(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls = active.calls
        if calls is None or type(self) is not cls:  # the latter where a subclass, which reports, calls its base class
            if calls is None and active.recorded is not None and type(self) is cls:
                model = active.recorded.get(id(self))
                if model is not None and not model.is_running:
                    return model.step(Call(self, args, kwargs), lambda: original(self, *args, **kwargs))
            return original(self, *args, **kwargs)
        info = calls.to_report(self)
        if info is None:
            return original(self, *args, **kwargs)
        return calls.run(original, self, info, args, kwargs)

    return __call__


class ModuleCalls:
    """Opens and closes the scopes of one run."""

    def __init__(self, recorder: Recorder, wrappers: Mapping[int, ModuleInfo]) -> None:
        self.recorder = recorder
        self.session = recorder.session
        self._modules = recorder.modules
        self._wrappers = wrappers  # of compiled parts, by id: a call of one is the part's call
        self._root_called = False

    def to_report(self, module: nn.Module) -> ModuleInfo | None:
        """The module of the model that is called; None where the call is none of a module, or is known already."""
        info = self._modules.get(id(module))
        if info is None:
            return self._wrappers.get(id(module))
        if not info.address and not self._root_called:  # the model's own call, whose scope the session opened
            self._root_called = True
            return None
        return info

    def run(
        self,
        original: Callable[..., Any],
        module: nn.Module,
        info: ModuleInfo,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a module's call in a scope of its own, and return what it returns."""
        session, recorder = self.session, self.recorder
        site = -1
        if recorder.with_sites:
            key, calls = callsites.chain(sys._getframe(2))
            site = session.site_ids.get(key, -1)
            if site < 0:
                site = session.site(key, lambda: tuple(calls))
        scope = session.enter("module", info.address, info.cls, site)
        if recorder.sees_operations:
            scope.ins = self._inputs((*args, *kwargs.values()) if kwargs else args)
        try:
            return self.leave(scope, original(module, *args, **kwargs))
        except BaseException:
            if session.scope is not scope.parent:
                session.abandon(scope)
            raise

    def _inputs(self, values: tuple[Any, ...]) -> tuple[int, ...]:
        """Value ids of the arrays that a module was given."""
        vid_of = self.recorder.vid_of
        vids: list[int] = []
        for value in values:
            if isinstance(value, Tensor):
                vids.append(vid_of(value))
            elif isinstance(value, tuple | list | dict):
                vids += [vid_of(array) for _, array in leaves(value)]
        return tuple(vids)

    def leave(self, scope: Any, out: Any) -> Any:
        """Close a scope that returned ``out``.

        What it returned unchanged becomes an ``identity`` Op of its own, and so does what was overwritten through
        another array since it was made: its value is not that of the Op that made it.
        """
        session, recorder = self.session, self.recorder
        if isinstance(out, Tensor):
            vid = recorder.vid_of(out)
            if vid in scope.ins or (vid < recorder.watermark and recorder.is_overwritten(out, vid)):
                out, vid = recorder.pass_through(out, vid)
            outs: Any = vid
        else:
            outs = mirror(out, recorder.vid_of)
        decisions = session.exit(scope, outs)
        if decisions:
            result = recorder.outcomes.of_module(scope, decisions, out)
            if result is not out:
                out = result
                scope.outs = mirror(out, recorder.vid_of)
        return out


callsites.stop_at(ModuleCalls.run.__code__)
