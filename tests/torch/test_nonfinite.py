"""NaNs and infinities in torch models: where they came up, after the run and while it runs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.masked import masked_tensor
from torch.testing._internal.two_tensor import TwoTensor

import torchlens as tl
from torchlens_core.diagnosis.extent import Extent
from torchlens_core.errors import CaptureError, NonFiniteError, NotSupported
from torchlens_torch.arrays import TorchArrays

NAN, INF = float("nan"), float("inf")
arrays = TorchArrays()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, a: Tensor) -> Tensor:
        return self.fc(a).relu().log() * 0


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), Block(), nn.Linear(4, 2))


def x() -> Tensor:
    return torch.linspace(-1, 1, 12).reshape(3, 4)


class TestExtent:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
    def test_floating_point(self, dtype: torch.dtype) -> None:
        array = torch.tensor([1.0, -2.0, NAN, INF, -INF, 4.0]).to(dtype)
        assert arrays.extent(array) == Extent(-2.0, 4.0, num_nan=1, num_inf=2)
        assert arrays.extent(array[:2]) == Extent(-2.0, 1.0)
        assert arrays.extent(array[2:3]) == Extent(None, None, num_nan=1)
        assert arrays.extent(array[:0]) == Extent(None, None)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
    def test_whole_numbers(self, dtype: torch.dtype) -> None:
        assert arrays.extent(torch.ones(3).to(dtype)) is None

    def test_complex(self) -> None:
        array = torch.tensor([1 + 2j, complex(NAN, INF), complex(0, INF)])
        assert arrays.extent(array) == Extent(1.0, 2.0, num_nan=1, num_inf=1)
        assert arrays.extent(array.conj()[:1]) == Extent(-2.0, 1.0)

    def test_other_kinds(self) -> None:
        a = torch.tensor([[1.0, NAN], [0.0, -3.0]])
        expected = Extent(-3.0, 1.0, num_nan=1)
        assert arrays.extent(a.to_sparse()) == arrays.extent(a.to_sparse_csr()) == expected
        for layout in (torch.strided, torch.jagged):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert arrays.extent(torch.nested.nested_tensor([a, a[:1]], layout=layout)).num_nan == 2
                assert arrays.extent(masked_tensor(a, ~a.isnan())) == Extent(-3.0, 1.0)
        assert arrays.extent(TwoTensor(a, a)).num_nan == 2
        assert arrays.extent(torch.quantize_per_tensor(x(), 0.1, 0, torch.qint8)) is None
        assert arrays.extent(nn.Parameter(a)) == expected

    def test_without_data(self) -> None:
        with pytest.raises(NotSupported, match="no data"):
            arrays.extent(x().to("meta"))


class TestFinishedTrace:
    def test_the_first(self) -> None:
        found = tl.trace(model(), x()).first_nonfinite()
        assert found.op.label == "log_1_4:1" and found.num_inf > 0 and found.is_born_here
        assert found.op.module == "1:1"
        assert "self.fc(a).relu().log()" in str(found) and "test_nonfinite.py" in str(found)

    def test_the_first_nan(self) -> None:
        found = tl.trace(model(), x()).first_nonfinite("nan")
        assert found.op.label == "mul_1_5:1" and found.is_born_here
        assert "log_1_4: " in str(found) and "inf" in str(found)

    def test_agrees_with_a_look_at_every_value(self) -> None:
        log = tl.trace(model(), x())
        expected = [op.label for op in log if not op.is_output and not bool(op.out.isfinite().all())]
        assert [found.op.label for found in log.nonfinite()] == expected
        assert len(expected) == 3

    def test_a_parameter(self) -> None:
        net = model()
        with torch.no_grad():
            net[2].weight[0, 0] = NAN
        found = tl.trace(nn.Sequential(net[0], net[2]), x()).first_nonfinite()
        assert found.op.label == "linear_2_2:1" and found.is_born_here is False
        assert "1.weight: 1 NaN, from" in str(found)

    def test_a_buffer(self) -> None:
        norm = nn.BatchNorm1d(4).eval()
        norm.running_var[1] = NAN
        found = tl.trace(norm, x()).first_nonfinite()
        assert found.op.type == "batchnorm" and found.is_born_here is False
        assert "running_var: 1 NaN" in str(found)

    def test_in_place_values_are_those_of_the_op(self) -> None:
        def writing(a: Tensor) -> Tensor:
            b = a * 1
            b.log_()
            return b.nan_to_num_(0.0, 0.0, 0.0)

        assert [found.op.type for found in tl.trace(writing, x()).nonfinite()] == ["log"]

    def test_values_overwritten_since_are_not_looked_at(self) -> None:
        log = tl.trace(lambda a: (a * 2).log(), x())
        log["log_1"].out.zero_()
        assert log.first_nonfinite() is None

    def test_memory_not_written_yet_is_no_finding(self) -> None:
        def filling(a: Tensor) -> Tensor:
            out = torch.empty_like(a).fill_(NAN) if a.sum() > 1e9 else _poisoned(a)
            view = out[1:]
            out[0] = a[0]
            out[1:] = view.shape[0] * a[1:]
            return out.copy_(a) + 1

        assert tl.trace(filling, x()).first_nonfinite() is None
        assert tl.trace(filling, x(), raise_on_nan="nonfinite").num_ops > 4

    def test_inside_vmap(self) -> None:
        log = tl.trace(torch.func.vmap(lambda a: (a - a) / (a - a)), x())
        assert log.first_nonfinite().op.type in ("truediv", "div")


def _poisoned(like: Tensor) -> Tensor:
    """What ``empty`` may return: here, surely NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        return torch.empty(like.shape)
    finally:
        torch.use_deterministic_algorithms(False)


