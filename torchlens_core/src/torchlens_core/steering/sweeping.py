"""How the runs of a sweep are made: replayed from one recorded run, run again, or several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ..backend import Call
from ..bundle.tolerance import tolerance
from ..errors import OptionError, ReplayError, SweepError
from ..facets.targets import FacetView
from ..interventions.acted import check_all_acted
from ..interventions.at import At
from ..interventions.target import Target
from ..interventions.when import When
from ..plan import PLAIN, Plan, SaveSpec
from ..records.trace import Trace
from ..tracing import backend_for, make_call, run
from .grid import Run
from .measures import Measure
from .places import live
from .recorded import copied_arguments
from .replaying import replayed


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run: what was measured, and its trace where that is kept."""

    measured: dict[str, Any]
    trace: Trace | None = None


class Sweeper:
    """A context in which the model runs; the model, its arguments and the generators are put back when it is left.

    Attributes:
        baseline: the run without a change, of which everything is kept.
        of_baseline: what was measured of it.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        kwargs: Mapping[str, Any] | None,
        backend: str | None,
        measured: Mapping[str, Measure],
        *,
        save: SaveSpec | None,
        keeps: bool,
        progress: bool,
    ) -> None:
        self._call = make_call(model, x, kwargs)
        self._backend = backend_for(self._call, backend)
        self._measured = measured
        self._keeps = keeps
        self._progress = progress
        self._save = save
        self._only_outputs = (
            save is None and not keeps and not any(measure.takes_trace for measure in measured.values())
        )
        self._stack = ExitStack()
        self.baseline: Trace
        self.of_baseline: dict[str, Any] = {}

    def __enter__(self) -> Sweeper:
        backend, stack = self._backend, self._stack
        with stack:
            discovery = backend.discover(self._call)
            stack.enter_context(backend.preserve(self._call, discovery))
            self._arguments = copied_arguments(backend, self._call)
            self._generators = backend.rng()
            needs = {"operations", "sites", "replay"}
            call = self._fresh_call()
            self.baseline, returned = run(backend, call, Plan(True), needs, discovery=discovery, detach=True)
            self._returned = self._detached(returned)
            self.of_baseline = {name: each(self._returned, self.baseline) for name, each in self._measured.items()}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _fresh_call(self) -> Call:
        """The call with the arguments as they were: a run may write to them."""
        return Call(self._call.model, *copied_arguments(self._backend, Call(self._call.model, *self._arguments)))

    def _shown(self, runs: Iterable[Any], total: int) -> Iterator[Any]:
        from tqdm import tqdm

        yield from tqdm(runs, total=total, unit="runs", desc="sweep", disable=not self._progress)

    # -- one by one ------------------------------------------------------------------------------------------------

    def one_by_one(self, runs: list[Run]) -> list[tuple[Run, Result]]:
        """Each run for itself."""
        return [(each, self._result(each)) for each in self._shown(runs, len(runs))]

    def _result(self, run: Run) -> Result:
        outputs = [output.vid for output in self.baseline.program.outputs]
        save = dict.fromkeys(outputs, PLAIN) if self._only_outputs else self._save
        try:
            made, arrays = replayed(self.baseline, run.whens, save=save, strict=True, wanted=outputs)
            measured = self._measure(made, arrays)
        except ReplayError:  # the model itself tells, or raises what is wrong
            save = False if self._only_outputs else True if self._save is None else self._save
            made, returned = self._run_model(run.whens, save, self._fresh_call())
            measured = {name: measure(returned, made) for name, measure in self._measured.items()}
        return Result(measured, made if self._keeps else None)

    def _run_model(self, whens: Iterable[When], save: SaveSpec, call: Call) -> tuple[Trace, Any]:
        backend = self._backend
        plan = Plan(save, intervene=[When(live(self.baseline, w.target), w.action, w.keep_clean) for w in whens])
        discovery = backend.discover(call)
        with backend.preserve(call, discovery):
            backend.rng(self._generators)
            made, returned = run(backend, call, plan, {"operations", "sites"}, discovery=discovery, detach=True)
        check_all_acted(plan, made)
        return made, self._detached(returned)

    def _detached(self, returned: Any) -> Any:
        """What the model returned, cut from any gradient tape: a metric that keeps it keeps no more."""
        arrays = {id(array): self._backend.arrays.detach(array) for _, array in self._backend.leaves(returned)}
        return self._backend.replaced(returned, arrays)

    def _measure(self, made: Trace, outputs: list[Any]) -> dict[str, Any]:
        returned = self._with_outputs(list(map(self._backend.arrays.detach, outputs))) if self._measured else None
        return {name: measure(returned, made) for name, measure in self._measured.items()}

    def _with_outputs(self, arrays: list[Any]) -> Any:
        """What the model returned, with other arrays."""
        before = [array for _, array in self._backend.leaves(self._returned)]
        return self._backend.replaced(self._returned, {id(old): new for old, new in zip(before, arrays, strict=True)})

    # -- several at once -------------------------------------------------------------------------------------------

    def batched(self, runs: list[Run], at_once: bool | int) -> list[tuple[Run, Result]]:
        """Runs stacked along axis 0, ``at_once`` of them or all."""
        size = len(runs) if at_once is True else int(at_once)
        if size < 1:
            raise OptionError(f"batched= is True, or how many runs go together; got {at_once!r}.")
        results: list[tuple[Run, Result]] = []
        groups = [runs[start : start + size] for start in range(0, len(runs), size)]
        for group in self._shown(groups, len(groups)):
            outputs = self._run_together(group)
            if not results:
                self._check(group[0], outputs[0])
            for each, arrays in zip(group, outputs, strict=True):
                returned = self._with_outputs(arrays)
                results.append((each, Result({n: m(returned, None) for n, m in self._measured.items()})))
        return results

    def _run_together(self, runs: list[Run]) -> list[list[Any]]:
        """The arrays that the model returned, for each run."""
        batch, backend, arrays = self._batch(), self._backend, self._backend.arrays
        args, kwargs = self._arguments
        repeated = [index for _ in runs for index in range(batch)]
        stacked = {
            id(array): arrays.get_at(array, (repeated,))
            for _, array in backend.leaves((args, kwargs))
            if tuple(arrays.meta(array)[0])[:1] == (batch,)
        }
        args, kwargs = backend.replaced((args, kwargs), stacked)
        whens = [
            When(_rows_of(when.target, slice(number * batch, (number + 1) * batch)), when.action)
            for number, each in enumerate(runs)
            for when in each.whens
        ]
        _, returned = self._run_model(whens, False, Call(self._call.model, args, kwargs))
        outputs = [array for _, array in backend.leaves(returned)]
        for array in outputs:
            if tuple(arrays.meta(array)[0])[:1] != (batch * len(runs),):
                raise SweepError(
                    f"The model returned an array of shape {tuple(arrays.meta(array)[0])} for a batch of "
                    f"{batch * len(runs)}, so that nobody can tell which part belongs to which run. Leave batched out."
                )
        return [
            [arrays.get_at(array, (slice(number * batch, (number + 1) * batch),)) for array in outputs]
            for number in range(len(runs))
        ]

    def _batch(self) -> int:
        """The length of axis 0 of the first array among the arguments."""
        for _, array in self._backend.leaves(self._arguments):
            shape = tuple(self._backend.arrays.meta(array)[0])
            if shape:
                return int(shape[0])
        raise SweepError("The model is given no array with an axis 0 to stack runs along. Leave batched out.")

    def _check(self, run: Run, outputs: list[Any]) -> None:
        """The first run gives by itself what it gave among the others."""
        to_numpy = self._backend.arrays.to_numpy
        _, returned = self._run_model(run.whens, False, self._fresh_call())
        for (path, alone), among in zip(self._backend.leaves(returned), outputs, strict=True):
            left, right = to_numpy(alone), to_numpy(among)
            if not tolerance(left, right).allows(left, right):
                training = [info.cls for info in self.baseline.program.modules if info.training]
                hint = f" Modules in training mode: {', '.join(sorted(set(training))[:8])}." if training else ""
                raise SweepError(
                    f"{run.name!r} gives another {path or 'output'} by itself than in a batch with the others, so the "
                    f"model mixes what stands along axis 0 (a batch norm or dropout in training mode does).{hint} "
                    "Leave batched out."
                )


def _rows_of(target: Target, rows: slice) -> Target:
    """A target in some rows of the batch; of a facet, whatever axes the array has that holds it."""
    facet = tuple(takewhile(lambda view: isinstance(view, FacetView), target.views))
    return Target(target.selector, (*facet, At((rows,)), *target.views[len(facet) :]))
