"""Gradients, replay and validation, trace files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ....dtypes import is_floating
from ....file import load
from ....interventions.actions import scale
from ....validate import validate
from .. import reference
from ..bench import Bench
from ..case import Case
from ..check import Suite, fail
from ..lines import lines
from ..reference import Numbers, leaves
from .details import case_named
from .operations import reference_has
from .steering import places

GRADIENTS = Suite("gradients", job="grad")
REPLAY = Suite("replay and validation", job="call")
FILES = Suite("trace files")

_STEP = 1e-6  # of finite differences, in 64 bits
_NEAR = 1e-3  # relative; gradients of 32-bit arrays


def _differentiable(case: Case) -> bool:
    return reference_has(case) and not case.no_gradient


# -- gradients ---------------------------------------------------------------------------------------------------------


def _loss(bench: Bench, out: Any) -> Any:
    """The sum of the squares of all that a model returned on floating-point numbers."""
    arrays = bench.backend.arrays
    floating = [each for each in leaves(out) if is_floating(arrays.dtype_name(arrays.meta(each)[1]))]
    squares = [bench.fixtures.sum(each * each) for each in floating]
    return reduce(lambda total, square: total + square, squares)


def _loss_in_numpy(outputs: list[Numbers]) -> float:
    return float(sum((array**2).sum() for array in outputs if array.dtype.kind == "f"))


def _slopes(case: Case, number: int, elements: list[int]) -> list[float]:
    """Finite differences of the loss, in numpy, with respect to some elements of one result."""

    def moved(element: int, step: float) -> float:
        def change(value: Numbers) -> Numbers:
            made = value.copy()
            made.reshape(-1)[element] += step
            return made

        return _loss_in_numpy(reference.run(case, (number, change)).outputs)

    return [(moved(each, _STEP) - moved(each, -_STEP)) / (2 * _STEP) for each in elements]


def _check_slopes(
    bench: Bench, case: Case, gradient_of: Callable[[Any], Any], must_have: Callable[[Any], bool]
) -> None:
    for number, op, _ in places(bench, case):
        gradient = gradient_of(op)
        size = bench.reference(case).values[number].size
        elements = sorted({0, size // 2, size - 1})
        expected = np.array(_slopes(case, number, elements))
        if gradient is None:
            if expected.any() and must_have(op):
                fail(f"The gradient at {op.label}.", expected=f"{expected} at elements {elements}", got=None)
            continue
        got = np.array(bench.fixtures.to_numpy(gradient))
        if bench.fixtures.channels_last and got.ndim == 4:
            got = got.transpose(0, 3, 1, 2)
        found = got.reshape(-1)[elements]
        if not np.allclose(found, expected, _NEAR, _NEAR * max(1.0, float(abs(expected).max()))):
            what = f"The gradient at {op.label}, at elements {elements}, compared with finite differences in numpy."
            fail(what, expected=expected, got=found)


@GRADIENTS.each("Backend.grad, Backend.gradients_at, Backend.call(is_differentiable=True)", where=_differentiable)
def at_every_op(bench: Bench, case: Case) -> None:
    """`trace.gradients(of=...)` gives at each Op what finite differences give."""
    trace = bench.trace(case.build(bench.fixtures), replay_ready=True, keep_orphans=True)
    found = trace.gradients(of=lambda out: _loss(bench, out))
    _check_slopes(bench, case, lambda op: found[op.label], lambda op: True)


def _has_one_input_for_each_argument(case: Case) -> bool:
    return _differentiable(case) and case.suite in ("capture", "modules") and case.name != "one array given twice"


@GRADIENTS.each("Backend.grad", where=_has_one_input_for_each_argument)
def at_the_input(bench: Bench, case: Case) -> None:
    """The gradient at an input is what the framework's own autodiff gives, without the plugin."""
    made = case.build(bench.fixtures)
    own = bench.fixtures.gradient(lambda first: _loss(bench, _called(bench, made, first)), [made.args[0]])[0]
    trace = bench.trace(case.build(bench.fixtures), replay_ready=True)
    got = trace.gradients(of=lambda out: _loss(bench, out))["input_1"]
    expected, found = (np.array(bench.fixtures.to_numpy(each)) for each in (own, got))
    if not np.allclose(found, expected, _NEAR, _NEAR):
        fail("The gradient at input_1.", expected=expected, got=found)


def _called(bench: Bench, made: Any, first: Any) -> Any:
    return bench.fixtures.run(made.model, (first, *made.args[1:]), made.kwargs)


def _is_on_a_tape(case: Case) -> bool:
    return _differentiable(case) and case.has_parameters  # no tape is kept of what no parameter leads to


