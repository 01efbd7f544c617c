"""What the lines of cases do not say: records of modules, parameters, buffers, outputs and conditionals."""

from __future__ import annotations

from ....plugins import choose_backend
from ..bench import Bench
from ..case import Case, Setup, linear, x
from ..cases import CASES
from ..check import Suite, fail
from .operations import CAPTURE, IN_PLACE, MODULES, OUTPUTS, RANDOMNESS, RECURRENCE, STATE

CONDITIONALS = Suite("conditionals")


def case_named(name: str) -> Case:
    """A case of the table."""
    return next(case for case in CASES if case.name == name)


@CAPTURE.check("Backend.claims: exact, quick, importing nothing")
def the_backend_is_found_without_its_name(bench: Bench) -> None:
    """`tl.trace(model, x)` knows the framework by the model or the arrays."""
    made = case_named("a function").build(bench.fixtures)
    found = choose_backend(made.model, made.args)
    if found.name != bench.fixtures.backend:
        fail("Another backend takes the model.", expected=bench.fixtures.backend, got=found.name)


@CAPTURE.check("Row.site: the frames from the operation to the module call, without those of interception")
def source_lines(bench: Bench) -> None:
    """Each operation knows the line of the model that called it."""
    trace = bench.trace(case_named("a function").build(bench.fixtures))
    for op in trace.compute_ops:
        where = op.code_context[-1] if op.code_context else None
        if where is None or "return lambda x: fw.tanh(1 - x * 2) / 4" not in where.call_line:
            got = where and f"{where.file}:{where.line_number}, in {where.func_qualname}: {where.call_line}"
            fail(f"The line that called {op.label}.", expected="return lambda x: fw.tanh(1 - x * 2) / 4", got=got)


@CAPTURE.check("Func.name and Func.type")
def own_names(bench: Bench) -> None:
    """The framework's own name of the function is kept, and every name that the trace has can be selected by."""
    trace = bench.trace(case_named("a function").build(bench.fixtures))
    names = bench.backend.function_names()
    missing = {name for op in trace.compute_ops for name in (op.type, op.func_name)} - names
    if missing:
        fail("Backend.function_names does not have what was recorded.", expected=sorted(missing), got=sorted(names))


@MODULES.check("Backend.discover: modules, root first, each with its address and class", needs="modules")
def records_of_modules(bench: Bench) -> None:
    """Modules are known by address, with their calls, those never called too; a second name finds the same."""
    made = case_named("a module under two names").build(bench.fixtures)
    modules = bench.trace(made).modules
    if modules["b"].address != modules["a"].address:
        fail("'b' is another name of 'a'.", expected=modules["a"].address, got=modules["b"].address)
    if modules["a"].num_calls != 2:
        fail("The module was called twice.", expected=2, got=modules["a"].num_calls)
    idle = bench.trace(case_named("a module never called").build(bench.fixtures)).modules["unused"]
    if idle.num_calls:
        fail("The module was never called.", expected=0, got=idle.num_calls)


@MODULES.check("Backend.discover: ModuleInfo.cls", needs="modules")
def classes_of_modules(bench: Bench) -> None:
    """A module's class is the name of its Python class."""
    layer = linear(bench.fixtures, 4, 4)
    model = bench.fixtures.module(lambda self, x: self.fc(x), fc=layer)
    got = bench.trace(Setup(model, (x(bench.fixtures),), {})).modules["fc"].cls
    if got != type(layer).__name__:
        fail("The class of the module 'fc'.", expected=type(layer).__name__, got=got)


@STATE.each(
    "Backend.discover: State.address and aliases; param sources; Row.ins holds parameters too",
    where=lambda case: bool(case.params),
)
def parameters(bench: Bench, case: Case) -> None:
    """Parameters are known by address, with the Ops that took them."""
    trace = bench.trace(case.build(bench.fixtures))
    for address, users in case.params.items():
        if address not in trace.params:
            fail("A parameter is missing.", expected=address, got=[param.address for param in trace.params])
        got = [label.removesuffix(":1") for label in trace.params[address].used_by_ops]
        if got != users:
            fail(f"Which Ops took {address}.", expected=users, got=got)


@STATE.check("Backend.discover: State; Row.ins", needs="modules")
def parameters_of_layers(bench: Bench) -> None:
    """A linear layer's Op takes its two parameters, trainable, found below the module's address."""
    op = bench.trace(case_named("mlp").build(bench.fixtures))["linear_1"]
    params = [bench.trace(case_named("mlp").build(bench.fixtures)).params[name] for name in op.param_addresses]
    if sorted(param.num_params for param in params) != [8, 32] or not all(param.is_trainable for param in params):
        fail("The parameters of 'fc'.", expected="8 and 32 elements, trainable", got=[str(param) for param in params])
    if {param.module_address for param in params} != {"fc"}:
        fail("The module that holds them.", expected="fc", got=[param.module_address for param in params])


@STATE.check("Backend.discover: State.aliases", needs="modules")
def tied_parameters_have_one_record(bench: Bench) -> None:
    """One array under two addresses is one parameter, that both find."""
    params = bench.trace(case_named("tied parameters").build(bench.fixtures)).params
    if len(params) != 1 or params["b.weight"].aliases != ("b.weight",):
        fail("The tied parameter.", expected="a.weight, also b.weight", got=[(p.address, p.aliases) for p in params])


