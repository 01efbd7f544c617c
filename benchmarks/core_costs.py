"""What comes after the run: labels and indexes of 100,000 operations, memory, pictures, files, and the import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

import torchlens as tl

from . import models
from .report import Row


def after_the_run() -> Iterator[Row]:
    """100,000 operations labelled, grouped and indexed."""
    with torch.no_grad():
        tracemalloc.start()
        trace = tl.trace(models.Chain(100_000), torch.randn(2), save=False)
        tape, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del trace
        trace = tl.trace(models.Chain(100_000), torch.randn(2), save=False)
    start = time.perf_counter()
    assert trace["relu_1_2:7"].pass_index == 7
    assert len(trace) == 100_002
    seconds = time.perf_counter() - start
    yield Row("100,000 operations labelled, grouped and indexed", f"{seconds:.2f} s", "2 s", seconds <= 2)
    per_op = tape / 100_000
    yield Row("the same, memory of the recording", f"{per_op:.0f} bytes an op", "2,048 bytes", per_op <= 2048)


_PEAK = """
import resource, sys, torch
sys.path.insert(0, {root!r})
from benchmarks import models
import torchlens as tl
model, args = models.resnet50()
args = (torch.randn(8, 3, 224, 224),)
with torch.no_grad():
    tl.trace(torch.nn.ReLU(), torch.ones(1), save=False)
    for _ in range(2):
        {run}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory() -> Iterator[Row]:
    """Peak memory of a trace that keeps nothing, in a process of its own, beside the plain forward in another."""
    runs = {"plain": "model(*args)", "traced": "tl.trace(model, args, save=False)"}
    peaks = {name: median(_peak(run) for _ in range(3)) for name, run in runs.items()}
    value = peaks["traced"] / peaks["plain"]
    shown = f"{value:.3f}x ({peaks['traced'] / 1024:.0f} MB, plain {peaks['plain'] / 1024:.0f} MB)"
    yield Row("ResNet-50 at batch 8, nothing saved, peak memory beside plain", shown, "1.05x", value <= 1.05)


def _peak(run: str) -> int:
    return int(_python(_PEAK.format(root=str(Path(__file__).parent.parent), run=run)))


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    return done.stdout.strip().splitlines()[-1]


def import_time() -> Iterator[Row]:
    """``import torchlens`` beyond ``import numpy``, and the first use of ``tl.trace``, in new processes."""
    code = "import numpy, time; start = time.perf_counter(); import torchlens{}; print(time.perf_counter() - start)"
    seconds = median(float(_python(code.format(""))) for _ in range(9))
    used = median(float(_python(code.format("; torchlens.trace"))) for _ in range(9))
    yield Row("import torchlens, beyond import numpy", f"{seconds * 1e3:.1f} ms", "60 ms", seconds <= 0.060)
    yield Row("the same and the first use of `tl.trace`, which loads core", f"{used * 1e3:.0f} ms", "", None)


def pictures_and_files() -> Iterator[Row]:
    """A picture of 3,000 operations collapsed by module; a trace file written and read."""
    blocks = torch.nn.Sequential(*(models.Stack(30) for _ in range(100)))
    trace = tl.trace(blocks, torch.randn(2, 8), save=False)
    with tempfile.TemporaryDirectory() as folder:
        trace.layers.keys()
        start = time.perf_counter()
        trace.draw(f"{folder}/graph", depth=1, vis_fileformat="svg", vis_save_only=True)
        seconds = time.perf_counter() - start
        yield Row(f"draw {trace.num_ops:,} operations collapsed by module", f"{seconds:.2f} s", "1 s", seconds <= 1)
        yield from _files(Path(folder))


def _files(folder: Path) -> Iterator[Row]:
    x = torch.randn(64, 1024, 512)
    trace = tl.trace(lambda x: torch.relu(x + 1), x)
    megabytes = trace.saved_nbytes / 1e6
    start = time.perf_counter()
    path = tl.save(trace, folder / "large.tlspec")
    written = time.perf_counter() - start
    array = np.ones(int(megabytes * 1e6), np.uint8)
    start = time.perf_counter()
    with open(folder / "plain", "wb") as file:
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())
    plain = time.perf_counter() - start
    shown = f"{megabytes / written:.0f} MB/s (the same bytes by write and fsync: {megabytes / plain:.0f} MB/s)"
    yield Row(f"write {megabytes:.0f} MB of values to a trace file", shown, "disk speed", None)
    start = time.perf_counter()
    loaded = tl.load(path)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    total = sum(float(op.out.sum()) for op in loaded)
    read = time.perf_counter() - start
    assert total != 0
    yield Row("open that file", f"{opened * 1e3:.0f} ms", "no array read", None)
    yield Row("read and check all its values", f"{megabytes / read:.0f} MB/s", "disk speed", None)
