"""``storage=tl.to_disk(path)``: values written while the model runs, by ``trace``, ``record`` and ``Recorder``."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Everything, Plain
from tests.core.test_recording import Steps, same, values
from tests.core.toy_models import x
from torchlens_core.errors import SaveError, SchemaError, TraceFileError
from torchlens_core.file import inspect, load, save, verify
from torchlens_core.interventions.when import when
from torchlens_core.plan import keep
from torchlens_core.recording.record import record
from torchlens_core.recording.recorder import Recorder
from torchlens_core.recording.streaming import to_disk
from torchlens_core.selectors import func, module
from torchlens_core.tracing import trace


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def described(path: Path) -> dict[str, Any]:
    """The manifest without what differs from file to file: ids, times, and which file holds which array."""
    manifest = json.loads((path / "manifest.json").read_text())
    for key in ("id", "started_at", "records", "shards"):
        manifest.pop(key)
    for array in manifest["arrays"]:
        array.pop("shard")
    manifest["arrays"].sort(key=lambda array: array["name"])
    return manifest


class TestTrace:
    @pytest.mark.parametrize(
        "save_",
        [
            True,
            func("relu"),
            "relu_1",
            func("relu") | module("mid"),
            keep(transform=lambda a: float(a.data.sum())),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("shard_bytes", [1, 100, 2**20])
    def test_is_the_file_that_save_writes(self, tmp_path: Path, save_: Any, shard_bytes: int) -> None:
        storage = to_disk(tmp_path / "live", max_shard_bytes=shard_bytes)
        made = trace(Everything(), x(2, 4), save=save_, storage=storage)
        expected = trace(Everything(), x(2, 4), save=save_)
        save(expected, tmp_path / "saved")
        assert described(tmp_path / "live.tlspec") == described(tmp_path / "saved.tlspec")
        assert verify(tmp_path / "live") == []
        loaded = load(tmp_path / "live")
        for op in expected:
            assert made[op.label].has_saved_value == loaded[op.label].has_saved_value == op.has_saved_value
            if op.has_saved_value:
                assert np.array_equal(loaded[op.label].numpy(), op.numpy())
                assert np.array_equal(made[op.label].numpy(), op.numpy())
                assert type(made[op.label].out) is type(op.out)

    def test_interventions_and_what_they_replaced(self, tmp_path: Path) -> None:
        change = when(module("mid"), lambda value: value * 2.0)
        storage = to_disk(tmp_path / "live", max_shard_bytes=1)
        made = trace(Everything(), x(2, 4), storage=storage, intervene=change)
        expected = trace(Everything(), x(2, 4), intervene=change)
        assert verify(tmp_path / "live") == []
        assert all(np.array_equal(made[op.label].numpy(), op.numpy()) for op in expected)

    def test_retained(self, tmp_path: Path) -> None:
        made = trace(Plain(), x(2, 4), storage=to_disk(tmp_path / "live", retain_in_memory=True))
        (tmp_path / "live.tlspec").rename(tmp_path / "elsewhere.tlspec")
        assert all(np.array_equal(op.numpy(), load(tmp_path / "elsewhere")[op.label].numpy()) for op in made)

    def test_constants_for_replay(self, tmp_path: Path) -> None:
        trace(Everything(), x(2, 4), storage=to_disk(tmp_path / "live"), replay_ready=True)
        assert verify(tmp_path / "live") == []
        roles = {array["role"] for array in json.loads((tmp_path / "live.tlspec/manifest.json").read_text())["arrays"]}
        assert roles == {"value", "constant"}

    def test_a_failing_model_leaves_nothing(self, tmp_path: Path) -> None:
        class Failing(Plain):
            def forward(self, a: Any) -> Any:
                super().forward(a)
                raise OSError("full")

        with pytest.raises((OSError, SaveError), match="full"):
            trace(Failing(), x(2, 4), storage=to_disk(tmp_path / "live"))
        assert names(tmp_path) == []


class TestRecord:
    @pytest.mark.parametrize("shard_bytes", [1, 2**20])
    @pytest.mark.parametrize("retain", [True, False])
    def test_loads_as_it_was_recorded(self, tmp_path: Path, shard_bytes: int, retain: bool) -> None:
        storage = to_disk(tmp_path / "run", max_shard_bytes=shard_bytes, retain_in_memory=retain)
        asked = [func("relu"), module("fc"), keep(func("tanh"), transform=lambda a: float(a.data.sum()))]
        model = Steps()
        made = record(model, x(2, 4), save=asked, storage=storage)
        expected = record(Steps(), x(2, 4), save=asked)
        loaded = load(tmp_path / "run")
        for other in (made, loaded):
            assert [r.raw_label for r in other] == [r.raw_label for r in expected]
            assert [(r.module, r.shape, r.dtype_name, r.type) for r in other] == [
                (r.module, r.shape, r.dtype_name, r.type) for r in expected
            ]
        assert made["tanh"].out == loaded["tanh"].out == expected["tanh"].out
        arrays = [r.raw_label for r in expected if r.type != "tanh"]
        assert all(np.array_equal(r[n].numpy(), expected[n].numpy()) for r in (made, loaded) for n in arrays)
        assert verify(tmp_path / "run") == [] and "torchlens recording" in str(
            inspect(tmp_path / "run").manifest.format
        )
        assert made.to_trace()["relu_1"].has_saved_value

    def test_with_a_backend_values_are_its_arrays(self, tmp_path: Path) -> None:
        made = record(Steps(), x(2, 4), save=func("relu"), halt=func("tanh"), storage=to_disk(tmp_path / "run"))
        loaded = load(tmp_path / "run", backend="toy")
        assert type(loaded[0].out) is type(made[0].out) and loaded.halted is True


class TestRecorder:
    def test_all_steps_and_none_in_memory(self, tmp_path: Path) -> None:
        model, given = Steps(), [x(n, 4) for n in (1, 2, 3)]
        with Recorder(
            model, save=func("relu"), storage=to_disk(tmp_path / "loop", max_shard_bytes=200), max_records=0
        ) as recorder:
            for a in given:
                model(a)
            assert not (tmp_path / "loop.tlspec").exists()
        assert not recorder.steps
        steps = load(tmp_path / "loop")
        assert [step.step for step in steps] == [0, 1, 2]
        for step, a in zip(steps, given, strict=True):
            assert same(values(step), values(record(model, a, save=func("relu"))))

    def test_an_exception_leaves_no_file(self, tmp_path: Path) -> None:
        model = Steps()
        with pytest.raises(KeyError), Recorder(model, save=func("relu"), storage=to_disk(tmp_path / "loop")):
            model(x(2, 4))
            raise KeyError
        assert names(tmp_path) == []

    def test_killed_midway_nothing_passes_for_complete(self, tmp_path: Path) -> None:
        program = """
            import os, sys
            from tests.core.test_recording import Steps
            from tests.core.toy_models import x
            from torchlens_core.recording.recorder import Recorder
            from torchlens_core.recording.streaming import to_disk
            from torchlens_core.plugins import registry
            from torchlens_core.testing import toy
            registry().add(toy)
            model = Steps()
            with Recorder(model, save=True, storage=to_disk(sys.argv[1], max_shard_bytes=1)):
                for _ in range(5):
                    model(x(2, 4))
                os.kill(os.getpid(), 9)
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "loop")], cwd=Path(__file__).parents[2]
        )
        assert ran.returncode == -9
        (left,) = names(tmp_path)
        assert left.endswith(".partial")
        for path in (tmp_path / "loop", tmp_path / left):
            with pytest.raises(TraceFileError):
                load(path)


