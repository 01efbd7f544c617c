"""The kit finds faults: each planted in the toy backend, found by its suite, in words that lead to it."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchlens_core.eager import Recorder, recorder, sparse
from torchlens_core.errors import ReplayError
from torchlens_core.file import load
from torchlens_core.plugins import registry
from torchlens_core.program import Row
from torchlens_core.session import Session
from torchlens_core.testing import toy, toy_framework
from torchlens_core.testing.conformance import Fixtures, checks, run
from torchlens_core.testing.toy import ToyArrays, ToyBackend
from torchlens_core.testing.toy_conformance import ToyFixtures
from torchlens_core.tracing import trace

registry().add(toy)
FAULTS: list[tuple[str, str, str, Callable[[pytest.MonkeyPatch], Any]]] = []


def fault(suite: str, says: str) -> Callable[[Callable[[pytest.MonkeyPatch], Any]], Any]:
    """A fault, the suite that is to find it, and what a failure has to say."""

    def add(plant: Callable[[pytest.MonkeyPatch], Any]) -> Any:
        FAULTS.append((plant.__name__, suite, says, plant))
        return plant

    return add


@fault("arrays", "sum(x, (0, 2)).")
def axes_that_go(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyArrays, "sum", lambda self, array, axes: toy_framework.total(array, tuple(axes)))


@fault("arrays", "as_like(")
def numbers_of_their_own_type(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyArrays, "as_like", lambda self, value, array: toy_framework.Array(np.asarray(value)))


@fault("arrays", "The user's generator")
def draws_from_the_users_generator(patch: pytest.MonkeyPatch) -> None:
    normal = ToyArrays.normal

    def drawing(self: ToyArrays, array: Any, seed: int) -> Any:
        toy_framework._generator.random()
        return normal(self, array, seed)

    patch.setattr(ToyArrays, "normal", drawing)


@fault("capture", "Every array that an operation takes comes from an operation that was seen")
def an_operation_that_is_not_told(patch: pytest.MonkeyPatch) -> None:
    told = toy.Telling.operation

    def but_tanh(self: Any, operation: Any, args: Any, kwargs: Any) -> Any:
        return operation.run(*args) if operation.name == "tanh" else told(self, operation, args, kwargs)

    patch.setattr(toy.Telling, "operation", but_tanh)


@fault("capture", "an operation is missing: each call is to make a row")
def the_last_operation_lost(patch: pytest.MonkeyPatch) -> None:
    capture = ToyBackend.capture

    def short(self: ToyBackend, call: Any, session: Any) -> Any:
        out = capture(self, call, session)
        if not session.discovery.state:
            last = session.rows.pop()
            session.outputs[:] = [replace_vid(output, last.ins[0]) for output in session.outputs]
        return out

    def replace_vid(output: Any, vid: int) -> Any:
        return output._replace(vid=vid)

    patch.setattr(ToyBackend, "capture", short)


@fault("capture", "an operation too many")
def an_operation_for_each_return(patch: pytest.MonkeyPatch) -> None:
    leave = Recorder.leave

    def more(self: Recorder, out: Any) -> Any:
        return leave(self, self.operation(self._backend.identity, (out,), {}, self._alias))

    patch.setattr(Recorder, "leave", more)


@fault("several outputs", "what the model returned: Session.outputs")
def outputs_without_their_number(patch: pytest.MonkeyPatch) -> None:
    capture = ToyBackend.capture

    def first(self: ToyBackend, call: Any, session: Any) -> Any:
        out = capture(self, call, session)
        del session.outputs[1:]
        return out

    patch.setattr(ToyBackend, "capture", first)


@fault("capture", "Func.type (one word of torchlens_core.vocabulary)")
def own_words_for_operations(patch: pytest.MonkeyPatch) -> None:
    describe = toy.describe
    own = functools.cache(lambda operation: with_type(describe(operation), f"my{operation.name}"))
    patch.setattr(toy, "describe", own)


def with_type(func: Any, type_: str) -> Any:
    made = copy.copy(func)
    made.type = type_
    return made


@fault("capture", "add_1_4: which arrays each operation took: Row.ins")
def swapped_parents(patch: pytest.MonkeyPatch) -> None:
    def swapped(func: Any, args: Any, kwargs: Any, ins: Any, *rest: Any) -> Row:
        return Row(func, args, kwargs, ins[::-1], *rest)

    patch.setattr(recorder, "Row", swapped)


@fault("capture", "The value of")
def a_value_of_another_operation(patch: pytest.MonkeyPatch) -> None:
    hold = ToyArrays.hold
    patch.setattr(ToyArrays, "hold", lambda self, array: hold(self, array) * 1.01)


@fault("capture", "the fault is in the fixtures")
def fixtures_that_build_another_model(patch: pytest.MonkeyPatch) -> None:
    linear = ToyFixtures.linear
    patch.setattr(Wrong, "linear", lambda self, weight, bias: linear(self, weight, None))


@fault("recurrence", "which of them are passes of one layer")
def no_call_sites(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "_site", lambda self: -1)


@fault("modules", "the module calls around each operation")
def modules_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "module_call", lambda self, module, args, kwargs, run: run(*args, **kwargs))


@fault("modules", "what module calls returned: Scope.outs")
def what_modules_return_not_seen(patch: pytest.MonkeyPatch) -> None:
    mirror = ToyBackend.containers.mirror
    leave = Recorder.leave

    def blind(self: Recorder, out: Any) -> Any:
        scope = self.session.scope
        out = leave(self, out)
        scope.outs = () if scope.parent is not None else mirror(out, self.vid_of)
        return out

    patch.setattr(Recorder, "leave", blind)


@fault("params and buffers", "a buffer that is written")
def rebound_buffers_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "assigned", lambda self, module, name, array: None)


@fault("params and buffers", "A parameter is missing")
def parameters_under_another_name(patch: pytest.MonkeyPatch) -> None:
    discover = ToyBackend.discover

    def without_state(self: ToyBackend, call: Any) -> Any:
        found = discover(self, call)
        for state in found.state:
            state.address = "x" + state.address
        return found

    patch.setattr(ToyBackend, "discover", without_state)


@fault("in place", "The value of mul_1")
def values_kept_by_the_cell(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyArrays, "hold", lambda self, array: array)
    patch.setattr(ToyArrays, "release", lambda self, held: held)


@fault("conditionals", "The edges towards predicates")
def reads_not_noted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "read", lambda self, kind, array, value: None)


@fault("randomness", "What the traced model returns")
def a_draw_of_its_own(patch: pytest.MonkeyPatch) -> None:
    add_state = Recorder.add_state

    def drawing(self: Recorder) -> None:
        toy_framework._generator.random()
        add_state(self)

    patch.setattr(Recorder, "add_state", drawing)


@fault("selectors and saving", "matched nothing in this run")
def one_decision_for_all(patch: pytest.MonkeyPatch) -> None:
    decide = Session.decide
    memo: list[Any] = []

    def hasty(self: Session, func: Any, scope: Any) -> Any:
        memo[:] = memo or [decide(self, func, scope)]
        return memo[0]

    patch.setattr(Session, "decide", hasty)


@fault("halt", "the model ran to its end")
def halts_ignored(patch: pytest.MonkeyPatch) -> None:
    def obey(self: Recorder, decisions: Any, arrays: Any) -> None:
        for vid, decision in decisions.items():
            self.session.keep(vid, arrays[vid], decision)

    patch.setattr(Recorder, "_obey", obey)


@fault("record", "matched nothing, so nothing was recorded")
def recordings_without_functions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sparse, "concerns", lambda plan, func: False)


@fault("interventions", "InterventionError")
def interventions_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recorder, "_change", lambda self, vid, array, decision, is_write: array)


@fault("gradients", "compared with finite differences in numpy")
def gradients_twice_as_large(patch: pytest.MonkeyPatch) -> None:
    grad = toy.grad

    def doubled(function: Any, arrays: Any) -> Any:
        value, found = grad(function, arrays)
        return value, [None if each is None else toy_framework.Array(each.data * 2) for each in found]

    patch.setattr(toy, "grad", doubled)


@fault("replay and validation", "NOT VALID")
def operations_run_otherwise(patch: pytest.MonkeyPatch) -> None:
    call = ToyBackend.call

    def other(self: ToyBackend, row: Any, args: Any, kwargs: Any, **options: Any) -> Any:
        result = call(self, row, args, kwargs, **options)
        return toy_framework.Array(result.data + 1) if row.func.name == "tanh" else result

    patch.setattr(ToyBackend, "call", other)


@fault("replay and validation", "is not that of the plain run")
def nothing_put_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyBackend, "preserve", lambda self, call, discovery: nullcontext(call))


@fault("trace files", "read from a file")
def functions_by_import(patch: pytest.MonkeyPatch) -> None:
    resolve = ToyBackend.resolve

    def imported(self: ToyBackend, path: str) -> Any:
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name, None) if module in ("os", "builtins") else None
        return found or resolve(self, path)

    patch.setattr(ToyBackend, "resolve", imported)


@fault("trace files", "The type of")
def arrays_of_no_framework(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyArrays, "from_numpy", lambda self, array: np.asarray(array))


@fault("reports", "arrays in it")
def arguments_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ToyBackend, "settings", lambda self, row, func: {})


@fault("reports", "Names of the findings in this model")
def findings_of_some_models(patch: pytest.MonkeyPatch) -> None:
    findings = toy._findings

    def some(discovery: Any) -> Any:
        return findings(discovery) if discovery.state else ()

    patch.setattr(toy, "_findings", some)


@fault("threads and failure", "interception that is thread-local")
def one_watcher_for_all_threads(patch: pytest.MonkeyPatch) -> None:
    class Global:
        watcher = None

    patch.setattr(toy_framework, "_thread", Global())


@fault("threads and failure", "The model raises")
def errors_swallowed(patch: pytest.MonkeyPatch) -> None:
    capture = ToyBackend.capture

    def careless(self: ToyBackend, call: Any, session: Any) -> Any:
        try:
            return capture(self, call, session)
        except RuntimeError:
            return None

    patch.setattr(ToyBackend, "capture", careless)


@fault("threads and failure", "The operations and their module calls")
def scopes_left_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "abandon", lambda self, scope: None)


@fault("purity", "What was replaced is put back")
def a_patch_left_behind(patch: pytest.MonkeyPatch) -> None:
    add_state = Recorder.add_state

    def patching(self: Recorder) -> None:
        toy_framework.Module.run = lambda self, *args, **kwargs: self.forward(*args, **kwargs)  # type: ignore[method-assign]
        add_state(self)

    patch.setattr(toy_framework.Module, "run", toy_framework.Module.run)  # put back when the test ends
    patch.setattr(Recorder, "add_state", patching)


@fault("purity", "held by list in cell in tuple in function")
def a_model_kept(patch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    discover = ToyBackend.discover

    def keeping(self: ToyBackend, call: Any) -> Any:
        kept.append(call.model)
        return discover(self, call)

    patch.setattr(ToyBackend, "discover", keeping)


@fault("purity", "State and arguments, compared with a plain call")
def a_buffer_written_twice(patch: pytest.MonkeyPatch) -> None:
    capture = ToyBackend.capture

    def twice(self: ToyBackend, call: Any, session: Any) -> Any:
        call.run()
        return capture(self, call, session)

    patch.setattr(ToyBackend, "capture", twice)


class Wrong(ToyFixtures):
    """The fixtures under test; the kit's own numpy runs stand on those that they derive from."""


