"""Arguments of torch's functions by name: from Python's signatures, and from the schemas of builtins."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchlens as tl
from torchlens_core.program import HOLE

x4 = torch.randn(2, 4, 8, 8)

CASES = {
    "nothing but arrays": (lambda x: x + x, {}),
    "a number": (lambda x: x + 1, {"other": 1}),
    "builtin, positional": (lambda x: torch.flatten(x, 1), {"start_dim": 1}),
    "builtin, keyword": (lambda x: x.sum(dim=1, keepdim=True), {"dim": 1, "keepdim": True}),
    "overload without arguments": (lambda x: x.sum(), {}),
    "overload by type": (lambda x: x.max(1)[0], {"dim": 1}),
    "numpy's words": (lambda x: x.mean(axis=2, keepdims=True), {"dim": 2, "keepdim": True}),
    "items of a list": (lambda x: x.view(2, -1), {"size": (2, -1)}),
    "a list": (lambda x: x.reshape((2, -1)), {"shape": (2, -1)}),
    "items of a list, one": (lambda x: x.flip(0), {"dims": 0}),
    "sizes, then keywords": (lambda x: torch.zeros(2, 3, dtype=torch.int64), {"size": (2, 3), "dtype": torch.int64}),
    "two overloads of one name": (lambda x: torch.arange(1, 5), {"start": 1, "end": 5}),
    "a dtype": (lambda x: x.to(torch.float64), {"dtype": torch.float64}),
    "a device": (lambda x: x.to("cpu"), {"device": "cpu"}),
    "view as a dtype": (lambda x: x.view(torch.int32), {"dtype": torch.int32}),
    "Python's signature": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        {"scale_factor": 2, "mode": "bilinear"},
    ),
    "one of two functions": (lambda x: F.max_pool2d(x, 3, stride=2, padding=0), {"kernel_size": 3, "stride": 2}),
    "one number for a list": (lambda x: F.avg_pool2d(x, 2, padding=(1, 1)), {"kernel_size": 2, "padding": (1, 1)}),
    "an equation": (lambda x: torch.einsum("bchw->bc", x), {"equation": "bchw->bc"}),
    "arrays in a list": (lambda x: torch.cat([x, x], 1), {"dim": 1}),
    "numbers where arrays could be": (lambda x: torch.where(x > 0, 1.0, 2.0), {"self": 1.0, "other": 2.0}),
    "an index": (lambda x: x[:, 0, ..., 1:], {"key": (slice(None), 0, Ellipsis, slice(1, None))}),
    "a power": (lambda x: x**2, {"exponent": 2}),
    "transposed": (lambda x: x.transpose(1, 2), {"dim0": 1, "dim1": 2}),
    "split": (lambda x: x.split([1, 3], 1)[0], {"split_size": [1, 3], "dim": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_settings(case):
    function, expected = CASES[case]
    trace = tl.trace(function, x4, keep_orphans=True)
    op = next(op for op in trace.compute_ops if op.type not in ("gt",))
    assert op.settings == expected
    assert list(op.settings) == list(expected)


def test_defaults_are_left_out_however_they_are_written():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Softmax(dim=-1))
    trace = tl.trace(model, x4)
    shown = {op.type: op.config for op in trace.compute_ops}
    assert shown == {
        "conv2d": {"out_channels": 6, "in_channels": 4, "kernel_size": (3, 3)},
        "maxpool2d": {"kernel_size": 2, "stride": 2},
        "dropout": {"p": 0.5},
        "flatten": {"start_dim": 1},
        "softmax": {"dim": -1},
    }


def test_arrays_stay_holes_in_their_places():
    trace = tl.trace(nn.Linear(8, 3), x4)
    assert trace.settings(0) == {"input": HOLE, "weight": HOLE, "bias": HOLE}
    joined = tl.trace(lambda x: torch.cat([x, x], 1), x4)
    assert joined.settings(0) == {"tensors": [HOLE, HOLE], "dim": 1}


def test_the_cost_of_pooling_is_known():
    trace = tl.trace(nn.MaxPool2d(2), x4)
    assert trace["maxpool2d_1"].flops == 3 * 2 * 4 * 4 * 4


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            nn.ConvTranspose2d(4, 6, 2, groups=2),
            {"out_channels": 6, "in_channels": 4, "kernel_size": (2, 2), "groups": 2},
        ),
        (nn.BatchNorm2d(4), {"num_features": 4, "training": True}),
        (nn.GroupNorm(2, 4), {"num_features": 4, "num_groups": 2}),
        (nn.LayerNorm(8), {"normalized_shape": (8,)}),
        (nn.AdaptiveAvgPool2d(1), {"output_size": 1}),
        (nn.LeakyReLU(0.2), {"negative_slope": 0.2}),
        (nn.GELU(), {}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), {"scale_factor": 2.0, "mode": "bilinear"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_configuration_of_modules(module, expected):
    config = tl.trace(module, x4).compute_ops[-1].config
    assert config == expected


def test_configuration_of_embeddings_and_lstms():
    tokens = torch.randint(0, 10, (2, 5))
    assert tl.trace(nn.Embedding(10, 6, padding_idx=1), tokens)["embedding_1"].config == {
        "num_embeddings": 10,
        "embedding_dim": 6,
        "padding_idx": 1,
    }
    lstm = tl.trace(nn.LSTM(6, 5, num_layers=2, batch_first=True), torch.randn(2, 7, 6))["lstm_1"].config
    assert (lstm["input_size"], lstm["hidden_size"], lstm["num_layers"], lstm["batch_first"]) == (6, 5, 2, True)
