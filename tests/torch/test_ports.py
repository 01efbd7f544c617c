"""The traces that ports to other frameworks are compared with are those of the models as they stand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchlens as tl
from tests.ported.torch_models import TRACES, traced
from tests.ported.weights import SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_the_files_are_up_to_date(name: str) -> None:
    """Where this fails after a change on purpose: ``python -m tests.ported.torch_models``."""
    bundle = tl.bundle({"now": traced(name), "file": tl.load(TRACES / f"{name}.safetensors")})
    bundle.assert_structurally_consistent()
    assert bundle.first_divergence() is None
    assert [op.module for op in bundle["now"]] == [op.module for op in bundle["file"]]


class Images(nn.Module):
    """Convolutions on images, (batch, channels, height, width) inside, whichever way they come."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        return self.head(F.relu(self.conv2(x)).flatten(1))


class ChannelsLast(Images):
    """The same for channels last, each convolution between two permutations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2):
            x = F.relu(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.head(x.flatten(1))


def test_channels_last_inside_one_framework() -> None:
    torch.manual_seed(0)
    first, last = Images(), ChannelsLast()
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 8, 8)
    logs = tl.trace(first, x), tl.trace(last, x.permute(0, 2, 3, 1))
    found = tl.bundle({"first": logs[0], "last": logs[1]}).first_divergence()
    assert found is not None and found.module == "head:1" and found.inputs_agree
    assert found.hints[0].startswith("what it took was flattened in another order")
    with torch.no_grad():
        last.head.weight.copy_(first.head.weight.reshape(5, 4, 6, 6).permute(0, 2, 3, 1).reshape(5, -1))
    bundle = tl.bundle({"first": logs[0], "last": tl.trace(last, x.permute(0, 2, 3, 1))})
    assert bundle.first_divergence() is None
    axes = dict(zip(bundle.diff()["site"], bundle.diff()["axes"], strict=True))
    assert axes["conv2d_1_1"] is None and axes["relu_1_2"] == "(0, 3, 1, 2)"


class Steps(nn.Module):
    """Convolutions and functions, one after another; between them the image may lie in any of the layouts given."""

    ORDERS = ((0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 2, 3))  # channels first, channels last, batch second

    def __init__(self, channels: int, kinds: list[str], layouts: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in kinds)
        self.kinds, self.layouts = kinds, layouts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, kind, layout in zip(self.convs, self.kinds, self.layouts, strict=True):
            order = self.ORDERS[layout]
            x = conv(x) if kind == "conv" else x
            x = x.permute(order) if layout else x
            x = torch.tanh(x) if kind == "tanh" else torch.sin(x)
            x = x.permute(tuple(order.index(axis) for axis in range(4))) if layout else x
        return x


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(2, 3, 4, 5), (3, 4, 4, 4), (4, 4, 4, 4)]),
    st.lists(st.sampled_from(["conv", "tanh", "sin"]), min_size=2, max_size=4),
    st.data(),
)
def test_layouts_are_seen_through(shape: tuple[int, ...], kinds: list[str], data: st.DataObject) -> None:
    """Whatever the layouts on the way: the same model agrees, and a wrong weight is found where it is."""
    layouts = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(kinds), max_size=len(kinds)))
    torch.manual_seed(0)
    usual = Steps(shape[1], kinds, [0] * len(kinds))
    other = Steps(shape[1], kinds, layouts)
    other.load_state_dict(usual.state_dict())
    x = torch.randn(shape)
    log = tl.trace(usual, x)
    assert tl.bundle({"usual": log, "other": tl.trace(other, x)}).first_divergence() is None
    convs = [n for n, kind in enumerate(kinds) if kind == "conv"]
    if convs:
        wrong = data.draw(st.sampled_from(convs))
        with torch.no_grad():
            other.convs[wrong].weight += 0.01
        found = tl.bundle({"usual": log, "other": tl.trace(other, x)}).first_divergence()
        assert found is not None and found.module == f"convs.{wrong}:1"


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_recurrent_layer_with_the_batch_first(batch_first: bool) -> None:
    torch.manual_seed(0)
    usual, other = nn.GRU(4, 6), nn.GRU(4, 6, batch_first=batch_first)
    other.load_state_dict(usual.state_dict())
    x = torch.randn(7, 3, 4)
    logs = tl.trace(usual, x), tl.trace(other, x.transpose(0, 1) if batch_first else x)
    bundle = tl.bundle({"usual": logs[0], "other": logs[1]})
    assert bundle.first_divergence() is None
    assert str(bundle.at("input_1")["usual"].shape) == "(7, 3, 4)"
    if batch_first:
        assert bundle.diff()["axes"][0] == "(1, 0, 2)"