class TestWhileItRuns:
    @pytest.mark.parametrize("save", [True, False])
    def test_stops_there(self, save: bool) -> None:
        with pytest.raises(NonFiniteError) as caught:
            tl.trace(model(), x(), raise_on_nan=True, save=save)
        text = str(caught.value)
        assert "mul_1_5:1 (mul), in 1:1: " in text and "test_nonfinite.py" in text and "- takes log_1_4: " in text
        assert [op.label for op in caught.value.partial_trace.compute_ops][-1] == "mul_1_5:1"
        assert caught.value.found.is_born_here is True

    def test_the_model_is_as_after_a_failed_call(self) -> None:
        net = model()
        with pytest.raises(NonFiniteError):
            tl.trace(net, x(), raise_on_nan=True)
        net(x())
        assert not net[0]._forward_hooks and tl.trace(net, x()).num_ops == 6

    def test_infinities(self) -> None:
        with pytest.raises(NonFiniteError, match=r"log_1_4:1 \(log\)"):
            tl.trace(model(), x(), raise_on_nan="inf")

    def test_masked_attention_is_no_finding(self) -> None:
        def attention(q: Tensor) -> Tensor:
            scores = (q @ q.mT).masked_fill(torch.ones(3, 3).triu(1).bool(), -INF)
            return scores.softmax(-1) @ q

        assert tl.trace(attention, x(), raise_on_nan=True).num_ops > 4
        with pytest.raises(NonFiniteError, match="maskedfill"):
            tl.trace(attention, x(), raise_on_nan="inf")

    def test_a_row_masked_out_whole(self) -> None:
        def attention(q: Tensor) -> Tensor:
            return (q @ q.mT).masked_fill(torch.ones(3, 3).bool(), -INF).softmax(-1)

        with pytest.raises(NonFiniteError, match=r"softmax.*9 NaN") as caught:
            tl.trace(attention, x(), raise_on_nan=True)
        assert caught.value.found.is_born_here

    def test_a_parameter(self) -> None:
        net = nn.Linear(4, 2)
        with torch.no_grad():
            net.bias[1] = NAN
        with pytest.raises(NonFiniteError, match="bias: 1 NaN") as caught:
            tl.trace(net, x(), raise_on_nan=True)
        assert caught.value.found.is_born_here is False

    def test_several_outputs_and_writes(self) -> None:
        with pytest.raises(NonFiniteError, match=r"varmean_1_1:1 \(var_mean\): 1 NaN"):
            tl.trace(lambda a: torch.var_mean(a), torch.ones(1), raise_on_nan=True)
        with pytest.raises(NonFiniteError, match=r"log_1_2:1 \(log_\)"):
            tl.trace(lambda a: (a * 1).log_(), x(), raise_on_nan=True)

    @pytest.mark.parametrize("options", [{"granularity": "kernel"}, {"kernels": True}, {"profile": True}])
    def test_with_other_options(self, options: dict[str, Any]) -> None:
        with pytest.raises(NonFiniteError, match="mul_1"):
            tl.trace(model(), x(), raise_on_nan=True, **options)
        healthy = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        plain, watched = tl.trace(healthy, x(), **options), tl.trace(healthy, x(), raise_on_nan=True, **options)
        assert [op.label for op in watched] == [op.label for op in plain]
        assert watched.program.kernels == plain.program.kernels

    def test_with_a_selection_and_gradients(self) -> None:
        healthy = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        log = tl.trace(healthy, x(), save=tl.func("relu"), raise_on_nan=True)
        assert [op.type for op in log.saved_ops] == ["relu", "output"]
        log["relu"].out.sum().backward()
        assert healthy[0].weight.grad is not None

    def test_inside_vmap_and_inference_mode(self) -> None:
        assert tl.trace(torch.func.vmap(lambda a: a.sin()), x(), raise_on_nan=True).num_ops == 1
        with pytest.raises(NonFiniteError):
            tl.trace(torch.func.vmap(lambda a: (a - a) / (a - a)), x(), raise_on_nan=True)
        with torch.inference_mode(), pytest.raises(NonFiniteError):
            tl.trace(model(), x(), raise_on_nan=True)

    def test_arrays_without_data_are_refused(self) -> None:
        with pytest.raises(CaptureError, match="raise_on_nan= looks at values"):
            tl.trace(nn.Linear(4, 2).to("meta"), x().to("meta"), raise_on_nan=True)
        with FakeTensorMode(), pytest.raises(CaptureError, match="raise_on_nan= looks at values"):
            tl.trace(nn.Linear(4, 2), torch.ones(3, 4), raise_on_nan=True)

    def test_compiled_and_wrapped_models(self) -> None:
        for net in (torch.compile(model()), nn.DataParallel(model())):
            with pytest.raises(NonFiniteError, match="in 1:1"):
                tl.trace(net, x(), raise_on_nan=True)
