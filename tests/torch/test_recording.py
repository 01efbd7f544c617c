"""``tl.record`` and ``tl.Recorder`` on PyTorch: against traces, and against hooks written by hand."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchlens as tl
from tests.torch.conftest import assert_nothing_left
from torchlens_torch import library_layers
from torchlens_torch import recording as torch_recording


class Residual(nn.Module):
    """In-place activations, a residual added in place, and one ReLU called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        y = self.relu(y)
        return self.fc(self.drop(F.adaptive_avg_pool2d(y, 1).flatten(1)))


class Attention(nn.Module):
    """Composite functions, several outputs, a reflected operator."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> Any:
        out, weights = self.attention(x, x, x)
        out, (h, _) = self.lstm(self.norm(out))
        return {"out": 1 - out, "state": h, "weights": weights}


class Unchanged(nn.Module):
    """Modules that return what they were given, as it is or written."""

    class Write(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1)

    def __init__(self) -> None:
        super().__init__()
        self.same, self.drop, self.write, self.fc = nn.Identity(), nn.Dropout(), Unchanged.Write(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.write(self.drop(self.fc(self.same(x)))))


MODELS = {"Unchanged": (Unchanged, (2, 4)), "Residual": (Residual, (2, 3, 8, 8)), "Attention": (Attention, (2, 5, 8))}
IMAGES = torch.randn(2, 3, 8, 8)


def built(name: str, *, training: bool = False) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, shape = MODELS[name]
    return build().train(training), torch.randn(shape)


def kept(trace: tl.Trace) -> list[torch.Tensor]:
    sources = {source.vid for source in trace.program.sources}
    return [trace.values[vid] for vid in trace.values if vid not in sources]


def equal(left: Any, right: Any) -> bool:
    left, right = list(left), list(right)
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


SELECTIONS = [
    ("Unchanged", True),
    ("Unchanged", tl.in_module("same")),
    ("Unchanged", [tl.module("same:1"), tl.module("write"), tl.module("same:2")]),
    ("Unchanged", tl.func("add")),
    ("Residual", tl.func("relu")),
    ("Residual", tl.func("batch_norm")),
    ("Residual", tl.func("add")),
    ("Residual", tl.func("relu").nth(2)),
    ("Residual", tl.module("bn1")),
    ("Residual", tl.module("relu:1")),
    ("Residual", [tl.module("bn2"), tl.module("relu"), tl.module("self")]),
    ("Residual", tl.in_module("bn1")),
    ("Residual", tl.in_module("relu") & tl.func("relu")),
    ("Residual", tl.where(lambda site: site.out.ndim == 2 and bool(site.out.mean() < 9))),
    ("Residual", tl.where(lambda site: site.module == "conv2:1")),
    ("Residual", ~tl.func("conv2d") & tl.func("flatten")),
    ("Residual", tl.module("relu") & tl.func("relu")),
    ("Residual", True),
    ("Residual", "fc"),
    ("Attention", tl.func("softmax") | tl.func("linear")),
    ("Attention", tl.in_module("attention")),
    ("Attention", tl.func("lstm", output=1)),
    ("Attention", tl.module("lstm")),
    ("Attention", tl.module("attention")),
    ("Attention", tl.func("sub")),
    ("Attention", True),
]


class TestAgainstTraces:
    @pytest.mark.parametrize(("name", "save"), SELECTIONS, ids=repr)
    @pytest.mark.parametrize("mode", ["plain", "no_grad", "inference", "training"])
    def test_values(self, name: str, save: Any, mode: str) -> None:
        model, x = built(name, training=mode == "training")
        context = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(mode, torch.enable_grad)
        state = copy.deepcopy(model.state_dict())
        with context():
            torch.manual_seed(1)
            expected = kept(tl.trace(model, x, save=save))
            for _ in range(3):  # what is found out in the first run serves the others
                model.load_state_dict(state)
                torch.manual_seed(1)
                recording = tl.record(model, x, save=save)
                assert len(recording) and equal((record.out for record in recording), expected)
                assert not any(record.out.requires_grad for record in recording)

    @pytest.mark.parametrize(("name", "save"), SELECTIONS, ids=repr)
    def test_the_trace_of_a_recording(self, name: str, save: Any) -> None:
        model, x = built(name, training=True)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        recording = tl.record(model, x, save=save, return_output=True)
        after = {key: value.clone() for key, value in model.state_dict().items()}
        made = recording.to_trace()
        assert all(torch.equal(value, after[key]) for key, value in model.state_dict().items())
        assert all(any(out is record.out for record in recording) for out in kept(made))
        model.load_state_dict(before)
        expected = tl.trace(model, x, save=save)
        assert [op.label for op in made] == [op.label for op in expected]
        assert [op.parents for op in made] == [op.parents for op in expected]
        assert [op.has_saved_value for op in made.compute_ops] == [op.has_saved_value for op in expected.compute_ops]

    def test_the_page(self) -> None:
        model, x = built("Residual")
        recording = tl.record(model, x, save=tl.func("relu"))
        trace = recording.to_trace()
        assert [op.label for op in trace.compute_ops if op.has_saved_value] == ["relu_1_3:1", "relu_2_7:1"]


class TestValues:
    def test_no_function_mode_where_modules_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, x = built("Residual")
        heights: list[int] = []
        model.bn1.register_forward_hook(lambda *_: heights.append(torch._C._len_torch_function_stack()))
        for _ in range(2):
            tl.record(model, x, save=[tl.module("bn1"), tl.module("fc")])
        tl.record(model, x, save=False, intervene=tl.when(tl.module("fc"), lambda value: value))
        assert heights == [1, 0, 0]

    def test_a_value_that_is_overwritten_later(self) -> None:
        model, x = built("Residual")
        expected = tl.trace(model, x, save=tl.module("bn1"))["bn1"].out
        assert all(torch.equal(tl.record(model, x, save="bn1")["bn1"].out, expected) for _ in range(3))

    def test_what_was_found_out_and_no_longer_holds_is_an_error(self) -> None:
        class Sometimes(nn.Module):
            writes = False

            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.fc(x)
                return x.mul_(2) if self.writes else x + 1

        model, x = Sometimes().eval(), torch.randn(2, 3)
        with torch.no_grad():
            expected = model.fc(x)
            assert torch.equal(tl.record(model, x, save="fc")["fc"].out, expected)
            model.writes = True
            with pytest.raises(tl.errors.ValueOverwritten):
                _ = tl.record(model, x, save="fc")["fc"].out
            assert torch.equal(tl.record(model, x, save="fc")["fc"].out, expected)

    def test_kept_by_reference(self) -> None:
        model, x = built("Residual")
        passed: list[torch.Tensor] = []
        model.conv2.register_forward_pre_hook(lambda module, inputs: passed.append(inputs[0]))
        for save in (tl.func("relu"), tl.module("relu"), tl.in_module("relu")):
            tl.record(model, x, save=save)
            assert tl.record(model, x, save=save)[0].out.data_ptr() == passed[-1].data_ptr()

    def test_attached_to_the_tape(self) -> None:
        model, x = built("Residual")
        recording = tl.record(model, x, save=tl.func("relu"), detach=False, return_output=True)
        recording.output.sum().backward()
        assert recording[0].out.requires_grad and model.conv1.weight.grad is not None

    def test_inside_vmap(self) -> None:
        x = torch.randn(4, 3)
        recording = tl.record(torch.func.vmap(lambda row: row.relu() + 1), x, save=tl.func("relu"))
        assert torch.equal(recording[0].out, x.relu()) and recording[0].shape == (4, 3)

    def test_out_and_numpy(self) -> None:
        def model(x: torch.Tensor) -> torch.Tensor:
            first = x.relu()
            torch.add(first, 1, out=first)
            second = first.tanh()
            second.numpy()[:] = 7
            return second + first

        x = torch.randn(3)
        recording = tl.record(model, x, save=tl.func("relu") | tl.func("tanh"))
        assert equal((r.out for r in recording), [x.relu(), (x.relu() + 1).tanh()])

    def test_transforms(self) -> None:
        model, x = built("Residual")
        save = tl.keep(tl.func("relu"), transform=lambda a: a.mean((2, 3)), dtype="float16")
        recording = tl.record(model, x, save=save)
        assert [(r.out.shape, r.out.dtype) for r in recording] == [((2, 8), torch.float16)] * 2
        assert recording.to_trace()["relu_1"].out is recording[0].out


class TestAgainstHooks:
    @pytest.mark.parametrize("target", [tl.module("bn1"), tl.module("relu:2"), tl.func("relu").nth(2), tl.func("add_")])
    def test_interventions(self, target: Any) -> None:
        model, x = built("Residual")
        change = tl.when(target, lambda value: value * 0.5)
        expected = tl.trace(model, x, save=True, intervene=change)
        recording = tl.record(model, x, save=True, intervene=change, return_output=True)
        assert equal((r.out for r in recording), kept(expected))
        with tl.Recorder(model, save=False, intervene=change):
            assert torch.equal(model(x), recording.output)

    def test_steering_by_a_module_is_a_forward_hook(self) -> None:
        model, x = built("Residual")
        handle = model.bn1.register_forward_hook(lambda module, inputs, output: output * 0.5)
        expected = model(x)
        handle.remove()
        with tl.Recorder(model, save=False, intervene=tl.when("bn1", lambda value: value * 0.5)) as recorder:
            assert torch.equal(model(x), expected) and torch.equal(model(x), expected)
        assert recorder.num_steps == 2 and not torch.equal(model(x), expected)

    def test_gradients_flow_through_a_steered_run(self) -> None:
        model, x = built("Residual")
        with tl.Recorder(model, save=False, intervene=tl.when("bn2", lambda value: value * 0.0)):
            model(x).sum().backward()
        assert not model.conv2.weight.grad.any() and model.conv1.weight.grad.any()


class TestLibraryLayers:
    """The table of what torch's own layers call, against what they call."""

    LAYERS: ClassVar[list[Any]] = [
        (nn.Linear(4, 4), (2, 4)),
        (nn.Embedding(9, 4, max_norm=1.0), None),
        *((nn.Conv1d(4, 4, 3, padding=1, padding_mode=mode), (2, 4, 8)) for mode in ("zeros", "reflect", "circular")),
        *((nn.Conv2d(4, 4, 3, padding=pad, padding_mode="replicate"), (2, 4, 8, 8)) for pad in ("same", 1)),
        (nn.Conv3d(4, 4, 3, padding=1, padding_mode="circular"), (2, 4, 8, 8, 8)),
        *((nn.BatchNorm1d(4, momentum=m, affine=a), (2, 4, 8)) for m in (None, 0.1) for a in (True, False)),
        (nn.BatchNorm2d(4), (2, 4, 8, 8)),
        (nn.BatchNorm2d(4, track_running_stats=False), (2, 4, 8, 8)),
        (nn.BatchNorm3d(4), (2, 4, 8, 8, 8)),
        (nn.LayerNorm(8), (2, 4, 8)),
        (nn.GroupNorm(2, 4), (2, 4, 8)),
        (nn.Dropout(), (2, 4)),
        (nn.GELU(), (2, 4)),
        (nn.ReLU(), (2, 4)),
        (nn.SiLU(), (2, 4)),
        (nn.Tanh(), (2, 4)),
        (nn.Sigmoid(), (2, 4)),
        (nn.Softmax(-1), (2, 4)),
        *((nn.MaxPool2d(2, return_indices=indices), (2, 4, 8, 8)) for indices in (True, False)),
        (nn.AvgPool2d(2), (2, 4, 8, 8)),
        (nn.AdaptiveAvgPool2d(1), (2, 4, 8, 8)),
        (nn.Flatten(), (2, 4, 8)),
        (nn.Identity(), (2, 4)),
    ]

    @pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: repr(layer[0]))
    @pytest.mark.parametrize("training", [True, False])
    def test_calls_what_the_table_says(self, layer: Any, training: bool) -> None:
        module, shape = layer
        x = torch.randint(9, (2, 3)) if shape is None else torch.randn(shape)
        trace = tl.trace(module.train(training), x, save=False, keep_orphans=True)
        allowed = library_layers.library_calls()[type(module)] | {"identity"}
        assert {op.func_name for op in trace.compute_ops} <= allowed

    def test_every_class_is_tried(self) -> None:
        assert {type(module) for module, _ in self.LAYERS} == set(library_layers.library_calls())

    def test_hooks_inside_are_seen(self) -> None:
        model, x = built("Residual")
        model.conv1.register_forward_hook(lambda module, inputs, output: output.sigmoid())
        assert len(tl.record(model, x, save=tl.func("sigmoid"))) == 1
        model.conv2.forward = lambda x: x.cosh()  # type: ignore[method-assign]
        assert len(tl.record(model, x, save=tl.func("cosh"))) == 1


