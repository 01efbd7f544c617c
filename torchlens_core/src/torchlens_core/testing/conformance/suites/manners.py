"""Threads, failure, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, MethodType
from typing import Any

from ....backend import Call
from ....errors import TorchLensError
from ....selectors import func
from ....tracing import sites
from ....tracing import trace as trace_of
from ..bench import Bench
from ..case import Case, Setup, x
from ..check import Suite, fail
from ..lines import lines
from .details import case_named

FAILURE = Suite("threads and failure")
PURITY = Suite("purity")


# -- threads and failure -----------------------------------------------------------------------------------------------


@FAILURE.check("interception that is thread-local; patches that are reference-counted")
def two_threads(bench: Bench) -> None:
    """Traces that run at the same time in two threads do not see each other."""
    fw, expected = bench.fixtures, (["relu", "tanh"], ["sin", "sin"])
    meeting, parting = _Meeting(), _Meeting()
    got: dict[int, list[str]] = {}

    def first(array: Any) -> Any:
        array = fw.relu(array)
        meeting.wait(0)
        array = fw.tanh(array)
        parting.wait(0)
        return array

    def second(array: Any) -> Any:
        array = fw.sin(array)
        meeting.wait(1)
        array = fw.sin(array)
        parting.wait(1)
        return array

    def work(number: int) -> None:
        made = Setup((first, second)[number], (x(fw),), {})
        got[number] = [op.type for op in bench.computed(bench.trace(made, keep_orphans=True))]

    errors = _at_once(work)
    if errors:
        fail("A thread raised.", expected="no error", got=repr(errors[0]))
    for number, types in enumerate(expected):
        if got[number] != types:
            fail(f"A trace in thread {number}: its operations.", expected=types, got=got[number])
    for _ in range(3):
        bench.trace(case_named("a function").build(fw))


class _Meeting:
    """Two threads in the middle of their runs at the same time; one that never comes is not waited for long."""

    def __init__(self) -> None:
        self._there = (threading.Event(), threading.Event())

    def wait(self, number: int) -> None:
        self._there[number].set()
        self._there[1 - number].wait(5)


def _at_once(work: Callable[[int], None]) -> list[BaseException]:
    """Run in two threads; what was raised there."""
    errors: list[BaseException] = []

    def careful(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=careful, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@FAILURE.check("interception that is thread-local")
def a_plain_call_in_another_thread(bench: Bench) -> None:
    """What another thread runs meanwhile is not in the trace, and works."""
    other = case_named("a loop without parameters").build(bench.fixtures)
    expected = bench.plain(other)
    got: list[Any] = []

    def model(array: Any) -> Any:
        thread = threading.Thread(target=lambda: got.append(bench.plain(other)))
        thread.start()
        thread.join()
        return bench.fixtures.relu(array)

    trace = bench.trace(Setup(model, (x(bench.fixtures),), {}), keep_orphans=True)
    types = [op.type for op in bench.computed(trace)]
    if types != ["relu"]:
        fail("The operations of the trace.", expected=["relu"], got=types)
    bench.must_all_be_close(got[0], expected, "What the other thread computed")


def _raised(bench: Bench, made: Setup) -> BaseException:
    try:
        bench.trace(made)
    except BaseException as error:
        return error
    fail("The model raises.", expected="its exception", got="no error")


def _check_partial(error: BaseException, expected: list[str]) -> None:
    partial = getattr(error, "partial_trace", None)
    if partial is None:
        fail("The exception's partial_trace (capture leaves the session as it is).", expected=expected, got=None)
    got = [op.layer_label for op in partial.compute_ops]
    if got != expected:
        fail("What ran before the error.", expected=expected, got=got)


@FAILURE.check("the `finally` of Backend.capture")
def the_model_raises(bench: Bench) -> None:
    """What the model raises reaches the user as it is, with the trace up to there; the next trace works."""
    mine = RuntimeError("mine")

    def model(array: Any) -> Any:
        bench.fixtures.tanh(bench.fixtures.relu(array))
        raise mine

    error = _raised(bench, Setup(model, (x(bench.fixtures),), {}))
    if error is not mine:
        fail("The exception.", expected=repr(mine), got=repr(error))
    _check_partial(error, ["relu_1_1", "tanh_1_2"])
    bench.trace(case_named("a function").build(bench.fixtures))


@FAILURE.check("an operation that raises makes no row, and its exception goes through", needs="failing")
def an_operation_raises(bench: Bench) -> None:
    """An operation of the framework that raises is no Op; its exception is the framework's own."""

    def model(array: Any) -> Any:
        return bench.fixtures.fail(bench.fixtures.relu(array))

    error = _raised(bench, Setup(model, (x(bench.fixtures),), {}))
    if not isinstance(error, bench.fixtures.error):
        fail("The exception (Fixtures.error).", expected=bench.fixtures.error, got=repr(error))
    _check_partial(error, ["relu_1_1"])


@FAILURE.check("the `finally` of Backend.capture: scopes are closed", needs="modules")
def a_model_that_catches_an_error(bench: Bench) -> None:
    """An error inside a module that the model catches leaves later operations where they are."""
    fw = bench.fixtures

    def broken(self: Any, array: Any) -> Any:
        fw.relu(array)
        raise ValueError("inside")

    def forward(self: Any, array: Any) -> Any:
        with contextlib.suppress(ValueError):
            self.inner(array)
        return fw.tanh(array)

    trace = bench.trace(Setup(fw.module(forward, inner=fw.module(broken)), (x(fw),), {}))
    got = [(op.type, op.modules) for op in trace.compute_ops]
    if got != [("relu", ["inner:1"]), ("tanh", [])]:
        fail("The operations and their module calls.", expected=[("relu", ["inner:1"]), ("tanh", [])], got=got)


