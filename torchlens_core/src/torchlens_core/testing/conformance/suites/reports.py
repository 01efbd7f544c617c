"""What is said of operations and of models beside values: arguments by name, findings, estimates."""

from __future__ import annotations

from ....backend import Call
from ....diagnosis.estimate import estimate
from ....program import hole_paths
from ..bench import Bench
from ..case import Case
from ..check import Suite, fail
from ..lines import lines
from .details import case_named

REPORTS = Suite("reports")


@REPORTS.each(
    "Backend.settings: every argument that is no default, by name, with a HOLE for each array", job="settings"
)
def arguments_by_name(bench: Bench, case: Case) -> None:
    """The arguments of a call have names, and the arrays that it took are among them."""
    for row in bench.trace(case.build(bench.fixtures)).program.rows:
        found = bench.backend.settings(row, row.func)
        what = f"Backend.settings of {row.func!r}, called with {(*row.args, *row.kwargs.items())}"
        if not all(isinstance(name, str) and name for name in found):
            fail(f"{what}: names.", expected="words", got=list(found))
        arrays = len(hole_paths(row._replace(args=(), kwargs=dict(found))))
        if arrays != len(row.ins):
            fail(f"{what}: arrays in it.", expected=len(row.ins), got=f"{arrays}, in {dict(found)}")


@REPORTS.each("Backend.findings: looks, runs nothing and changes nothing", job="findings")
def what_is_special(bench: Bench, case: Case) -> None:
    """The same things are looked for in every model, each under one name; the model stays as it was."""
    made, other = case.build(bench.fixtures), case_named("a function").build(bench.fixtures)
    before = bench.state_of(made)
    names, others = (
        [row.name for row in bench.backend.findings(call, bench.backend.discover(call))]
        for call in (Call(*made), Call(*other))
    )
    bench.must_be_same_state(bench.state_of(made), before, "What findings leaves")
    if sorted(names) != sorted(others) or len(set(names)) < len(names):
        fail("Names of the findings in this model.", expected=f"those of any other, each once: {others}", got=names)


def _runs_without_values(case: Case) -> bool:
    return "branches_on_values" not in case.needs


@REPORTS.each(
    "Backend.abstract: arrays with shapes and dtypes, and no elements", where=_runs_without_values, job="abstract"
)
def without_running_it(bench: Bench, case: Case) -> None:
    """`tl.estimate` sees the operations of a run on data, with their shapes and element types."""
    made = case.build(bench.fixtures)
    before = bench.state_of(made)
    found = estimate(made.model, list(made.args), dict(made.kwargs), backend=bench.fixtures.backend).trace
    bench.must_be_same_state(bench.state_of(made), before, "What tl.estimate leaves")
    trace = bench.trace(made)
    expected, got = (
        [f"{line}  {op.dtype_name}{list(op.shape)}" for line, op in zip(lines(each), each, strict=False)]
        for each in (trace, found)
    )
    if got != expected:
        fail("The operations that it sees, and those of a run.", expected="\n".join(expected), got="\n".join(got))
