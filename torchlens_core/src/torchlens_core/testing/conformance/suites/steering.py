"""Selectors, saving, halting, recording, interventions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....errors import InterventionError, SelectorError
from ....interventions.actions import replace_with, scale
from ....interventions.when import when
from ....recording.record import record
from ....records.op import Op
from ....selectors import Selector, followed_by, func, in_module, module, where
from ....tracing import sites
from ..bench import Bench
from ..case import Case
from ..check import Suite, fail
from .details import case_named
from .operations import reference_has

SELECTING = Suite("selectors and saving")
HALT = Suite("halt")
RECORD = Suite("record", job="recording")
INTERVENTIONS = Suite("interventions")


def places(bench: Bench, case: Case) -> Iterator[tuple[int, Op, Selector]]:
    """The first, a middle and the last operation on floating-point numbers, with its number and a selector of it."""
    ops = bench.computed(bench.trace(case.build(bench.fixtures), keep_orphans=True))
    fitting = [
        n for n, op in enumerate(ops) if op.dtype_name.startswith("float") and op.shape and op.type != "identity"
    ]
    for number in sorted({fitting[0], fitting[len(fitting) // 2], fitting[-1]}) if fitting else []:
        op = ops[number]
        nth = 1 + sum(other.type == op.type for other in ops[:number])
        yield number, op, func(op.type).nth(nth)


# -- selectors and saving ----------------------------------------------------------------------------------------------

SELECTORS: dict[str, tuple[Any, list[str]]] = {
    "a function": (func("relu"), ["relu_1_2", "relu_2_5"]),
    "a module": (module("blocks.0"), ["relu_1_2"]),
    "all in a module": (in_module("blocks.1"), ["linear_2_4", "relu_2_5"]),
    "an address": ("blocks.0.fc", ["linear_1_1"]),
    "a label": ("add_1_3", ["add_1_3"]),
    "the second": (func("add").nth(2), ["add_2_6"]),
    "by shape": (where(lambda op: op.shape == (2, 4) and op.type == "add"), ["add_1_3", "add_2_6"]),
    "followed by": (followed_by(func("relu")), ["linear_1_1", "linear_2_4"]),
    "both": (func("relu") & in_module("blocks.1"), ["relu_2_5"]),
    "either, and not": ((func("relu") | func("add")) & ~in_module("blocks.0"), ["add_1_3", "relu_2_5", "add_2_6"]),
    "a list": ([func("linear"), "blocks.1"], ["linear_1_1", "linear_2_4", "relu_2_5"]),
    "nothing": (False, []),
}


@SELECTING.check("Session.decide, its memo, and Session.decide_op where a decision asks", needs="modules")
def what_is_kept(bench: Bench) -> None:
    """Each kind of selector keeps what it means and nothing else; the graph is there whatever is kept."""
    case = case_named("different blocks in one loop")
    for name, (selector, expected) in SELECTORS.items():
        trace = bench.trace(case.build(bench.fixtures), save=selector)
        got = [op.layer_label for op in trace if op.has_saved_value and op.is_compute]
        if got != expected:
            fail(f"What save= keeps, with {name}: {selector!r}.", expected=expected, got=got)
        if trace.num_ops != 6:
            fail(f"Operations recorded with save={selector!r}.", expected=6, got=trace.num_ops)


@SELECTING.check("the array that Session.decide_op is asked with")
def what_a_selector_sees(bench: Bench) -> None:
    """A selector may look at the value: it is asked when the operation has run."""
    seen: list[float] = []

    def is_large(op: Any) -> bool:
        seen.append(float(abs(bench.numpy(op)).max()))
        return seen[-1] > 1e9

    bench.trace(case_named("a function").build(bench.fixtures), save=where(is_large) | func("tanh"))
    if not any(value > 0 for value in seen):
        fail("A selector was asked of operations with their values.", expected="values", got=seen)


@SELECTING.check("Backend.function_names, Backend.discover")
def names_that_cannot_be(bench: Bench) -> None:
    """A selector that names what the model cannot have is an error, before the model runs."""
    made = case_named("a function").build(bench.fixtures)
    for selector in (func("rellu"), module("no.such.module")):
        try:
            bench.trace(made, save=selector)
        except SelectorError:
            continue
        fail(f"save={selector!r}.", expected="SelectorError", got="no error")


@SELECTING.check("Backend.preserve, Backend.capture with nothing kept", job="preserve")
def what_could_be_selected(bench: Bench) -> None:
    """`tl.sites` lists the Ops of a run that keeps nothing."""
    made = case_named("a function").build(bench.fixtures)
    got = [op.layer_label for op in sites(made.model, list(made.args), backend=bench.fixtures.backend)]
    expected = ["mul_1_1", "sub_1_2", "tanh_1_3", "div_1_4"]
    if [label for label in got if not label.startswith(("input", "output"))] != expected:
        fail("What tl.sites lists.", expected=expected, got=got)


# -- halt --------------------------------------------------------------------------------------------------------------


@HALT.each("Decision.stop: raise Halt, catch it in capture and return None", where=reference_has)
def where_it_stops(bench: Bench, case: Case) -> None:
    """The run stops just after the first match, which is included, with its value; nothing after it ran."""
    expected = bench.reference(case).values
    for number, op, selector in places(bench, case):
        made = case.build(bench.fixtures)
        trace = bench.trace(made, halt=selector, keep_orphans=True)
        if trace.halted is None:
            fail(f"halt={selector!r} stops at {op.label}.", expected=op.label, got="the run went to its end")
        last = bench.computed(trace)[-1]
        reached = len({each.func_call_id for each in bench.computed(trace)})
        ran = len({each.func_call_id for each in _upto(bench, case, number)})
        if last.type != op.type or reached != ran:
            labels = [each.label for each in bench.computed(trace)]
            fail(f"halt={selector!r}: operations that ran, up to {op.label}.", expected=ran, got=labels)
        bench.must_be_close(bench.numpy(trace.halted), expected[number], f"The value at the halt, {op.label}.")


def _upto(bench: Bench, case: Case, number: int) -> list[Op]:
    return bench.computed(bench.trace(case.build(bench.fixtures), keep_orphans=True))[: number + 1]


@HALT.check("Decision.stop of Session.exit", needs="modules")
def at_a_module(bench: Bench) -> None:
    """A module's return is a place to stop at."""
    trace = bench.trace(case_named("nested modules").build(bench.fixtures), halt=module("mid.blk"))
    got = [op.layer_label for op in trace.compute_ops]
    if got != ["linear_1_1", "relu_1_2"]:
        fail("Operations that ran.", expected=["linear_1_1", "relu_1_2"], got=got)


