"""The compatibility report of torch models: everything is found where it is, and what it says is true."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import torchlens as tl
from tests.torch.wrapped_models import (
    CASES,
    EXAMPLES,
    Made,
    net,
    process_group,  # noqa: F401 (a fixture)
    quietly,
    with_each,
    x,
)
from torchlens_core.errors import CaptureWarning, NothingCaptured
from torchlens_torch.compat import CHECKS

pytestmark = pytest.mark.usefixtures("process_group")

# Rows that a test of their own is about.
ELSEWHERE = {
    "torch.export program", "DataParallel on several devices", "Hugging Face model", "device_map, offload (accelerate)",
    "objects that are no tensors, with __torch_function__", "active modes", "autocast, no_grad, inference_mode",
}  # fmt: skip


def test_every_row_that_promises_something_is_tested() -> None:
    promised = {check.name for check in CHECKS if check.status != "not_tested"}
    assert promised == set(EXAMPLES) | ELSEWHERE
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.suggestion for check in CHECKS if check.status != "pass")


@with_each(CASES)
def test_it_is_found(name: str, make: Callable[[], Made]) -> None:
    with quietly():
        model, *args = make()
        report = tl.compat.report(model, args)
    assert report[name].detected and report.ok
    assert name in str(report)
    row = next(check for check in CHECKS if check.name == name)
    assert report[name].status == row.status and report[name].details == row.details


UNPROVEN = {"arrays without data", "subclasses with __torch_function__", "torch.func.grad and the like"}


@with_each([case for case in CASES if case.values[0] not in UNPROVEN])
def test_what_it_says_is_true(name: str, make: Callable[[], Made]) -> None:
    """Run by the report itself: wherever it says that a model passes, the trace is proven."""
    with quietly():
        model, *args = make()
        found = tl.compat.report(model, args, run=True)["this model, run"]
    assert found.status in ("pass", "scope"), found


def test_a_plain_model_has_nothing_of_it() -> None:
    report = tl.compat.report(net(), x())
    assert report.detected == () and report.ok
    assert len(report) == len(CHECKS) + 1


def test_nothing_runs_and_nothing_changes() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, a: Tensor) -> Tensor:
            Counting.calls += 1
            return a + 1

    state = torch.get_rng_state()
    tl.compat.report(Counting(), x())
    assert Counting.calls == 0 and torch.equal(torch.get_rng_state(), state)


class Duck:
    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Duck(func(*(a.inner if isinstance(a, Duck) else a for a in args), **(kwargs or {})))


class TestKnownBroken:
    def test_an_exported_program(self) -> None:
        program = torch.export.export(net(), (x(),))
        report = tl.compat.report(program, x())
        assert not report.ok and "program.module()" in report["torch.export program"].suggestion
        with pytest.raises(RuntimeError):
            tl.trace(program, x())
        assert tl.validate(program.module(), x())

    def test_objects_that_are_no_tensors(self) -> None:
        def model(duck: Duck) -> Tensor:
            return torch.relu(duck).inner

        report = tl.compat.report(model, Duck(x()), backend="torch")
        assert not report.ok and report["objects that are no tensors, with __torch_function__"].evidence == "Duck"
        with pytest.raises(NothingCaptured):
            tl.trace(model, Duck(x()), backend="torch")


class TestAround:
    @pytest.mark.parametrize(
        ("context", "name"),
        [
            (lambda: torch.device("cpu"), "DeviceContext"),
            (lambda: FlopCounterMode(display=False), "FlopCounter"),
        ],
    )
    def test_modes(self, context: Callable[[], AbstractContextManager[Any]], name: str) -> None:
        with context():
            report = tl.compat.report(net(), x(), run=True)
            assert name in report["active modes"].evidence
            assert report["this model, run"].status == "pass"
        assert tl.compat.report(net(), x())["active modes"].evidence == ""

    def test_fake_tensor_mode(self) -> None:
        with FakeTensorMode():
            model, given = net(), torch.ones(3, 4)
            report = tl.compat.report(model, given)
            assert report["active modes"].evidence == "FakeTensorMode"
            assert report["arrays without data"].detected
            assert tl.trace(model, given).num_ops == 3

    @pytest.mark.parametrize(
        ("context", "name"),
        [
            (lambda: torch.autocast("cpu", torch.bfloat16), "autocast"),
            (torch.no_grad, "no_grad"),
            (torch.inference_mode, "inference_mode"),
            (nullcontext, ""),
        ],
    )
    def test_ambient_state(self, context: Callable[[], AbstractContextManager[Any]], name: str) -> None:
        with context():
            report = tl.compat.report(net(), x(), run=True)
        assert name in report["autocast, no_grad, inference_mode"].evidence
        assert bool(name) == report["autocast, no_grad, inference_mode"].detected
        assert report["this model, run"].status == "pass"


class TestDevices:
    def test_data_parallel_on_several_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = nn.DataParallel(net())
        model.device_ids = [0, 1]
        seen: list[list[int]] = []
        monkeypatch.setattr(model, "forward", lambda a: seen.append(list(model.device_ids)) or model.module(a))
        report = tl.compat.report(model, x())
        assert report["DataParallel on several devices"].status == "scope" and report.ok
        with pytest.warns(CaptureWarning, match="on its first device, 0"):
            assert tl.trace(model, x()).num_ops == 3
        assert seen == [[0]] and model.device_ids == [0, 1]

    def test_several_devices(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        assert not tl.compat.report(model, x())["several devices"].detected

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_a_gpu(self) -> None:
        model = net().cuda()
        report = tl.compat.report(model, x().cuda(), run=True)
        assert report["accelerator"].detected and report["this model, run"].status == "pass"
        report = tl.compat.report(nn.Sequential(net(), net().cuda()), x())
        assert report["several devices"].evidence == "cpu, cuda:0"
        assert torch.equal(tl.trace(nn.DataParallel(model, [0]), x())[-1].out, model(x().cuda()))


class Offloading(nn.Module):
    """Loads the weight of its layer before the call and lets go of it after, as accelerate's hooks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.weights = {name: p.detach().clone() for name, p in self.layer.named_parameters()}
        self.layer._hf_hook = object()
        self.layer.to("meta")

    def forward(self, a: Tensor) -> Tensor:
        for name, value in self.weights.items():
            self.layer._parameters[name] = type(self.layer._parameters[name])(value.to(a.device), requires_grad=False)
        out = self.layer(a)
        for name, value in self.layer._parameters.items():
            self.layer._parameters[name] = type(value)(value.to("meta"), requires_grad=False)
        return out


