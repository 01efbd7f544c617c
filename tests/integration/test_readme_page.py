"""The examples that users of earlier versions know from the public page: quickstart, extraction, metadata, pictures.

Each runs as it is written there, and its values are compared with a plain run of the model and torch's own hooks.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.integration.page_models import (
    EncoderDecoder,
    SimpleRecurrent,
    SmallResNet,
    module_outputs,
    seeded,
    torchvision_models,
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pictures and trace files are written into the current folder."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return seeded(lambda: torchvision_models().alexnet(weights=None))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return seeded(lambda: torch.randn(1, 3, 224, 224))


@pytest.fixture(scope="module")
def log(model: nn.Module, x: Tensor) -> tl.Trace:
    return seeded(lambda: tl.trace(model, x))


def kept(trace: tl.Trace) -> list[str]:
    return [op.layer_label for op in trace if op.has_saved_value]


# -- quickstart --------------------------------------------------------------------------------------------------------

SUMMARY = """\
Model: AlexNet
+-----------------------------+---------------+--------+-------+
| Layer                       | Output Shape  | Params | Train |
+-----------------------------+---------------+--------+-------+
| input                       | [1,3,224,224] | 0      | -     |
| features (Sequential)       | [1,256,6,6]   | 2.5 M  | yes   |
| avgpool (AdaptiveAvgPool2d) | [1,256,6,6]   | 0      | -     |
| classifier (Sequential)     | [1,1000]      | 58.6 M | yes   |
| output                      | [1,1000]      | -      | -     |
+-----------------------------+---------------+--------+-------+
Params: 61,100,840 unique; trainable: 61,100,840
Ops: 22 total
Edges: 23 total
Forward FLOPs: 1.4 GFLOPs  MACs: 714.2 MFLOPs
"""


def test_quickstart_summary(log: tl.Trace) -> None:
    """To the letter, with nothing before it; only the page's MACs were not true."""
    assert log.summary().startswith(SUMMARY.rstrip("\n"))
    assert (log.num_params, log.num_ops, log.num_edges, log.macs) == (61_100_840, 22, 23, 714_188_480)


def test_quickstart_values_are_those_of_the_plain_run(log: tl.Trace, model: nn.Module, x: Tensor) -> None:
    assert torch.equal(log[-1].out, seeded(lambda: model(x)))
    plain = seeded(
        lambda: module_outputs(model, x, nn.Conv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear, nn.Dropout)
    )
    assert len(plain) == 14
    for address, value in plain.items():
        assert torch.equal(log[address].out, value), address


def test_quickstart_lookup(log: tl.Trace) -> None:
    assert log["relu_1_2"].out.shape == torch.Size([1, 64, 55, 55])
    assert log["features.6"].out.shape == torch.Size([1, 384, 13, 13])
    assert log[7].func_name == "conv2d"
    assert log["conv2d_3"].out.shape == torch.Size([1, 384, 13, 13])
    assert log["conv2d_3"] == log["conv2d_3_7"] == log[7] == log["features.6"]
    assert log[-1].layer_label == "output_1"


def test_quickstart_draws_a_pdf(log: tl.Trace, empty_folder: Path) -> None:
    log.draw()
    log.draw(vis_mode="rolled")
    log.draw(vis_mode="unrolled")
    (picture,) = empty_folder.glob("*.pdf")
    assert picture.read_bytes().startswith(b"%PDF")


# -- 1: extraction -----------------------------------------------------------------------------------------------------


def test_save_one_function(model: nn.Module, x: Tensor) -> None:
    log = seeded(lambda: tl.trace(model, x, save=tl.func("relu")))
    plain = seeded(lambda: module_outputs(model, x, nn.ReLU))
    assert len(log) == 24
    assert kept(log) == [f"relu_{k}_{n}" for k, n in ((1, 2), (2, 5), (3, 8), (4, 10), (5, 12), (6, 18), (7, 21))]
    for address, value in plain.items():
        assert torch.equal(log[address].out, value), address


def test_save_what_is_inside_a_module() -> None:
    model, x = EncoderDecoder(), torch.randn(2, 12)
    log = tl.trace(model, x, save=tl.in_module("encoder"))
    assert kept(log) == ["linear_1_1", "relu_1_2", "linear_2_3", "tanh_1_4"]
    plain = module_outputs(model.encoder, x, nn.Linear, nn.ReLU, nn.Tanh)
    assert len(plain) == 4
    for address, value in plain.items():
        assert torch.equal(log[f"encoder.{address}"].out, value), address