@GRADIENTS.each("Backend.backward; Session.gradients: what is to be watched", where=_is_on_a_tape, job="backward")
def of_a_backward_pass(bench: Bench, case: Case) -> None:
    """`trace.log_backward(loss)` leaves at each Op below a parameter what finite differences give."""
    trace = bench.trace(case.build(bench.fixtures), save_grads=True, keep_orphans=True)
    outputs = [op.out for op in trace if op.is_output]
    trace.log_backward(_loss(bench, outputs))
    below = _below_parameters(trace)
    _check_slopes(bench, case, lambda op: trace[op.label].grad, lambda op: op.label in below)


def _below_parameters(trace: Any) -> set[str]:
    below: set[str] = set()
    for op in trace.compute_ops:
        parents = {parent if ":" in parent else f"{parent}:1" for parent in op.parents}
        if op.uses_params or parents & below:
            below.add(op.label)
    return below


# -- replay and validation ---------------------------------------------------------------------------------------------


@REPLAY.each(
    "Backend.call, Backend.preserve, Backend.with_state, Row.args, Session.constants, Session.rng",
    job="call preserve with_state",
)
def valid(bench: Bench, case: Case) -> None:
    """`tl.validate` holds: every recorded operation, run again, gives what it gave, with other parameters too."""
    made = case.build(bench.fixtures)
    before = bench.state_of(made)
    report = validate(made.model, list(made.args), dict(made.kwargs), backend=bench.fixtures.backend)
    if not report:
        fail("tl.validate says:", expected="valid", got=report)
    bench.must_be_same_state(bench.state_of(made), before, "What validate leaves (Backend.preserve)")


def _has_one_path(case: Case) -> bool:
    return reference_has(case) and case.suite != "control flow"  # where a change may lead along another path


@REPLAY.each("Backend.call, and what `replay_ready` has noted", where=_has_one_path)
def a_replay_with_a_change(bench: Bench, case: Case) -> None:
    """A replay with one result halved gives what the same change by hand gives, in numpy."""
    for number, op, _ in places(bench, case):
        trace = bench.trace(case.build(bench.fixtures), replay_ready=True, keep_orphans=True)
        changed = trace.replay(hooks={op.label: scale(0.5)})
        got = [bench.numpy(each) for each in changed if each.is_output]
        expected = bench.changed_reference(case, number, lambda value: value * 0.5).outputs
        bench.must_all_be_close(got, expected, f"With {op.label} halved")


# -- trace files -------------------------------------------------------------------------------------------------------


@FILES.each("Arrays.to_numpy, dtype_name, constant_name; Func.path; plain values in Row.args")
def the_same_trace(bench: Bench, case: Case) -> None:
    """A trace that was saved and loaded shows the same Ops with the same values, without the framework."""
    trace = bench.trace(case.build(bench.fixtures))
    with _saved(trace) as path:
        loaded = load(path)
        if lines(loaded) != lines(trace):
            both = "\n".join(map(str, lines(trace))), "\n".join(map(str, lines(loaded)))
            fail("The lines of the trace.", expected=both[0], got=both[1])
        for op, other in zip(trace, loaded, strict=True):
            bench.must_be_close(np.asarray(other.out), bench.numpy(op), f"The value of {op.label}, from the file.")
            if other.dtype_name != op.dtype_name:
                fail(f"The element type of {op.label}.", expected=op.dtype_name, got=other.dtype_name)


@FILES.check("Arrays.from_numpy")
def arrays_of_the_framework(bench: Bench) -> None:
    """`tl.load(path, backend=...)` gives arrays of the framework."""
    trace = bench.trace(case_named("a function").build(bench.fixtures))
    with _saved(trace) as path:
        for op, other in zip(trace, load(path, backend=bench.fixtures.backend), strict=True):
            if type(other.out) is not type(op.out):
                fail(f"The type of {op.label}, loaded.", expected=type(op.out), got=type(other.out))
            bench.must_be_close(bench.numpy(other), bench.numpy(op), f"The value of {op.label}, from the file.")


@FILES.check("Func.path, Backend.resolve: from an allow-list, never an import by name", job="resolve")
def functions_by_path(bench: Bench) -> None:
    """The path of a function, as it stands in a file, gives the function; no other path gives any."""
    trace = bench.trace(case_named("a function").build(bench.fixtures))
    for op in trace.compute_ops:
        if op.func_path is not None and not callable(bench.backend.resolve(op.func_path)):
            got = bench.backend.resolve(op.func_path)
            fail(f"Backend.resolve({op.func_path!r}).", expected="the function", got=got)
    for path in ("os.system", "builtins.eval", "no.such.function", ""):
        if bench.backend.resolve(path) is not None:
            fail(f"Backend.resolve({path!r}), read from a file.", expected=None, got=bench.backend.resolve(path))


class _saved:
    """A context with the path of a trace, saved to a file."""

    def __init__(self, trace: Any) -> None:
        self._trace = trace
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        path = Path(self._folder.name) / "trace.tlens"
        self._trace.save(path)
        return path

    def __exit__(self, *exception: Any) -> None:
        self._folder.cleanup()
