"""Recording: each call of the model is a step, in which only what is asked about is seen."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from ..backend import Call
from ..program import Func, Row
from ..recording.relevance import concerns
from ..recording.steps import Steps
from ..session import Halt
from .recorder import Recorder

if TYPE_CHECKING:
    from .backend import EagerBackend


class SparseRecorder(Recorder):
    """Watches one step: passes over operations that are surely not meant, and knows no sources."""

    def operation(self, func: Func, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """Run an operation; record it where it may be meant."""
        session = self.session
        written = [(array, -1) for array in func.writes(args, kwargs)] if func.writes else []
        start = perf_counter_ns()
        out = run(*args, **kwargs)
        if not concerns(session.plan, func):
            for array, _ in written:
                self._vids.pop(id(array), None)  # another value from here on
            return out
        if not written and id(out) in self._vids:
            out = self._alias(out)
        outs = self._containers.mirror(out, self._assign)
        row = Row(func, (), {}, (), outs, session.scope, -1, start, perf_counter_ns(), None)
        return self._outcome(row, out, written)

    def _note_write(self, array: Any, old: int) -> None:
        """Writes make edges, and a recording has none."""

    def read(self, kind: str, array: Any, value: Any) -> None:
        """Reads are not recorded."""

    def assigned(self, module: Any, name: str, array: Any) -> None:
        """Buffers are not recorded."""

    def vid_of(self, array: Any) -> int:
        """The value id of an array, a new one for what was not seen being made."""
        return self._vids[id(array)] if id(array) in self._vids else self._assign(array)


class Between:
    """Watches a thread between the steps of one recording."""

    def __init__(self, backend: EagerBackend, model: Any, steps: Steps) -> None:
        self._backend = backend
        self._model = model
        self._steps = steps

    def operation(self, func: Func, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """What runs outside of the model is nobody's business."""
        return run(*args, **kwargs)

    def module_call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """A call of the model is a step; other modules run as ever."""
        return self.step(Call(module, args, kwargs)) if module is self._model else run(*args, **kwargs)

    def read(self, kind: str, array: Any, value: Any) -> None:
        """Reads are not recorded."""

    def assigned(self, module: Any, name: str, array: Any) -> None:
        """Buffers are not recorded."""

    def step(self, call: Call) -> Any:
        """Run one call as a step."""
        session = self._steps.begin(call)
        error: BaseException | None = None
        out = None
        try:
            recorder = SparseRecorder(session, self._backend)
            with self._backend.busy("running"), self._backend.watching(recorder):
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
