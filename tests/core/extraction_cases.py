"""Models and stimuli of the toy framework for the tests of extraction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from torchlens_core.extraction import Extraction, extract_dataset
from torchlens_core.testing.toy_framework import Array, Module, relu
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential

M = TypeVar("M", bound=Module)

LAYERS = {"hidden": "relu_1_2", "out": "head"}


class Net(Module):
    """Two layers and a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.body = Sequential(Linear(4, 8, seed=seed), ReLU())
        self.head = Linear(8, 2, bias=False, seed=seed + 1)

    def forward(self, x: Array) -> Any:
        return self.head(self.body(x))


class Token(Module):
    """Keeps the length of what it is given: (stimuli, length) -> (stimuli, length)."""

    def forward(self, x: Array) -> Any:
        return relu(x)


def net(seed: int = 0) -> Net:
    """In evaluation mode."""
    return evaluated(Net(seed))


def evaluated(module: M) -> M:
    """The module, it and all below put into evaluation mode."""
    module.training = False
    for _, child in module.named_children():
        evaluated(child)
    return module


def stimuli(count: int = 50) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=(count, 4)).astype(np.float32)


def by_hand(data: np.ndarray[Any, Any], batch_size: int, model: Net | None = None) -> dict[str, Any]:
    """What the layers give, from the model's parts called by hand."""
    model = model or net()
    batches = [Array(data[begin : begin + batch_size]) for begin in range(0, len(data), batch_size)]
    hidden = [model.body(batch) for batch in batches]
    return {
        "hidden": np.concatenate([each.data for each in hidden]),
        "out": np.concatenate([model.head(each).data for each in hidden]),
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(given: Any, model: Any = None, layers: Any = None, **options: Any) -> Extraction:
    return extract_dataset(model or net(), given, layers or LAYERS, progress=False, **options)


def same(found: Extraction, wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        value = found[key].data if isinstance(found[key], Array) else found[key].numpy()
        assert value.dtype == array.dtype and value.shape == array.shape
        assert value.tobytes() == array.tobytes(), key


def batches() -> Iterator[list[Any]]:
    for begin in range(0, 50, 8):
        part = stimuli()[begin : begin + 8]
        yield [Array(part), np.arange(len(part))]
