"""The jobs of a backend that are alike for all eager frameworks."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Literal

from ..backend import Backend, Call, Discovery
from ..callsites import CallSites
from ..containers import Containers
from ..errors import NestedTraceError
from ..plan import Plan
from ..program import Func, Output, Row
from ..recording.steps import Steps
from ..session import Halt, Session
from .framework import Watch
from .recorder import Recorder
from .sparse import Between

_thread = threading.local()


class EagerBackend(Backend):
    """A backend for a framework that runs operations as they are called, and whose arrays share no memory.

    Attributes:
        containers: of the framework's arrays.
        sites: see :func:`~.framework.call_sites`.
        identity: an operation that returns another array of the same value: what a module that hands back its input
            did.
    """

    containers: ClassVar[Containers]
    sites: ClassVar[CallSites]
    identity: ClassVar[Func]

    @abstractmethod
    def watching(self, watch: Watch | None) -> AbstractContextManager[Any]:
        """A context in which the framework tells ``watch`` what it does in this thread; None lets nobody see it."""

    def signature(self, model: Any) -> Callable[..., Any]:
        """The function whose arguments name the inputs of a model."""
        return getattr(model, "forward", model)  # type: ignore[no-any-return]

    def capture(self, call: Call, session: Session) -> Any:
        with self.busy("running"):
            recorder = Recorder(session, self)
            session.rng[-1] = self.rng()
            recorder.add_state()
            recorder.add_inputs(call)
            try:
                with self.watching(recorder):
                    out = recorder.leave(call.run())
            except Halt:
                out = None
            finally:
                session.abandon(session.scopes[0])
            session.outputs += [Output(path, recorder.vid_of(array)) for path, array in self.leaves(out)]
            recorder.warn_of_unknown()
            return out

    @contextmanager
    def recording(self, model: Any, discovery: Discovery, plan: Plan, steps: Steps) -> Iterator[Callable[[Call], Any]]:
        with self.busy("recording"):
            between = Between(self, model, steps)
            with self.watching(between):
                yield between.step

    @contextmanager
    def busy(self, doing: Literal["running", "recording"]) -> Iterator[None]:
        """A context in which this thread runs a model, or waits for calls of one. Raises NestedTraceError."""
        before = getattr(_thread, "doing", None)
        if before in ("running", doing):
            raise NestedTraceError(
                "A trace or a recording is already running in this thread: the traced model called tl.trace, or "
                "tl.record."
            )
        _thread.doing = doing
        try:
            yield
        finally:
            _thread.doing = before

    def own_state(self, model: Any) -> Mapping[str, Any]:
        state = self.discover(Call(model, (), {})).state
        return {each.address: self.arrays.copy(each.array) for each in state if each.is_buffer}

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return self.containers.leaves(value)

    def replaced(self, value: Any, arrays: Mapping[int, Any]) -> Any:
        return self.containers.replaced(value, arrays)

    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        assert row.func.func is not None
        return row.func.func(*args, **kwargs)
