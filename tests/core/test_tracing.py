"""``trace``: how it is called, what it leaves behind, and what happens where the model does not come to its end."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Block, Everything, Plain
from torchlens_core.errors import BackendError, NestedTraceError, NothingCaptured, TorchLensError
from torchlens_core.records.trace import Trace
from torchlens_core.testing.toy_framework import (
    Array,
    Module,
    add_,
    dropout,
    generator_state,
    rand,
    relu,
    tanh,
    watcher_here,
)  # fmt: skip
from torchlens_core.testing.toy_layers import Linear
from torchlens_core.tracing import make_call, trace
from torchlens_core.validate import validate


def addresses(made: Trace) -> list[str]:
    return [op.address for op in made if op.is_input]


class TestCall:
    def test_one_argument(self, x: Array) -> None:
        assert addresses(trace(relu, x)) == ["input.x"]

    def test_a_list_or_a_tuple_is_the_positional_arguments(self, x: Array) -> None:
        def model(a: Array, b: Array) -> Any:
            return a + b

        assert addresses(trace(model, [x, x])) == addresses(trace(model, (x, x))) == ["input.a", "input.b"]

    def test_a_list_as_the_only_argument_goes_inside_a_list(self, x: Array) -> None:
        def model(parts: Any) -> Any:
            return parts[0] + parts[1]

        assert addresses(trace(model, [[x, x]])) == ["input.parts.0", "input.parts.1"]
        assert addresses(trace(lambda d: relu(d["x"]), {"x": x})) == ["input.d.x"]

    def test_keyword_arguments(self, x: Array) -> None:
        made = trace(Everything(), x, {"scale": 3.0})
        assert made["mul_3"].args[1] == 3.0
        assert addresses(trace(lambda a, b: a + b, x, {"b": x})) == ["input.a", "input.b"]

    def test_no_argument(self) -> None:
        w = Array(np.ones(3))
        made = trace(lambda: relu(w), backend="toy")
        assert [op.label for op in made] == ["relu_1_1:1", "output_1:1"]

    def test_a_model_is_anything_callable(self, x: Array) -> None:
        model = Plain()
        for callable_ in (model, model.forward, lambda x: model(x), partial(model)):
            assert [op.type for op in trace(callable_, x).compute_ops] == ["linear", "relu", "linear"]

    def test_what_cannot_be_called_is_refused(self, x: Array) -> None:
        with pytest.raises(BackendError, match="The model is to be called and dict is not callable"):
            trace({"model": 1}, x)  # type: ignore[arg-type]

    @pytest.mark.parametrize("given", [np.ones(3), None, "text", {"x": 1}, (n for n in [1]), range(3)])
    def test_anything_else_is_the_one_argument(self, given: Any) -> None:
        assert make_call(relu, given, None).args == (given,)

    def test_bad_options(self, x: Array) -> None:
        with pytest.raises(ValueError, match="granularity is 'function' or 'kernel'; got 'fine'"):
            trace(relu, x, granularity="fine")  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=r"backend= takes a name, one of \[.*'toy'.*\]; got 3"):
            trace(relu, x, backend=3)  # type: ignore[arg-type]

    def test_facts_of_the_run(self, x: Array) -> None:
        made = trace(Plain(), x)
        assert (made.model_name, made.backend_name) == ("Plain", "toy")
        assert made.facts["framework_version"] == "1.0"
        assert made.facts["duration_ns"] > 0
        assert all(op.duration_ns is not None and op.duration_ns > 0 for op in made.compute_ops)
        assert repr(made) == "<Trace of Plain (toy): 3 ops, 3 layers, complete>"


class TestAfterwards:
    def test_the_model_the_generator_and_the_result_are_as_after_one_plain_call(self, x: Array) -> None:
        def model(x: Array) -> Any:
            return dropout(x) + rand((4,))

        start = generator_state()
        plain = model(x)
        end = generator_state()
        generator_state(start)
        made = trace(model, x)
        assert np.array_equal(made["output_1"].numpy(), plain.data)
        assert generator_state() == end

    def test_nothing_is_watched(self, x: Array) -> None:
        trace(Plain(), x)
        assert watcher_here() is None

    def test_other_threads_go_unseen(self, x: Array) -> None:
        def model(x: Array) -> Any:
            made: list[Any] = []
            thread = threading.Thread(target=lambda: made.append(tanh(x)))
            thread.start()
            thread.join()
            return relu(x) + made[0]

        with pytest.warns(UserWarning, match="made by code that cannot be seen"):
            made = trace(model, x)
        assert [op.type for op in made.compute_ops] == ["relu", "source", "add"]


class TestPartial:
    def model(self, error: BaseException) -> Any:
        class Model(Plain):
            def forward(self, x: Array) -> Any:
                x = self.act(self.fc(x))
                raise error

        return Model()

    @pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
    def test_the_models_own_exception_comes_with_the_trace_so_far(self, kind: Any, x: Array) -> None:
        error = kind("the model's own")
        with pytest.raises(kind) as raised:
            trace(self.model(error), x)
        assert raised.value is error
        made = error.partial_trace
        assert [op.label for op in made] == ["input_1:1", "linear_1_1:1", "relu_1_2:1"]
        assert made.is_partial
        assert made.facts["error"] == f"{kind.__name__}: the model's own"
        assert np.array_equal(made["act"].numpy(), np.maximum(made["fc"].numpy(), 0))
        assert watcher_here() is None
        assert "partial" in repr(made)

    def test_the_next_trace_works(self, x: Array) -> None:
        with pytest.raises(ValueError):
            trace(self.model(ValueError()), x)
        assert trace(Plain(), x).num_ops == 3

    def test_inside_a_module_within_an_operation(self, x: Array) -> None:
        with pytest.raises(ValueError) as raised:
            trace(Plain(), Array(np.ones((2, 3))))
        made = raised.value.partial_trace  # type: ignore[attr-defined]
        assert [op.label for op in made] == ["input_1:1"]
        assert made.modules["fc"].num_calls == 1

    def test_an_error_before_anything_ran_is_raised_as_it_is(self, x: Array) -> None:
        with pytest.raises(TypeError) as raised:
            trace(lambda: 1, [], {"nothing": 1}, backend="toy")
        assert not hasattr(raised.value, "partial_trace")

    def test_an_error_of_a_predicate_is_the_users_own(self, x: Array) -> None:
        from torchlens_core.selectors import where

        with pytest.raises(ZeroDivisionError) as raised:
            trace(Plain(), x, save=where(lambda op: 1 / 0))
        assert raised.value.partial_trace.num_ops == 0  # type: ignore[attr-defined]


class TestNothingCaptured:
    def test_says_what_ran_and_what_to_look_at(self, x: Array) -> None:
        def numbers(x: Array) -> Any:
            return 3

        with pytest.raises(
            NothingCaptured, match=r"numbers ran and returned int, and not one operation of toy was seen"
        ):
            trace(numbers, x)

    def test_a_halt_at_the_input_is_none(self, x: Array) -> None:
        with pytest.raises(NothingCaptured):
            trace(lambda x: x.data, x)


class TestNested:
    def test_a_trace_in_a_traced_model_is_an_error(self, x: Array) -> None:
        inner = Plain()

        class Model(Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = Linear(4, 4)

            def forward(self, x: Array) -> Any:
                x = self.fc(x)
                trace(inner, x)
                return x

        with pytest.raises(NestedTraceError, match="already running in this thread") as raised:
            trace(Model(), x)
        assert raised.value.partial_trace.num_ops == 1  # type: ignore[attr-defined]
        assert isinstance(raised.value, TorchLensError)

    def test_one_after_another_is_none(self, x: Array) -> None:
        assert trace(Plain(), x).num_ops == trace(Plain(), x).num_ops == 3


def test_detach_and_device_are_taken(x: Array) -> None:
    made = trace(Plain(), x, detach=True, output_device="cpu")
    assert made["relu_1"].out.shape == (2, 4)


def test_save_false_keeps_the_graph(x: Array) -> None:
    made = trace(Everything(), x, save=False)
    assert len(made.values) == 0
    assert made.saved_nbytes == 0
    assert made.num_ops == 31


def test_replay_ready_keeps_what_a_replay_needs(x: Array) -> None:
    table = Array(np.ones((2, 4)))

    def model(x: Array) -> Any:
        add_(x, table)
        return dropout(x)

    made = trace(model, x, replay_ready=True)
    program = made.program
    assert {source.address for source in program.sources if source.vid in program.constants} == {"x", "table"}
    assert list(program.rng) == [-1, 1]
    assert trace(model, x).program.constants == {}


@pytest.mark.parametrize("model", [Plain, Everything, Block])
def test_the_toy_backend_is_valid(model: Any, x: Array) -> None:
    report = validate(model(), x)
    assert report, str(report)
    assert report.moved
