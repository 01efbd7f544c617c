"""What a recording keeps of its run so that the run can be repeated, and the repetition that makes a trace of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..backend import Arrays, Backend, Call, Discovery
from ..errors import RecordingError, ValueOverwritten
from ..plan import Plan
from ..values import Values

if TYPE_CHECKING:
    from ..records.trace import Trace
    from .recording import Recording

_RTOL, _ATOL = 1e-3, 1e-5  # what sums in another order may differ by: kernels of accelerators, fused paths

_WHY = (
    "Has the model been changed or trained since, or does it depend on more than its arguments, its parameters and the "
    "framework's random generators? Call to_trace() at once, or use tl.trace(model, x, save=...)."
)


class Repeatable:
    """Notes, for each run of one model, what its repetition takes. The model is held weakly, a function strongly."""

    def __init__(self, backend: Backend, discovery: Discovery, plan: Callable[[], Plan]) -> None:
        self.backend = backend
        self.discovery = discovery
        self.plan = plan

    def origin(self, call: Call) -> Origin:
        """The origin of a run that is about to begin."""
        return Origin(self, call)


class Origin:
    """The arguments of a run, and the state that it began in."""

    def __init__(self, repeatable: Repeatable, call: Call) -> None:
        backend = self._backend = repeatable.backend
        self._make_plan = repeatable.plan
        discovery = repeatable.discovery
        self._model = _reference(call.model, discovery)
        self._args, self._kwargs = call.args, dict(call.kwargs)
        self._given = [backend.arrays.hold(array) for _, array in backend.leaves([call.args, dict(call.kwargs)])]
        self._conditions: Callable[[], AbstractContextManager[Any]] = backend.conditions()
        self._rng = backend.rng()
        self._own_state = backend.own_state(call.model)
        self._returned: list[Any] = []

    def ran(self, output: Any) -> None:
        """The run is over, and returned this: a repetition has to return the same."""
        self._returned = [self._backend.arrays.hold(array) for _, array in self._backend.leaves(output)]

    def to_trace(self, recording: Recording) -> Trace:
        """Repeat the run as a trace, and put the recorded values in it."""
        from ..tracing import run

        model = self._model()
        if model is None:
            raise RecordingError("The model of this recording is gone, so that its run cannot be repeated.")
        if "error" in recording.facts:
            raise RecordingError(
                f"The run ended in an error ({recording.facts['error']}); there is no whole trace of it."
            )
        call = Call(model, self._args, self._kwargs)
        backend = self._backend
        discovery = backend.discover(call)
        self._check_arguments()
        plan = self._make_plan()
        with (
            self._conditions(),
            backend.preserve(call, discovery) as kept,
            backend.with_state(kept, discovery, self._own_state) as repeated,
        ):
            backend.rng(self._rng)
            made, output = run(backend, repeated, plan, {"operations", "sites"}, discovery=discovery, detach=True)
            self._check_returned(output)
        _put_in_place(recording, made, backend.arrays)
        return made

    def _check_arguments(self) -> None:
        for held in self._given:
            try:
                self._backend.arrays.release(held)
            except ValueOverwritten:
                raise RecordingError(
                    "An array among the arguments has been overwritten, by the model itself or since, so that the run "
                    "cannot be repeated. Use tl.trace(model, x, save=...), or give the model a copy."
                ) from None

    def _check_returned(self, output: Any) -> None:
        arrays = self._backend.arrays
        found = [array for _, array in self._backend.leaves(output)]
        try:
            before = [arrays.release(held) for held in self._returned]
        except ValueOverwritten:
            raise RecordingError(
                "What the model returned has been overwritten since, so that nothing tells whether a repetition is the "
                "same run. Use tl.trace(model, x, save=...)."
            ) from None
        if len(found) != len(before) or not all(_same(arrays, a, b) for a, b in zip(before, found, strict=True)):
            raise RecordingError(f"The run did not repeat: the model returns something else now. {_WHY}")


def _reference(model: Any, discovery: Discovery) -> Callable[[], Any]:
    """Modules are held weakly. Functions, methods and wrappers may have no other holder."""
    if discovery.root is model:
        return weakref.ref(model)
    return lambda: model


def _put_in_place(recording: Recording, made: Trace, arrays: Arrays) -> None:
    """Put recorded values where the repeated run has its own. They have to be the same."""
    sources = {source.vid for source in made.program.sources}
    repeated = [vid for vid in made.values if vid not in sources]
    if len(repeated) != len(recording):
        raise RecordingError(
            f"The run did not repeat: {len(recording)} values were recorded, and now there are {len(repeated)}. {_WHY}"
        )
    is_transformed = recording.values.is_transformed
    # a trace has what transforms made after what was kept as it was
    found = sorted(zip(recording.records, recording.sites, strict=True), key=lambda each: is_transformed(each[1].vid))
    for (record, _), vid in zip(found, repeated, strict=True):
        if not _same(arrays, record.out, made.values[vid]):
            raise RecordingError(f"The run did not repeat: {record.raw_label} has other values now. {_WHY}")
    made.values = Renamed(recording.values, {vid: site.vid for (_, site), vid in zip(found, repeated, strict=True)})


def _same(arrays: Arrays, recorded: Any, repeated: Any) -> bool:
    if not arrays.is_array(recorded) or not arrays.is_array(repeated):
        return bool(recorded == repeated)
    return arrays.equal(recorded, repeated, rtol=_RTOL, atol=_ATOL)


class Renamed:
    """Values under other value ids: those of another run of the same model."""

    def __init__(self, values: Values, names: Mapping[int, int]) -> None:
        self._values = values
        self._names = names  # value id here -> the one there

    def __contains__(self, vid: object) -> bool:
        return vid in self._names

    def __getitem__(self, vid: int) -> Any:
        return self._values[self._names[vid]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def numpy(self, vid: int) -> Any:
        """The value as a numpy array."""
        return self._values.numpy(self._names[vid])

    def clean(self, vid: int) -> Any | None:
        """The value as it was before an intervention, where that was kept; None elsewhere."""
        return self._values.clean(self._names[vid]) if vid in self._names else None

    def clean_ids(self) -> Iterable[int]:
        """Value ids of what was kept as it was before interventions."""
        kept = set(self._values.clean_ids())
        return [vid for vid, there in self._names.items() if there in kept]

    def is_transformed(self, vid: int) -> bool:
        """Whether what is kept is a function of the value, and not the value itself."""
        return self._values.is_transformed(self._names[vid])
