"""Extractions read from their folders: what is indexed, what is refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.core.extraction_cases import by_hand, files_of, net, rows, stimuli
from torchlens_core import errors
from torchlens_core.extraction import Extraction, load_extraction
from torchlens_core.file import Limits
from torchlens_core.plugins import registry
from torchlens_core.testing import toy

ROOT = Path(__file__).parents[2]
IDS = [f"image {number:02d}.jpg" for number in range(50)]
SHARD = "activations-000002.safetensors"
Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def toy_backend() -> None:
    registry().add(toy)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    rows(stimuli(), batch_size=4, shard_size=10, output_dir=tmp_path / "o", stimulus_ids=IDS)
    return tmp_path / "o"


# -- reading -----------------------------------------------------------------------------------------------------------

KEYS: list[Any] = [
    0, 7, -1, np.int64(33), slice(None), slice(3, 4), slice(8, 31), slice(45, 500), slice(30, 8), slice(None, None, 7),
    slice(40, 3, -3), [1, 44, 3], [], np.array([9, 10, -50]), np.arange(50) % 3 == 0,
    (slice(8, 31), 2), (slice(8, 31), slice(None, None, 2)), (3, 1), ([4, 40], slice(1, 3)), (..., 0),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_indexing_is_that_of_an_array(key: Any, stored: Path) -> None:
    layer, array = load_extraction(stored)["hidden"], by_hand(stimuli(), 4)["hidden"]
    wanted = array[key]
    found = layer[key]
    assert type(found) is type(wanted) and found.dtype == wanted.dtype and np.array_equal(found, wanted)
    if isinstance(found, np.ndarray):
        assert found.flags.writeable, "a copy of its own"


@pytest.mark.parametrize("key", [50, -51, [3, 50], 1.5, np.zeros(3, bool), [[1]], None])
def test_what_cannot_be_indexed(key: Any, stored: Path) -> None:
    with pytest.raises(IndexError):
        load_extraction(stored)["hidden"][key]


def test_by_id(stored: Path) -> None:
    found, array = load_extraction(stored), by_hand(stimuli(), 4)["out"]
    assert list(found.stimulus_ids) == IDS
    assert np.array_equal(found["out"]["image 17.jpg"], array[17])
    assert np.array_equal(found["out"][["image 17.jpg", "image 03.jpg"]], array[[17, 3]])
    with pytest.raises(errors.LabelError, match=r"'image 99.jpg'. Did you mean 'image 49.jpg'"):
        found["out"]["image 99.jpg"]
    with pytest.raises(errors.LabelError, match=r"No layer is called 'hiden'. Did you mean 'hidden'\?"):
        found["hiden"]


def test_the_rest_of_what_an_array_has(stored: Path) -> None:
    found, wanted = load_extraction(stored), by_hand(stimuli(), 4)
    layer = found["hidden"]
    assert (layer.shape, layer.ndim, len(layer), layer.dtype, layer.nbytes) == (
        (50, 8), 2, 50, wanted["hidden"].dtype, wanted["hidden"].nbytes,
    )  # fmt: skip
    assert np.array_equal(np.asarray(layer), wanted["hidden"])
    assert np.asarray(layer, dtype=np.float16).dtype == np.float16
    assert np.array_equal(np.stack(list(layer)), wanted["hidden"])
    parts = list(found.batches(15))
    assert [len(part["out"]) for part in parts] == [15, 15, 15, 5]
    assert np.array_equal(np.concatenate([part["out"] for part in parts]), wanted["out"])
    assert found.is_complete and found.num_stimuli == 50 and found.folder == stored
    assert found.places == {"hidden": "relu_1_2:1", "out": "linear_2_3:1"}
    assert repr(found).splitlines()[1:] == ["  hidden: [50, 8] float64", "  out: [50, 2] float64"]


def test_safetensors_reads_the_files(stored: Path) -> None:
    read = safetensors.numpy.load_file(stored / SHARD)
    wanted = by_hand(stimuli(), 4)
    assert {key: array.tobytes() for key, array in read.items()} == {
        key: array[20:30].tobytes() for key, array in wanted.items()
    }


def test_only_what_is_indexed_is_opened(stored: Path) -> None:
    for number in (0, 1, 3, 4):
        (stored / f"activations-{number:06d}.safetensors").unlink()
    layer = load_extraction(stored)["hidden"]
    assert np.array_equal(layer[22:28], by_hand(stimuli(), 4)["hidden"][22:28])
    with pytest.raises(errors.Truncated, match=r"activations-000003\.safetensors is missing"):
        layer[28:31]


def test_no_framework_is_needed(stored: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'jax', 'tensorflow', 'paddle', 'mlx', 'tinygrad'): sys.modules[name] = None\n"
        "from torchlens_core.extraction import load_extraction\n"
        "found = load_extraction(sys.argv[1])\n"
        "print(found['out'][3:13].shape, found.verify())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(stored)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "(10, 2) []\n", done.stderr


# -- refusing ----------------------------------------------------------------------------------------------------------


def everything(folder: Path) -> None:
    """Read all that can be read."""
    found = load_extraction(folder)
    assert list(found.stimulus_ids)
    for layer in found.values():
        np.asarray(layer)


def test_every_flipped_bit_is_noticed_or_harmless(stored: Path) -> None:
    sound = files_of(stored)
    chance = random.Random(0)
    for name, data in sound.items():
        for position in chance.sample(range(len(data)), 60):
            damaged = bytearray(data)
            damaged[position] ^= 1 << (position % 8)
            (stored / name).write_bytes(damaged)
            try:
                problems = load_extraction(stored).verify()
            except errors.TraceFileError:
                continue
            if name != "extraction.json":
                assert problems, (name, position)
        (stored / name).write_bytes(data)
    assert load_extraction(stored).verify() == []


@pytest.mark.parametrize("name", ["extraction.json", SHARD])
def test_cut_off_anywhere(name: str, stored: Path) -> None:
    data = (stored / name).read_bytes()
    for length in range(0, len(data), 97):
        (stored / name).write_bytes(data[:length])
        with pytest.raises(errors.TraceFileError):
            everything(stored)


def change(folder: Path, what: Callable[[Json], None]) -> None:
    manifest = json.loads((folder / "extraction.json").read_text())
    what(manifest)
    (folder / "extraction.json").write_text(json.dumps(manifest))


def put(path: str, value: Any) -> Callable[[Json], None]:
    def what(manifest: Json) -> None:
        *parents, last = path.split(".")
        place: Any = manifest
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        place[int(last) if last.isdigit() else last] = value

    return what


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (put("format", "torchlens trace"), "no manifest of an extraction"),
        (put("version", 2), "version 2"),
        (put("version", "1"), r"version"),
        (put("id", "x"), "id"),
        (put("id", "0" * 32), "of another extraction"),
        (put("surprise", 1), "surprise"),
        (put("layers.0.shape", [9]), "880 bytes, and 800 are there"),
        (put("layers.0.shape", [-8]), "shape"),
        (put("layers.0.shape", [1] * 64), "max_dims"),
        (put("layers.0.shape", [2**62, 2**62]), "and 800 are there"),
        (put("layers.0.dtype", "object"), "no element type"),
        (put("layers.0.dtype", "float32"), "320 bytes follow"),
        (put("layers.0.key", "out"), "names of its layers"),
        (put("layers.0.key", "__metadata__"), "names of its layers"),
        (put("layers", []), "names of its layers"),
        (put("shard_size", 0), "shard_size"),
        (put("shard_size", 9), "files of 9"),
        (put("num_stimuli", 51), "51"),
        (put("num_stimuli", None), "together"),
        (put("shards.1.stimuli", 9), "files of 10"),
        (put("has_ids", False), "ids"),
        (lambda manifest: manifest["shards"].pop(), "hold 40"),
        (lambda manifest: manifest.pop("model"), "model"),
    ],
)
def test_a_manifest_that_lies(what: Callable[[Json], None], says: str, stored: Path) -> None:
    change(stored, what)
    with pytest.raises(errors.TraceFileError, match=says):
        everything(stored)


def test_files_in_each_other_s_place(stored: Path) -> None:
    (stored / "activations-000001.safetensors").write_bytes((stored / SHARD).read_bytes())
    with pytest.raises(errors.SchemaError, match="10 stimuli from 20, and should hold up to 10 from 10"):
        everything(stored)


@pytest.mark.parametrize("name", ["extraction.json", SHARD])
def test_links_and_other_things_are_refused(name: str, stored: Path) -> None:
    path, elsewhere = stored / name, stored.parent / "elsewhere"
    path.rename(elsewhere)
    for make in (path.symlink_to, path.hardlink_to):
        make(elsewhere)
        with pytest.raises(errors.UnsafePath):
            everything(stored)
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(errors.UnsafePath, match="a pipe"):
        everything(stored)


def test_what_is_no_extraction(tmp_path: Path, stored: Path) -> None:
    with pytest.raises(errors.TraceFileMissing):
        load_extraction(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.BadMagic, match=r"no extraction.json"):
        load_extraction(tmp_path / "empty")
    with pytest.raises(errors.BadMagic, match="is a folder"):
        load_extraction(stored / SHARD)
    (tmp_path / "link").symlink_to(stored)
    with pytest.raises(errors.UnsafePath, match="symbolic link"):
        load_extraction(tmp_path / "link")


def test_limits_are_the_caller_s(stored: Path) -> None:
    for limits, says in (
        (Limits(max_manifest_bytes=10), "max_manifest_bytes"),
        (Limits(max_shards=4), "max_shards"),
        (Limits(max_total_bytes=100), "max_total_bytes"),
        (Limits(max_dims=1), "max_dims"),
    ):
        with pytest.raises(errors.LimitExceeded, match=says):
            load_extraction(stored, limits=limits)


HOSTILE = """
import sys
from torchlens_core.extraction import load_extraction

