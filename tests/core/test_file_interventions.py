"""What trace files keep of interventions: what was changed, in words, and clean values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.same_trace import differences
from tests.core.trace_files import Json, change_manifest, change_records, changed_trace, read_json, some_trace
from torchlens_core import errors
from torchlens_core.file import load, save, verify


def changed_folder(at: Path) -> Path:
    return save(changed_trace(), at / "changed")


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_it_comes_back_as_it_was(suffix: str, tmp_path: Path) -> None:
    live = changed_trace()
    loaded = load(save(live, tmp_path / f"changed{suffix}"))
    assert differences(live, loaded) == []
    assert [op.interventions for op in loaded] == [op.interventions for op in live]
    ops = [op for op in live if op.is_changed]
    assert len(ops) > 3
    for op in ops:
        np.testing.assert_array_equal(loaded[op.label].clean_out, op.clean_out.data)
    assert str(loaded["linear_2"]).count("Value changed as the model ran: when(module('mid'), zero_ablate()") == 1
    with pytest.raises(errors.ValueNotSaved, match="no intervention changed it"):
        _ = loaded["sort_1"].clean_out


def test_a_loaded_trace_is_saved_again(tmp_path: Path) -> None:
    first = load(changed_folder(tmp_path))
    second = load(save(first, tmp_path / "again"))
    assert differences(first, second) == []
    assert [op.interventions for op in second] == [op.interventions for op in first]
    assert all(np.array_equal(second[op.label].clean_out, op.clean_out) for op in first if op.is_changed)
    assert verify(tmp_path / "again") == []


def test_without_values_what_was_changed_is_kept_in_words(tmp_path: Path) -> None:
    loaded = load(save(changed_trace(), tmp_path / "bare", include_values=False))
    assert loaded["linear_2"].is_changed
    with pytest.raises(errors.ValueNotSaved):
        _ = loaded["linear_2"].clean_out


def test_only_files_with_changes_require_that_readers_know_of_them(tmp_path: Path, monkeypatch: Any) -> None:
    plain = save(some_trace(), tmp_path / "plain")
    changed = changed_folder(tmp_path)
    assert "requires" not in read_json(plain / "manifest.json")
    assert read_json(changed / "manifest.json")["requires"] == ["interventions"]
    monkeypatch.setattr("torchlens_core.file.manifest.FEATURES", frozenset())
    load(plain)
    with pytest.raises(errors.FeatureUnknown, match=r"'interventions'.*Update TorchLens"):
        load(changed)


BAD: dict[str, tuple[Callable[[Json], Any], str]] = {
    "a value that there is not": (lambda r: r["changes"][0].update(old=9999), "rule C2"),
    "a new value that there is not": (lambda r: r["changes"][-1].update(new=9999), "rule C2"),
    "a call that there is not": (lambda r: r["changes"][0].update(call=9999), "rule C3"),
    "before it was made": (lambda r: r["changes"][0].update(call=0), "rule V5"),
    "out of order": (lambda r: r["changes"].reverse(), "rule V5"),
    "by nothing": (lambda r: r["changes"][0].update(what=[]), "rule V5"),
    "a gradient by another array": (lambda r: _moved(r).update(of="gradient"), "rule V5"),
    "a value made twice": (lambda r: r["changes"].append(dict(_moved(r), call=len(r["calls"]))), "rule V1"),
    "of something else": (lambda r: r["changes"][0].update(of="weights"), "Invalid enum value"),
    "a field too many": (lambda r: r["changes"][0].update(seed=3), "unknown field"),
}


def _moved(records: Json) -> Json:
    found: Json = next(change for change in records["changes"] if change["new"] != change["old"])
    return found


@pytest.mark.parametrize("name", BAD)
def test_changes_that_contradict_the_run_are_refused(name: str, tmp_path: Path) -> None:
    damage, message = BAD[name]
    path = changed_folder(tmp_path)
    change_records(path, damage)
    with pytest.raises(errors.TraceFileError) as raised:
        load(path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.update(requires=[]), "rule M3"),
        (lambda m: m.update(requires=["interventions", "interventions"]), "rule M3"),
        (lambda m: _clean(m).update(value=0, name="clean.0"), "rule A5"),
        (lambda m: _clean(m).update(name="mine"), "rule A2"),
        (lambda m: _clean(m).update(role="dirty"), "Invalid enum value"),
    ],
)
def test_clean_values_are_those_of_changes(damage: Callable[[Json], Any], message: str, tmp_path: Path) -> None:
    path = changed_folder(tmp_path)
    change_manifest(path, damage)
    found = [str(error) for error in verify(path)]
    assert any(message in error for error in found), found


def _clean(manifest: Json) -> Json:
    found: Json = next(array for array in manifest["arrays"] if array["role"] == "clean")
    return found