class TestRecorder:
    def test_generation(self) -> None:
        class Language(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.head(self.embed(ids).mean(1))

            def generate(self, ids: torch.Tensor, steps: int) -> torch.Tensor:
                for _ in range(steps):
                    ids = torch.cat([ids, self(ids).argmax(-1, keepdim=True)], 1)
                return ids

        model = Language()
        favour = tl.when("head", lambda logits: logits + 100 * F.one_hot(torch.tensor(3), 11))
        with torch.no_grad(), tl.Recorder(model, save="embed", intervene=favour) as recorder:
            ids = model.generate(torch.tensor([[1, 2]]), 4)
        assert ids.tolist() == [[1, 2, 3, 3, 3, 3]]
        assert [step["embed"].shape[1] for step in recorder.steps] == [2, 3, 4, 5]

    def test_traces_between_steps(self) -> None:
        model, x = built("Residual")
        with tl.Recorder(model, save="fc") as recorder:
            out = model(x)
            assert torch.equal(tl.trace(model, x)["fc"].out, out)
            model(x)
        assert recorder.num_steps == 2

    def test_two_models_and_one_twice(self) -> None:
        (one, x), (other, _) = built("Residual"), built("Residual")
        with tl.Recorder(one, save="fc") as first, tl.Recorder(other, save="bn1") as second:
            one(x)
            other(x)
            other(x)
            with pytest.raises(tl.errors.NestedTraceError, match="is recorded by a Recorder already"):
                tl.record(one, x, save="bn1")
        assert (first.num_steps, second.num_steps) == (1, 2)

    def test_compiled_and_wrapped_models(self) -> None:
        model, x = built("Residual")
        for wrapped in (torch.compile(model), nn.DataParallel(model)):
            with tl.Recorder(wrapped, save="bn1") as recorder:
                wrapped(x)
            assert recorder.num_steps == 1 and recorder.steps[0]["bn1"].shape == (2, 8, 8, 8)
            assert len(tl.record(wrapped, x, save=tl.func("relu"))) == 2

    def test_a_training_loop_of_constant_memory(self) -> None:
        model, x = built("Residual", training=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        alive: list[weakref.ref[torch.Tensor]] = []
        with tl.Recorder(model, save=tl.func("relu"), max_records=2) as recorder:
            for _ in range(30):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
                alive.append(weakref.ref(recorder.steps[-1][0].out))
        gc.collect()
        assert recorder.num_steps == 30 and sum(ref() is not None for ref in alive) == 1

    def test_other_threads_and_errors(self) -> None:
        model, x = built("Residual")
        with tl.Recorder(model, save="fc") as recorder:
            thread = threading.Thread(target=model, args=(x,))
            thread.start()
            thread.join()
            with pytest.raises(RuntimeError):
                model(x[0, 0])
            assert torch._C._len_torch_function_stack() == 0
            model(x)
        assert [len(step) for step in recorder.steps] == [0, 1]
        assert_nothing_left()

    def test_a_call_inside_an_action_is_no_step(self) -> None:
        model, x = built("Residual")
        with tl.Recorder(model, save=False, intervene=tl.when("fc", lambda value: value + model(x))) as recorder:
            model(x)
        assert recorder.num_steps == 1

    def test_leaves_nothing_behind(self) -> None:
        model, x = built("Residual")
        attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
        with tl.Recorder(model, save=[tl.func("relu"), "fc"]):
            model(x)
        assert all(vars(module).keys() == attributes[name].keys() for name, module in model.named_modules())
        assert torch_recording.active.recorded is None
        ref = weakref.ref(model)
        recording = tl.record(model, x, save=tl.func("relu"))
        del model, attributes
        gc.collect()
        assert ref() is None and len(recording) == 2

    def test_a_user_s_own_mode_inside_the_model(self) -> None:
        class Devices(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.device("meta"):
                    self.fc(x)
                    made = torch.zeros(3)
                return self.fc(x).relu() + (0 if made.is_meta else 1)

        recording = tl.record(Devices(), torch.randn(2, 3), save=tl.func("relu"), return_output=True)
        assert torch.equal(recording.output.detach(), recording[0].out)


def test_a_module_that_is_first_called_in_a_later_step_is_kept_as_it_was() -> None:
    """Writes are not watched any more by then, so that what it makes is copied."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.late, self.calls = nn.Linear(3, 3), nn.Linear(3, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            x = self.first(x)
            return self.late(x).mul_(2.0) if self.calls > 2 else x * 2.0

    model, x = Late(), torch.ones(2, 3)
    with tl.Recorder(model, save=[tl.module("first"), tl.module("late")]) as recorder, torch.no_grad():
        for _ in range(3):
            model(x)
        expected = nn.functional.linear(model.first(x), model.late.weight, model.late.bias)
    assert torch.equal(recorder.recordings[-1]["late"].out, expected)