def test_offloaded_weights() -> None:
    model = Offloading()
    assert tl.compat.report(model, x())["device_map, offload (accelerate)"].status == "scope"
    plain = model(x())
    assert torch.equal(tl.trace(model, x())[-1].out, plain) and torch.equal(model(x()), plain)
    assert all(param.is_meta and isinstance(param, nn.Parameter) for param in model.layer.parameters())


def test_hugging_face_models_are_told_by_their_class() -> None:
    base = type("PreTrainedModel", (nn.Module,), {"__module__": "transformers.modeling_utils"})
    model = type("Model", (base,), {"forward": lambda self, a: a + 1})()
    assert tl.compat.report(model, x())["Hugging Face model"].evidence == "the model (Model)"


@pytest.mark.parametrize(
    ("module", "name"),
    [("deepspeed.runtime.engine", "DeepSpeed"), ("lightning.pytorch.core", "Lightning"),
     ("bitsandbytes.nn.modules", "torchao, bitsandbytes"), ("torch.distributed.pipelining.stage", "pipeline parallel")],
)  # fmt: skip
def test_what_nobody_tried_is_said_to_be_so(module: str, name: str) -> None:
    model = type("Model", (nn.Module,), {"__module__": module, "forward": lambda self, a: a + 1})()
    row = tl.compat.report(model, x())[name]
    assert (row.status, row.severity, row.detected) == ("not_tested", "warning", True)
