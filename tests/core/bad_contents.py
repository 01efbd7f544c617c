"""Bad contents: JSON that is not strict, unknown versions and fields, and lists of arrays that do not hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core.bad_case import SHARD, bad, manifest, records, text
from tests.core.trace_files import Json, change_header, change_manifest, change_records, sound_folder
from torchlens_core import errors

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


def first(change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """A change of the first array of the manifest."""
    return lambda manifest: change(manifest["arrays"][0])


def of_input(change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    """A change of the manifest's entry for the first input."""
    return lambda manifest: change(next(a for a in manifest["arrays"] if a["name"] == "input_1:1"))


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
    "2 arrays have the role, value and backward pass",
    lambda m: m["arrays"][1].update(value=m["arrays"][0]["value"]),
)
manifest("a name of its own", errors.SchemaError, "not here", first(lambda a: a.update(name="../secret")))
manifest("an unknown role", errors.SchemaError, "Invalid enum value 'guess'", first(lambda a: a.update(role="guess")))
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


@bad("arrays: a shape unlike the value's", errors.GraphError, "rule A3")
def _(at: Path) -> Path:
    folder = sound_folder(at)
    change_header(folder / SHARD, lambda header: header["input_1:1"].update(shape=[4, 2]))
    return change_manifest(folder, of_input(lambda array: array.update(shape=[4, 2])))


@bad("arrays: a dtype unlike the value's", errors.GraphError, "rule A3")
def _(at: Path) -> Path:
    folder = sound_folder(at)
    change_header(folder / SHARD, lambda header: header["input_1:1"].update(dtype="I64"))
    return change_manifest(folder, of_input(lambda array: array.update(dtype="int64", storage="I64")))


@bad("arrays: a number that is an array too", errors.GraphError, "rule A4")
def _(at: Path) -> Path:
    return change_records(sound_folder(at), lambda r: r.update(numbers=[{"value": r["ops"][2]["value"], "number": 1}]))


manifest(
    "a guess of how true an array is",
    errors.SchemaError,
    "Invalid enum value",
    first(lambda a: a.update(fidelity="guessed")),
)
