"""Extractions that were interrupted, and what is found in their folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.extraction_cases import Net, batches, by_hand, evaluated, files_of, net, rows, same, stimuli
from torchlens_core import errors
from torchlens_core.extraction import Extraction, load_extraction
from torchlens_core.plugins import registry
from torchlens_core.testing import toy
from torchlens_core.testing.toy_framework import Array
from torchlens_core.testing.toy_layers import Linear

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def toy_backend() -> None:
    registry().add(toy)


class Stops(Net):
    """Raises at a call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def forward(self, x: Array) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(x)


def interrupted(folder: Path, at: int = 6, **options: Any) -> None:
    model = Stops(at)
    evaluated(model)
    with pytest.raises(KeyboardInterrupt) as caught:
        rows(stimuli(), model, **{"batch_size": 4, "shard_size": 10, "output_dir": folder, **options})
    assert any("continues there" in note for note in caught.value.__notes__)


class Fine(Stops):
    """The same model by name, in which nothing stops."""


Fine.__qualname__ = Stops.__qualname__


def whole(folder: Path, **options: Any) -> Extraction:
    model = Fine(0)
    evaluated(model)
    return rows(stimuli(), model, **{"batch_size": 4, "shard_size": 10, "output_dir": folder, **options})


@pytest.mark.parametrize("given", ["array", "generator", "batches"])
@pytest.mark.parametrize("at", [1, 2, 4, 6, 13])
def test_what_was_interrupted_is_continued(given: str, at: int, tmp_path: Path) -> None:
    make = {"array": stimuli, "generator": lambda: iter(stimuli()), "batches": batches}[given]
    options: dict[str, Any] = {"shard_size": 10, "batch_size": None if given == "batches" else 4}
    size = 8 if given == "batches" else 4
    model = evaluated(Stops(at))
    calls_of_the_model = -(-50 // size)
    if at <= calls_of_the_model:
        with pytest.raises(KeyboardInterrupt):
            rows(make(), model, output_dir=tmp_path / "one", **options)
        written = len(list((tmp_path / "one").glob("activations-*")))
        assert written == (at - 1) * size // 10, "what was computed, in whole files"
    rows(make(), model, output_dir=tmp_path / "one", **options)
    rows(make(), evaluated(Stops(0)), output_dir=tmp_path / "two", **options)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    same(load_extraction(tmp_path / "one"), by_hand(stimuli(), size))


def test_nothing_runs_again(tmp_path: Path) -> None:
    whole(tmp_path / "o")
    before = files_of(tmp_path / "o")
    model = Fine(1)  # would stop at its first call
    evaluated(model)
    found = rows(stimuli(), model, batch_size=4, shard_size=10, output_dir=tmp_path / "o")
    assert found.num_stimuli == 50 and files_of(tmp_path / "o") == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 5}, "batch_size= was 4 and is 5"),
        ({"layers": ["head"]}, r"layers= was \[hidden=relu_1_2, out=head\] and is \[head\]"),
        ({"layers": {"hidden": "linear_1_1", "out": "head"}}, "hidden=linear_1_1"),
        ({"dtype": "float16"}, "dtype= was None and is 'float16'"),
        ({"shard_size": 20}, "shard_size= was 10 and is 20"),
        ({"ragged": "list"}, "ragged= was"),
        ({"pool": abs}, "pool= was None and is 'builtins.abs'"),
        ({"transform": lambda x: x}, r"transform= was None and is '.*<lambda>'"),
        ({"given": stimuli(60)}, "number of stimuli was 50 and is 60"),
        ({"model": net()}, r"the model was a .*Stops and is a .*Net"),
        ({"changed": "weight"}, r"the values of 'body.layers.0.weight' are others"),
        ({"changed": "shape"}, r"'head.weight' was float64 \[2, 8\] and is float64 \[3, 8\]"),
        ({"changed": "more"}, "the model has 'more.weight' and had it not"),
        ({"stimulus_ids": [f"s{n}" for n in range(50)]}, "stimulus_ids= was not given"),
    ],
)
def test_another_extraction_is_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "o")
    before = files_of(tmp_path / "o")
    model = options.pop("model", None) or Fine(0)
    evaluated(model)
    changed = options.pop("changed", None)
    if changed == "weight":
        data = np.array(model.body.layers[0].weight.data)
        data[-1, -1] += 1e-6
        model.body.layers[0].weight.data = data
    elif changed == "shape":
        model.head = Linear(8, 3, bias=False)
    elif changed == "more":
        model.more = Linear(8, 3, bias=False)
    given = options.pop("given", stimuli())
    with pytest.raises(errors.ResumeError, match=says):
        rows(given, model, **{"batch_size": 4, "shard_size": 10, "output_dir": tmp_path / "o", **options})
    assert files_of(tmp_path / "o") == before


