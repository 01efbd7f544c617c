"""``tl.record`` and ``tl.Recorder`` on the toy framework: what is kept, what is refused, how a run is repeated."""

from __future__ import annotations

import copy
import gc
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.toy_models import Loop, Net, x
from torchlens_core.errors import (
    AmbiguousLabel,
    InterventionError,
    LabelError,
    NestedTraceError,
    RecordingError,
    SelectorError,
    SelectorWarning,
)
from torchlens_core.file.read import load
from torchlens_core.interventions.when import when
from torchlens_core.plan import keep
from torchlens_core.recording.record import record
from torchlens_core.recording.recorder import Recorder
from torchlens_core.recording.streaming import to_disk
from torchlens_core.selectors import contains, followed_by, func, in_module, label, module, output, preceded_by, where
from torchlens_core.testing.toy_framework import Array, Module, add_, dropout, relu, split, tanh, watcher_here
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential
from torchlens_core.tracing import trace


def values(recording: Any) -> list[Any]:
    return [record.numpy() for record in recording]


def traced_values(model: Any, given: Any, save: Any, **options: Any) -> list[Any]:
    made = trace(model, given, save=save, **options)
    sources = {source.vid for source in made.program.sources}
    return [made.values.numpy(vid) for vid in made.values if vid not in sources]


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


