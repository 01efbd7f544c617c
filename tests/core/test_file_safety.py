"""Reading a trace file runs no code, imports nothing, opens nothing else, and takes bounded time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.same_trace import differences
from tests.core.trace_files import Json, change_records, some_trace, sound_bytes, sound_file, sound_folder
from torchlens_core.errors import LimitExceeded, TraceFileError
from torchlens_core.file import Limits, inspect, load, save, verify

ROOT = Path(__file__).parents[2]

WATCHED = """
import sys
from torchlens_core.file import inspect, load, verify

def look(path):
    inspect(path), verify(path)
    trace = load(path, verify="eager")
    for op in trace:
        if op.has_saved_value:
            op.out, op.numpy()
        for field in op.fields():
            getattr(op, field.name)
        str(op), [location.source_context(3) for location in op.code_context]
    str(trace), trace.summary(), trace.conditionals, str(trace.modules), str(trace.params), str(trace.buffers)
    list(trace.layers), list(trace.module_calls)

warm, hostile = sys.argv[1:]
look(warm)  # what is loaded when it is first used is loaded now
seen = []

def watch(event, args):
    name = event.partition(".")[0]
    if event == "open" and (isinstance(args[0], int) or str(args[0]).startswith(hostile)):
        return  # a descriptor is open already
    if event == "os.listdir" and str(args[0]) == hostile:
        return
    if name in FORBIDDEN:
        seen.append((event, repr(args)[:200]))

FORBIDDEN = {"open", "import", "exec", "compile", "pickle", "marshal", "socket", "subprocess", "os", "shutil", "ctypes",
             "builtins", "code", "urllib", "http", "ftplib", "webbrowser", "tempfile", "glob", "sqlite3"}
sys.addaudithook(watch)
look(hostile)
assert not seen, seen
print("nothing happened")
"""


@pytest.mark.parametrize("form", ["folder", "single file"])
def test_reading_runs_no_code_and_touches_no_other_file(form: str, tmp_path: Path) -> None:
    path = sound_file(tmp_path) if form == "single file" else hostile(sound_folder(tmp_path))
    (tmp_path / "warm").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(sound_folder(tmp_path / "warm")), str(path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.stdout == "nothing happened\n", done.stderr


def hostile(folder: Path) -> Path:
    """Names and texts that would do something, if anybody were to evaluate, import or open them."""

    def change(records: Json) -> None:
        records["funcs"][0]["path"] = "os.system"
        records["modules"][0]["qualname"] = "antigravity.Antigravity"
        records["facts"]["note"] = "__import__('os').system('true')"
        records["frames"][0]["function"] = "exec"
        name_all_files(records, "etc/passwd")

    return change_records(folder, change)


def name_all_files(records: Json, name: str) -> None:
    """Let all call sites stand in one file, of which no text is given."""
    records["files"] = [{"name": name}]
    for frame in records["frames"]:
        frame["file"] = 0
    for conditional in records["control_flow"]["conditionals"]:
        conditional["file"] = name


def test_the_source_of_a_loaded_trace_is_the_file_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.py").write_text("password = 'hunter2'\n" * 500)
    monkeypatch.chdir(tmp_path)
    path = change_records(sound_folder(tmp_path), lambda records: name_all_files(records, "secret.py"))
    for op in load(path):
        for location in op.code_context:
            assert location.file == "secret.py"
            assert (location.call_line, location.call_expression, location.source_context()) == ("", "", [])
            assert location.func_signature is None


# -- damage ------------------------------------------------------------------------------------------------------------

mutations = st.lists(
    st.tuples(
        st.sampled_from(("flip", "delete", "insert", "copy")),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, steps: list[tuple[str, float, int, int]]) -> bytes:
    made = bytearray(data)
    for what, where, length, byte in steps:
        at = int(where * len(made))
        if what == "flip":
            made[at] ^= byte or 1
        elif what == "delete":
            del made[at : at + length]
        elif what == "insert":
            made[at:at] = bytes([byte]) * length
        else:
            made[at : at + length] = made[:length]
    return bytes(made)


@settings(max_examples=300, deadline=2000)
@given(steps=mutations)
def test_damage_is_noticed_or_harmless(steps: list[tuple[str, float, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, sound = Path(folder) / "damaged.safetensors", Path(folder) / "sound.safetensors"
        path.write_bytes(mutated(sound_bytes(), steps))
        sound.write_bytes(sound_bytes())
        try:
            loaded = load(path, verify="eager")
        except TraceFileError:
            assert verify(path), "what load refuses, verify lists"
            return
        assert differences(load(sound), loaded) == []
        assert verify(path) == []


def test_cut_off_anywhere(tmp_path: Path) -> None:
    data, path = sound_bytes(), tmp_path / "cut.safetensors"
    for length in range(0, len(data), 211):
        path.write_bytes(data[:length])
        with pytest.raises(TraceFileError):
            load(path)


@pytest.mark.parametrize("part", ["manifest.json", "records.json", "tensors-00001.safetensors"])
def test_a_part_cut_off_anywhere(part: str, tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    data = (path / part).read_bytes()
    for length in range(0, len(data), 97):
        (path / part).write_bytes(data[:length])
        with pytest.raises(TraceFileError):
            load(path)


@pytest.mark.parametrize("part", ["records.json", "tensors-00000.safetensors", "tensors-00001.safetensors"])
def test_every_flipped_bit_is_noticed_or_harmless(part: str, tmp_path: Path) -> None:
    """Of the records and of the arrays every one is noticed; blanks in a header may change into other blanks."""
    path = sound_folder(tmp_path)
    data = (path / part).read_bytes()
    for position in random.Random(0).sample(range(len(data)), 40):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        (path / part).write_bytes(damaged)
        problems = verify(path)
        assert problems or (part != "records.json" and data[position : position + 1] == b" "), position


BOUNDED = """
import random, resource, sys, time
from pathlib import Path
from torchlens_core.errors import TraceFileError
from torchlens_core.file import load
path = Path(sys.argv[1])
load(path)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 256 * 2**20,) * 2)
data, chance = path.read_bytes(), random.Random(1)
slowest = 0.0
for _ in range(400):
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(damaged))
        piece = chance.choice([b"9", b"[", b'"', b"99999999999", bytes(8), b"{", b"\\\\", b"-"])
        damaged[at : at + chance.randint(0, 8)] = piece
    path.write_bytes(damaged)
    begin = time.process_time()
    try:
        load(path, verify="eager")
    except TraceFileError:
        pass
    slowest = max(slowest, time.process_time() - begin)
