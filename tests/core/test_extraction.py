"""``extract``, ``extract_dataset`` and ``load_extraction`` on the toy framework."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.core.extraction_cases import Net, Token, batches, by_hand, evaluated, files_of, net, rows, same, stimuli
from torchlens_core import errors
from torchlens_core.extraction import extract, load_extraction
from torchlens_core.plugins import registry
from torchlens_core.selectors import func, module
from torchlens_core.testing import toy
from torchlens_core.testing.toy_framework import Array, Module, relu, tanh
from torchlens_core.testing.toy_layers import Dropout, Linear, RunningMean, Sequential

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def toy_backend() -> None:
    registry().add(toy)


# -- one input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "keys"),
    [
        ("relu_1_2", ["relu_1_2"]),
        (["relu_1", "relu_1_2:1", "head"], ["relu_1", "relu_1_2:1", "head"]),
        (["body", "head:1", "body.layers.1"], ["body", "head:1", "body.layers.1"]),
        ({"a": "relu_1_2", "b": module("head")}, ["a", "b"]),
        ([func("linear"), "input_1", "output_1"], ["linear_1_1", "linear_2_3", "input_1", "output_1"]),
        ([module("head")], ["linear_2_3"]),
        (["self"], ["self"]),
    ],
)
def test_what_is_asked_for_comes_back_under_its_name(layers: Any, keys: list[str]) -> None:
    x = Array(stimuli(3))
    hidden = net().body(x)
    wanted = {"relu": hidden, "body": hidden, "a": hidden, "input": x, "linear_1": net().body.layers[0](x)}
    found = extract(net(), x, layers)
    assert list(found) == keys
    for key, value in found.items():
        expected = next((value for name, value in wanted.items() if key.startswith(name)), net().head(hidden))
        assert np.array_equal(value.data, expected.data), key


def test_one_run_and_options() -> None:
    calls: list[int] = []

    def model(x: Array, *, twice: bool = False) -> Any:
        calls.append(1)
        return relu(x) * (2 if twice else 1)

    x = Array(stimuli(3))
    found = extract(model, x, ["output_1"], {"twice": True}, transform=lambda a: a.mean(axis=1), dtype="float16")
    assert len(calls) == 1
    assert found["output_1"].data.dtype == np.float16
    assert np.array_equal(found["output_1"].data, (np.maximum(x.data, 0) * 2).mean(1).astype(np.float16))


@pytest.mark.parametrize(
    ("layers", "error", "says"),
    [
        ("rleu_1_2", errors.SelectorError, "Did you mean 'relu'"),
        ("relu_1_3", errors.LabelError, "Did you mean 'relu_1_2'"),
        ("relu_1_2:2", errors.LabelError, "Did you mean"),
        ("hed", errors.SelectorError, "Did you mean 'head'"),
        (["body.layers.0", "relu_1_9"], errors.LabelError, "relu_1_9"),
        ([], errors.OptionError, "at least one"),
        (["head", "head"], errors.OptionError, "'head' twice"),
        ([3], errors.OptionError, "got 3"),
        (3, errors.OptionError, "got 3"),
        ({"a": None}, errors.OptionError, "under 'a'"),
        ({"a": func("linear")}, errors.SelectorError, "2 arrays: 'linear_1_1', 'linear_2_3'"),
        ([func("tanh")], errors.SelectorError, "matched nothing"),
        ("unused", errors.SelectorError, "not called"),
        (["unused", "relu_1_2"], errors.SelectorError, "not called"),
    ],
)
def test_what_there_is_not(layers: Any, error: type[Exception], says: str) -> None:
    model = net()
    model.unused = Linear(2, 2)
    with pytest.raises(error, match=says):
        extract(model, Array(stimuli(3)), layers)


class Twice(Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)

    def forward(self, x: Array) -> Any:
        return self.fc(self.fc(x))


@pytest.mark.parametrize("layers", ["fc", "linear_1_1", ["fc", "linear_1_1:2"]])
def test_a_layer_of_several_passes_needs_a_number(layers: Any) -> None:
    with pytest.raises(errors.SelectorError, match=r"stands for 2 arrays: '(fc|linear_1_1):1', '(fc|linear_1_1):2'"):
        extract(Twice(), Array(stimuli(3)), layers)
    found = extract(Twice(), Array(stimuli(3)), ["fc:1", "fc:2"])
    assert np.array_equal(found["fc:2"].data, Twice().fc(found["fc:1"]).data)
    assert list(extract(Twice(), Array(stimuli(3)), [module("fc")])) == ["linear_1_1:1", "linear_1_1:2"]


def test_the_run_stops_after_the_last_module() -> None:
    """From the second batch on; a module that then returns later is waited for."""
    calls: list[str] = []

    class Watched(Net):
        def forward(self, x: Array) -> Any:
            hidden = self.body(x)
            calls.append("after body")
            return self.head(hidden)

    found = rows(stimuli(12), evaluated(Watched()), ["body"], batch_size=4)
    assert found["body"].shape == (12, 8)
    assert calls == ["after body"]

    class Other(Net):
        def forward(self, x: Array) -> Any:
            first, second = (self.body, self.other) if float(x.data[0, 0]) > 0 else (self.other, self.body)
            return first(x) + second(x)

    model = Other()
    model.other = Linear(4, 8, seed=5)
    evaluated(model)
    data = np.sort(stimuli(12), axis=0)
    found = rows(data, model, ["body", "other"], batch_size=4)
    assert np.array_equal(found["other"].data, model.other(Array(data)).data)
    assert np.array_equal(found["body"].data, model.body(Array(data)).data)


# -- stimuli -----------------------------------------------------------------------------------------------------------


class Numbered:
    """A dataset without an iterator: it never ends."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, number: int) -> tuple[Array, int]:
        return Array(stimuli()[number % 50]), number