class TestRefused:
    def test_paths(self, tmp_path: Path) -> None:
        with pytest.raises(SaveError, match="single file cannot be written while"):
            to_disk(tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match="max_shard_bytes"):
            to_disk(tmp_path / "a", max_shard_bytes=0)
        (tmp_path / "taken.tlspec").mkdir()
        with pytest.raises(SaveError, match="it is there already"):
            record(Steps(), x(2, 4), save=True, storage=to_disk(tmp_path / "taken"))
        with pytest.raises(SaveError, match="there is no folder"):
            trace(Steps(), x(2, 4), storage=to_disk(tmp_path / "nowhere" / "a"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda records: records["sites"].pop(), "not one for each"),
            (lambda records: records["sites"][0].update(step=4), "there is no step 4"),
            (lambda records: records["sites"][0].update(returned_by=["fc"]), "an address, a colon and a number"),
            (lambda records: records["steps"][0].update(halted=9), "there is no site 9"),
            (lambda records: records.update(extra=1), "unknown field"),
            (lambda records: records["sites"][0].update(shape=[1]), "not that of its site"),
            (lambda records: records.update(id="0" * 32), "of another recording"),
        ],
    )
    def test_damaged_records(self, tmp_path: Path, change: Any, message: str) -> None:
        record(Steps(), x(2, 4), save=module("fc"), storage=to_disk(tmp_path / "run"))
        folder = tmp_path / "run.tlspec"
        records = json.loads((folder / "records.json").read_text())
        change(records)
        text = json.dumps(records).encode()
        (folder / "records.json").write_bytes(text)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["records"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(SchemaError, match=message):
            load(tmp_path / "run")
        assert verify(tmp_path / "run")
