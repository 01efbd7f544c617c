"""``rename='auto'``: modules found by what they do; and pictures of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.bundled import Net, Port, X, add_to, chain, net
from torchlens_core.bundle import bundle
from torchlens_core.bundle.same_modules import same_modules
from torchlens_core.errors import OptionError
from torchlens_core.testing.toy_framework import Array, Module
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential
from torchlens_core.tracing import trace


class Layer(Module):
    """A block under one set of names."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fc = Linear(4, 4, seed=seed)
        self.act = ReLU()

    def forward(self, x: Array) -> Any:
        return self.act(self.fc(x))


class Renamed(Module):
    """The same under another."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.nonlinearity = ReLU()
        self.dense = Linear(4, 4, seed=seed)

    def forward(self, x: Array) -> Any:
        return self.nonlinearity(self.dense(x))


class Stack(Module):
    """Blocks by number."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Sequential(Layer(0), Layer(1))
        self.head = Linear(4, 2, seed=2)

    def forward(self, x: Array) -> Any:
        return self.head(self.blocks(x))


class Numbered(Module):
    """Blocks by name, without a module around them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_0, self.layer_1 = Renamed(0), Renamed(1)
        self.out = Linear(4, 2, seed=2)

    def forward(self, x: Array) -> Any:
        return self.out(self.layer_1(self.layer_0(x)))


def test_modules_are_found_by_what_they_do() -> None:
    made = bundle({"stack": trace(Stack(), X), "numbered": trace(Numbered(), X)}, rename="auto")
    assert made.renamed["numbered"] == {
        "out": "head",
        "layer_0": "blocks.layers.0",
        "layer_1": "blocks.layers.1",
        "layer_0.dense": "blocks.layers.0.fc",
        "layer_1.dense": "blocks.layers.1.fc",
        "layer_0.nonlinearity": "blocks.layers.0.act",
        "layer_1.nonlinearity": "blocks.layers.1.act",
    }
    assert made.first_divergence() is None
    assert "numbered' are meant by other names: out is head, layer_0 is blocks.layers.0" in str(made.relationship())


def test_a_module_around_all_is_found() -> None:
    assert same_modules(trace(Port(), X), trace(Net(), X)) == {"body": ""}
    assert same_modules(trace(Net(), X), trace(Port(), X)) == {"": "body"}
    assert same_modules(trace(Net(), X), trace(Net(), X)) == {}


def test_without_being_asked_it_is_told() -> None:
    changed = trace(Sequential(Port(), ReLU()), X)
    made = bundle({"net": trace(Net(), X), "port": changed})
    assert "rename='auto' would take modules of 'port' for others" in str(made.relationship())
    found = bundle({"net": trace(Net(), X), "port": changed}, rename={"port": "auto"})
    assert found.renamed["port"] == {"layers.0.body": ""} and found.first_divergence() is not None
    assert "rename=" not in str(bundle([net(), net()]).relationship())


def test_what_rename_takes() -> None:
    with pytest.raises(OptionError, match="rename is 'auto', a mapping of beginnings or a function; got 'automatic'"):
        bundle([net(), net()], rename={"1": "automatic"})  # type: ignore[dict-item]


def test_long_models() -> None:
    assert same_modules(trace(chain(40, extra=20), X), trace(chain(40), X))["layers.21"] == "layers.20"


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_picture_of_the_divergence() -> None:
    made = bundle({"clean": net(), "patched": net(second=0.5)})
    drawing = made.draw(return_graph=True)
    specs = {spec.title: spec for spec in drawing.picture.nodes.values()}
    assert specs["linear_1_1"].fill == "#E5F2E5"
    assert specs["linear_2_3"].fill == "#E8452F"
    error = made.compare_at("second").matrix[0, 1]
    assert f"relative_error {error:.3g}" in specs["linear_2_3"].lines
    assert drawing.scene.caption[-2:] == [
        "clean against patched, by relative_error",
        "green: equal up to rounding; yellow to red: 1e-6 to 1; dashed: in one alone",
    ]


def test_what_one_alone_ran_is_marked() -> None:
    from tests.core.bundled import WithoutSecondRelu

    made = bundle({"net": net(), "shorter": trace(WithoutSecondRelu(), X)})
    specs = {spec.title: spec for spec in made.draw(return_graph=True).picture.nodes.values()}
    assert specs["relu_2_4"].is_dashed and "not in shorter" in specs["relu_2_4"].lines
    assert not specs["relu_1_2"].is_dashed
    turned = made.draw(a="shorter", b="net", return_graph=True)
    assert turned.scene.caption[-1] == "in net alone: relu_2_4"


def test_collapsed_and_rolled_show_the_worst(tmp_path: Path) -> None:
    other = Port()
    add_to(other.body.second.weight, 0.5)
    made = bundle({"clean": trace(Port(), X), "patched": trace(other, X)})
    collapsed = {spec.title: spec for spec in made.draw(depth=1, return_graph=True).picture.nodes.values()}
    assert any("relative_error" in line for line in collapsed["@body"].lines)
    assert made.draw(tmp_path / "rolled.dot", vis_mode="rolled").path == tmp_path / "rolled.dot"


def test_the_users_own_look_comes_last() -> None:
    made = bundle([net(), net()])
    drawing = made.draw(return_graph=True, node_spec_fn=lambda op, spec: setattr(spec, "fill", "pink") or spec)
    assert {spec.fill for spec in drawing.picture.nodes.values()} == {"pink"}
