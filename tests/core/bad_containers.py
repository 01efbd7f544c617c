"""Bad containers: what is no trace file, files that are missing, links, devices, and damaged safetensors headers."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.bad_case import BAD, FOURTH, LAST, SECOND, SHARD, Bad, bad, contents, header
from tests.core.trace_files import Json, change_manifest, flip, fresh_folder, put_header, sound_file, sound_folder
from torchlens_core import errors

# -- what is no trace file ---------------------------------------------------------------------------------------------

contents("empty", errors.BadMagic, "empty file", b"")
contents("pickle", errors.BadMagic, "pickle, which is never read", pickle.dumps({"a": 1}))
contents("zip", errors.BadMagic, "zip archive", b"PK\x03\x04" + bytes(40))
contents("numpy", errors.BadMagic, "numpy array", b"\x93NUMPY\x01\x00" + bytes(40))
contents("ONNX", errors.BadMagic, "ONNX model", b"\x08\x07\x12\x07pytorch" + bytes(40))
contents("HTML", errors.BadMagic, "HTML or XML page", b"<!doctype html><html></html>")
contents("gzip", errors.BadMagic, "gzip archive", b"\x1f\x8b\x08" + bytes(40))
contents("JSON", errors.BadMagic, "JSON text", b'{"format": "torchlens trace"}')
contents("noise", errors.BadMagic, "nothing that is known", bytes(range(200, 256)))
contents("safetensors without a trace", errors.BadMagic, "without a trace", (8).to_bytes(8, "little") + b"{}      ")
contents("length only", errors.Truncated, "within the length of its header", (80).to_bytes(5, "little"))


@bad("file: npz archive", errors.BadMagic, "zip archive")
def _(at: Path) -> Path:
    np.savez(at / "arrays.npz", a=np.zeros(3))
    return at / "arrays.npz"


@bad("folder: of TorchLens 2", errors.BadMagic, "TorchLens 2.x")
def _(at: Path) -> Path:
    folder = at / "old.tlspec"
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifest.json").write_text('{"tlspec_version": 1}')
    (folder / "metadata.pkl").write_bytes(pickle.dumps(print))
    return folder


@bad("folder: of TorchLens 2 without its pickle", errors.BadMagic, "TorchLens 2.x")
def _(at: Path) -> Path:
    return change_manifest(sound_folder(at), lambda manifest: manifest.update(tlspec_version=1))


@bad("folder: no manifest", errors.BadMagic, "no manifest.json")
def _(at: Path) -> Path:
    (at / "other.tlspec").mkdir()
    return at / "other.tlspec"


@bad("folder: a save that was not completed", errors.Truncated, "the save was not completed")
def _(at: Path) -> Path:
    folder = sound_folder(at)
    (folder / "manifest.json").unlink()
    return folder


@bad("nothing there", errors.TraceFileMissing, "no such file")
def _(at: Path) -> Path:
    return at / "missing"


@bad("nothing there but what a save was replacing", errors.TraceFileMissing, "sound.tlspec.previous")
def _(at: Path) -> Path:
    sound_folder(at).rename(at / "sound.tlspec.previous")
    return at / "sound"


# -- files of a folder -------------------------------------------------------------------------------------------------


def _shard(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        folder = sound_folder(at)
        change(folder / SHARD)
        return folder

    return make


def _replace(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        path.rename(path.parent.parent / "it")
        make(path)

    return change


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


BAD += [
    Bad("shard: missing", lambda at: _without(at, LAST), errors.Truncated, f"{LAST} is missing"),
    Bad("shard: missing in the middle", lambda at: _without(at, SECOND), errors.SchemaError, f"where {SECOND} should"),
    Bad("shard: one too many", lambda at: _copied(at, FOURTH), errors.SchemaError, "not in the manifest"),
    Bad("shard: renamed", lambda at: _copied(at, "arrays.safetensors"), errors.UnsafePath, "no part of a trace"),
    Bad("shard: in other case", lambda at: _copied(at, SHARD.title()), errors.UnsafePath, "no part of a trace"),
    Bad("folder: no records", lambda at: _without(at, "records.json"), errors.Truncated, "records.json is missing"),
    Bad("shard: shorter", _shard(_shorten), errors.Truncated, "are there"),
    Bad("shard: longer", _shard(_extend), errors.SchemaError, "8 bytes follow the last array"),
    Bad("shard: one bit", _shard(lambda path: flip(path, -3)), errors.ChecksumMismatch, "the hash"),
    Bad("shard: symbolic link", _shard(_replace(lambda p: p.symlink_to("../it"))), errors.UnsafePath, "symbolic link"),
    Bad("shard: hard link", _shard(lambda p: os.link(p, p.parent.parent / "other")), errors.UnsafePath, "hard links"),
    Bad("shard: pipe", _shard(_replace(os.mkfifo)), errors.UnsafePath, "a pipe"),
    Bad("shard: socket", _shard(_replace(_socket)), errors.UnsafePath, "a socket"),
    Bad("shard: device", _shard(_replace(lambda p: p.symlink_to("/dev/zero"))), errors.UnsafePath, "symbolic link"),
    Bad("shard: folder", _shard(_replace(Path.mkdir)), errors.UnsafePath, "a folder"),
]  # fmt: skip


def _without(at: Path, name: str) -> Path:
    folder = sound_folder(at)
    (folder / name).unlink()
    return folder


def _copied(at: Path, name: str) -> Path:
    folder = sound_folder(at)
    shutil.copy(folder / SHARD, folder / name)
    return folder


@bad("shard: of another trace", errors.SchemaError, "of another trace")
def _(at: Path) -> Path:
    (at / "other").mkdir()
    shutil.copy(fresh_folder(at / "other") / SHARD, sound_folder(at) / SHARD)
    return at / "sound.tlspec"


@bad("manifest: of another trace", errors.TraceFileError, "of another trace")
def _(at: Path) -> Path:
    (at / "other").mkdir()
    shutil.copy(fresh_folder(at / "other") / "manifest.json", sound_folder(at) / "manifest.json")
    return at / "sound.tlspec"


@bad("folder: symbolic link", errors.UnsafePath, "symbolic link")
def _(at: Path) -> Path:
    sound_folder(at).rename(at / "elsewhere")
    (at / "sound.tlspec").symlink_to("elsewhere")
    return at / "sound.tlspec"


@bad("file: symbolic link", errors.UnsafePath, "symbolic link")
def _(at: Path) -> Path:
    sound_file(at).rename(at / "elsewhere")
    (at / "sound.safetensors").symlink_to("elsewhere")
    return at / "sound.safetensors"


@bad("file: trailing bytes", errors.SchemaError, "follow the last array")
def _(at: Path) -> Path:
    path = sound_file(at)
    path.write_bytes(path.read_bytes() + b"more")
    return path


@bad("file: a zip archive behind it", errors.SchemaError, "follow the last array")
def _(at: Path) -> Path:
    path = sound_file(at)
    with zipfile.ZipFile(at / "code.zip", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(print))
    path.write_bytes(path.read_bytes() + (at / "code.zip").read_bytes())
    return path


# -- the safetensors header --------------------------------------------------------------------------------------------


def _length(length: int) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        path = sound_file(at)
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
        return path

    return make


BAD += [
    Bad("header: length 0", _length(0), errors.SchemaError, "claims 0 bytes"),
    Bad("header: longer than the file", _length(1_000_000), errors.Truncated, "the header claims"),
    Bad("header: longer than the cap", _length(100_000_001), errors.LimitExceeded, "safetensors allows"),
    Bad("header: length 2**63", _length(2**63), errors.LimitExceeded, "safetensors allows"),
    Bad("header: no object", _shard(lambda p: put_header(p, b'["a"]   ')), errors.BadMagic, "no trace file"),
    Bad("header: not UTF-8", _shard(lambda p: put_header(p, b'{"\xff": 1}')), errors.SchemaError, "not UTF-8"),
    Bad("header: name twice", _shard(lambda p: put_header(p, b'{"a": 1, "a": 2}')), errors.SchemaError, "stands twice"),
]


def entry(change: Callable[[Json, list[str]], Any]) -> Callable[[Json], Any]:
    """A change of the header, given the names of its arrays."""
    return lambda header: change(header, [name for name in header if name != "__metadata__"])


def moved(array: int, begin: int, end: int) -> Callable[[Json], Any]:
    """The offsets of one array moved."""

    def change(header: Json, names: list[str]) -> None:
        offsets = header[names[array]]["data_offsets"]
        header[names[array]]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]

    return entry(change)


def swapped(header: Json, names: list[str]) -> None:
    a, b = header[names[1]], header[names[2]]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]


header("overlapping arrays", errors.SchemaError, "by the manifest", moved(1, -8, -8))
header("a hole", errors.SchemaError, "by the manifest", moved(2, 8, 8))
header("arrays out of order", errors.SchemaError, "by the manifest", entry(swapped))
header("a negative offset", errors.SchemaError, "by the manifest", moved(0, -8, 0))
header("an offset beyond the file", errors.SchemaError, "by the manifest", moved(-1, 0, 10**6))
header("another dtype", errors.SchemaError, "by the manifest", entry(lambda h, n: h[n[0]].update(dtype="I64")))
header("big-endian", errors.SchemaError, "by the manifest", entry(lambda h, n: h[n[0]].update(dtype=">F8")))
header("another shape", errors.SchemaError, "by the manifest", entry(lambda h, n: h[n[0]].update(shape=[2, 2, 1])))
header("a field more", errors.SchemaError, "by the manifest", entry(lambda h, n: h[n[0]].update(code="print")))
header("an array left out", errors.SchemaError, "not here", entry(lambda h, n: h.pop(n[0])))
header("an array more", errors.SchemaError, "not in the manifest", entry(lambda h, n: h.update({"../a\0": h[n[0]]})))
header("metadata of no texts", errors.SchemaError, "no table of texts", lambda h: h.update(__metadata__={"a": 1}))