GIVEN: dict[str, Callable[[], Any]] = {
    "array of numpy": lambda: stimuli(),
    "array of the framework": lambda: Array(stimuli()),
    "list of arrays": lambda: [Array(row) for row in stimuli()],
    "list of numpy": lambda: list(stimuli()),
    "dataset": Numbered,
    "generator": lambda: (row for row in stimuli()),
    "generator of pairs": lambda: ((row, 1) for row in stimuli()),
    "dicts": lambda: [{"x": row} for row in stimuli()],
    "dict of arrays": lambda: {"x": stimuli()},
}


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("on_disk", [False, True])
def test_stimuli_of_every_kind(kind: str, on_disk: bool, tmp_path: Path) -> None:
    found = rows(GIVEN[kind](), batch_size=8, output_dir=tmp_path / "out" if on_disk else None)
    same(found, by_hand(stimuli(), 8))
    assert list(found.stimulus_ids) == list(range(50))


@pytest.mark.parametrize("on_disk", [False, True])
def test_batches_as_they_come(on_disk: bool, tmp_path: Path) -> None:
    same(rows(batches(), batch_size=None, output_dir=tmp_path / "o" if on_disk else None), by_hand(stimuli(), 8))
    found = rows(batches(), batch_size=None, collate=lambda batch: (batch[0] * 2,))
    same(found, by_hand(stimuli() * 2, 8))


def test_transform_and_collate() -> None:
    names = [f"{number}" for number in range(50)]
    same(rows(names, transform=lambda name: stimuli()[int(name)] * 2, batch_size=8), by_hand(stimuli() * 2, 8))
    pairs = list(zip(stimuli(), range(50), strict=True))
    same(rows(pairs, transform=lambda x: x * 2, batch_size=8), by_hand(stimuli() * 2, 8))

    def collate(items: list[Any]) -> dict[str, Any]:
        return {"x": Array(np.stack([x * 2 for x, _ in items]))}

    same(rows(pairs, collate=collate, batch_size=8), by_hand(stimuli() * 2, 8))
    same(rows({"x": stimuli()}, transform=lambda item: {"x": item["x"] * 2}, batch_size=8), by_hand(stimuli() * 2, 8))


