"""The numbered requirements of ``docs/format.md``, each with a test of its number."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.bad_trace_files import BAD
from tests.core.same_trace import differences
from tests.core.trace_files import (
    Json,
    change_manifest,
    change_records,
    changed_trace,
    differentiated_trace,
    read_json,
    some_trace,
    sound_file,
    sound_folder,
)
from torchlens_core import errors
from torchlens_core.file import inspect, load, save, schema, verify
from torchlens_core.file.arguments import _TAGS
from torchlens_core.file.rules import RULES
from torchlens_core.file.storage import STORAGE

FORMAT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def refused(error: type[errors.TraceFileError], *names: str) -> None:
    """The table of bad files has these cases, which ``test_file_refusals`` runs, with this error."""
    cases = {case.name: case for case in BAD}
    for name in names:
        assert issubclass(cases[name].error, error), name


def test_every_requirement_has_its_test() -> None:
    numbers = sorted(map(int, re.findall(r"^- \*\*M(\d+)\*\*", FORMAT, re.MULTILINE)))
    assert numbers == list(range(1, len(numbers) + 1))
    tests = [int(found[1]) for name in globals() if (found := re.match(r"test_m(\d\d)_", name))]
    assert sorted(set(tests)) == numbers


def test_every_rule_is_in_the_document() -> None:
    named = set(re.findall(r"\b[A-Z]\d\b", FORMAT))
    for first, last in re.findall(r"\b([A-Z]\d)–([A-Z]\d)\b", FORMAT):
        named |= {f"{first[0]}{number}" for number in range(int(first[1]), int(last[1]) + 1)}
    assert {rule.id for rule in RULES} <= named


@pytest.mark.parametrize("record", [schema.Manifest, schema.ArrayRecord, schema.Records])
def test_every_field_is_in_the_document(record: Any) -> None:
    for name in set(record.__struct_fields__) - {"model", "backend", "keep_orphans"}:
        assert f"`{name}`" in FORMAT, name


def test_m01_parts_have_their_names_and_there_is_nothing_else(tmp_path: Path) -> None:
    assert sorted(os.listdir(sound_folder(tmp_path))) == [
        "manifest.json", "records.json", *(f"tensors-{number:05d}.safetensors" for number in range(3)),
    ]  # fmt: skip
    header = sound_file(tmp_path).read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])["__metadata__"]) == {"torchlens.manifest", "torchlens.records"}
    refused(errors.UnsafePath, "shard: renamed", "shard: in other case")
    (tmp_path / "sound.tlspec" / ".DS_Store").write_bytes(b"")
    assert verify(tmp_path / "sound") == []


def test_m02_the_manifest_names_no_file(tmp_path: Path) -> None:
    assert ".safetensors" not in (sound_folder(tmp_path) / "manifest.json").read_text()
    refused(errors.TraceFileError, "shard: one too many", "shard: missing", "shard: missing in the middle")


def test_m03_only_plain_files_are_read() -> None:
    kinds = ("symbolic link", "hard link", "pipe", "socket", "device", "folder")
    refused(errors.UnsafePath, *(f"shard: {kind}" for kind in kinds), "folder: symbolic link", "file: symbolic link")


def test_m03_what_was_checked_is_what_is_read(tmp_path: Path) -> None:
    loaded = load(sound_folder(tmp_path))
    for shard in (tmp_path / "sound.tlspec").glob("*.safetensors"):
        other = shard.with_suffix(".other")
        other.write_bytes(bytes(shard.stat().st_size))
        other.rename(shard)
    assert loaded["relu_1"].out.any()


def test_m04_a_file_is_written_whole_and_then_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    write, rename = [], os.replace

    def at_open(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(tmp_path) in str(args[0]) and "x" in str(args[1]):
            opened.append(os.path.relpath(args[0], tmp_path))

    def at_rename(old: Path, new: Path) -> None:
        write.append((sorted(os.listdir(old)), new.name))
        rename(old, new)

    sys.addaudithook(at_open)
    monkeypatch.setattr(os, "replace", at_rename)
    save(some_trace(), tmp_path / "trace")
    assert [Path(name).name for name in opened] == ["tensors-00000.safetensors", "records.json", "manifest.json"]
    assert all(name.startswith(".trace.tlspec.") for name in opened)
    assert write == [(["manifest.json", "records.json", "tensors-00000.safetensors"], "trace.tlspec")]


def test_m05_parts_of_different_traces_are_refused() -> None:
    refused(errors.SchemaError, "shard: of another trace", "records: of another trace", "manifest: an id that is none")
    refused(errors.TraceFileError, "manifest: of another trace")


def test_m06_a_file_ends_with_its_last_array() -> None:
    refused(errors.Truncated, "shard: shorter")
    refused(errors.SchemaError, "shard: longer", "file: trailing bytes", "file: a zip archive behind it")


def test_m07_json_is_strict() -> None:
    refused(errors.SchemaError, *(f"JSON: {what}" for what in (
        "not UTF-8", "UTF-16", "half a character", "key twice", "NaN", "Infinity", "1e400", "-0",
        "integer of 64 bits and more", "more behind it", "a comma too many",
    )), "header: name twice", "header: not UTF-8")  # fmt: skip
    refused(errors.TraceFileError, "JSON: byte order mark", "JSON: cut off")


def test_m08_sizes_are_limited() -> None:
    refused(errors.LimitExceeded, "JSON: depth 200,000", "JSON: text of 100 MB", "header: length 2**63",
            "manifest: 65 dimensions", "arrays: all together too large")  # fmt: skip


def test_m09_fields_are_known_or_marked(tmp_path: Path) -> None:
    refused(errors.SchemaError, "manifest: an unknown field", "records: an unknown field", "manifest: a missing field",
            "records: a missing field", "JSON: a float for an integer", "JSON: true for 1")  # fmt: skip
    live = load(sound_folder(tmp_path))
    marked = {"must_understand": False, "colour": "red"}
    change_records(tmp_path / "sound.tlspec", lambda records: records["ops"][0].update(colour=marked))
    change_manifest(tmp_path / "sound.tlspec", lambda manifest: manifest.update(mood=marked))
    assert verify(tmp_path / "sound") == []
    assert differences(live, load(tmp_path / "sound")) == []


def test_m09_only_fields_that_are_not_needed_may_be_marked(tmp_path: Path) -> None:
    path = change_records(sound_folder(tmp_path), lambda records: records.update(ops={"must_understand": False}))
    with pytest.raises(errors.SchemaError, match="missing required field `ops`"):
        load(path)


def test_m10_versions_and_features() -> None:
    refused(errors.VersionTooNew, "manifest: newer")
    refused(errors.FeatureUnknown, "manifest: a feature")
    refused(
        errors.SchemaError,
        *(f"manifest: {what}" for what in ("version 0", "version as text", "version 1.5", "version true")),
    )
    assert {"gradients", "interventions"} == schema.FEATURES
    assert "`interventions`" in FORMAT and "`gradients`" in FORMAT


def test_m11_headers_follow_from_the_manifest() -> None:
    refused(errors.SchemaError, *(f"header: {what}" for what in (
        "overlapping arrays", "a hole", "arrays out of order", "a negative offset", "an offset beyond the file",
        "another dtype", "big-endian", "another shape", "a field more", "an array left out", "an array more",
    )))  # fmt: skip


def test_m12_hashes_are_checked_before_use(tmp_path: Path) -> None:
    refused(errors.ChecksumMismatch, "shard: one bit", "manifest: another hash of the records")
    path = sound_folder(tmp_path)
    shard = path / "tensors-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    loaded = load(path)
    damaged = [array.name for array in inspect(path).arrays if array.shard == 0][-1]
    with pytest.raises(errors.ChecksumMismatch, match=damaged):
        _ = loaded[damaged].out
    assert loaded["relu_2"].ops[0].out is not None, "the others are as they were"


def test_m13_elements_are_stored_as_the_table_says() -> None:
    table = FORMAT[FORMAT.index("| logical | stored |") : FORMAT.index("Where several elements share a byte")]
    for name, storage in STORAGE.items():
        assert f"`{storage.code}`" in table, name
        assert f"`{name}`" in table, name


def test_m14_arrays_are_called_by_their_labels(tmp_path: Path) -> None:
    live = some_trace()
    arrays = inspect(save(live, tmp_path / "trace")).arrays
    named = {array.name: array.value for array in arrays if array.role == "value"}
    for op in live:
        if not op.is_output:
            assert named[op.label] == live.graph.vids[op.raw_index]
    assert {array.name for array in arrays if array.role == "constant"} == {
        f"constant.{v}" for v in live.program.constants
    }
    refused(errors.SchemaError, "manifest: a name twice", "manifest: a value twice", "manifest: a name of its own")


def test_m15_arrays_are_what_the_records_say() -> None:
    refused(errors.GraphError, "arrays: a shape unlike the value's", "arrays: a dtype unlike the value's")


def breaks(rule: str, *names: str) -> None:
    """The table of bad files has these cases, and the rule that they break is this one."""
    cases = {case.name: case for case in BAD}
    for name in names:
        assert (cases[name].error, cases[name].says) == (errors.GraphError, f"rule {rule}"), name


def test_m16_references_lead_somewhere() -> None:
    breaks("C1", "records: outs of no values", "records: outs that are true")
    breaks("C2", "records: an unknown value")
    breaks("C3", "records: an unknown function", "records: an unknown site", "records: no call of the model")


def test_m17_values_are_made_once_and_before_use() -> None:
    breaks("V1", "records: a value made twice")
    breaks("V2", "records: a circle of calls")
    breaks("V3", "records: a call after itself")
    breaks("V4", "records: an output that nothing made")


def test_m18_scopes_are_a_tree() -> None:
    breaks("S1", "records: two models", "records: modules in a circle", "records: calls of a module misnumbered")
    breaks("S2", "records: a call of no module", "records: a module twice", "records: no model among the modules")


def test_m19_state_has_addresses_of_its_own() -> None:
    breaks("S3", "records: a parameter twice", "records: a version of a buffer left out")


def test_m20_names_are_safe() -> None:
    breaks("N1", "records: a model's name with a line break", "records: an operation's name that turns the text")
    breaks("N2", *(case.name for case in BAD if case.name.startswith("records: file name")))
    refused(errors.GraphError, "records: __proto__ as an argument")


def test_m21_ops_follow_from_calls(tmp_path: Path) -> None:
    breaks("O1", "records: a layer left out", "records: two operations in a layer")
    breaks("O2", "records: halted nowhere")
    for field in set(schema.OpRecord.__struct_encode_fields__) - {"layer", "kind"}:

        def change(records: Json, field: str = field) -> None:
            op = records["ops"][5]
            op[field] = {"str": "x", "int": 7, "list": [], "NoneType": 7, "bool": True}[type(op.get(field)).__name__]

        (tmp_path / field).mkdir()
        with pytest.raises(errors.TraceFileError, match=field):
            load(change_records(sound_folder(tmp_path / field), change))


def test_m22_the_manifest_agrees_with_the_records(tmp_path: Path) -> None:
    breaks("M1", "manifest: another model")
    for name in schema.Counts.__struct_fields__:
        (tmp_path / name).mkdir()
        path = sound_folder(tmp_path / name)
        change_manifest(path, lambda manifest, name=name: manifest["counts"].update({name: 10**6}))
        with pytest.raises(errors.GraphError, match=rf"rule M2.*|{name}"):
            load(path)


def test_m23_conditionals_name_what_there_is() -> None:
    breaks("X1", "records: a conditional around itself", "records: a conditional of no event")


def test_m24_what_is_replayable_is_said_truly(tmp_path: Path) -> None:
    refused(errors.GraphError, "records: not replayable after all")

    def change(records: Json) -> None:
        records["calls"][0]["args"].append({"$opaque": "a.B"})

    with pytest.raises(errors.GraphError, match="rule C6"):
        load(change_records(sound_folder(tmp_path), change))


WRONG = [
    {"$a": 5}, {"$a": "0"}, {"$list": 1},
    {"$dict": [[1]]}, {"$dict": [[1, 2], [1, 3]]}, {"$dict": [[{"$list": []}, 1]]},
    {"$slice": [1]}, {"$ellipsis": 1}, {"$float": "1.5"}, {"$float": 1.5},
    {"$int": "1e5"}, {"$int": "9" * 5000}, {"$int": 3}, {"$complex": [1]}, {"$complex": ["a", 1]},
    {"$numpy": ["object", 1]}, {"$numpy": ["int8", 300]}, {"$numpy": ["int8", "a"]},
    {"$dtype": 1}, {"$device": None}, {"$constant": ["a"]}, {"$opaque": 1},
    {"$text": 999}, {"$text": -1}, {"$unknown": 1}, {}, {"$a": 0, "$list": []},
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_m25_tags_have_their_contents(value: Any, tmp_path: Path) -> None:
    path = change_records(sound_folder(tmp_path), lambda records: records["facts"].update(x=value))
    with pytest.raises(errors.SchemaError, match=r"\$\.facts\.x"):
        load(path)
    assert {tag for case in WRONG for tag in case if tag != "$unknown"} == set(_TAGS)
    assert all(f'"{tag}"' in FORMAT for tag in _TAGS)


def test_m26_paths_are_looked_up_in_the_backend_s_list(tmp_path: Path) -> None:
    for path in ("os.system", "toy.__class__", "builtins.eval", "toy.nothing"):
        change_records(sound_folder(tmp_path), lambda records, path=path: records["funcs"][0].update(path=path))
        row = load(tmp_path / "sound", backend="toy").program.rows[0]
        with pytest.raises(errors.ReplayError, match="no function that toy offers"):
            row.func.func(1)
        assert load(tmp_path / "sound").program.rows[0].func.func is None
        for file in (tmp_path / "sound.tlspec").iterdir():
            file.unlink()
        (tmp_path / "sound.tlspec").rmdir()


def test_m27_source_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sound_folder(tmp_path)
    monkeypatch.chdir(Path(__file__).parents[2])  # where the names in the file lead to real files
    assert any(Path(file["name"]).exists() for file in read_json(path / "records.json")["files"])
    bare = change_records(path, lambda records: [file.update(lines=[]) for file in records["files"]])
    assert {location.call_line for op in load(bare) for location in op.code_context} == {""}


def test_m28_opening_reads_no_array(tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    for shard in path.glob("*.safetensors"):
        data = shard.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        shard.write_bytes(data[:start] + bytes(len(data) - start))
    assert load(path).num_ops == inspect(path).counts.calls == 26
    with pytest.raises(errors.ChecksumMismatch):
        load(path, verify="eager")


def test_m29_pickles_of_version_2_are_refused() -> None:
    refused(errors.BadMagic, "folder: of TorchLens 2", "folder: of TorchLens 2 without its pickle", "file: pickle")


@pytest.mark.parametrize("include_source", [True, False])
def test_m30_no_file_tells_where_it_was_written(include_source: bool, tmp_path: Path) -> None:
    records = read_json(save(some_trace(), tmp_path / "trace", include_source=include_source) / "records.json")
    names = [file["name"] for file in records.get("files", [])]
    assert bool(names) is include_source
    assert not any(Path(name).is_absolute() or Path.home().name in Path(name).parts for name in names)
    assert ("frames" in records, "sites" in records) == (include_source, include_source)


def test_m32_changes_are_of_what_was_there(tmp_path: Path) -> None:
    path = save(changed_trace(), tmp_path / "changed")
    assert read_json(path / "manifest.json")["requires"] == ["interventions"]
    load(path)
    change_records(path, lambda records: records["changes"][0].update(call=0))
    assert any("rule V5" in str(error) for error in verify(path))


def test_m33_gradients_are_of_passes_that_there_are(tmp_path: Path) -> None:
    path = save(differentiated_trace(), tmp_path / "run")
    assert read_json(path / "manifest.json")["requires"] == ["gradients"]
    loaded = load(path)
    np.testing.assert_array_equal(loaded["tanh_1"].grad, np.full((2, 3), 0.5))
    assert loaded.grad_fns.keys() == ["tanh_back_1_1", "linear_back_1_2"]
    other = save(differentiated_trace(), tmp_path / "other")
    change_records(path, lambda records: records["gradients"]["grad_fns"][0].update(next=[2]))
    assert any("rule G1" in str(error) for error in verify(path))
    gradient = next(n for n, a in enumerate(read_json(other / "manifest.json")["arrays"]) if a["role"] == "gradient")
    change_manifest(other, lambda manifest: manifest["arrays"][gradient].update(bwd=2))
    assert any("rule A6" in str(error) for error in verify(other))


def test_m31_what_is_written_is_sound(tmp_path: Path) -> None:
    live = some_trace()
    live.program.scopes[1].call_index = 5
    with pytest.raises(errors.SaveError, match="rule S1"):
        save(live, tmp_path / "trace")
    assert os.listdir(tmp_path) == []
    assert np.array_equal(load(save(some_trace(), tmp_path / "trace"))["relu_1"].out, some_trace()["relu_1"].numpy())
