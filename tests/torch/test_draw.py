"""Pictures of real models, as the SVG files that Graphviz makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from examples.alexnet import AlexNet

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Shown(NamedTuple):
    """What an SVG file shows."""

    nodes: list[list[str]]  # lines of each node
    edges: list[list[str]]  # labels of each edge
    clusters: list[list[str]]  # label of each box
    caption: list[str]

    def node(self, title: str) -> list[str]:
        (found,) = [lines for lines in self.nodes if lines[0] == title]
        return found

    @property
    def titles(self) -> list[str]:
        return [lines[0] for lines in self.nodes]

    @property
    def labels(self) -> list[str]:
        """Everything that is written on edges."""
        return sorted(label for labels in self.edges for label in labels)


def shown(path: str | Path) -> Shown:
    root = ElementTree.fromstring(Path(path).read_text())

    def of(kind: str) -> list[list[str]]:
        groups = [group for group in root.iter(f"{SVG}g") if group.get("class") == kind]
        lines = [["".join(text.itertext()).strip("\xa0 ") for text in group.iter(f"{SVG}text")] for group in groups]
        return [[line for line in some if line] for some in lines]

    (whole,) = [group for group in root.iter(f"{SVG}g") if group.get("class") == "graph"]
    caption = ["".join(text.itertext()) for text in whole.findall(f"{SVG}text")]
    return Shown(of("node"), of("edge"), of("cluster"), caption)


def drawn(model: Callable[..., Any], x: Any, **options: Any) -> Shown:
    trace = tl.trace(model, x)
    return shown(trace.draw("graph.svg", **options).path)


class SimpleRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features=5, out_features=5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.fc(x)
            x = x + 1
            x = x * 2
        return x


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, blocks: int = 2, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        if x.sum() > 100:
            y = self.a(x)
        elif x.mean() > 50:
            y = self.b(x)
        else:
            y = torch.relu(x)
        return y.tanh()


# -- the page's examples -----------------------------------------------------------------------------------------------


def test_draw_without_arguments_writes_a_pdf(capfd: pytest.CaptureFixture[str]) -> None:
    log = tl.trace(SimpleRecurrent(), torch.randn(6, 5))
    log.draw()
    log.draw(vis_mode="rolled")
    log.draw(vis_mode="unrolled")
    assert Path("modelgraph.pdf").read_bytes().startswith(b"%PDF-")
    assert capfd.readouterr() == ("", ""), "the libraries keep their warnings to themselves"


def test_simple_recurrent_rolled() -> None:
    picture = drawn(SimpleRecurrent(), torch.randn(6, 5), vis_mode="rolled")
    assert picture.caption == ["SimpleRecurrent", "14 tensors total (1.6 KB)", "30 params (all trainable, 120 B)"]
    assert picture.titles == ["input_1", "linear_1_1 (x4)", "add_1_2 (x4)", "mul_1_3 (x4)", "output_1"]
    assert picture.node("linear_1_1 (x4)")[1:] == [
        "(6, 5), 120 B",
        "in_features=5, out_features=5",
        "params: weight (5, 5) · bias (5,)",
        "@fc (x4)",
    ]
    assert len(picture.edges) == 5
    assert picture.labels == ["In 1", "In 2-4 / Out 1-3", "Out 4"]


def test_simple_recurrent_unrolled() -> None:
    picture = drawn(SimpleRecurrent(), torch.randn(6, 5))
    assert len(picture.nodes) == 14
    assert len(picture.edges) == 13
    assert picture.node("linear_1_1:3")[-1] == "@fc:3"
    assert picture.labels == []


def test_alexnet() -> None:
    with torch.device("meta"):
        model = AlexNet().eval()
        picture = drawn(model, torch.empty(1, 3, 224, 224))
    assert picture.caption == ["AlexNet", "24 tensors total (4.8 MB)", "61.1 M params (all trainable, 233.1 MB)"]
    assert (len(picture.nodes), len(picture.edges)) == (24, 23)
    assert picture.clusters == [["@features", "(Sequential)"], ["@classifier", "(Sequential)"]]
    assert picture.node("conv2d_3_7") == [
        "conv2d_3_7",
        "(1, 384, 13, 13), 253.5 KB",
        "out_channels=384, in_channels=192",
        "kernel_size=(3, 3), padding=(1, 1)",
        "params: weight (384, 192, 3, 3) · bias (384,)",
        "@features.6",
    ]


def test_alexnet_collapsed() -> None:
    with torch.device("meta"):
        picture = drawn(AlexNet().eval(), torch.empty(1, 3, 224, 224), depth=1)
    assert sorted(picture.titles) == sorted(
        ["input_1", "@features", "adaptiveavgpool2d_1_14", "flatten_1_15", "@classifier", "output_1"]
    )
    assert picture.node("@features")[1:] == [
        "Sequential",
        "(1, 256, 6, 6), 36 KB",
        "13 layers total",
        "2.5 M params (all trainable, 9.4 MB)",
    ]


# -- kinds of models ---------------------------------------------------------------------------------------------------


def test_transformer_open_collapsed_and_one_block() -> None:
    tokens = torch.zeros(1, 6, dtype=torch.long)
    collapsed = drawn(Transformer(), tokens, depth=1)
    assert collapsed.titles == ["input_1", "embedding_1_1", "@blocks.0", "@blocks.1", "linear_9_36", "output_1"]
    assert len(collapsed.edges) == 5
    open_ = drawn(Transformer(), tokens)
    assert [label[0] for label in open_.clusters if "0" in label[0]] == ["@blocks.0", "@blocks.0.attn", "@blocks.0.mlp"]
    assert open_.labels == ["key", "key", "query", "query", "value", "value"]
    block = tl.trace(Transformer(), tokens).modules["blocks.1"].draw("block.svg")
    assert shown(block.path).caption[0] == "Transformer: blocks.1 (Block)"
    assert {"add_2_18", "output"} < set(shown(block.path).titles)


def test_residual_block() -> None:
    picture = drawn(Residual().eval(), torch.randn(1, 4, 8, 8))
    assert not [title for title in picture.titles if title.startswith("buffer")], "read only"
    assert picture.node("relu_1_3")[-1] == "@relu:1"
    assert picture.node("relu_2_7")[-1] == "@relu:2"
    training = drawn(Residual().train(), torch.randn(2, 4, 8, 8))
    assert sum(title.startswith("buffer") for title in training.titles) == 12
    assert "@bn1.running_mean, version 2" in [lines[-1] for lines in training.nodes]
    bare = drawn(Residual().train(), torch.randn(2, 4, 8, 8), show_buffer_layers=False)
    assert (len(bare.nodes), len(bare.edges)) == (9, 9)


def test_conditionals() -> None:
    picture = drawn(Branches(), torch.ones(2, 4))
    assert picture.labels == ["ELSE", "IF", "IF"]
    assert [title for title in picture.titles if title.startswith("gt")] == ["gt_1_3: FALSE", "gt_2_5: FALSE"]
    taken = drawn(Branches(), torch.full((2, 4), 100.0))
    assert taken.labels == ["IF", "THEN"]
    assert "gt_1_3: TRUE" in taken.titles


def test_the_same_array_twice() -> None:
    picture = drawn(lambda x: x * x, torch.ones(3))
    assert picture.titles == ["input_1", "mul_1_1", "output_1"]
    assert len(picture.edges) == 3


def test_several_outputs_of_one_operation() -> None:
    picture = drawn(lambda x: torch.add(*x.chunk(2)), torch.ones(4))
    assert [picture.node(title)[-1] for title in ("chunk_1_1", "chunk_2_2")] == ["output: 0", "output: 1"]


def test_a_layer_that_is_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Tanh())
    picture = drawn(model, torch.ones(1, 3), skip_fn=lambda layer: layer.type == "dropout")
    assert picture.titles == ["input_1", "linear_1_1", "tanh_1_3", "output_1"]
    assert len(picture.edges) == 3


# -- traces of runs that ended early -----------------------------------------------------------------------------------


def test_halted() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    trace = tl.trace(model, torch.ones(1, 3), halt=tl.func("relu"))
    picture = shown(trace.draw("graph.svg").path)
    assert {"input_1", "linear_1_1", "relu_1_2"} <= set(picture.titles)
    assert "linear_2_3" not in picture.titles
    assert picture.caption[-1] == "halted at relu_1_2"


def test_a_model_that_raises() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(x) @ torch.ones(7, 7)

    with pytest.raises(RuntimeError) as caught:
        tl.trace(model, torch.ones(1, 3))
    picture = shown(caught.value.partial_trace.draw("graph.svg").path)  # type: ignore[attr-defined]
    assert {"input_1", "relu_1_1", "ones_1_2"} <= set(picture.titles)
    assert picture.caption[-1].startswith("ended by RuntimeError: mat1 and mat2")


@pytest.mark.parametrize("options", [{}, {"vis_mode": "rolled"}, {"depth": 1}, {"node_style": "profiling"}], ids=str)
def test_a_loaded_trace_draws_the_same_picture(options: dict[str, Any]) -> None:
    for model, x in (
        (SimpleRecurrent(), torch.randn(6, 5)),
        (Residual(), torch.randn(2, 4, 8, 8)),
        (Transformer(), torch.zeros(1, 6, dtype=torch.long)),
        (Branches(), torch.ones(2, 4)),
    ):
        trace = tl.trace(model, x)
        tl.save(trace, "kept.tlspec", overwrite=True)
        loaded = tl.load("kept.tlspec")
        assert loaded.draw(return_graph=True, **options).dot == trace.draw(return_graph=True, **options).dot


# -- files and cost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("dot", b"digraph {")])
def test_formats(format: str, start: bytes) -> None:
    trace = tl.trace(SimpleRecurrent(), torch.ones(6, 5), save=False)
    path = trace.draw("graph", vis_fileformat=format).path
    assert path == Path(f"graph.{format}")
    assert path.read_bytes().startswith(start)


def test_drawing_reads_no_value() -> None:
    trace = tl.trace(SimpleRecurrent(), torch.ones(6, 5), save=False)
    assert not len(trace.values)
    assert trace.draw(return_graph=True, node_style="profiling").dot.count("FLOPs") == 12


def test_three_thousand_ops_collapsed_by_module_in_a_second() -> None:
    trace = tl.trace(Transformer(176), torch.zeros(1, 6, dtype=torch.long), save=False)
    assert trace.num_ops == 2994
    before = cpu_seconds()
    drawing = trace.draw("graph.svg", depth=1)
    assert cpu_seconds() - before < 1
    assert len(drawing.scene.nodes) == 180


def cpu_seconds() -> float:
    """Of this process and of those it has waited for, whatever else the machine is doing."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