# -- record ------------------------------------------------------------------------------------------------------------


@RECORD.each("Backend.recording: Steps.begin, the session's decisions, Steps.end", where=reference_has)
def one_function(bench: Bench, case: Case) -> None:
    """A recording of what one function gives holds what a trace holds of it."""
    expected = bench.reference(case).values
    for number, op, selector in places(bench, case):
        made = case.build(bench.fixtures)
        got = record(made.model, list(made.args), dict(made.kwargs), save=selector, backend=bench.fixtures.backend)
        if len(got) != 1:
            fail(f"record(save={selector!r}): what was kept.", expected=op.label, got=[each.raw_label for each in got])
        value = bench.fixtures.to_numpy(got[0].out)
        bench.must_be_close(value, expected[number], f"The recorded value of {op.label}.")


@RECORD.check("Backend.recording, for decisions at Session.exit", needs="modules")
def one_module(bench: Bench) -> None:
    """A recording of what a module returns, each call of it."""
    case = case_named("one block in a loop")
    made = case.build(bench.fixtures)
    got = record(made.model, list(made.args), save="blk", backend=bench.fixtures.backend)
    values = [bench.fixtures.to_numpy(each.out) for each in got]
    bench.must_all_be_close(values, bench.reference(case).values[1::3], "What the three calls returned")


