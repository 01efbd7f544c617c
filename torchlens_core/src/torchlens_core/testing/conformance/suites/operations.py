"""What is asked of every case, in its own suite: the right operations, with the right values."""

from __future__ import annotations

from itertools import zip_longest

from ..bench import Bench
from ..case import Case
from ..check import Suite, fail
from ..lines import Line, lines, parse

CAPTURE = Suite("capture")
MODULES = Suite("modules")
STATE = Suite("params and buffers")
RECURRENCE = Suite("recurrence")
CONTROL_FLOW = Suite("control flow")
OUTPUTS = Suite("several outputs")
IN_PLACE = Suite("in place")
RANDOMNESS = Suite("randomness")

COLUMNS = {
    "address": "names of inputs, outputs and buffers: the sources that capture adds, Session.outputs",
    "parents": "which arrays each operation took: Row.ins, by the value ids given to arrays when they were made",
    "write_parents": "writes seen through another array: Session.deps and Session.writes",
    "modules": "the module calls around each operation: Session.enter and the scope in its row",
    "returned_by": "what module calls returned: Scope.outs, Session.exit",
}
ENDS = {
    "input": "the arguments of the model: sources of the kind 'input'",
    "output": "what the model returned: Session.outputs",
    "buffer": "versions of a buffer that is read or written: sources of the kind 'buffer', one more for each write",
}


def operations(bench: Bench, case: Case) -> None:
    """The trace holds these Ops, with these labels, parents and module calls."""
    trace = bench.trace(case.build(bench.fixtures))
    expected, got = parse(case.expected), lines(trace)
    both = f"the whole trace, expected:\n{_text(expected)}\nand got:\n{_text(got)}"
    for number, (want, have) in enumerate(zip_longest(expected, got), 1):
        if want is None or have is None or want.label != have.label:
            told = f"Line {number} is not the Op that it should be: {_why(want, have)}.\n{both}"
            fail(told, expected=want or "nothing more", got=have or "nothing more")
    for want, have in zip(expected, got, strict=True):
        for column, part in COLUMNS.items():
            if getattr(want, column) != getattr(have, column):
                fail(f"{want.label}: {part}.\n{both}", expected=want, got=have)


def _why(want: Line | None, have: Line | None) -> str:
    """Where the fault of another label is likely to be."""
    wanted, found = ("" if line is None else line.label.partition("_")[0] for line in (want, have))
    computes = [bool(kind) and kind not in ENDS for kind in (wanted, found)]
    if wanted == found and all(computes):
        return "which of them are passes of one layer: those of one call site (Row.site), or with the same parameters"
    if all(computes):
        return (
            "a call that was not seen, one that is no operation at the function level, another order, or another word: "
            "Func.type (one word of torchlens_core.vocabulary)"
        )
    if "input" in (wanted, found) or not any(computes):
        return ENDS[next(kind for kind in ("input", found, wanted) if kind in ENDS and kind in (wanted, found))]
    if computes[0]:
        return "an operation is missing: each call is to make a row"
    return "an operation too many: a row for each call at the function level, and none for what runs inside one"


def _text(text: list[Line]) -> str:
    return "\n".join(f"    {line}" for line in text)


def values(bench: Bench, case: Case) -> None:
    """Each Op's value is what the operation gave when it ran, in numpy too; the model returns what it always does."""
    expected = bench.reference(case)
    plain = bench.plain(case.build(bench.fixtures))
    what = "A plain call of the model that the fixtures build, compared with numpy: the fault is in the fixtures"
    words = "Fixtures: the words that this model is made of. No tracing took part"
    bench.must_all_be_close(plain, expected.outputs, what, words)
    made = case.build(bench.fixtures)
    given = bench.numpy_of((made.args, dict(made.kwargs)))
    trace = bench.trace(made, keep_orphans=True)
    ops = bench.computed(trace)
    if len(ops) != len(expected.values):
        labels = ", ".join(op.label for op in ops)
        fail(f"The run has another number of results: {labels}.", expected=len(expected.values), got=len(ops))
    for op, value in zip(ops, expected.values, strict=True):
        bench.must_be_close(bench.numpy(op), value, f"The value of {op.label}.")
        if tuple(op.shape) != bench.numpy(op).shape:
            fail(f"The noted shape of {op.label} (Arrays.meta).", expected=bench.numpy(op).shape, got=op.shape)
    bench.must_all_be_close([bench.numpy(op) for op in trace if op.is_output], plain, "What the outputs hold")
    inputs = [bench.numpy(op) for op in trace if op.is_input]
    bench.must_all_be_close(inputs, given, "What the inputs hold: the values that were given")


def reference_has(case: Case) -> bool:
    """Whether numpy gives the same numbers; the reference has no views, and draws other random numbers."""
    return not case.is_random and "views" not in case.needs


for suite in (CAPTURE, MODULES, STATE, RECURRENCE, CONTROL_FLOW, OUTPUTS, IN_PLACE, RANDOMNESS):

    def _mine(case: Case, suite: Suite = suite) -> bool:
        return case.suite == suite.name

    def _mine_in_numpy(case: Case, suite: Suite = suite) -> bool:
        return case.suite == suite.name and reference_has(case)

    suite.each("Backend.capture, and the part of it that is named above", where=_mine)(operations)
    suite.each("Backend.capture, Session.keep, Arrays.hold and release", where=_mine_in_numpy)(values)