class Steps(Module):
    """Writes in place, splits, and calls one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.act = ReLU()

    def forward(self, a: Array) -> Any:
        a = self.act(self.fc(a))
        left, right = split(a, 2)
        left = tanh(left)
        add_(left, 1.0)
        return self.act(left + right)


class TestRecord:
    @pytest.mark.parametrize(
        "save",
        [
            func("relu"),
            func("linear"),
            module("fc"),
            module("act:2"),
            in_module("act"),
            func("relu") & in_module("act"),
            func("relu") & module("act"),
            func("relu").nth(2),
            func("split", output=1),
            output(0) | func("tanh"),
            func("add_"),
            where(lambda site: site.out.data.min() >= 0),
            where(lambda site: site.type == "tanh" and site.shape == (2, 2)),
            ~func("relu") & ~func("tanh"),
            [module("fc"), func("tanh")],
            "fc",
            module("self"),
        ],
        ids=repr,
    )
    def test_records_what_a_trace_keeps(self, save: Any) -> None:
        model, given = Steps(), x(2, 4)
        recording = record(model, given, save=save)
        assert len(recording) and same(values(recording), traced_values(model, given, save))

    def test_everything(self) -> None:
        recording = record(Steps(), x(2, 4), save=True)
        assert [r.type for r in recording] == [
            "linear", "relu", "split", "split", "tanh", "add", "add", "relu",
        ]  # fmt: skip
        assert recording.n_ops == 7

    def test_what_is_known_of_a_record(self) -> None:
        recording = record(Steps(), x(2, 4), save=[func("relu"), module("fc")])
        assert [(r.raw_label, r.module, r.address, r.pass_index) for r in recording] == [
            ("fc:1", "fc:1", "fc", 1),
            ("relu_1_raw", "act:1", "act", 1),
            ("relu_2_raw", "act:2", "act", 2),
        ]
        last = recording[2]
        assert (last.type, last.func_name, last.shape, last.dtype_name, last.modules) == (
            "relu", "relu", (2, 2), "float64", ["act:2"],
        )  # fmt: skip
        assert last.nbytes == 32 and last.start_ns > 0 and last.step == 0
        assert recording.start_time <= recording.end_time

    def test_looking_up(self) -> None:
        recording = record(Steps(), x(2, 4), save=[func("relu"), func("tanh")])
        assert recording["act:2"] is recording[2] is recording["relu_2_raw"] is recording[-1]
        assert recording["tanh"].type == "tanh"
        assert recording.by_address["act"] == recording.by_func["relu"] == [recording[0], recording[2]]
        assert "act" in recording and "fc" not in recording
        with pytest.raises(AmbiguousLabel, match="'act' means 2 records: relu_1_raw in act:1, relu_2_raw in act:2"):
            recording["act"]
        with pytest.raises(LabelError, match=r"Nothing was recorded under 'fc'.*save=tl.module..fc"):
            recording["fc"]
        with pytest.raises(LabelError, match="There are 3 records; got index 7"):
            recording[7]

    def test_printing_and_frames(self) -> None:
        recording = record(Steps(), x(2, 4), save=func("relu"))
        assert repr(recording) == "<Recording of Steps: 2 records>"
        assert "relu_2_raw" in str(recording) and "(2, 2)" in str(recording)
        assert "relu_1_raw" in repr(recording[0])
        frame = recording.to_pandas()
        assert list(frame["raw_label"]) == ["relu_1_raw", "relu_2_raw"] and list(frame["pass_index"]) == [1, 2]

    def test_transforms(self) -> None:
        recording = record(Steps(), x(2, 4), save=keep(func("relu"), transform=lambda a: float(a.data.sum())))
        assert [r.out for r in recording] == [
            float(a.sum()) for a in values(record(Steps(), x(2, 4), save=func("relu")))
        ]

    def test_output_and_halt(self) -> None:
        model, given = Steps(), x(2, 4)
        recording = record(model, given, save=module("fc"), return_output=True)
        assert np.array_equal(recording.output.data, model(given).data)
        halted = record(model, given, save=True, halt=func("tanh"), return_output=True)
        assert halted.halted is halted[-1] and halted[-1].type == "tanh" and halted.output is None
        assert record(model, given, save=module("fc"), halt=func("tanh")).halted is True
        assert recording.halted is False
        with pytest.raises(RecordingError, match="return_output=True"):
            _ = record(model, given, save="fc").output

    def test_interventions(self) -> None:
        model, given = Steps(), x(2, 4)
        double = when(func("tanh"), lambda value: value * 2.0)
        recording = record(model, given, save=True, intervene=double)
        assert same(values(recording), traced_values(model, given, True, intervene=double))
        zero = when(module("fc"), lambda value: value * 0.0)
        recording = record(model, given, save=module("fc"), intervene=zero, return_output=True)
        assert not recording["fc"].out.data.any() and same(
            values(recording), traced_values(model, given, "fc", intervene=zero)
        )
        with pytest.raises(InterventionError, match="never acted"):
            record(model, given, save=True, intervene=when(func("exp"), lambda value: value))


class TestRefused:
    @pytest.mark.parametrize(
        ("save", "message"),
        [
            ("relu_1_2", r"tl.func\('relu'\).nth\(1\)"),
            (label("relu_2"), r"tl.func\('relu'\).nth\(2\)"),
            (followed_by(func("relu")), "tl.trace"),
            (preceded_by(func("relu")), "tl.trace"),
            (contains("relu"), "tl.trace"),
            (~module("act"), "tl.trace"),
            (func("input"), "no operation computes"),
            (where(lambda op: op.label == "relu_1_1"), "only the graph of a finished run knows"),
            (module("ect"), "The model has no module 'ect'. Did you mean 'act'"),
            ("nothing.there", "The model has no module"),
            (func("conv22d"), "No function is called"),
        ],
        ids=repr,
    )
    def test_selectors(self, save: Any, message: str) -> None:
        with pytest.raises(SelectorError, match=message):
            record(Steps(), x(2, 4), save=save)
        assert watcher_here() is None

    def test_nothing_matched(self) -> None:
        with pytest.warns(SelectorWarning, match="matched nothing, so nothing was recorded"):
            assert len(record(Steps(), x(2, 4), save=func("exp"))) == 0

    def test_inside_a_recorded_model(self) -> None:
        class Outer(Steps):
            def forward(self, a: Array) -> Any:
                record(self.fc, a, save=True)

        with pytest.raises(NestedTraceError, match="already running"):
            record(Outer(), x(2, 4), save=True)

    def test_an_error_of_the_model_has_the_recording_up_to_there(self) -> None:
        class Failing(Steps):
            def forward(self, a: Array) -> Any:
                self.fc(a)
                raise OSError("full")

        with pytest.raises(OSError, match="full") as caught:
            record(Failing(), x(2, 4), save="fc")
        partial = caught.value.partial_recording  # type: ignore[attr-defined]
        assert len(partial) == 1 and partial.facts["error"] == "OSError: full" and watcher_here() is None
        with pytest.raises(RecordingError, match="ended in an error"):
            partial.to_trace()


class TestToTrace:
    @pytest.mark.parametrize("model", [Net(), Loop(), Steps()], ids=lambda model: type(model).__name__)
    @pytest.mark.parametrize("save", [func("linear"), func("relu") | func("add"), True], ids=repr)
    def test_is_the_trace_with_the_recorded_values(self, model: Module, save: Any) -> None:
        given = x(2, 4)
        twin = copy.deepcopy(model)  # a model that trains is another one after a run
        recording = record(model, given, save=save)
        made, expected = recording.to_trace(), trace(twin, given, save=save)
        assert [op.label for op in made] == [op.label for op in expected]
        assert [op.parents for op in made] == [op.parents for op in expected]
        kept = [op for op in made.compute_ops if op.has_saved_value]
        assert same([op.out.data for op in kept], values(recording))
        assert all(np.array_equal(op.out.data, expected[op.label].out.data) for op in kept)

    def test_repeats_what_was_random_and_leaves_the_model_alone(self) -> None:
        net = Net()
        recording = record(lambda a: dropout(net(a)), x(2, 4), save=func("dropout"))
        state = net.norm.center.data.copy()
        for _ in range(2):
            assert same([recording.to_trace()["dropout"].out.data], values(recording))
        assert np.array_equal(net.norm.center.data, state)

    def test_with_halt_and_interventions(self) -> None:
        change = when(func("relu").nth(1), lambda value: value * 3.0)
        model = Steps()
        recording = record(model, x(2, 4), save=True, halt=func("tanh"), intervene=change)
        made = recording.to_trace()
        assert made.halted is not None and made.halted.type == "tanh" and made["relu_1"].is_changed

    def test_says_what_has_changed(self) -> None:
        model, given = Steps(), x(2, 4)
        recording = record(model, given, save=func("relu"))
        before = model.fc.weight.data
        model.fc.weight.data = before + 1
        with pytest.raises(RecordingError, match="Has the model been changed"):
            recording.to_trace()
        model.fc.weight.data = before
        recording.to_trace()
        calls = iter(range(9))
        odd = record(lambda a: tanh(a * float(next(calls))), given, save=func("tanh"))
        with pytest.raises(RecordingError, match="did not repeat"):
            odd.to_trace()

    def test_does_not_keep_the_model_alive(self) -> None:
        recording = record(Steps(), x(2, 4), save=func("relu"))
        gc.collect()
        with pytest.raises(RecordingError, match="is gone"):
            recording.to_trace()
        assert len(recording) == 2 and recording[0].out.shape == (2, 4)

    def test_only_where_it_was_asked_for(self) -> None:
        with pytest.raises(RecordingError, match="replay_ready=True"):
            record(Steps(), x(2, 4), save="fc", replay_ready=False).to_trace()


class TestRecorder:
    def test_each_call_is_a_step(self) -> None:
        model = Steps()
        given = [x(2, 4), x(3, 4)]
        with Recorder(model, save=[module("fc"), func("tanh")]) as recorder:
            returned = [model(a) for a in given]
            relu(given[0])  # no call of the model
        model(given[0])
        assert recorder.num_steps == len(recorder.steps) == len(recorder.recordings) == 2
        for step, a, out in zip(recorder.steps, given, returned, strict=True):
            assert same(values(step), traced_values(model, a, [module("fc"), func("tanh")]))
            assert np.array_equal(out.data, model(a).data)
        assert [r.step for r in recorder.steps[1]] == [1, 1]

    def test_from_another_function_and_of_a_submodule(self) -> None:
        inner = Linear(4, 4)
        net = Sequential(inner, ReLU(), inner)
        with Recorder(inner, save=func("linear")) as recorder:
            net(x(2, 4))
        assert recorder.num_steps == 2 and recorder.steps[1]["linear"].module == "self:1"

    def test_steering_alone(self) -> None:
        model, given = Steps(), x(2, 4)
        with Recorder(model, save=False, intervene=when(module("act:2"), lambda value: value * 0.0)) as recorder:
            assert not model(given).data.any()
        assert len(recorder.steps[0]) == 0 and model(given).data.any()
        with (
            pytest.raises(InterventionError, match="never acted"),
            Recorder(model, save=False, intervene=when(func("exp"), lambda value: value)),
        ):
            model(given)

    def test_history(self) -> None:
        model = Steps()
        seen: list[int] = []
        with Recorder(model, save=func("relu"), max_records=4, on_step=lambda step: seen.append(step.step)) as recorder:
            for _ in range(5):
                model(x(2, 4))
        assert [step.step for step in recorder.steps] == [3, 4] and seen == [0, 1, 2, 3, 4]
        with Recorder(model, save=func("relu"), max_records=0) as recorder:
            model(x(2, 4))
        assert not recorder.steps and recorder.num_steps == 1
        with pytest.raises(ValueError, match="max_records"):
            Recorder(model, save=True, max_records=-1)

    def test_to_trace_of_a_step(self) -> None:
        model = Steps()
        with Recorder(model, save=func("relu"), replay_ready=True) as recorder:
            model(x(2, 4))
            model(x(3, 4))
        made = recorder.steps[1].to_trace()
        assert np.array_equal(made["relu_1"].out.data, recorder.steps[1][0].out.data)

    def test_everything_is_taken_down(self) -> None:
        class Failing(Steps):
            def forward(self, a: Array) -> Any:
                if a.shape[0] == 3:
                    raise OSError("full")
                return super().forward(a)

        model = Failing()
        with pytest.raises(OSError), Recorder(model, save="fc") as recorder:
            model(x(2, 4))
            model(x(3, 4))
        assert (
            watcher_here() is None and recorder.num_steps == 2 and recorder.steps[1].facts["error"] == "OSError: full"
        )
        with Recorder(model, save="fc") as recorder:
            with pytest.raises(OSError):
                model(x(3, 4))
            model(x(2, 4))
        assert len(recorder.steps[1]) == 1

    def test_a_function_is_called_through_the_recorder(self, tmp_path: Path) -> None:
        model = Steps()

        def function(a: Array) -> Array:
            return tanh(model(a))

        expected = function(x(2, 4)).data
        storage = to_disk(tmp_path / "function")
        with Recorder(function, save=[module("model.fc"), func("tanh")], storage=storage) as recorder:
            returned = [recorder(x(2, 4)), recorder(a=x(2, 4))]
        assert recorder.num_steps == 2 and "function" in repr(recorder)
        for step, out in zip(recorder.steps, returned, strict=True):
            np.testing.assert_array_equal(out.data, expected)
            assert [record.type for record in step][-1] == "tanh" and "model.fc" in step
        assert [len(step) for step in load(tmp_path / "function.tlspec")] == [3, 3]
        with Recorder(lambda a: tanh(a * a), save=func("tanh")) as recorder:  # its argument tells whose it is
            recorder(x(3))
        assert recorder.steps[0]["tanh"].shape == (3,)

    def test_other_threads_run_as_ever(self) -> None:
        model = Steps()
        with Recorder(model, save=True) as recorder:
            thread = threading.Thread(target=model, args=(x(2, 4),))
            thread.start()
            thread.join()
            model(x(2, 4))
        assert recorder.num_steps == 1

    def test_mistakes(self) -> None:
        model = Steps()
        with (
            pytest.raises(RecordingError, match=r"is a function.*Call the recorder"),
            Recorder(lambda a: model(a) + x(1), save=True, backend="toy"),
        ):
            pass
        with pytest.raises(RecordingError, match="has not been entered"):
            Recorder(model, save=True)(x(2, 4))
        with pytest.raises(SelectorError, match="nothere"), Recorder(lambda a: model(a), save="nothere") as function:
            function(x(2, 4))
        recorder = Recorder(model, save=True)
        with recorder, pytest.raises(RecordingError, match="entered already"), recorder:
            pass
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Recorder(model, save=func("exp")):
                model(x(2, 4))
        assert "matched nothing" in str(caught[0].message)