@RECORD.check("Backend.recording: nothing stays when the context ends", needs="modules")
def it_leaves_the_model_alone(bench: Bench) -> None:
    """What the model returns after a recording is what it returned before."""
    made = case_named("mlp").build(bench.fixtures)
    before = bench.plain(made)
    record(made.model, list(made.args), save="fc", backend=bench.fixtures.backend)
    bench.must_all_be_close(bench.plain(made), before, "What the model returns afterwards")


# -- interventions -----------------------------------------------------------------------------------------------------


@INTERVENTIONS.each(
    "Session.steering: the changed value takes the place of what the operation gave", where=reference_has
)
def what_follows(bench: Bench, case: Case) -> None:
    """With one result halved, all that follows is as with the same change by hand, in numpy."""
    for number, op, selector in places(bench, case):
        expected = bench.changed_reference(case, number, lambda value: value * 0.5)
        trace = bench.trace(case.build(bench.fixtures), intervene=when(selector, scale(0.5)), keep_orphans=True)
        what = f"With {op.label} halved"
        bench.must_all_be_close([bench.numpy(each) for each in trace if each.is_output], expected.outputs, what)
        changed = [each.label for each in bench.computed(trace) if each.is_changed]
        if changed != [op.label]:
            fail(f"{what}: the Ops that are marked as changed.", expected=[op.label], got=changed)
        bench.must_be_close(bench.numpy(bench.computed(trace)[number]), expected.values[number], f"{what}: its value.")


@INTERVENTIONS.check("decisions of Session.exit, Session.replace", needs="modules")
def what_a_module_returns(bench: Bench) -> None:
    """What a module returns can be changed, in each call or in one."""
    case = case_named("one block in a loop")
    for selector, calls in ((module("blk"), (1, 4, 7)), (module("blk:2"), (4,))):
        made = case.build(bench.fixtures)
        trace = bench.trace(made, intervene=when(selector, replace_with(0.0)))
        changed = [op.label for op in trace.compute_ops if op.is_changed]
        expected = [f"relu_1_2:{(call + 2) // 3}" for call in calls]
        if changed != expected:
            fail(f"The Ops changed at {selector!r}.", expected=expected, got=changed)
        if any(bench.numpy(trace[label]).any() for label in changed):
            fail(f"Values replaced by zeros at {selector!r}.", expected=0, got=[trace[label].out for label in changed])
    first = bench.trace(case.build(bench.fixtures), intervene=when(module("blk:1"), replace_with(0.0)))
    bench.must_be_close(bench.numpy(first["add_1_3:1"]), bench.numpy(first["input_1"]), "x + 0, behind the first call.")


@INTERVENTIONS.check("Session.steering; what an action raises goes through Backend.capture")
def an_action_that_fails(bench: Bench) -> None:
    """What an action raises reaches the user, and the framework is as before."""

    def broken(value: Any) -> Any:
        raise KeyError("mine")

    made = case_named("a function").build(bench.fixtures)
    before = bench.plain(made)
    try:
        bench.trace(made, intervene=when(func("tanh"), broken))
        fail("The action raises.", expected="KeyError, or InterventionError from it", got="no error")
    except (KeyError, InterventionError):
        pass
    bench.must_all_be_close(bench.plain(made), before, "What the model returns afterwards")


@INTERVENTIONS.check("decisions that never come; a run that ends")
def one_that_never_acts(bench: Bench) -> None:
    """An intervention that matched nothing is an error."""
    made = case_named("a function").build(bench.fixtures)
    try:
        bench.trace(made, intervene=when(func("tanh").nth(7), scale(0.5)))
    except InterventionError:
        return
    fail("There is no seventh tanh.", expected="InterventionError", got="no error")
