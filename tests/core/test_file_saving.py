"""Writing trace files: names, replacing, interruptions, what is left out, and what other readers see."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from tests.core.random_traces import Kept
from tests.core.same_trace import differences
from tests.core.trace_files import read_json, some_trace, sound_folder
from torchlens_core.dtypes import numpy_dtype
from torchlens_core.errors import SaveError, SaveWarning, TraceFileMissing, Truncated
from torchlens_core.file import inspect, load, save, verify, write
from torchlens_core.file.source_text import relative_name
from torchlens_core.file.storage import STORAGE
from torchlens_core.file.text import path_problem
from torchlens_core.program import Meta
from torchlens_core.records.trace import Trace
from torchlens_core.testing import toy_framework as toy
from torchlens_core.testing.tape import Tape
from torchlens_core.tracing import trace

FORMS = ["trace", "trace.safetensors"]


def small(value: float = 1.0) -> Trace:
    return trace(toy.relu, toy.Array([value]))


# -- names and places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [("a", "a.tlspec"), ("a.tlspec", "a.tlspec"), ("a.safetensors", "a.safetensors"), ("v1.5", "v1.5.tlspec")],
)
def test_the_same_name_saves_and_loads(given: str, written: str, tmp_path: Path) -> None:
    assert save(small(), tmp_path / given) == tmp_path / written
    assert os.listdir(tmp_path) == [written]
    for name in (tmp_path / given, str(tmp_path / given), tmp_path / written):
        assert load(name)["relu_1"].out == 1.0


def test_a_trace_saves_itself(tmp_path: Path) -> None:
    assert small().save(tmp_path / "a", overwrite=True) == tmp_path / "a.tlspec"


def test_a_folder_that_stands_beside_is_not_taken_for_the_trace(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save(small(), tmp_path / "a")
    assert load(tmp_path / "a")["relu_1"].out == 1.0


@pytest.mark.parametrize("form", FORMS)
def test_a_path_that_is_taken(form: str, tmp_path: Path) -> None:
    save(small(1.0), tmp_path / form)
    with pytest.raises(SaveError, match=r"there already.*overwrite=True"):
        save(small(2.0), tmp_path / form)
    assert load(tmp_path / form)["relu_1"].out == 1.0


@pytest.mark.parametrize("form", FORMS)
def test_overwriting(form: str, tmp_path: Path) -> None:
    before = load(save(small(1.0), tmp_path / form))
    save(small(2.0), tmp_path / form, overwrite=True)
    assert load(tmp_path / form)["relu_1"].out == 2.0
    assert before["relu_1"].out == 1.0, "what is open is not pulled away"
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_trace_can_replace_its_own_file(form: str, tmp_path: Path) -> None:
    live = some_trace()
    save(live, tmp_path / form)
    save(load(tmp_path / form), tmp_path / form, overwrite=True)
    assert differences(live, load(tmp_path / form)) == []


def test_only_trace_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.tlspec").mkdir()
    (tmp_path / "a.tlspec" / "thesis.doc").write_text("years of work")
    with pytest.raises(SaveError, match="what is no part of a trace"):
        save(small(), tmp_path / "a", overwrite=True)
    assert (tmp_path / "a.tlspec" / "thesis.doc").read_text() == "years of work"


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tlspec").write_text("a file")
    (tmp_path / "b.safetensors").mkdir()
    (tmp_path / "c.tlspec").symlink_to(tmp_path)
    for name, says in (("a", "it is a file"), ("b.safetensors", "it is a folder"), ("c", "symbolic link")):
        with pytest.raises(SaveError, match=says):
            save(small(), tmp_path / name, overwrite=True)


def test_a_path_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="there is no folder"):
        save(small(), tmp_path / "missing" / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="there is no folder"):
        save(small(), tmp_path / "file" / "a")
    with pytest.raises(SaveError, match="cannot be written"):
        save(small(), Path("/proc") / "a.safetensors")


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond ``limit`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("form", FORMS)
def test_a_disk_that_is_full(form: str, tmp_path: Path) -> None:
    save(small(), tmp_path / form)
    with pytest.raises(SaveError, match="cannot be written: File too large"), small_disk(4000):
        save(some_trace(), tmp_path / form, overwrite=True)
    assert load(tmp_path / form, verify="eager")["relu_1"].out == 1.0
    assert len(os.listdir(tmp_path)) == 1, "what was begun is taken away"


# -- interruptions -----------------------------------------------------------------------------------------------------


def killed(path: Path, steps: int) -> bool:
    """Save in a process that is gone without a word at its n-th step to the disk; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = iter(range(steps))

        def at_each_step(event: str, args: tuple[Any, ...]) -> None:
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and next(left, None) is None:
                os._exit(9)

        live = some_trace()
        sys.addaudithook(at_each_step)
        save(live, path, overwrite=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("form", FORMS)
def test_whenever_a_save_is_interrupted_the_old_or_the_new_file_is_whole(form: str, tmp_path: Path) -> None:
    save(small(), tmp_path / form)
    steps, new = 0, some_trace().num_ops
    while killed(tmp_path / form, steps):
        try:
            found = load(tmp_path / form, verify="eager").num_ops
        except TraceFileMissing as missing:  # between two renames the old one has another name, which the message says
            assert "trace.tlspec.previous" in str(missing)
            found = load(tmp_path / "trace.tlspec.previous", verify="eager").num_ops
            (tmp_path / "trace.tlspec.previous").rename(tmp_path / "trace.tlspec")
        assert found in (1, new)
        steps += 1
    assert load(tmp_path / form).num_ops == new
    assert steps >= 4


def test_what_an_interrupted_save_leaves_says_so(tmp_path: Path) -> None:
    killed(tmp_path / "trace", 5)
    (partial,) = tmp_path.iterdir()
    assert partial.name.endswith(".partial")
    with pytest.raises(Truncated, match="the save was not completed"):
        load(partial)


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_safetensors_library_reads_the_arrays(form: str, tmp_path: Path) -> None:
    live = some_trace()
    path = save(live, tmp_path / form, max_shard_bytes=400)
    shards = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    read = {name: array for shard in shards for name, array in safetensors.numpy.load_file(shard).items()}
    for op in live:
        if not op.is_output:
            assert np.array_equal(read[op.label], op.numpy())
    assert len(read) == inspect(path).counts.arrays


def test_arrays_are_split_over_files_and_aligned(tmp_path: Path) -> None:
    path = save(some_trace(), tmp_path / "trace", max_shard_bytes=400)
    manifest = read_json(path / "manifest.json")
    assert len(manifest["shards"]) > 2
    assert max(shard["bytes"] for shard in manifest["shards"]) <= 400
    begin = dict.fromkeys(range(len(manifest["shards"])), 0)
    for array in manifest["arrays"]:
        assert begin[array["shard"]] % STORAGE[array["dtype"]].itemsize == 0
        begin[array["shard"]] += array["bytes"]


def test_an_array_that_several_ops_have_is_written_once(tmp_path: Path) -> None:
    live = small()
    assert len(live) == 3
    save(live, tmp_path / "trace")
    assert [array.name for array in inspect(tmp_path / "trace").arrays] == ["input_1:1", "relu_1_1:1"]
    loaded = load(tmp_path / "trace")
    assert loaded["output_1"].out is loaded["relu_1"].out


def test_values_can_be_left_out(tmp_path: Path) -> None:
    save(some_trace(), tmp_path / "trace", include_values=False)
    found = inspect(tmp_path / "trace")
    assert found.counts.arrays == 0
    assert found.manifest.left_out == ("rng", "values")
    assert sorted(os.listdir(tmp_path / "trace.tlspec")) == ["manifest.json", "records.json"]
    assert load(tmp_path / "trace").saved_ops == []


def test_source_can_be_left_out(tmp_path: Path) -> None:
    path = save(some_trace(), tmp_path / "trace", include_source=False)
    text = (path / "records.json").read_text()
    assert "trace_files.py" not in text and "toy_layers.py" not in text
    assert "relu(self.first" not in text and "self.norm(x)" not in text
    loaded = load(path)
    assert loaded["relu_1"].code_context == []
    assert loaded.conditionals.conditionals[0].executions[0].arm == "then", "what ran is still known"
    assert "source" in inspect(path).manifest.left_out


def test_no_path_of_this_machine_is_in_a_file(tmp_path: Path) -> None:
    path = save(some_trace(), tmp_path / "trace")
    records = read_json(path / "records.json")
    assert {file["name"] for file in records["files"]} >= {"torchlens_core/testing/toy_layers.py"}
    text = (path / "records.json").read_text() + (path / "manifest.json").read_text()
    for place in (Path.home(), Path.cwd(), Path(sys.prefix), tmp_path):
        assert str(place) not in text


def test_home_is_taken_out_of_facts(tmp_path: Path) -> None:
    live = small()
    live.program.facts["error"] = f"FileNotFoundError: {Path.home()}/model.bin"
    records = read_json(save(live, tmp_path / "trace") / "records.json")
    assert records["facts"]["error"] == "FileNotFoundError: ~/model.bin"


@given(path=st.text(), root=st.sampled_from(["/home/me/work", "/usr/lib/python3"]))
def test_names_of_source_files_are_always_safe(path: str, root: str) -> None:
    for file in (path, f"/{path}", f"{root}/{path}", f"C:\\{path}", f"../{path}", f"<{path}>"):
        assert path_problem(relative_name(file, ["/home/me/work"])) is None


def test_names_of_source_files_are_relative_to_the_innermost_place() -> None:
    roots = ["/home/me/env/lib/site-packages", "/home/me"]
    assert relative_name("/home/me/env/lib/site-packages/torch/nn/conv.py", roots) == "torch/nn/conv.py"
    assert relative_name("/home/me/work/model.py", roots) == "work/model.py"
    assert relative_name("/srv/secret/model.py", roots) == "model.py"
    assert relative_name("<ipython-input-3>", roots) == "<ipython-input-3>"


# -- what cannot be written --------------------------------------------------------------------------------------------


def test_what_a_transform_made_must_be_arrays_or_numbers(tmp_path: Path) -> None:
    made = some_trace(activation_transform=lambda array: {"mean": 0.5, "nan": float("nan"), "top": (1, 2)})
    save(made, tmp_path / "numbers")
    out = load(tmp_path / "numbers")["relu_1"].out
    assert repr(out) == "{'mean': 0.5, 'nan': nan, 'top': (1, 2)}"
    with pytest.raises(SaveError, match=r"A transform made builtins.object .*input_1:1|buffer_1:1"):
        save(some_trace(activation_transform=lambda array: object()), tmp_path / "objects")
    assert os.listdir(tmp_path) == ["numbers.tlspec"]


def test_an_array_that_has_no_place_in_a_file_is_named(tmp_path: Path) -> None:
    tape = Tape()
    vid = tape.input()
    tape.program.metas[vid] = Meta((2,), "object", "cpu")
    tape.output(vid)
    with pytest.warns(SaveWarning, match="input_1:1: elements of type object"):
        save(Trace(tape.program, Kept({vid: np.array([None, 1])}), tape.structure()), tmp_path / "trace")
    assert [each.name for each in inspect(tmp_path / "trace").not_stored] == ["input_1:1"]
    assert not load(tmp_path / "trace")["input_1"].has_saved_value


def test_records_too_long_for_a_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_HEADER_BYTES", 5000)
    with pytest.raises(SaveError, match="Save it as a folder"):
        save(some_trace(), tmp_path / "trace.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_program_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    live = small()
    live.program.rows[0] = live.program.rows[0]._replace(ins=(1,))
    with pytest.raises(SaveError, match="rule V2"):
        save(live, tmp_path / "trace")


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_no_text_can_hold(form: str, tmp_path: Path) -> None:
    live = small()
    live.program.modules[0].cls = "half\ud800"
    with pytest.raises(SaveError, match="half a character"):
        save(live, tmp_path / form)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("dtype", sorted(STORAGE))
def test_every_type_is_stored_as_the_format_says(dtype: str, tmp_path: Path) -> None:
    tape = Tape()
    vid = tape.input(shape=(3,))
    tape.program.metas[vid] = Meta((3,), dtype, "cpu")
    tape.output(vid)
    array = np.zeros(3, numpy_dtype(dtype))
    save(Trace(tape.program, Kept({vid: array}), tape.structure()), tmp_path / "trace")
    (record,) = inspect(tmp_path / "trace").arrays
    assert (record.dtype, record.storage, record.shape) == (dtype, STORAGE[dtype].code, (3,))
    assert load(tmp_path / "trace")["input_1"].out.dtype == array.dtype


# -- inspect -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_inspect_prints_what_there_is(form: str, tmp_path: Path) -> None:
    shown = str(inspect(save(some_trace(), tmp_path / form)))
    for part in (
        "Model: Everything, run by toy 1.0",
        "Format: version 1",
        "35 ops of 26 calls in 31 layers",
        "Left out: rng",
    ):
        assert part in shown
    assert "| linear_3_13:2 | (2, 4) | float64 | F64       | 64 B |" in shown


def test_inspect_reads_no_array_and_no_records(tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    (path / "records.json").write_text("{}")
    for shard in path.glob("*.safetensors"):
        shard.write_bytes(b"")
    assert inspect(path).model == "Everything"
    assert len(verify(path)) >= 2


def test_what_a_stranger_wrote_is_shown_harmlessly(tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    manifest = read_json(path / "manifest.json")
    manifest["producer"]["name"] = "a\x1b[2Jb\n\u202ec"
    (path / "manifest.json").write_text(json.dumps(manifest))
    shown = str(inspect(path))
    assert "\x1b" not in shown and "\u202e" not in shown
