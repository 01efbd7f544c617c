"""What a trace would cost, before it is run: equal to what it does cost."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torch.testing._internal.two_tensor import TwoTensor

import torchlens as tl
from torchlens_core.errors import EstimateError
from torchlens_torch.abstract import Peak
from torchlens_torch.arrays import TorchArrays


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, a: Tensor) -> Tensor:
        return self.head(self.cell(a)[0][:, -1]).softmax(-1)


class Writing(nn.Module):
    """Writes in place, into views too, and reads constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.shift = torch.ones(4)

    def forward(self, a: Tensor) -> Tensor:
        self.steps += 1
        b = a * 2
        first, second = b.chunk(2)
        first.add_(self.shift)
        second += 1
        return (b * self.steps).relu_() + torch.tensor([1.0, 2.0, 3.0, 4.0])


def convnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Dropout(), nn.Linear(8 * 4 * 4, 10))  # fmt: skip


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "convnet": lambda: (convnet(), torch.randn(4, 3, 8, 8)),
    "transformer": lambda: (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), torch.randn(2, 5, 16)),
    "recurrent": lambda: (Recurrent(), torch.randn(2, 5, 4)),
    "writing": lambda: (Writing(), torch.randn(4, 4)),
    "wrapped": lambda: (DataParallel(convnet().eval()), torch.randn(4, 3, 8, 8)),
    "compiled": lambda: (torch.compile(convnet().eval()), torch.randn(4, 3, 8, 8)),
    "float16": lambda: (nn.Linear(4, 4).half(), torch.randn(2, 4).half()),
    "sparse": lambda: (nn.Embedding(10, 4, sparse=True), torch.tensor([1, 2, 1])),
    "wrapper": lambda: (nn.Linear(4, 4), TwoTensor(torch.randn(2, 4), torch.randn(2, 4))),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_the_trace_holds(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]()
    estimate = tl.estimate(model, x)
    with torch.no_grad():
        log = tl.trace(model, x)
    assert [op.label for op in estimate.trace] == [op.label for op in log]
    assert [op.shape for op in estimate.trace] == [op.shape for op in log]
    assert [op.dtype for op in estimate.trace] == [op.dtype for op in log]
    assert estimate.trace.graph_hash == log.graph_hash
    assert (estimate.flops, estimate.macs, estimate.num_params) == (log.flops, log.macs, log.num_params)
    assert estimate.saved_nbytes == TorchArrays().nbytes_held(log.values[vid] for vid in log.values)
    assert estimate.activation_nbytes == log.activation_nbytes


@pytest.mark.parametrize("name", ["convnet", "transformer", "recurrent", "writing", "float16"])
def test_the_peak_is_that_of_a_plain_run(name: str) -> None:
    model, x = MODELS[name]()
    estimate = tl.estimate(model, x)
    constants = [model.shift] if isinstance(model, Writing) else []
    real = Peak([x, *model.parameters(), *model.buffers(), *constants])
    with torch.no_grad(), real:
        model(x)
    assert estimate.peak_nbytes == real.nbytes > 0


@pytest.mark.parametrize(
    "save", [True, False, tl.func("relu"), tl.module("0"), [tl.func("conv2d"), tl.func("linear")], "relu_1_3"]
)
def test_of_a_selection(save: Any) -> None:
    model, x = convnet().eval(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        log = tl.trace(model, x, save=save)
    real = TorchArrays().nbytes_held(log.values[vid] for vid in log.values)
    assert tl.estimate(model, x, save=save).saved_nbytes == real


def test_nothing_changes() -> None:
    model, x = convnet(), torch.randn(4, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objects = {id(value) for value in (*model.parameters(), *model.buffers())}
    state, given = torch.get_rng_state(), x.clone()
    tl.estimate(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {id(value) for value in (*model.parameters(), *model.buffers())} == objects
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(x, given)
    assert all(type(value) in (nn.Parameter, Tensor) for value in (*model.parameters(), *model.buffers()))
    assert torch.is_grad_enabled() and model.training


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_too_large_for_any_machine(device: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(1_000_000, 1_000_000), nn.ReLU(), nn.Linear(1_000_000, 10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x = torch.zeros(8, 1_000_000, device=device)
    estimate = tl.estimate(model, x)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert estimate.param_nbytes > 4_000_000_000_000 and estimate.saved_nbytes == (3 * 8_000_000 + 80) * 4
    assert grown < 200_000_000
    assert all(param.is_meta for param in model.parameters())
    assert estimate.flops > 16_000_000_000_000


def test_what_prints() -> None:
    estimate = tl.estimate(convnet(), torch.randn(4, 3, 8, 8), save=tl.func("relu"))
    text = str(estimate)
    assert "| Saving func('relu') | 8 KB " in text and "| Ops " in text
    assert text.index("conv2d_1_1:1") < text.index("maxpool2d_1_")
    assert repr(estimate).startswith("<Estimate of Sequential: 8 ops, 8 KB")
    assert [op.type for op in estimate.largest_ops(1)] == ["conv2d"]


def by_value(a: Tensor) -> Tensor:
    return a if a.sum() > 0 else -a


class TestWhatCannotBeTold:
    @pytest.mark.parametrize(
        "model",
        [
            by_value,
            lambda a: a * a.sum().item(),
            lambda a: a.nonzero(),
            lambda a: a[a > 0],
            lambda a: [a] * int(a.max()),
        ],
    )
    def test_runs_that_depend_on_values(self, model: Any) -> None:
        with pytest.raises(EstimateError, match=r"depends on values .* At .*test_estimate\.py:\d+"):
            tl.estimate(model, torch.ones(3))

    def test_says_where_and_how_far_it_came(self) -> None:
        line = by_value.__code__.co_firstlineno + 1
        with pytest.raises(EstimateError, match=rf"test_estimate\.py:{line}\.") as caught:
            tl.estimate(by_value, torch.ones(3))
        assert [op.type for op in caught.value.partial_trace.compute_ops] == ["sum", "gt"]

    def test_data_that_leaves_torch(self) -> None:
        with pytest.raises(EstimateError, match="takes data out of torch"):
            tl.estimate(lambda a: torch.from_numpy(np.tanh(a.numpy())), torch.ones(3))

    def test_lazy_modules(self) -> None:
        model = nn.Sequential(nn.LazyLinear(3))
        with pytest.raises(EstimateError, match=r"0\.weight is a parameter of a lazy module"):
            tl.estimate(model, torch.ones(2, 3))
        assert isinstance(model[0], nn.LazyLinear)

    def test_value_selectors(self) -> None:
        with pytest.raises(EstimateError, match="depends on values"):
            tl.estimate(nn.ReLU(), torch.ones(3), save=tl.where(lambda op: bool(op.out.sum() > 0)))

    def test_errors_of_the_model_stay_what_they_are(self) -> None:
        with pytest.raises(RuntimeError, match="a and b must have same reduction dim"):
            tl.estimate(nn.Linear(3, 3), torch.ones(2, 4))
        with pytest.raises(KeyError, match="mine"):
            tl.estimate(lambda a: {}["mine"], torch.ones(2, 4))


def test_a_custom_operator_without_a_fake_kernel() -> None:
    @torch.library.custom_op("torchlens_test::twice", mutates_args=())
    def twice(a: Tensor) -> Tensor:
        return a * 2

    with pytest.raises(EstimateError, match="register_fake"):
        tl.estimate(lambda a: twice(a), torch.ones(3))
    twice.register_fake(torch.empty_like)
    assert tl.estimate(lambda a: twice(a), torch.ones(3)).num_ops == 1
