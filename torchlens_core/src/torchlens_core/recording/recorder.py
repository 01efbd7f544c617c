"""``tl.Recorder``: recording installed once, around any number of calls of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..backend import Call
from ..errors import RecordingError
from ..interventions.when import When
from ..plan import Plan, SaveSpec
from ..selectors import Selector
from ..tracing import backend_for
from .origin import Repeatable
from .record import check_acted, open_file, prepare, warn_of_nothing
from .recording import Recording
from .steps import Steps

if TYPE_CHECKING:
    from .stored import RecordingFile
    from .streaming import Stream, ToDisk


class Recorder:
    """A context in which each call of a model is recorded, and steered.

    ::

        with tl.Recorder(model, save=tl.module("layer4")) as rec:
            for x in loader:
                model(x)
        rec.steps[0]["layer4"].out

    The model may be called from anywhere in the thread that entered the context, ``model.generate()`` included; calls
    in other threads run as ever. What is found out about the model is found out once: a step costs what it records.

    Args:
        model: a module.
        save: which values to keep of each step, as for :func:`record`; False steers alone.
        halt: where each call stops; the call then returns None.
        intervene: ``tl.when(selector, action)`` or several: what each call is steered by.
        activation_transform: applied to every kept array; its result is kept instead.
        output_device: where kept arrays go.
        detach: cut kept arrays from the gradient tape.
        max_records: how many records to hold at most; the oldest steps are dropped first, and the latest one stays.
        replay_ready: hold what ``to_trace()`` of a step takes, its arguments among it.
        on_step: called with each finished :class:`Recording`; with ``max_records=0`` nothing else holds it.
        storage: ``tl.to_disk(path)``: write kept values to a folder as the model runs. It is there when the context is
            left without an exception, and ``tl.load(path)`` gives the list of its steps.
        backend: name of the framework's backend; by default the model tells.

    Attributes:
        steps: the recordings of the calls so far, in order, without those that were dropped.

    Raises:
        InterventionError: on leaving, where an intervention acted in no step.
    """

    def __init__(
        self,
        model: Any,
        *,
        save: SaveSpec,
        halt: Selector | None = None,
        intervene: When | Iterable[When] | None = None,
        activation_transform: Callable[[Any], Any] | None = None,
        output_device: Any = None,
        detach: bool = True,
        max_records: int | None = None,
        replay_ready: bool = False,
        on_step: Callable[[Recording], Any] | None = None,
        storage: ToDisk | None = None,
        backend: str | None = None,
    ) -> None:
        if max_records is not None and max_records < 0:
            raise ValueError(f"max_records is a number of records to hold, from 0; got {max_records}.")
        call = Call(model, (), {})
        self._backend = backend_for(call, backend)

        def make_plan() -> Plan:
            return Plan(save, halt, intervene=intervene, transform=activation_transform, device=output_device)

        self._plan, self._discovery = prepare(self._backend, call, make_plan())
        if not self._discovery.modules or self._discovery.modules[0][1] is None:
            raise RecordingError(
                f"A Recorder watches the calls of a module, and {self._discovery.name} is a function. Give it the "
                "module that the function calls, or use tl.record(function, x, save=...) for each call."
            )
        self.steps: deque[Recording] = deque()
        self._model = model
        self._max_records = max_records
        self._num_records = 0
        self._num_recorded = 0
        self._on_step = on_step
        self._storage = storage
        self._detach = detach
        self._repeatable = Repeatable(self._backend, self._discovery, make_plan) if replay_ready else None
        self._file: RecordingFile | None = None
        self._steps = self._make_steps(None)
        self._stack: ExitStack | None = None

    def _make_steps(self, stream: Stream | None) -> Steps:
        return Steps(
            self._backend,
            self._discovery,
            self._plan,
            self._take,
            detach=self._detach,
            repeatable=self._repeatable,
            stream=stream,
        )

    @property
    def recordings(self) -> deque[Recording]:
        """The same as ``steps``."""
        return self.steps

    @property
    def num_steps(self) -> int:
        """How many calls of the model have run in the context, dropped ones included."""
        return self._steps.count

    def _take(self, recording: Recording) -> None:
        if self._file is not None:
            self._file.add(recording)
        if self._on_step is not None:
            self._on_step(recording)
        self._num_recorded += len(recording)
        if self._max_records == 0:
            return
        self.steps.append(recording)
        self._num_records += len(recording)
        while self._max_records is not None and self._num_records > self._max_records and len(self.steps) > 1:
            self._num_records -= len(self.steps.popleft())

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise RecordingError("This Recorder is entered already. Make another one for a context inside its own.")
        with ExitStack() as stack:
            stream, self._file = open_file(stack, self._storage, self._backend, self._discovery, is_one_run=False)
            self._steps = self._make_steps(stream)
            stack.enter_context(self._backend.recording(self._model, self._discovery, self._plan, self._steps))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        stack, self._stack = self._stack, None
        with stack:
            if error is not None:
                raise error
            if self._file is not None:
                self._file.complete()
        if error is None and self.num_steps and self._plan.halt is None:
            check_acted(self._plan, self._steps.acted)
            warn_of_nothing(self._plan, self._num_recorded)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"<Recorder of {self._discovery.name}: {self.num_steps} steps, {self._num_recorded} records>"
