"""Trace files for tests: sound ones, and the means to damage one part of them and make the rest agree with it."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torchlens_core.file import save
from torchlens_core.gradients.store import GradientStore
from torchlens_core.gradients.tape import TapeNode
from torchlens_core.interventions.actions import scale, zero_ablate
from torchlens_core.interventions.when import when
from torchlens_core.plan import PLAIN
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, module
from torchlens_core.testing.toy import ToyBackend
from torchlens_core.testing.toy_framework import Array, Module, add, sort, split, tanh, zeros
from torchlens_core.testing.toy_layers import Linear, ReLU, RunningMean, Sequential, Tanh
from torchlens_core.tracing import trace

Json = dict[str, Any]


class Everything(Module):
    """Nested and shared modules, buffers, a loop, an in-place write, several outputs, an orphan, an if, two results."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = RunningMean(4)
        self.mid = Sequential(Linear(4, 4, seed=1), ReLU(), Linear(4, 4, seed=2))
        self.cell = Linear(4, 4, seed=7)
        self.act = ReLU()

    def forward(self, x: Array, scale: float = 2.0) -> Any:
        x = self.norm(x)
        x = self.mid(x) * scale
        zeros((3,)) * 2.0  # an orphan
        for _ in range(3):
            x = self.act(self.cell(x))
        x += 1.0
        left, right = split(x, 2)
        if left.sum() > -1e9:
            left = tanh(left)
        values, indices = sort(right)
        return {"sum": add(left, self.act(values)), "order": indices}


def some_trace(**options: Any) -> Trace:
    """A trace with modules, buffers, a loop, an in-place write, several outputs, a read, constants and all values."""
    x = Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))
    return trace(Everything(), x, **{"replay_ready": True, **options})


def changed_trace() -> Trace:
    """A trace with interventions: Ops of a loop changed where they were made, and a module's value, read inside it."""
    whens = [when(func("relu").at[0], scale(2.0), keep_clean=True), when(module("mid"), zero_ablate(), keep_clean=True)]
    return some_trace(intervene=whens)


def differentiated_trace() -> Trace:
    """A trace with a backward pass, as a backend with a gradient tape leaves it."""
    made = trace(Sequential(Linear(4, 3), Tanh()), Array(np.ones((2, 4))))
    vid = made.graph.vids[made["tanh_1"].raw_index]
    store = made.gradient_store = GradientStore(ToyBackend.arrays)
    store.keeps[vid] = PLAIN
    store.nodes += [TapeNode("Tanh", "tanh", vids=(vid,), pairing="paired", next=(1,)), TapeNode("Linear", "linear")]
    store.is_open = True
    done = store.begin("Mean")
    store.arrive(vid, Array(np.full((2, 3), 0.5)), 1, lambda finish: finish)
    done.nodes = (0, 1)
    store.end(done)
    return made


def fresh_folder(at: Path) -> Path:
    """A sound trace file, as a folder with three files of arrays, of a run of its own."""
    return save(some_trace(), at / "sound", max_shard_bytes=600)


def sound_folder(at: Path) -> Path:
    """A sound trace file, as a folder with three files of arrays: the same one every time."""
    (at / "sound.tlspec").mkdir()
    for name, data in _sound_files().items():
        (at / "sound.tlspec" / name).write_bytes(data)
    return at / "sound.tlspec"


def sound_file(at: Path) -> Path:
    """A sound trace file, as a single file: the same one every time."""
    (at / "sound.safetensors").write_bytes(sound_bytes())
    return at / "sound.safetensors"


@functools.cache
def _sound_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in fresh_folder(Path(folder)).iterdir()}


@functools.cache
def sound_bytes() -> bytes:
    """The bytes of a sound single file."""
    with tempfile.TemporaryDirectory() as folder:
        return save(some_trace(), Path(folder) / "sound.safetensors").read_bytes()


# -- folders -----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Json:
    made: Json = json.loads(path.read_bytes())
    return made


def change_manifest(folder: Path, change: Callable[[Json], Any]) -> Path:
    """Change the manifest, and nothing else."""
    manifest = read_json(folder / "manifest.json")
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_records(folder: Path, change: Callable[[Json], Any]) -> Path:
    """Change the records; size and hash in the manifest are those of the changed ones."""
    records = read_json(folder / "records.json")
    change(records)
    return put_records(folder, json.dumps(records).encode())


def put_records(folder: Path, text: bytes) -> Path:
    """Other records; size and hash in the manifest are theirs."""
    (folder / "records.json").write_bytes(text)
    part = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    return change_manifest(folder, lambda manifest: manifest.update(records=part))


def change_header(shard: Path, change: Callable[[Json], Any]) -> None:
    """Change the safetensors header of a file with arrays."""
    data = shard.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    put_header(shard, json.dumps(header).encode())


def put_header(shard: Path, header: bytes, *, length: int | None = None) -> None:
    """Another header, and another length in front of it if that is to be wrong."""
    data = shard.read_bytes()
    arrays = data[8 + int.from_bytes(data[:8], "little") :]
    shard.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + arrays)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Flip one bit; a negative number counts bytes from the end."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