@STATE.check("Session.source('buffer', version=...), Session.keep", needs="modules buffers")
def versions_of_buffers(bench: Bench) -> None:
    """Each version of a buffer holds what the buffer held then; the last is what the model holds now."""
    made = case_named("a buffer that is written").build(bench.fixtures)
    trace = bench.trace(made)
    (buffer,) = trace.buffers
    if buffer.num_versions != 3:
        fail("Two writes make three versions.", expected=3, got=buffer.num_versions)
    held = [bench.numpy(version) for version in buffer.versions]
    writers = [bench.numpy(trace[name]) for name in buffer.written_by]
    bench.must_all_be_close(held[1:], writers, "A version holds what the operation that wrote it gave")
    (now,) = (array for name, array in bench.state_of(made).items() if name.startswith("model."))
    bench.must_be_close(held[-1], now, "The last version, and what the model holds after the run.")


@RECURRENCE.check("Row.site, and params in Row.ins")
def without_grouping(bench: Bench) -> None:
    """`recurrence=False` leaves every operation without parameters a layer of its own."""
    trace = bench.trace(case_named("a loop without parameters").build(bench.fixtures), recurrence=False)
    got = [op.layer_label for op in trace.compute_ops]
    if got != ["sin_1_1", "sin_2_2", "sin_3_3"]:
        fail("The layers.", expected=["sin_1_1", "sin_2_2", "sin_3_3"], got=got)


RECURRENT = {
    "a loop with parameters": True,
    "a loop without parameters": True,
    "a module called twice": True,
    "a recurrent cell": True,
    "one function at two places": False,
    "different blocks in one loop": False,
    "a module without parameters at two places": False,
    "a function": False,
}


@RECURRENCE.each("Row.site, and params in Row.ins", where=lambda case: case.name in RECURRENT)
def is_recurrent(bench: Bench, case: Case) -> None:
    """A loop is recurrent; what only calls a function, a block or a module at several places is not."""
    got = bench.trace(case.build(bench.fixtures)).is_recurrent
    if got is not RECURRENT[case.name]:
        fail("trace.is_recurrent.", expected=RECURRENT[case.name], got=got)


@OUTPUTS.check("Row.outs: the container that the call returned, with value ids")
def one_call_with_several_outputs(bench: Bench) -> None:
    """The outputs of one call share its number, and have an index each."""
    trace = bench.trace(case_named("an operation with several outputs").build(bench.fixtures))
    left, right = trace["split_1"], trace["split_2"]
    if left.func_call_id != right.func_call_id or (left.output_index, right.output_index) != (0, 1):
        found = [(op.func_call_id, op.output_index) for op in (left, right)]
        fail("func_call_id and output_index of the two.", expected="the same, 0 and 1", got=found)


@IN_PLACE.check("copies of kept values before their memory is written", needs="in_place")
def values_before_a_write(bench: Bench) -> None:
    """A value is the one at its Op, whatever is written into its memory later."""
    made = case_named("writes one after another").build(bench.fixtures)
    (given,) = bench.numpy_of(made.args)
    trace = bench.trace(made)
    for label, times in (("mul_1", 2), ("add_1:1", 3), ("add_1:2", 4), ("add_1:3", 5)):
        bench.must_be_close(bench.numpy(trace[label]), given * times, f"The value of {label}: {times} times the input.")


@IN_PLACE.check("copies of kept values before their memory is written through a view", needs="in_place views")
def values_before_a_write_through_a_view(bench: Bench) -> None:
    """A write to a view shows in no value that was there before."""
    made = case_named("a write seen through a view").build(bench.fixtures)
    (given,) = bench.numpy_of(made.args)
    trace = bench.trace(made)
    bench.must_be_close(bench.numpy(trace["mul_1"]), given * 2, "The base, as it was made.")
    bench.must_be_close(bench.numpy(trace["add_1"]), given[0] * 2 + 1, "What was written.")


@CONDITIONALS.each(
    "Session.note('bool', ...) with the call site, when an array becomes a Python value",
    where=lambda case: case.suite == "control flow",
)
def branches(bench: Bench, case: Case) -> None:
    """The arm that ran is known, and the edges into it; so are those towards what was tested."""
    trace = bench.trace(case.build(bench.fixtures))
    tests = [f"{parent} -> {child}" for parent, child in trace.conditional_branch_edges]
    if tests != list(case.tests):
        fail("The edges towards predicates.", expected=list(case.tests), got=tests)
    entries = trace.conditional_arm_entry_edges.items()
    arms = {arm: [f"{parent} -> {child}" for parent, child in edges] for (_, arm), edges in entries}
    if arms != dict(case.arms):
        fail("The edges into the arm that ran.", expected=dict(case.arms), got=arms)


@CONDITIONALS.check("Session.note('bool', vid, value, site)", needs="branches_on_values")
def predicates(bench: Bench) -> None:
    """The Op that Python read as a bool knows it, and what it was."""
    for name, expected in (("if true", True), ("if false", False)):
        op = bench.trace(case_named(name).build(bench.fixtures))["gt_1"]
        if not op.is_terminal_bool or op.bool_value is not expected:
            fail(f"{name}: what gt_1 was when Python read it.", expected=expected, got=op.bool_value)


@RANDOMNESS.each("Func.random; no draw of the plugin's own", where=lambda case: case.is_random)
def the_same_draws(bench: Bench, case: Case) -> None:
    """With the generator in the same state, a traced call draws what a plain call draws."""
    plain = bench.plain(case.build(bench.fixtures))
    made = case.build(bench.fixtures)
    traced = [bench.numpy(op) for op in bench.trace(made) if op.is_output]
    bench.must_all_be_close(traced, plain, "What the traced model returns")
    if not any(op.is_random for op in bench.trace(made).compute_ops):
        fail("Func.random of dropout.", expected=True, got=False)