@pytest.mark.parametrize(("suite", "says", "plant"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_it_is_found(suite: str, says: str, plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    report = run(Wrong(), [suite])
    assert not report
    assert report.suites[suite].failed == len(report.failures)
    assert any(says in failure for failure in report.failures), "\n\n".join(report.failures)[:3000]
    assert all("look at: " in failure and failure.startswith(f"{suite}/") for failure in report.failures)


def test_a_fault_of_the_fixtures_is_not_sought_in_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    fixtures_that_build_another_model(monkeypatch)
    (failure, *_) = run(Wrong(), ["capture"]).failures
    assert "look at: Fixtures" in failure and "Largest difference: 1.56." in failure


# -- declarations ------------------------------------------------------------------------------------------------------


class TestDeclarations:
    def of(self, cannot: dict[str, str]) -> Fixtures:
        made = ToyFixtures()
        made.cannot = ToyFixtures.cannot | cannot  # type: ignore[misc]
        return made

    def test_a_feature_a_suite_a_case_or_a_check(self) -> None:
        made = self.of({"sorting": "no", "halt": "no", "mlp": "no", "purity/the same trace twice": "no"})
        declared = {str(check): check.declared for check in checks(made) if check.declared.endswith(": no")}
        assert declared["several outputs/outputs of different types: values"] == "sorting: no"
        assert declared["halt/at a module"] == "halt: no"
        assert declared["replay and validation/mlp: valid"] == "mlp: no"
        assert declared["purity/the same trace twice"] == "purity/the same trace twice: no"

    def test_it_is_listed_and_not_passed(self) -> None:
        report = run(self.of({"halt": "the framework runs to the end"}), ["halt", "capture"])
        assert report and report.suites["halt"].passed == 0
        assert "halt     52 declared" in str(report) and "halt: the framework runs to the end" in str(report)

    def test_one_that_names_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"cannot names 'in_plase', which is nothing. Did you mean 'in_place'"):
            run(self.of({"in_plase": "no"}))

    def test_a_job_that_the_backend_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lacking = toy.not_implemented("kernels are compiled away")
        monkeypatch.setattr(ToyBackend, "call", lacking)
        report = run(ToyFixtures(), ["replay and validation"])
        assert report.suites["replay and validation"].passed == 0
        assert "call: kernels are compiled away" in str(report)

    def test_operations_of_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(ToyBackend, "resolve", toy.not_implemented("a file holds no code"))
        report = run(ToyFixtures(), ["trace files"])
        assert report and "resolve: a file holds no code" in str(report)
        trace(toy_framework.relu, toy_framework.Array([1.0]), backend="toy").save(tmp_path / "trace")
        (row,) = load(tmp_path / "trace", backend="toy").program.rows
        with pytest.raises(ReplayError, match="The toy backend runs no operations of files: a file holds no code"):
            row.func.func(toy_framework.Array([1.0]))


def test_a_suite_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"no suite \['captur'\]; there are \['arrays', 'capture'"):
        run(ToyFixtures(), ["captur"])
