"""Proof that a capture is complete and true: replayed, it gives what the model gives, with other parameters too.

Replay alone hides errors: an operation that was missed left its result in a recorded constant, and the replay of the
very same run agrees. With other parameters, compared with the model itself, it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from .backend import Arrays, Backend, Call
from .errors import OptionError, ReplayError, nearest
from .gradients.validation import GradientValidation, validate_gradients
from .plan import Plan
from .program import Program, walk_outs
from .records.op import Op
from .records.trace import Trace
from .replay import Replay, Step
from .tracing import backend_for, make_call, run


@dataclass
class Validation:
    """What :func:`validate` found. True where nothing was wrong.

    Attributes:
        num_ops: how many Ops were run again and compared.
        outputs_difference: largest absolute difference between the outputs of the traced and of the plain run.
        replay_difference: largest absolute difference between a recorded and a replayed value.
        perturbed_difference: the same for the outputs of the model with other parameters; None where it has none, or
            where the run took another path.
        diverged_at: the recorded event at which other parameters took another path, in words; None where they did not.
        moved: whether other parameters changed the outputs at all.
        problems: all that is wrong, in words.
    """

    num_ops: int = 0
    outputs_difference: float = 0.0
    replay_difference: float = 0.0
    perturbed_difference: float | None = None
    diverged_at: str | None = None
    moved: bool = False
    problems: list[str] = field(default_factory=list)
    trace: Trace | None = None

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"{'valid' if self else 'NOT VALID'}: {self.num_ops} ops replayed",
            f"outputs, traced against plain: largest difference {self.outputs_difference:.3g}",
            f"every op, replayed against recorded: largest difference {self.replay_difference:.3g}",
        ]
        if self.diverged_at:
            lines.append(f"other parameters: another path from {self.diverged_at}")
        elif self.perturbed_difference is not None:
            moved = "" if self.moved else " (but they did not change the outputs)"
            largest = f"largest difference {self.perturbed_difference:.3g}{moved}"
            lines.append(f"other parameters, replayed against the model: {largest}")
        return "\n".join(lines + [f"- {problem}" for problem in self.problems])


@overload
def validate(
    model: Any, args: Any = ..., kwargs: Mapping[str, Any] | None = ..., *, scope: Literal["forward"] = ...,
    backend: str | None = ..., random_seed: int = ..., atol: float = ..., rtol: float = ...,
) -> Validation: ...  # fmt: skip
@overload
def validate(
    model: Any, args: Any = ..., kwargs: Mapping[str, Any] | None = ..., *, scope: Literal["backward"],
    backend: str | None = ..., random_seed: int = ..., atol: float = ..., rtol: float = ...,
) -> GradientValidation: ...  # fmt: skip
def validate(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    scope: Literal["forward", "backward"] = "forward",
    backend: str | None = None,
    random_seed: int = 0,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> Validation | GradientValidation:
    """Trace a model and prove the trace: run it four times in all, and leave it as it was.

    1. The outputs of the traced run equal those of a plain run.
    2. Every recorded operation, run again from the inputs on, gives the recorded value.
    3. With other parameters, the replay gives what the model gives with them. Where an array that was read as a Python
       value (``if x > 0``, ``x.item()``), or a shape that depends on data, comes out otherwise, the model may take
       another path: the report says at which event, and compares no further.

    With ``scope="backward"`` the gradients at its Ops are proven instead: those of the framework's backward equal those
    of the recorded operations, run again and differentiated; and at Ops of 64-bit elements finite differences.

    Args:
        scope: ``'forward'`` or ``'backward'``.
        random_seed: of the other parameters; of the weights of the outputs in the loss.
        atol, rtol: what counts as equal; the report also gives the largest difference.
    """
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    if scope not in ("forward", "backward"):
        raise OptionError(
            f"scope is 'forward' or 'backward'; got {scope!r}.{nearest(str(scope), ('forward', 'backward'))}"
        )
    if scope == "backward":
        return validate_gradients(chosen, call, seed=random_seed, atol=atol, rtol=rtol)
    return _Validator(chosen, call, random_seed, atol, rtol).run()


class _Validator:
    def __init__(self, backend: Backend, call: Call, seed: int, atol: float, rtol: float) -> None:
        self._backend = backend
        self._call = call
        self._seed = seed
        self._tolerance = {"atol": atol, "rtol": rtol}
        self._discovery = backend.discover(call)
        self.report = Validation()

    @property
    def _arrays(self) -> Arrays:
        return self._backend.arrays

    def run(self) -> Validation:
        plain = self._plain_outputs()
        with self._backend.preserve(self._call, self._discovery):
            needs = {"operations", "sites", "replay"}
            made, returned = run(self._backend, self._call, Plan(True), needs, discovery=self._discovery)
            self.report.trace = made
            self._compare_outputs(plain, self._leaves(returned))
            self._replay(made)  # before the state is put back: values in its memory were kept by reference
        with self._backend.preserve(self._call, self._discovery):
            self._replay_perturbed(made, plain)
        return self.report

    def _plain_outputs(self) -> list[tuple[str, Any]]:
        return self._outputs_of(self._call)

    def _outputs_of(self, call: Call) -> list[tuple[str, Any]]:
        with self._backend.preserve(call, self._discovery) as kept:
            return self._leaves(kept.run())

    def _leaves(self, returned: Any) -> list[tuple[str, Any]]:
        return [(path or "output", self._arrays.copy(array)) for path, array in self._backend.leaves(returned)]

    def _compare_outputs(self, plain: list[tuple[str, Any]], traced: list[tuple[str, Any]]) -> None:
        if [path for path, _ in plain] != [path for path, _ in traced]:
            self.report.problems.append(
                f"The traced run returned {[path for path, _ in traced]}, the plain one {[path for path, _ in plain]}."
            )
            return
        for (path, left), (_, right) in zip(plain, traced, strict=True):
            self.report.outputs_difference = max(self.report.outputs_difference, self._difference(left, right))
            if not self._arrays.equal(left, right, **self._tolerance):
                self.report.problems.append(f"The output {path!r} of the traced run is not that of the plain run.")

    def _difference(self, left: Any, right: Any) -> float:
        same = tuple(self._arrays.meta(left)[0]) == tuple(self._arrays.meta(right)[0])
        return self._arrays.max_difference(left, right) if same else float("inf")

    # -- replay of the same run ------------------------------------------------------------------------------------

    def _replay(self, made: Trace) -> None:
        program = made.program
        try:
            for step in Replay(program, self._backend, self._sources(made, {})).steps():
                self._compare_step(made, step)
        except ReplayError as error:
            self.report.problems.append(str(error))

    def _sources(self, made: Trace, parameters: Mapping[str, Any]) -> dict[int, Any]:
        """The arrays that a replay starts from, copies of all that it may write to."""
        program = made.program
        state = {item.address: item.array for item in self._discovery.state}
        sources: dict[int, Any] = {}
        for source in program.sources:
            if source.vid in program.constants and source.address not in parameters:
                sources[source.vid] = self._arrays.copy(program.constants[source.vid])
            elif source.kind == "param":
                array = parameters.get(source.address, state[source.address])
                own = self._arrays.copy if source.vid in _written(program) else self._arrays.detach
                sources[source.vid] = own(array)
        for row in program.rows:
            if row.func.undefined:
                filled = (vid for vid, _ in walk_outs(row.outs) if vid is not None and vid in made.values)
                sources.update((vid, self._arrays.copy(made.values[vid])) for vid in filled)
        return sources

    def _compare_step(self, made: Trace, step: Step) -> None:
        if step.row is None or step.row.func.undefined:
            return
        for vid, array in step.arrays.items():
            if vid not in made.values:
                continue
            self.report.num_ops += 1
            recorded = made.values[vid]
            self.report.replay_difference = max(self.report.replay_difference, self._difference(recorded, array))
            if not self._arrays.equal(recorded, array, **self._tolerance):
                label = Op(made, made.graph.node_of[vid]).label
                self.report.problems.append(
                    f"{label}: replayed from its inputs it gives another value than was recorded."
                )

    # -- replay with other parameters ------------------------------------------------------------------------------

    def _replay_perturbed(self, made: Trace, plain: list[tuple[str, Any]]) -> None:
        report = self.report
        parameters = {
            item.address: self._arrays.perturb(item.array, self._seed + number)
            for number, item in enumerate(self._discovery.state)
            if not item.is_buffer
        }
        if not parameters:
            return
        with self._backend.with_state(self._call, self._discovery, parameters) as call:
            try:
                expected = self._outputs_of(call)
            except Exception as error:  # the model's own: other parameters need not suit it
                report.diverged_at = f"the model itself, which raised {type(error).__name__}: {error}"
                return
        replay = Replay(made.program, self._backend, self._sources(made, parameters))
        report.diverged_at = self._follow(made, replay)
        if report.diverged_at is not None:
            return
        replayed = [self._arrays.copy(replay[output.vid]) for output in made.program.outputs]
        if len(replayed) != len(expected):
            report.problems.append(
                f"With other parameters the model returned {len(expected)} arrays, the replay {len(replayed)}."
            )
            return
        report.perturbed_difference = 0.0
        for (path, left), (_, before), right in zip(expected, plain, replayed, strict=True):
            report.perturbed_difference = max(report.perturbed_difference, self._difference(left, right))
            report.moved = report.moved or not self._arrays.equal(left, before, rtol=0.0, atol=0.0)
            if not self._arrays.equal(left, right, **self._tolerance):
                report.problems.append(
                    f"With other parameters the replay's output {path!r} is not the model's: "
                    "an operation is missing from the trace."
                )

    def _follow(self, made: Trace, replay: Replay) -> str | None:
        """Run the replay; the event at which it left the recorded path, in words, or None."""
        steps = replay.steps()
        for number, row in enumerate(made.program.rows):
            try:
                next(steps)
            except Exception as error:  # of the framework: a recorded argument does not fit the new values
                said = f"{type(error).__name__}: {error}"
                return f"row {number} ({row.func.name}), whose recorded arguments do not fit: {said}"
            if replay.divergence is not None:
                return replay.divergence.in_words(made)
        return None


def _written(program: Program) -> set[int]:
    return {old for pairs in program.writes.values() for old, _ in pairs} | {
        vid for index in program.writes for vid in program.rows[index].ins
    }