def test_other_stimuli_are_noticed_by_their_ids(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(50)]
    interrupted(tmp_path / "o", stimulus_ids=ids)
    swapped = [ids[1], ids[0], *ids[2:]]
    with pytest.raises(errors.ResumeError, match="Stimulus 0 was 's0' when the folder was written, and is 's1' now"):
        whole(tmp_path / "o", stimulus_ids=swapped)
    assert whole(tmp_path / "o", stimulus_ids=ids).stimulus_ids == ids


def test_a_last_file_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    whole(tmp_path / "two")
    interrupted(tmp_path / "one")
    last = tmp_path / "one" / "activations-000001.safetensors"
    sound = last.read_bytes()
    for damaged in (sound[: len(sound) // 2], sound[:-1] + bytes([sound[-1] ^ 1]), b""):
        interrupted(tmp_path / "x", at=6)
        (tmp_path / "x" / last.name).write_bytes(damaged)
        with pytest.warns(errors.ExtractionWarning, match="000001.safetensors.* made again"):
            whole(tmp_path / "x")
        assert files_of(tmp_path / "x") == files_of(tmp_path / "two")
        for file in (tmp_path / "x").iterdir():
            file.unlink()


def test_a_gap_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path / "o", at=9)
    (tmp_path / "o" / "activations-000000.safetensors").unlink()
    with pytest.raises(errors.ResumeError, match=r"activations-000000\.safetensors is missing"):
        whole(tmp_path / "o")


def test_folders_that_are_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(errors.SaveError, match=r"holds 'notes.txt'"):
        whole(tmp_path / "mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.SaveError, match="cannot be written to"):
        whole(tmp_path / "file")
    whole(tmp_path / "o")
    with pytest.raises(errors.SaveError, match="an extraction is in it"):
        whole(tmp_path / "o", resume=False)
    assert whole(tmp_path / "deep" / "er", resume=False).is_complete


HOLD = """
import sys
from torchlens_core.extraction.folder import locked
from pathlib import Path
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchlens_core.extraction.folder._PATIENCE", 0.3)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdin is not None
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(errors.SaveError, match="another process is extracting into it"):
            whole(tmp_path)
        process.stdin.close()
    assert whole(tmp_path).is_complete


def test_bytes_are_on_the_disk_before_a_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def noted_replace(source: Any, target: Any) -> None:
        steps.append(f"rename {Path(source).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    whole(tmp_path / "o", shard_size=25)
    names = [".extraction.json.partial", *(f".activations-{n:06d}.safetensors.partial" for n in (0, 1))]
    names.append(names[0])
    assert steps == [step for name in names for step in (f"sync {name}", f"rename {name}", "sync o")]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, left = os.replace, [3]

    def full(source: Any, target: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(errors.SaveError, match=r"activations-000001\.safetensors: it cannot be written: No space left"):
        whole(tmp_path / "o")
    assert sorted(files_of(tmp_path / "o")) == ["activations-000000.safetensors", "extraction.json"]
    monkeypatch.undo()
    assert whole(tmp_path / "o").verify() == []