def look(path):
    found = load_extraction(path)
    repr(found), found.verify(), list(found.stimulus_ids), [layer[3:40] for layer in found.values()]

warm, hostile = sys.argv[1:]
look(warm)
seen = []

def watch(event, args):
    name = event.partition(".")[0]
    if event in ("open", "os.listdir") and (isinstance(args[0], int) or str(args[0]).startswith(hostile)):
        return
    if name in {"open", "import", "exec", "compile", "pickle", "marshal", "socket", "subprocess", "os", "shutil"}:
        seen.append((event, repr(args)[:200]))

sys.addaudithook(watch)
look(hostile)
assert not seen, seen
print("nothing happened")
"""


def test_reading_runs_no_code_and_touches_no_other_file(stored: Path) -> None:
    hostile = stored.parent / "hostile"
    names = {"../../etc/passwd": "relu_1_2", "__class__": "head"}
    rows(stimuli(), net(), names, batch_size=4, shard_size=10, output_dir=hostile)
    change(hostile, put("layers.0.place", "__import__('os').system('true')"))
    change(hostile, put("settings.transform", "os.system"))
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(stored), str(hostile)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "nothing happened\n", done.stderr


def test_an_extraction_in_memory_has_the_same_face() -> None:
    found = rows(stimuli(), batch_size=4, stimulus_ids=IDS)
    assert isinstance(found, Extraction) and found.folder is None and found.is_complete
    assert found.verify() == [] and list(found.stimulus_ids) == IDS and found.num_stimuli == 50
    assert dict(found).keys() == {"hidden", "out"}
    assert [len(part["out"].data) for part in found.batches(20)] == [20, 20, 10]
    assert repr(found).splitlines()[1:] == ["  hidden: [50, 8] float64", "  out: [50, 2] float64"]