@FAILURE.check("NestedTraceError from Backend.capture, or a trace inside a trace that works")
def a_trace_inside_a_trace(bench: Bench) -> None:
    """A model that traces another is refused, or works; the next trace is as ever either way."""
    inner = case_named("a function").build(bench.fixtures)

    def model(array: Any) -> Any:
        trace_of(inner.model, list(inner.args), backend=bench.fixtures.backend)
        return bench.fixtures.relu(array)

    with contextlib.suppress(TorchLensError):
        bench.trace(Setup(model, (x(bench.fixtures),), {}))
    after = lines(bench.trace(case_named("a function").build(bench.fixtures)))
    if [line.label for line in after if line.label.startswith("mul")] != ["mul_1_1"]:
        fail("A trace afterwards.", expected="one mul", got=after)


# -- purity ------------------------------------------------------------------------------------------------------------


def _fingerprint(bench: Bench, made: Setup) -> dict[str, Any]:
    """What a plugin might replace and not put back: attributes of the modules' classes, and of the modules."""
    modules = [module for _, module in bench.backend.discover(Call(*made)).modules if module is not None]
    classes = {cls for module in modules for cls in type(module).__mro__ if cls is not object}
    seen = {f"{cls.__qualname__}.{name}": id(value) for cls in classes for name, value in vars(cls).items()}
    for number, module in enumerate(modules):
        seen |= {f"module {number}: {name}": 0 for name in getattr(module, "__dict__", ())}
    functions = {name: getattr(bench.fixtures, name) for name in ("relu", "tanh", "sum")}
    return seen | {f"function {name}": getattr(each, "__func__", each) for name, each in functions.items()}


def _leaves_alone(bench: Bench, case: Case, run: Callable[[Setup], Any], after_call: bool) -> None:
    plain = case.build(bench.fixtures)
    if after_call:
        bench.plain(plain)
    expected = bench.state_of(plain)
    generator = bench.fixtures.generator() if "randomness" not in bench.fixtures.cannot else None
    made = case.build(bench.fixtures)
    before = _fingerprint(bench, made)
    run(made)
    rtol = 1e-6 if after_call else 0.0  # what a run writes may be computed by other kernels, where those are compiled
    what = "State and arguments, compared with a plain call"
    bench.must_be_same_state(bench.state_of(made), expected, what, rtol=rtol)
    if generator is not None and bench.fixtures.generator() != generator:
        fail("The random generator.", expected="as after a plain call", got="another state")
    _must_be_put_back(before, _fingerprint(bench, made), "What was replaced is put back.")


def _must_be_put_back(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    if after != before:
        changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        fail(what, expected="the same attributes", got=f"other ones: {changed[:8]}")


@PURITY.each("Backend.capture: whatever it replaces is put back, and it draws nothing, and writes nothing")
def as_after_a_plain_call(bench: Bench, case: Case) -> None:
    """After a trace the model, its arguments, the generator and the framework are as after one plain call."""
    _leaves_alone(bench, case, lambda made: bench.trace(made, replay_ready=True), after_call=True)


@PURITY.each(
    "Backend.preserve: buffers that were bound to other arrays too, arguments, generators",
    where=lambda case: case.suite in ("params and buffers", "in place", "randomness"),
    job="preserve",
)
def as_before_where_nothing_is_to_be_run(bench: Bench, case: Case) -> None:
    """`tl.sites` leaves the model as it found it."""

    def listed(made: Setup) -> None:
        sites(made.model, list(made.args), dict(made.kwargs), backend=bench.fixtures.backend)

    _leaves_alone(bench, case, listed, after_call=False)


@PURITY.check("the `finally` of Backend.capture", needs="modules")
def as_ever_after_a_halt(bench: Bench) -> None:
    """A run that was stopped leaves nothing behind."""
    made = case_named("mlp").build(bench.fixtures)
    expected, before = bench.plain(made), _fingerprint(bench, made)
    bench.trace(made, halt=func("relu"))
    _must_be_put_back(before, _fingerprint(bench, made), "What was replaced is put back after a halt.")
    bench.must_all_be_close(bench.plain(made), expected, "What the model returns afterwards")


@PURITY.check("references that stay: caches, closures, thread-locals", needs="modules")
def nothing_keeps_the_model(bench: Bench) -> None:
    """A trace that is gone keeps no model alive, nor does the plugin."""
    made = case_named("mlp").build(bench.fixtures)
    watch = weakref.ref(made.model)
    trace = bench.trace(made)
    del made, trace
    gc.collect()
    if (model := watch()) is not None:
        held = ", and ".join(_holders(model))
        fail("The model, after the last reference to it is gone.", expected="freed", got=f"held by {held}")


def _holders(value: Any, depth: int = 3, aside: frozenset[int] = frozenset()) -> Iterator[str]:
    """Who refers to an object, and who to those that have no name: ``list in cell in tuple in function f``."""
    found = gc.get_referrers(value)
    aside |= {id(found)}  # what looks is no holder
    for holder in found:
        if isinstance(holder, FrameType | MethodType) or id(holder) in aside:
            continue
        name = holder.get("__name__") if isinstance(holder, dict) else getattr(holder, "__qualname__", None)
        text = f"{type(holder).__name__} {name or ''}".strip()
        outer = "" if name or not depth else next(_holders(holder, depth - 1, aside), "")
        yield f"{text} in {outer}" if outer else text


@PURITY.check("Session.values: arrays held once")
def the_same_trace_twice(bench: Bench) -> None:
    """Tracing one model twice gives the same trace."""
    case = case_named("a function")
    made = case.build(bench.fixtures)
    first, second = lines(bench.trace(made)), lines(bench.trace(made))
    if first != second:
        fail("The second trace.", expected=first, got=second)