def test_save_what_is_followed_by_something(model: nn.Module, x: Tensor) -> None:
    conv_before_relu = tl.func("conv2d") & tl.followed_by(tl.func("relu"))
    log = tl.trace(model, x, save=conv_before_relu, lookback=4, lookback_payload_policy="detached_raw")
    assert kept(log) == ["conv2d_1_1", "conv2d_2_4", "conv2d_3_7", "conv2d_4_9", "conv2d_5_11"]
    for address, value in module_outputs(model, x, nn.Conv2d).items():
        assert torch.equal(log[address].out, value), address


def test_stop_early() -> None:
    model, x = SmallResNet().eval(), torch.randn(1, 3, 32, 32)
    log = tl.trace(model, x, save=tl.in_module("layer2"), halt=tl.in_module("layer2"))
    assert kept(log) == ["conv2d_5_10"]
    assert log.halted == log["conv2d_5_10"] == log[-1]
    assert torch.equal(log.halted.out, module_outputs(model, x, nn.Conv2d)["layer2.0.conv1"])
    assert not any(op.modules and op.modules[0].startswith("layer3") for op in log)


def test_pluck_one_value(model: nn.Module, x: Tensor) -> None:
    act = tl.pluck(model, x, "relu_1_2")
    assert torch.equal(act, module_outputs(model, x, nn.ReLU)["features.1"])


def test_save_and_load(log: tl.Trace) -> None:
    tl.save(log, "my_trace")
    loaded = tl.load("my_trace")
    assert [op.label for op in loaded] == [op.label for op in log]
    assert loaded.summary() == log.summary()
    for op in log:
        assert np.array_equal(op.numpy(), loaded[op.label].out), op.label


# -- 3: metadata -------------------------------------------------------------------------------------------------------

CONV2D_3_7 = """\
Layer conv2d_3_7, operation 7/22:
Output tensor: shape=(1, 384, 13, 13), dtype=torch.float32, size=253.5 KB
tensor([[
Related Layers:
- parent layers: maxpool2d_2_6
- child layers: relu_3_8
Params: Computed from params with shape (384, 192, 3, 3), (384,); 663936 params total (2.5 MB)
Function: conv2d (grad_fn_handle: ConvolutionBackward0)
Computed inside module: features.6:1
Config: out_channels=384, in_channels=192, kernel_size=(3, 3), padding=(1, 1)
Time elapsed: 
Lookup keys: -17, 7, conv2d_3, conv2d_3:1, conv2d_3_7, conv2d_3_7:1, features.6, features.6:1
"""  # noqa: W291


def test_print_of_an_op(log: tl.Trace) -> None:
    """Every line of the page; of the values and the time, the beginning."""
    printed, shown = str(log["conv2d_3_7"]).splitlines(), CONV2D_3_7.splitlines()
    assert len(printed) == len(shown)
    for line, beginning in zip(printed, shown, strict=True):
        assert line.startswith(beginning) if beginning.endswith(("[", " ")) else line == beginning
    first = log["conv2d_3_7"].out[0, 0, 0, :3]
    assert printed[2].startswith("tensor([[" + ", ".join(f"{value:.4f}" for value in first.tolist()))


def test_code_context(log: tl.Trace) -> None:
    loc = log["conv2d_3_7"].code_context[0]
    assert Path(loc.file).name == "alexnet.py"
    assert loc.func_name == "forward"
    assert "self.features(x)" in Path(loc.file).read_text().splitlines()[loc.line_number - 1]


def test_data_frames(log: tl.Trace, model: nn.Module) -> None:
    df = log.to_pandas()
    params_df = log.params.to_pandas()
    modules_df = log.modules.to_pandas()
    assert list(df["layer_label"]) == [op.layer_label for op in log]
    assert dict(zip(params_df["address"], params_df["num_params"], strict=True)) == {
        name: parameter.numel() for name, parameter in model.named_parameters()
    }
    assert set(modules_df["address"]) == {name or "self" for name, _ in model.named_modules()}


# -- 4: pictures -------------------------------------------------------------------------------------------------------


def test_draw_to_a_depth(log: tl.Trace, empty_folder: Path) -> None:
    for depth in (1, 2):
        log.draw(f"depth{depth}.svg", depth=depth)
    collapsed, opened = ((empty_folder / f"depth{depth}.svg").read_text() for depth in (1, 2))
    assert "@features.6<" in opened
    assert "@features.6<" not in collapsed


def test_recurrent_model(empty_folder: Path) -> None:
    model, x = seeded(lambda: (SimpleRecurrent(), torch.randn(6, 5)))
    log = tl.trace(model, x)
    first = (model.fc(x) + 1) * 2
    assert torch.equal(log["linear_1:2"].out, model.fc(first))
    assert torch.equal(log[-1].out, model(x))
    log.draw("recurrent.svg", vis_mode="rolled")
    assert (empty_folder / "recurrent.svg").read_text().count("(x4)") >= 3