def test_texts_come_as_a_list() -> None:
    def lengths(texts: list[str]) -> Any:
        return relu(Array([[len(text)] for text in texts]))

    with pytest.warns(errors.CaptureWarning, match="code that cannot be seen"):
        found = rows(["a", "abc"], lengths, "relu_1", backend="toy")
    assert found["relu_1"].data.tolist() == [[1], [3]]


@pytest.mark.parametrize(
    ("given", "options", "error", "says"),
    [
        ([], {}, errors.ExtractionError, "no stimuli"),
        (iter(()), {}, errors.ExtractionError, "no stimuli"),
        ([np.ones(4), np.ones(5)], {}, errors.ExtractionError, r"Stimulus 1 .* \(5,\), and stimulus 0 \(4,\)"),
        ([np.ones(4), "a"], {}, errors.ExtractionError, "Stimulus 1 is of the type builtins.str"),
        ([{"x": np.ones(4)}, {"y": np.ones(4)}], {}, errors.ExtractionError, r"keys \['y'\]"),
        ({"x": np.ones((3, 4)), "y": np.ones(2)}, {}, errors.ExtractionError, "one length"),
        (np.ones(()), {}, errors.ExtractionError, "no axis"),
        ("images/", {}, errors.OptionError, "'images/' is a text or a path"),
        (stimuli(), {"batch_size": 0}, errors.OptionError, "batch_size"),
        (stimuli(), {"shard_size": 0}, errors.OptionError, "shard_size"),
        (stimuli(), {"ragged": "pad"}, errors.OptionError, "ragged"),
        (stimuli(), {"dtype": "flot16"}, errors.OptionError, "flot16"),
        (stimuli(), {"batch_size": None, "transform": abs}, errors.OptionError, "come in batches"),
        ([["a"]], {"batch_size": None}, errors.ExtractionError, "no array"),
        (stimuli(), {"stimulus_ids": ["a"]}, errors.OptionError, "50 stimuli, and stimulus_ids= has 1"),
        (stimuli(2), {"stimulus_ids": ["a", "a"]}, errors.OptionError, "'a' twice"),
        (stimuli(2), {"stimulus_ids": ["a", 1.5]}, errors.OptionError, "1.5"),
        ((row for row in stimuli(3)), {"stimulus_ids": ["a", "b"]}, errors.ExtractionError, "more stimuli than the 2"),
        ((row for row in stimuli(1)), {"stimulus_ids": ["a", "b"]}, errors.ExtractionError, "2 stimulus_ids=, and 1"),
        (stimuli(), {"pool": lambda a: 3}, errors.ExtractionError, "pool= is to return an array"),
        (stimuli(), {"pool": lambda a: a.mean()}, errors.ExtractionError, r"'hidden' has .* \(\) for 32 stimuli"),
        (stimuli(), {"pool": lambda a: a[:3]}, errors.ExtractionError, r"\(3, 8\) for 32 stimuli.*pool="),
    ],
)  # fmt: skip
def test_what_cannot_be(given: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        rows(given, **options)


def test_errors_of_the_model_say_where() -> None:
    def model(x: Array) -> Any:
        if float(x.data[0, 0]) == 9:
            raise RuntimeError("nine")
        return relu(x)

    data = stimuli(10)
    data[4] = 9
    with pytest.raises(RuntimeError, match="nine") as caught:
        rows(data, model, ["relu_1_1"], batch_size=2, backend="toy")
    assert caught.value.__notes__ == ["This was at stimuli 4 to 5."]


# -- activations -------------------------------------------------------------------------------------------------------


def test_ragged(tmp_path: Path) -> None:
    given = [np.arange(1 + number % 3, dtype=np.float32) for number in range(10)]
    with pytest.raises(errors.ExtractionError, match=r"stimulus 1 .*shape \(2,\), and before \(1,\).*ragged='list'"):
        rows(given, Token(), "relu_1_1", batch_size=1)
    in_memory = rows(given, Token(), "relu_1_1", batch_size=1, ragged="list")
    assert [value.data.tolist() for value in in_memory["relu_1_1"]] == [row.tolist() for row in given]
    stored = rows(given, Token(), "relu_1_1", batch_size=1, ragged="list", output_dir=tmp_path / "r", shard_size=4)
    layer = stored["relu_1_1"]
    assert len(layer) == stored.num_stimuli == 10 and layer.dtype == np.float32
    assert [row.tolist() for row in layer] == [row.tolist() for row in given]
    assert [layer.shape_of(number) for number in (0, 5, -1)] == [(1,), (3,), (1,)]
    assert [len(row) for row in layer[3:6]] == [len(row) for row in layer[[3, 4, 5]]] == [1, 2, 3]
    assert stored.verify() == []
    assert "10 arrays float32" in repr(stored) and "10 arrays" in repr(in_memory)
    again = rows(given, Token(), "relu_1_1", batch_size=1, ragged="list", output_dir=tmp_path / "p", shard_size=4)
    (tmp_path / "p" / "activations-000002.safetensors").unlink()
    (tmp_path / "p" / "extraction.json").write_bytes(unfinished(tmp_path / "p"))
    rows(given, Token(), "relu_1_1", batch_size=1, ragged="list", output_dir=tmp_path / "p", shard_size=4)
    assert again.folder is not None and files_of(tmp_path / "p") == files_of(tmp_path / "r")


def unfinished(folder: Path) -> bytes:
    """The manifest as it was before the last file was written."""
    manifest = json.loads((folder / "extraction.json").read_text())
    del manifest["shards"], manifest["num_stimuli"]
    return json.dumps(manifest).encode()


def test_dtype_is_what_is_stored(tmp_path: Path) -> None:
    found = rows(stimuli(), dtype="bfloat16", output_dir=tmp_path / "o")
    assert found["hidden"].nbytes == 50 * 8 * 2
    same(found, {key: array.astype(ml_dtypes.bfloat16) for key, array in by_hand(stimuli(), 32).items()})


class ByPath(Module):
    """Which function runs depends on the first element."""

    def forward(self, x: Array) -> Any:
        if float(x.data[0, 0]) > 0:
            return relu(x * 2)
        return relu(tanh(x)) * 2


def test_a_label_that_stands_for_something_else_is_noticed(tmp_path: Path) -> None:
    """``relu_1_2`` is there in both paths, at two places."""
    data = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    with pytest.raises(errors.ExtractionError, match="'relu_1_2' is another operation than in the first run") as caught:
        rows(data, ByPath(), ["relu_1_2"], batch_size=2, output_dir=tmp_path / "o", shard_size=2)
    assert caught.value.__notes__[0] == "This was at stimuli 2 to 3."
    assert load_extraction(tmp_path / "o").num_stimuli == 2
    with pytest.raises(errors.ResumeError, match=r"relu in the model from ByPath.forward\+\d+.* now gives"):
        rows(data, ByPath(), ["relu_1_2"], batch_size=2, output_dir=tmp_path / "o", shard_size=2)
    with pytest.raises(errors.ExtractionError, match="without 'mul_1_1' and with 'mul_1_3'"):
        rows(data, ByPath(), [func("mul")], batch_size=2)
    assert rows(data, ByPath(), ["output_1"], batch_size=2)["output_1"].shape == (4, 1)
    whatever_it_returns = rows(data, Sequential(ByPath()), ["layers.0", "input_1"], batch_size=2)
    assert np.array_equal(whatever_it_returns["layers.0"].data[:2], data[:2] * 2)


@pytest.mark.parametrize("layers", [["out"], ["linear_1"]])
def test_training_mode_is_warned_of(layers: list[str]) -> None:
    class Trained(Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.out = RunningMean(4), Dropout(), Linear(4, 2)

        def forward(self, x: Array) -> Any:
            return self.out(self.drop(self.norm(x)))

    model = Trained()
    with pytest.warns(
        errors.ExtractionWarning, match=r"drop \(random dropout\), norm \(writes its buffers\)"
    ) as caught:
        rows(stimuli(), model, layers)
    assert Path(caught[0].filename).name == "extraction_cases.py", "where extract_dataset is called"
    assert len(caught) == 1
    assert int(model.norm.steps.data) == 2, "as many calls as there are batches"
    evaluated(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows(stimuli(), model, layers)