assert slowest < 2, slowest
print("bounded")
"""


def test_damage_takes_bounded_time_and_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(sound_file(tmp_path))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "bounded\n", done.stderr


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(max_manifest_bytes=100), "max_manifest_bytes"),
        (Limits(max_records_bytes=100), "max_records_bytes"),
        (Limits(max_arrays=3), "max_arrays"),
        (Limits(max_shards=1), "max_shards"),
        (Limits(max_total_bytes=100), "max_total_bytes"),
        (Limits(max_dims=1), "max_dims"),
        (Limits(max_depth=4), "max_depth"),
        (Limits(max_text=20), "max_text"),
    ],
)
def test_limits_are_the_caller_s(limits: Limits, says: str, tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    with pytest.raises(LimitExceeded, match=says) as caught:
        load(path, limits=limits)
    assert "tl.Limits" in str(caught.value)
    assert load(path).num_ops == 26


def test_a_long_chain_of_scopes_takes_no_more_than_its_length(tmp_path: Path) -> None:
    """Nothing walks from each call of a module to the model's: 20,000 nested load as fast as beside each other."""

    def change(records: Json) -> None:
        last = len(records["scopes"]) - 1
        for number in range(20_000):
            scope = {"kind": "region", "address": f"r{number}", "cls": "R", "parent": last + number, "call_index": 1}
            records["scopes"].append(scope)

    path = change_records(sound_folder(tmp_path), change)
    begin = time.process_time()
    load(path)
    assert time.process_time() - begin < 2


# -- without frameworks ------------------------------------------------------------------------------------------------


def test_no_framework_is_needed(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'jax', 'tensorflow', 'paddle', 'mlx', 'tinygrad'): sys.modules[name] = None\n"
        "from torchlens_core.file import load\n"
        "trace = load(sys.argv[1], verify='eager')\n"
        "assert trace['relu_1'].out.shape == (2, 4), trace['relu_1'].out\n"
        "print(trace.num_ops)\n"
    )
    path = save(some_trace(), tmp_path / "trace")
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout == "26\n", done.stderr


def test_inspecting_costs_nothing(tmp_path: Path) -> None:
    path = sound_folder(tmp_path)
    assert inspect(path).file_bytes == sum(file.stat().st_size for file in path.iterdir())
