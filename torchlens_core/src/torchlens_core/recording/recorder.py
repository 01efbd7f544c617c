"""``tl.Recorder``: recording installed once, around any number of calls of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..backend import Backend, Call, Discovery
from ..errors import BackendError, RecordingError
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
    from .streaming import ToDisk


class Recorder:
    """A context in which each call of a model is recorded, and steered.

    ::

        with tl.Recorder(model, save=tl.module("layer4")) as rec:
            for x in loader:
                model(x)
        rec.steps[0]["layer4"].out

    The model may be called from anywhere in the thread that entered the context, ``model.generate()`` included; calls
    in other threads run as ever. What is found out about the model is found out once: a step costs what it records.
    Calls of a function are not seen by themselves: call the recorder, ``rec(x)``, which calls the function.

    Args:
        model: a module, or a function.
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
        RecordingError: on leaving, where the model is a function and was not called through the recorder.
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

        def make_plan() -> Plan:
            return Plan(save, halt, intervene=intervene, transform=activation_transform, device=output_device)

        self.steps: deque[Recording] = deque()
        self._model = model
        self._backend_name = backend
        self._make_plan = make_plan
        self._max_records = max_records
        self._num_records = 0
        self._num_recorded = 0
        self._on_step = on_step
        self._storage = storage
        self._detach = detach
        self._is_replay_ready = replay_ready
        self._known: tuple[Backend, Plan, Discovery] | None = None
        self._file: RecordingFile | None = None
        self._steps: Steps | None = None
        self._run: Callable[[Call], Any] | None = None
        self._stack: ExitStack | None = None
        call = Call(model, (), {})
        self._is_module = self._is_called_as_a_module(call)
        if self._is_module:
            self._prepare(call)

    def _is_called_as_a_module(self, call: Call) -> bool:
        """Whether calls of the model are seen by themselves. What a function is, its arguments may have to tell."""
        try:
            backend = backend_for(call, self._backend_name)
        except BackendError:
            if self._backend_name is not None or not callable(call.model):
                raise
            return False
        return backend.find_modules(call, ()).root is not None

    def _prepare(self, call: Call) -> None:
        backend = backend_for(call, self._backend_name)
        self._known = (backend, *prepare(backend, call, self._make_plan()))

    def _install(self, stack: ExitStack) -> Callable[[Call], Any]:
        """Have calls of the model be steps; gives what runs one."""
        assert self._known is not None
        backend, plan, discovery = self._known
        stream, self._file = open_file(stack, self._storage, backend, discovery, is_one_run=False)
        repeatable = Repeatable(backend, discovery, self._make_plan) if self._is_replay_ready else None
        self._steps = Steps(
            backend, discovery, plan, self._take, detach=self._detach, repeatable=repeatable, stream=stream
        )
        return stack.enter_context(backend.recording(self._model, discovery, plan, self._steps))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as a step, and return what it returns: for a function, whose calls are not seen otherwise.

        Raises:
            RecordingError: outside of the context.
            SelectorError: at the first call of a function, for a selector that names what it cannot have.
        """
        if self._stack is None:
            raise RecordingError("This Recorder has not been entered: with tl.Recorder(...) as rec: rec(x).")
        call = Call(self._model, args, kwargs)
        if self._run is None:
            self._prepare(call)
            self._run = self._install(self._stack)
        return self._run(call)

    @property
    def recordings(self) -> deque[Recording]:
        """The same as ``steps``."""
        return self.steps

    @property
    def num_steps(self) -> int:
        """How many calls of the model have run in the context, dropped ones included."""
        return 0 if self._steps is None else self._steps.count

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
        self._steps = None
        with ExitStack() as stack:
            self._run = self._install(stack) if self._is_module else None
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
            if not self._is_module and not self.num_steps:
                raise RecordingError(
                    f"Nothing was recorded: {self._name} is a function, and its calls are not seen by "
                    "themselves. Call the recorder: with tl.Recorder(function, save=...) as rec: rec(x)."
                )
            if self._file is not None:
                self._file.complete()
        if error is None and self._steps is not None and self._known is not None and self.num_steps:
            plan = self._known[1]
            if plan.halt is None:
                check_acted(plan, self._steps.acted)
                warn_of_nothing(plan, self._num_recorded)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def _name(self) -> str:
        return self._known[2].name if self._known else getattr(self._model, "__name__", type(self._model).__name__)

    def __repr__(self) -> str:
        return f"<Recorder of {self._name}: {self.num_steps} steps, {self._num_recorded} records>"
