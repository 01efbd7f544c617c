"""Bundles of PyTorch traces: real layers, every element type, live beside loaded."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchlens as tl
from tests.core.bundled import Net, X
from torchlens_core.backend import Call
from torchlens_core.bundle.settings_compared import DEFAULT
from torchlens_core.plan import Plan
from torchlens_core.testing.toy import ToyBackend
from torchlens_core.tracing import run


class ConvNet(nn.Module):
    """Two convolutions with normalisation, and a head."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8, eps=eps)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.conv2(x) + x)
        return self.fc(x.mean((2, 3)))


class WithFunctions(ConvNet):
    """The same, its ReLUs functions, with a dropout before the head."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.conv2(x) + x)
        return self.fc(F.dropout(x.mean((2, 3)), training=self.training))


@pytest.fixture
def model() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def with_a_change(model: ConvNet) -> ConvNet:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.conv2.weight[3] += 0.1
    return changed


def test_the_readme_example(model: ConvNet, x: torch.Tensor) -> None:
    clean_log, patched_log = tl.trace(model, x), tl.trace(with_a_change(model), x)
    bundle = tl.bundle({"clean": clean_log, "patched": patched_log}, baseline="clean")
    found = bundle.compare_at(tl.func("relu"))
    assert found["site"] == ["relu_1_3", "relu_2_6"]
    before, after = (log["relu_2"].out.detach().double() for log in (clean_log, patched_log))
    assert found["patched"] == pytest.approx([0.0, float((before - after).norm() / before.norm())])


def test_the_first_divergence_is_the_changed_layer(model: ConvNet, x: torch.Tensor) -> None:
    bundle = tl.bundle({"clean": tl.trace(model, x), "patched": tl.trace(with_a_change(model), x)})
    found = bundle.first_divergence()
    assert found is not None
    assert (found.site.type, found.module, found.inputs_agree) == ("conv2d", "conv2:1", True)
    assert "uses the parameters conv2.weight, conv2.bias" in str(found)
    assert all("self.conv2(x) + x" in line for line in found.source_lines)  # the line of the model, not torch's


def test_another_epsilon_is_named(model: ConvNet, x: torch.Tensor) -> None:
    other = copy.deepcopy(model)
    other.bn1.eps = 1e-3
    found = tl.bundle([tl.trace(model, x), tl.trace(other, x)]).first_divergence()
    assert found is not None and found.module == "bn1:1"
    assert found.settings == {"eps": (DEFAULT, 1e-3)}
    assert "  eps is its default in '0' and 0.001 in '1'" in str(found).splitlines()


def test_another_padding_is_named(model: ConvNet, x: torch.Tensor) -> None:
    other = copy.deepcopy(model)
    other.conv2.padding_mode = "circular"
    other.conv2._reversed_padding_repeated_twice = [1, 1, 1, 1]
    bundle = tl.bundle({"zeros": tl.trace(model, x), "circular": tl.trace(other, x)})
    assert bundle.unmatched["circular"].labels() == ["circular/pad_1_4"]
    found = bundle.first_divergence()
    assert found is not None and found.module == "conv2:1"
    assert found.settings["padding"] == ((1, 1), DEFAULT)


def test_running_statistics_are_named(model: ConvNet, x: torch.Tensor) -> None:
    other = copy.deepcopy(model)
    other.bn1.running_mean += 1
    found = tl.bundle([tl.trace(model, x), tl.trace(other, x)]).first_divergence()
    assert found is not None and found.site.where == "bn1.running_mean"


def test_another_momentum_is_named(x: torch.Tensor) -> None:
    norms = [nn.BatchNorm2d(3, momentum=momentum) for momentum in (0.1, 0.9)]
    found = tl.bundle([tl.trace(norm, x) for norm in norms]).first_divergence()
    assert found is not None and found.site.where == "running_mean" and found.ops[0].buffer_version == 2
    assert len(found.hints) == 1 and found.hints[0].startswith("the statistics moved 9 times as far: the momentum")


def test_a_dropout_in_training_draws_random_numbers(x: torch.Tensor) -> None:
    model = WithFunctions().train()
    found = tl.bundle([tl.trace(model, x), tl.trace(copy.deepcopy(model).eval(), x)]).first_divergence()
    assert found is not None
    assert found.site.type in ("batchnorm", "buffer")  # training normalises by the batch, and before that it counts
    drop = nn.Dropout(0.5)
    found = tl.bundle([tl.trace(drop, x), tl.trace(drop, x)]).first_divergence()
    assert found is not None and "draws random numbers" in str(found)


def test_another_constant_is_named(x: torch.Tensor) -> None:
    def scaled(by: float):  # type: ignore[no-untyped-def]
        scale = torch.tensor(by)
        return lambda x: x * scale

    found = tl.bundle([tl.trace(scaled(1.0), x), tl.trace(scaled(2.0), x)]).first_divergence()
    assert found is not None
    assert "  uses the arrays scale, which no operation made" in str(found).splitlines()


def test_an_intervention_is_named(model: ConvNet, x: torch.Tensor) -> None:
    halved = tl.trace(model, x, intervene=tl.when(tl.func("conv2d").nth(2), lambda value: value * 0.5))
    found = tl.bundle({"clean": tl.trace(model, x), "halved": halved}).first_divergence()
    assert found is not None and found.module == "conv2:1" and found.inputs_agree
    assert "  changed in 'halved' by when(func('conv2d').nth(2), " in str(found)
    assert found.readings["relative_error"].value == pytest.approx(0.5)


def test_functions_and_modules_are_the_same_sites(model: ConvNet, x: torch.Tensor) -> None:
    other = WithFunctions().eval()
    other.load_state_dict(model.state_dict())
    bundle = tl.bundle({"modules": tl.trace(model, x), "functions": tl.trace(other, x)})
    assert bundle.unmatched["modules"].labels() == []
    assert bundle.unmatched["functions"].labels() == ["functions/dropout_1_8"]
    assert bundle.first_divergence() is None


def test_a_compiled_model_agrees(model: ConvNet, x: torch.Tensor) -> None:
    bundle = tl.bundle([tl.trace(model, x), tl.trace(torch.compile(model), x)])
    assert bundle.is_structurally_consistent
    assert bundle.first_divergence() is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_agree_within_the_coarser_one(model: ConvNet, x: torch.Tensor, dtype: torch.dtype) -> None:
    other = copy.deepcopy(model).to(dtype)
    bundle = tl.bundle({"single": tl.trace(model, x), "other": tl.trace(other, x.to(dtype))})
    assert bundle.first_divergence() is None
    error = bundle.compare_at("fc").matrix[0, 1]
    assert 0 < error < 0.02


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool, torch.int8, torch.int64]
)
def test_element_types(dtype: torch.dtype) -> None:
    def model(by: float):  # type: ignore[no-untyped-def]
        return lambda x: (x - by).to(dtype)

    ones = torch.ones(2, 3)
    same = tl.bundle([tl.trace(model(0.0), ones), tl.trace(model(0.0), ones)])
    assert same.first_divergence() is None
    other = tl.bundle([tl.trace(model(0.0), ones), tl.trace(model(1.0), ones)])
    assert other.compare_at(tl.func("to"), metric="max_abs").matrix.tolist() == [[0, 1], [1, 0]]


def test_loaded_beside_live(model: ConvNet, x: torch.Tensor, tmp_path: Path) -> None:
    half = copy.deepcopy(model).bfloat16()
    live = tl.trace(half, x.bfloat16())
    tl.save(live, tmp_path / "here.safetensors")
    loaded = tl.load(tmp_path / "here.safetensors")
    bundle = tl.bundle({"live": live, "loaded": loaded})
    assert bundle.is_structurally_consistent
    assert bundle.first_divergence(rtol=0.0, atol=0.0) is None
    assert set(bundle.diff()["agrees"]) == {True}
    assert bundle.stack("fc").shape == (2, 4, 5)


def test_a_changed_model_beside_a_loaded_trace(model: ConvNet, x: torch.Tensor, tmp_path: Path) -> None:
    tl.save(tl.trace(model, x), tmp_path / "before")
    bundle = tl.bundle({"before": tl.load(tmp_path / "before"), "after": tl.trace(with_a_change(model), x)})
    found = bundle.first_divergence()
    assert found is not None and found.module == "conv2:1"
    assert found.settings == {}
    assert [line.rpartition(": ")[2] for line in found.source_lines] == ["x = self.relu(self.conv2(x) + x)"] * 2


def test_values_that_were_not_saved(model: ConvNet, x: torch.Tensor) -> None:
    bundle = tl.bundle({"all": tl.trace(model, x), "fc": tl.trace(model, x, save=tl.module("fc"))})
    with pytest.raises(tl.errors.ValueNotSaved, match=r"'fc' again with save=True, save=tl\.func\('conv2d'\)"):
        bundle.compare_at("conv1")
    assert bundle.compare_at("fc").matrix[0, 1] == 0


def test_meta_arrays_have_no_values(model: ConvNet, x: torch.Tensor) -> None:
    shapes = tl.trace(copy.deepcopy(model).to("meta"), x.to("meta"))
    bundle = tl.bundle({"real": tl.trace(model, x), "meta": shapes})
    assert bundle.is_structurally_consistent
    note = bundle.diff()["note"]
    assert all(text and text.startswith("in meta: This array has a shape and no data") for text in note)
    assert bundle.first_divergence() is None


def test_overwritten_values_have_a_reason(x: torch.Tensor) -> None:
    log = tl.trace(lambda x: x * 2, x)
    other = tl.trace(lambda x: x * 2, x)
    log["mul_1"].out.zero_()
    row = tl.bundle({"written": log, "other": other}).diff()[1]
    assert row["agrees"] is None
    assert row["note"].startswith("in written: The array was kept by reference and has been overwritten")


def test_a_transformer_layer(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.self_attn.in_proj_weight[:8] += 0.2
    tokens = torch.randn(2, 5, 8)
    found = tl.bundle([tl.trace(layer, tokens), tl.trace(other, tokens)]).first_divergence()
    assert found is not None and found.module == "self_attn:1"
    assert found.ops[0].param_addresses == ["self_attn.in_proj_weight", "self_attn.in_proj_bias"]


def test_masks_of_infinities_agree() -> None:
    mask = torch.full((4, 4), -torch.inf).triu(1)

    def attention(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x.T + mask, -1) @ x

    tokens = torch.randn(4, 3)
    bundle = tl.bundle([tl.trace(attention, tokens), tl.trace(attention, tokens * (1 + 1e-7))])
    assert bundle.first_divergence() is None
    assert not np.isnan(bundle.compare_at(tl.func("add"), metric="mse").matrix).any()


def test_recurrent_loops_of_other_lengths() -> None:
    class Loop(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.times = times

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.times):
                x = torch.tanh(self.fc(x))
            return x

    torch.manual_seed(0)
    short, long = Loop(2), Loop(4)
    long.load_state_dict(short.state_dict())
    x = torch.randn(2, 3)
    bundle = tl.bundle({"long": tl.trace(long, x), "short": tl.trace(short, x)})
    assert bundle.unmatched["long"].labels() == ["linear_1_1:3", "tanh_1_2:3", "linear_1_1:4", "tanh_1_2:4"]
    found = bundle.first_divergence()
    assert found is not None and found.site.type == "output" and found.inputs_agree is None


class Ported(nn.Module):
    """The toy framework's ``Net`` of the core tests, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


def test_a_port_from_another_framework() -> None:
    """Other functions, other arrays, other classes: the same sites, and the layer that was ported wrongly."""
    original = Net()
    port = Ported().double()
    for name, module in port.named_children():
        layer = getattr(original, name)
        module.load_state_dict({"weight": torch.tensor(layer.weight.data), "bias": torch.tensor(layer.bias.data)})
    toy = run(ToyBackend(), Call(original, (X,), {}), Plan(True), {"sites"})[0]
    x = torch.tensor(X.data)
    right = tl.bundle({"toy": toy, "torch": tl.trace(port, x)}, baseline="toy")
    assert len(right.shared) == len(right.sites) == 7
    assert right.first_divergence() is None
    port.second.weight.data = port.second.weight.data.T.contiguous()
    found = tl.bundle({"toy": toy, "torch": tl.trace(port, x)}).first_divergence()
    assert found is not None and found.module == "second:1" and found.inputs_agree
    assert found.hints == ("its weights are square: they may be loaded transposed",)
