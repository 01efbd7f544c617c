"""Recording in the toy framework: each call of the model is a step, in which only what is asked about is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

from ..backend import Call
from ..errors import NestedTraceError
from ..plan import Plan
from ..program import Row
from ..recording.relevance import concerns
from ..recording.steps import Steps
from ..session import Halt
from .toy_framework import Array, Module, Operation, watcher_here, watching
from .toy_recorder import Recorder, containers, describe


class SparseRecorder(Recorder):
    """Watches one step: passes over operations that are surely not meant, and knows no sources."""

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation; record it where it may be meant."""
        session, func = self.session, describe(operation)
        if not concerns(session.plan, func):
            out = operation.run(*args, **kwargs)
            for array in func.writes(args, kwargs) if func.writes else ():
                self._vids.pop(id(array), None)  # another value from here on
            return out
        written = [(array, -1) for array in func.writes(args, kwargs)] if func.writes else []
        start = perf_counter_ns()
        out = operation.run(*args, **kwargs)
        if not written and id(out) in self._vids:
            out = Array(out.data)
        outs = containers.mirror(out, self._assign)
        return self._outcome(
            Row(func, (), {}, (), outs, session.scope, -1, start, perf_counter_ns(), None), out, written
        )

    def _note_write(self, array: Array, old: int) -> None:
        """Writes make edges, and a recording has none."""

    def read(self, kind: str, array: Array, value: Any) -> None:
        """Reads are not recorded."""

    def assigned(self, module: Module, name: str, array: Array) -> None:
        """Buffers are not recorded."""

    def vid_of(self, array: Array) -> int:
        """The value id of an array, a new one for what was not seen being made."""
        return self._vids[id(array)] if id(array) in self._vids else self._assign(array)


class Model:
    """Watches a thread between the steps of one recording."""

    def __init__(self, model: Any, plan: Plan, steps: Steps) -> None:
        self._model = model
        self._plan = plan
        self._steps = steps

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What runs outside of the model is nobody's business."""
        return operation.run(*args, **kwargs)

    def module_call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of the model is a step; other modules run as ever."""
        if module is self._model:
            return self.step(Call(module, args, kwargs))
        return module.run(*args, **kwargs)

    def read(self, kind: str, array: Array, value: Any) -> None:
        """Reads are not recorded."""

    def assigned(self, module: Module, name: str, array: Array) -> None:
        """Buffers are not recorded."""

    def step(self, call: Call) -> Any:
        """Run one call as a step."""
        session = self._steps.begin(call)
        error: BaseException | None = None
        out = None
        try:
            recorder = SparseRecorder(session)
            with watching(recorder):
                out = recorder.leave(call.run())
        except Halt:
            out = None
        except BaseException as raised:
            error = raised
            raise
        finally:
            session.abandon(session.scopes[0])
            self._steps.end(session, out, error)
        return out


@contextmanager
def recording(model: Any, plan: Plan, steps: Steps) -> Iterator[Callable[[Call], Any]]:
    """A context in which each call of the model in this thread is a step."""
    if isinstance(watcher_here(), Recorder | Model):
        raise NestedTraceError("A trace or a recording is already running in this thread.")
    watcher = Model(model, plan, steps)
    with watching(watcher):
        yield watcher.step
