"""Trace files that must be refused: what is done to a sound one, which error it is, and what the error says.

Each ``make`` gets an empty folder and returns the path to load.
"""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.core.trace_files import (
    Json,
    change_header,
    change_manifest,
    change_records,
    flip,
    fresh_folder,
    put_header,
    put_records,
    sound_file,
    sound_folder,
)
from torchlens_core import errors

SHARD = "tensors-00000.safetensors"
SECOND = "tensors-00001.safetensors"
LAST = "tensors-00002.safetensors"


class Bad(NamedTuple):
    """One kind of bad trace file."""

    name: str
    make: Callable[[Path], Path]
    error: type[errors.TraceFileError]
    says: str


BAD: list[Bad] = []


def bad(name: str, error: type[errors.TraceFileError], says: str) -> Callable[[Callable[[Path], Path]], Any]:
    """Register a function that makes a bad file."""

    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        BAD.append(Bad(name, make, error, says))
        return make

    return register


def manifest(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    BAD.append(Bad(f"manifest: {name}", lambda at: change_manifest(sound_folder(at), change), error, says))


def records(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    BAD.append(Bad(f"records: {name}", lambda at: change_records(sound_folder(at), change), error, says))


def text(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[bytes], bytes]) -> None:
    """The text of the records changed, with its hash."""

    def make(at: Path) -> Path:
        folder = sound_folder(at)
        return put_records(folder, change((folder / "records.json").read_bytes()))

    BAD.append(Bad(f"JSON: {name}", make, error, says))


def header(name: str, error: type[errors.TraceFileError], says: str, change: Callable[[Json], Any]) -> None:
    """The header of the first file with arrays changed."""

    def make(at: Path) -> Path:
        folder = sound_folder(at)
        change_header(folder / SHARD, change)
        return folder

    BAD.append(Bad(f"header: {name}", make, error, says))


def contents(name: str, error: type[errors.TraceFileError], says: str, data: bytes) -> None:
    """A file with these contents."""

    def make(at: Path) -> Path:
        path = at / "file.safetensors"
        path.write_bytes(data)
        return path

    BAD.append(Bad(f"file: {name}", make, error, says))


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
        path.rename(path.parent.parent / "elsewhere")
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
    Bad("shard: one too many", lambda at: _copied(at, "tensors-00003.safetensors"), errors.SchemaError, "not in the manifest"),
    Bad("shard: renamed", lambda at: _copied(at, "arrays.safetensors"), errors.UnsafePath, "no part of a trace"),
    Bad("shard: in other case", lambda at: _copied(at, "Tensors-00000.safetensors"), errors.UnsafePath, "no part of a trace"),
    Bad("folder: no records", lambda at: _without(at, "records.json"), errors.Truncated, "records.json is missing"),
    Bad("shard: shorter", _shard(_shorten), errors.Truncated, "are there"),
    Bad("shard: longer", _shard(_extend), errors.SchemaError, "8 bytes follow the last array"),
    Bad("shard: one bit", _shard(lambda path: flip(path, -3)), errors.ChecksumMismatch, "the hash"),
    Bad("shard: symbolic link", _shard(_replace(lambda p: p.symlink_to("../elsewhere"))), errors.UnsafePath, "symbolic link"),
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


# -- JSON --------------------------------------------------------------------------------------------------------------


def put(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """One piece of text replaced, the first time that it stands there."""

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


MODEL = b'"model":"Everything"'
START = b'"facts":{"started_at":'

text("not UTF-8", errors.SchemaError, "not UTF-8", put(b"Everything", b"Every\xffthing"))
text("UTF-16", errors.SchemaError, "not UTF-8", lambda data: b"{" + data.decode().encode("utf-16"))
text("byte order mark", errors.BadMagic, "no part of a trace", lambda data: b"\xef\xbb\xbf" + data)
text("half a character", errors.SchemaError, "half a character", put(b"Everything", b"Every\\ud800thing"))
text("key twice", errors.SchemaError, "stands twice", put(MODEL, MODEL + b"," + MODEL))
text("NaN", errors.SchemaError, "the number NaN", put(START, b'"facts":{"x":NaN,"started_at":'))
text("Infinity", errors.SchemaError, "the number -Infinity", put(START, b'"facts":{"x":-Infinity,"started_at":'))
text("1e400", errors.SchemaError, "the number 1e400", put(START, b'"facts":{"x":1e400,"started_at":'))
text("-0", errors.SchemaError, "the number -0", put(START, b'"facts":{"x":-0,"started_at":'))
text(
    "integer of 64 bits and more",
    errors.SchemaError,
    "64-bit",
    put(START, b'"facts":{"x":9223372036854775808,"started_at":'),
)
text("a float for an integer", errors.SchemaError, "Expected `int`", put(b'"layer":0', b'"layer":0.5'))
text("true for 1", errors.SchemaError, "Expected `int`", put(b'"pass":1', b'"pass":true'))
text(
    "depth 200,000",
    errors.LimitExceeded,
    "nested 200002 deep",
    put(START, b'"facts":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"started_at":'),
)
text("text of 100 MB", errors.LimitExceeded, "a string of 100000000 bytes", put(b"Everything", b"x" * 100_000_000))
text("more behind it", errors.SchemaError, "Extra data", lambda data: data + b"{}")
text("cut off", errors.Truncated, "not JSON", lambda data: data[:-100])
text("a comma too many", errors.SchemaError, "not JSON", lambda data: data[:-1] + b",}")
text("an array instead", errors.BadMagic, "no part of a trace", lambda data: b"[" + data + b"]")

# -- versions, features, fields ----------------------------------------------------------------------------------------

manifest("another format", errors.BadMagic, "no manifest of a trace", lambda m: m.update(format="other"))
manifest("newer", errors.VersionTooNew, "has version 2", lambda m: m.update(version=2))
manifest("version 0", errors.SchemaError, "a number from 1", lambda m: m.update(version=0))
manifest("version as text", errors.SchemaError, "a number from 1", lambda m: m.update(version="1"))
manifest("version 1.5", errors.SchemaError, "a number from 1", lambda m: m.update(version=1.5))
manifest("version true", errors.SchemaError, "a number from 1", lambda m: m.update(version=True))
manifest("no version", errors.SchemaError, "a number from 1", lambda m: m.pop("version"))
manifest("a feature", errors.FeatureUnknown, "'time travel'", lambda m: m.update(requires=["time travel"]))
manifest("an unknown field", errors.SchemaError, "unknown field `colour`", lambda m: m.update(colour="red"))
manifest("__class__", errors.SchemaError, "unknown field `__class__`", lambda m: m.update(__class__="os"))
manifest("constructor", errors.SchemaError, "unknown field `constructor`", lambda m: m["counts"].update(constructor=1))
manifest("a missing field", errors.SchemaError, "missing required field `shards`", lambda m: m.pop("shards"))
manifest("an id that is none", errors.SchemaError, "matching regex", lambda m: m.update(id="../../etc"))
manifest("a hash that is none", errors.SchemaError, "matching regex", lambda m: m["arrays"][0].update(sha256="0"))
manifest(
    "another hash of the records", errors.ChecksumMismatch, "not those", lambda m: m["records"].update(sha256="0" * 64)
)
manifest("records longer", errors.Truncated, "the manifest says", lambda m: m["records"].update(bytes=10**6))
manifest("records shorter", errors.ChecksumMismatch, "not those", lambda m: m["records"].update(bytes=10))
records("an unknown field", errors.SchemaError, "unknown field `colour`", lambda r: r["ops"][0].update(colour="red"))
records("__proto__", errors.SchemaError, "unknown field `__proto__`", lambda r: r["ops"][0].update(__proto__={}))
records(
    "__proto__ as an argument",
    errors.GraphError,
    "'__proto__' stands there",
    lambda r: (
        r["calls"][0]["kwargs"].update(__proto__=1)
        if "kwargs" in r["calls"][0]
        else r["calls"][0].update(kwargs={"__proto__": 1})
    ),
)
records("a missing field", errors.SchemaError, "missing required field `label`", lambda r: r["ops"][0].pop("label"))
records("a wrong kind", errors.SchemaError, "Invalid enum value 'magic'", lambda r: r["ops"][0].update(kind="magic"))
records(
    "a wrong tag",
    errors.SchemaError,
    "no value is tagged '$eval'",
    lambda r: r["calls"][0].update(settings={"x": {"$eval": "1"}}),
)
records(
    "two tags",
    errors.SchemaError,
    "one key, its tag",
    lambda r: r["calls"][0].update(settings={"x": {"$a": 0, "b": 1}}),
)
records(
    "arrays out of order",
    errors.SchemaError,
    "arrays are numbered",
    lambda r: r["calls"][0]["args"].__setitem__(0, {"$a": 1}),
)
records(
    "an argument that is no array",
    errors.SchemaError,
    "arrays went in",
    lambda r: r["calls"][0]["args"].__setitem__(0, 1),
)
records("of another trace", errors.SchemaError, "of another trace", lambda r: r.update(id="0" * 32))
records(
    "not replayable after all",
    errors.GraphError,
    "replayable is False",
    lambda r: r["calls"][0].update(replayable=False),
)

# -- arrays ------------------------------------------------------------------------------------------------------------

first = lambda change: lambda m: change(m["arrays"][0])

manifest("an unknown dtype", errors.SchemaError, "no element type", first(lambda a: a.update(dtype="float31")))
manifest("a wrong storage", errors.SchemaError, "is stored as F64", first(lambda a: a.update(storage="F32")))
manifest("a shape of other size", errors.SchemaError, "takes 40 bytes, not", first(lambda a: a.update(shape=[5])))
manifest("a negative dimension", errors.SchemaError, "Expected `int` >= 0", first(lambda a: a.update(shape=[-4])))
manifest("a product beyond 64 bits", errors.SchemaError, "bytes, not", first(lambda a: a.update(shape=[2**62, 2**62])))
manifest("65 dimensions", errors.LimitExceeded, "65 dimensions", first(lambda a: a.update(shape=[1] * 65)))
manifest("nothing, very wide", errors.SchemaError, "0 bytes, not", first(lambda a: a.update(shape=[0, 2**62])))
manifest(
    "int4 of other size",
    errors.SchemaError,
    "int4 takes 2 bytes",
    first(lambda a: a.update(dtype="int4", storage="U8", shape=[3])),
)
manifest(
    "complex128 without pairs", errors.SchemaError, "takes 64 bytes", first(lambda a: a.update(dtype="complex128"))
)
manifest(
    "a name twice",
    errors.SchemaError,
    "2 arrays have the name",
    lambda m: m["arrays"][1].update(name=m["arrays"][0]["name"]),
)
manifest(
    "a value twice",
    errors.SchemaError,
    "2 arrays have the role and value",
    lambda m: m["arrays"][1].update(value=m["arrays"][0]["value"]),
)
manifest("a name of its own", errors.SchemaError, "not here", first(lambda a: a.update(name="../secret")))
manifest(
    "an unknown role", errors.SchemaError, "Invalid enum value 'gradient'", first(lambda a: a.update(role="gradient"))
)
manifest("a file that there is not", errors.SchemaError, "it is in file 7", first(lambda a: a.update(shard=7)))
manifest("other counts of a file", errors.SchemaError, "and the list", lambda m: m["shards"][0].update(arrays=1))
manifest("too many files", errors.Truncated, "is missing", lambda m: m["shards"].append({"arrays": 0, "bytes": 0}))


@bad("arrays: all together too large", errors.LimitExceeded, "max_total_bytes")
def _(at: Path) -> Path:
    def change(manifest: Json) -> None:
        for array in manifest["arrays"]:
            if array["dtype"] == "float64":
                array.update(shape=[2**39], bytes=2**42)

    return change_manifest(sound_folder(at), change)


@bad("arrays: one that no op has", errors.TraceFileError, "there is no value 999")
def _(at: Path) -> Path:
    return change_manifest(sound_folder(at), first(lambda a: a.update(value=999)))


# -- graph -------------------------------------------------------------------------------------------------------------


def at_op(kind: str, change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """A change of the first op of a kind."""
    return lambda records: change(next(op for op in records["ops"] if op["kind"] == kind))


def at_source(kind: str, change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    return lambda records: change(next(source for source in records["sources"] if source["kind"] == kind))


O3 = "follows from the calls"

records(
    "parent that there is not", errors.GraphError, O3, at_op("call", lambda op: op.update(parents=["nobody_1_1:1"]))
)
records("parents left out", errors.GraphError, O3, at_op("output", lambda op: op.pop("parents")))
records("an input with parents", errors.GraphError, O3, at_op("input", lambda op: op.update(parents=["sum_1_18:1"])))
records("a label twice", errors.GraphError, O3, lambda r: r["ops"][4].update(label=r["ops"][3]["label"]))
records("a label that says nothing", errors.GraphError, O3, at_op("call", lambda op: op.update(label="not a label")))
records("a pass left out", errors.GraphError, O3, at_op("call", lambda op: op.update(**{"pass": 2})))
records("another shape", errors.GraphError, O3, at_op("call", lambda op: op.update(shape=[9])))
records("another module", errors.GraphError, O3, at_op("call", lambda op: op.update(module="cell:1")))
records("an op less", errors.GraphError, "follow from the calls", lambda r: r["ops"].pop())
records("a layer left out", errors.GraphError, "rule O1", lambda r: r["ops"][3].update(layer=9))
records(
    "two operations in a layer", errors.GraphError, "rule O1", lambda r: r["ops"][5].update(layer=r["ops"][4]["layer"])
)
records("an unknown value", errors.GraphError, "rule C2", lambda r: r["calls"][3].update(ins=[999]))
records("an unknown function", errors.GraphError, "rule C3", lambda r: r["calls"][3].update(func=999))
records("an unknown site", errors.GraphError, "rule C3", lambda r: r["calls"][3].update(site=999))
records("outs of no values", errors.GraphError, "rule C1", lambda r: r["calls"][3].update(outs=["x"]))
records("outs that are true", errors.GraphError, "rule C1", lambda r: r["calls"][3].update(outs=True))
records(
    "FLOPs without MACs",
    errors.GraphError,
    "rule C5",
    lambda r: r["calls"][3].update(flops=1) or r["calls"][3].pop("macs", None),
)
records("a value made twice", errors.GraphError, "rule V1", lambda r: r["calls"][3].update(outs=r["calls"][2]["outs"]))
records("a circle of calls", errors.GraphError, "rule V2", lambda r: r["calls"][0].update(ins=[r["calls"][5]["outs"]]))
records("a call after itself", errors.GraphError, "rule V3", lambda r: r["calls"][4].update(deps=[[0, 4]]))
records(
    "an output that nothing made",
    errors.GraphError,
    "rule V4",
    lambda r: (r["values"].append(dict(r["values"][0])), r["outputs"][0].update(value=len(r["values"]) - 1)),
)
records("two models", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(parent=-1))
records("modules in a circle", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(parent=2))
records("calls of a module misnumbered", errors.GraphError, "rule S1", lambda r: r["scopes"][1].update(call_index=3))
records("no call of the model", errors.GraphError, "rule C3", lambda r: r.update(scopes=[]))
records("a call of no module", errors.GraphError, "rule S2", lambda r: r["scopes"][1].update(address="nowhere"))
records("a module twice", errors.GraphError, "rule S2", lambda r: r["modules"].append(r["modules"][1]))
records("no model among the modules", errors.GraphError, "rule S2", lambda r: r["modules"].pop(0))
records(
    "a parameter twice", errors.GraphError, "rule S3", at_source("param", lambda s: s.update(aliases=[s["address"]]))
)
records(
    "a version of a buffer left out", errors.GraphError, "rule S3", at_source("buffer", lambda s: s.update(version=4))
)
records("halted nowhere", errors.GraphError, "rule O2", lambda r: r["facts"].update(halted=10**6))
records(
    "a conditional around itself",
    errors.GraphError,
    "rule X1",
    lambda r: r["control_flow"]["conditionals"][0].update(parent=0),
)
records(
    "a conditional of no event",
    errors.GraphError,
    "rule X1",
    lambda r: r["control_flow"]["conditionals"][0]["executions"][0]["predicates"][0].update(event=9),
)
manifest("other counts", errors.GraphError, "rule M2", lambda m: m["counts"].update(ops=1))
manifest("another model", errors.GraphError, "rule M1", lambda m: m.update(model="Other"))


@bad("arrays: a shape unlike the value's", errors.GraphError, "rule A3")
def _(at: Path) -> Path:
    folder = sound_folder(at)
    change_header(folder / SHARD, lambda header: header["input_1:1"].update(shape=[4, 2]))
    named = lambda manifest: next(a for a in manifest["arrays"] if a["name"] == "input_1:1")
    return change_manifest(folder, lambda manifest: named(manifest).update(shape=[4, 2]))


@bad("arrays: a dtype unlike the value's", errors.GraphError, "rule A3")
def _(at: Path) -> Path:
    folder = sound_folder(at)
    change_header(folder / SHARD, lambda header: header["input_1:1"].update(dtype="I64"))
    named = lambda manifest: next(a for a in manifest["arrays"] if a["name"] == "input_1:1")
    return change_manifest(folder, lambda manifest: named(manifest).update(dtype="int64", storage="I64"))


@bad("arrays: a number that is an array too", errors.GraphError, "rule A4")
def _(at: Path) -> Path:
    return change_records(sound_folder(at), lambda r: r.update(numbers=[{"value": r["ops"][2]["value"], "number": 1}]))


manifest(
    "a guess of how true an array is",
    errors.SchemaError,
    "Invalid enum value",
    first(lambda a: a.update(fidelity="guessed")),
)

# -- names -------------------------------------------------------------------------------------------------------------

PATHS = {
    "absolute": "/etc/passwd", "with ..": "../../secret.py", "with a drive": "C:/secret.py", "UNC": "//host/share/a.py",
    "with a backslash": "a\\b.py", "with NUL": "a\0.py", "turning the text": "a\u202eyp.exe", "a device": "src/CON.py",
    "with an empty part": "a//b.py", "empty": "",
}  # fmt: skip
for what, path in PATHS.items():
    records(f"file name {what}", errors.GraphError, "rule N2", lambda r, path=path: r["files"][0].update(name=path))
records("a model's name with a line break", errors.GraphError, "rule N1", lambda r: r.update(model="a\nb"))
records(
    "an operation's name that turns the text",
    errors.GraphError,
    "rule N1",
    lambda r: r["funcs"][0].update(name="\u202eadd"),
)
