"""An extraction that is killed, anywhere and as often as you like, ends as one that ran in one go: byte for byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.core.extraction_cases import LAYERS, by_hand, files_of, net, stimuli
from torchlens_core.extraction import extract_dataset, load_extraction
from torchlens_core.testing import toy

ROOT = Path(__file__).parents[2]
COUNT, BATCH, SHARD = 50, 4, 10

# Forks a child that extracts, and kills itself just before the n-th thing that it does to the file system. Half of the
# time what it has written and is about to rename is cut in half first: killed while writing. Again and again, each time
# one step later, until a child comes to its end.
EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from tests.core.extraction_cases import LAYERS, net, stimuli
from torchlens_core.extraction import extract_dataset
from torchlens_core.plugins import registry
from torchlens_core.testing import toy

registry().add(toy)
folder, fresh, count, batch, shard = Path(sys.argv[1]), sys.argv[2] == "fresh", *map(int, sys.argv[3:])
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir"}
data = stimuli(count)
left, torn = 0, False


def step(event, args):
    global left
    if event in WATCHED and str(folder) in str(args[0]):
        left -= 1
        if left == 0:
            if torn and event == "os.rename":
                os.truncate(args[0], os.stat(args[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def extract(path):
    extract_dataset(net(), data, LAYERS, batch_size=batch, shard_size=shard, output_dir=path, progress=False)


number, kills = 0, 0
while True:
    number += 1
    torn = not torn
    target = folder / (str(number) if fresh else "one")
    child = os.fork()
    if not child:
        left = number // 2 + 1
        sys.addaudithook(step)
        extract(target)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, number
        break
    kills += 1
    if fresh:
        extract(target)  # started again, and left alone
print(kills)
"""


@pytest.fixture(scope="module", autouse=True)
def toy_backend() -> None:
    from torchlens_core.plugins import registry

    registry().add(toy)


def extract(folder: Path) -> None:
    extract_dataset(
        net(), stimuli(COUNT), LAYERS, batch_size=BATCH, shard_size=SHARD, output_dir=folder, progress=False
    )


@pytest.mark.parametrize("mode", ["fresh", "the same"])
def test_killed_at_every_step(mode: str, tmp_path: Path) -> None:
    """``fresh``: one kill at each step, then finished. ``the same``: one folder, killed at a later step each time."""
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", EVERY_STEP, str(work), mode, str(COUNT), str(BATCH), str(SHARD)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    extract(tmp_path / "one go")
    wanted = files_of(tmp_path / "one go")
    assert sorted(wanted) == [*(f"activations-{n:06d}.safetensors" for n in range(5)), "extraction.json"]
    folders = list(work.iterdir())
    assert kills > 25 if mode == "fresh" else kills > 5
    assert len(folders) == (kills + 1 if mode == "fresh" else 1)
    for folder in folders:
        assert files_of(folder) == wanted, folder.name
        assert load_extraction(folder).verify() == []


AT_RANDOM = """
import sys, time
from tests.core.extraction_cases import LAYERS, net, stimuli
from torchlens_core.extraction import extract_dataset
from torchlens_core.plugins import registry
from torchlens_core.testing import toy

registry().add(toy)
data = stimuli(400)
print("ready", flush=True)
extract_dataset(net(), data, LAYERS, batch_size=4, shard_size=10, output_dir=sys.argv[1], progress=False,
                transform=lambda row: time.sleep(0.001) or row, stimulus_ids=[f"s{n}" for n in range(400)])
print("finished", flush=True)
"""


def test_killed_at_any_moment_again_and_again(tmp_path: Path) -> None:
    """By the clock and from outside, wherever that hits."""
    chance, folder, kills = random.Random(3), tmp_path / "killed", 0
    for attempt in range(41):
        process = subprocess.Popen(
            [sys.executable, "-c", AT_RANDOM, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == "ready\n"
            if attempt < 40:
                time.sleep(chance.uniform(0.01, 0.2))
                process.send_signal(signal.SIGKILL)
            if process.stdout.read() == "finished\n":
                break
        kills += 1
    assert kills, "the extraction was over before it could be killed"
    found = load_extraction(folder)
    assert found.is_complete
    assert found.verify() == []
    assert list(found.stimulus_ids) == [f"s{n}" for n in range(400)]
    wanted = by_hand(stimuli(400), 4)
    assert {key: layer.numpy().tobytes() for key, layer in found.items()} == {
        key: array.tobytes() for key, array in wanted.items()
    }
