"""What extracting a dataset costs, beside the plain forward over the same batches, in time and in memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

import torchlens as tl

from .report import Row
from .timing import interleaved

COUNT, BATCH = 2000, 32


def extraction() -> Iterator[Row]:
    """ResNet-18 on 2,000 images of 64x64."""
    yield from _time()
    yield from _memory()


def resnet18() -> torch.nn.Module:
    """With random weights, in evaluation mode."""
    from tests.zoo.torchvision_cpu import import_torchvision

    import_torchvision()
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(weights=None).eval()


def _time() -> Iterator[Row]:
    model, images = resnet18(), torch.randn(256, 3, 64, 64)

    def plain() -> None:
        with torch.no_grad():
            for part in images.split(BATCH):
                model(part)

    def hooked() -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        modules = (model.get_submodule(name) for name in ("layer1", "layer3", "avgpool"))
        handles = [module.register_forward_hook(lambda m, i, out: kept.append(out.clone())) for module in modules]
        plain()
        for handle in handles:
            handle.remove()
        return kept

    def extracted(*layers: str) -> Callable[[], Any]:
        return lambda: tl.extract_dataset(model, images, layers, batch_size=BATCH, progress=False)

    def on_disk() -> None:
        with tempfile.TemporaryDirectory() as folder:
            tl.extract_dataset(
                model, images, ["layer1", "layer3", "avgpool"], batch_size=BATCH, output_dir=folder, progress=False
            )

    ways: dict[str, Callable[[], Any]] = {
        "plain": plain,
        "hooks": hooked,
        "modules": extracted("layer1", "layer3", "avgpool"),
        "labels": extracted("relu_2_7", "layer3", "avgpool"),
        "disk": on_disk,
    }
    times = interleaved(ways, rounds=7)
    base = times["plain"]
    for what, way in (
        ("hooks by hand that copy three modules' outputs", "hooks"),
        ("`extract_dataset` of the same, into memory", "modules"),
        ("`extract_dataset` of a label and two modules, into memory", "labels"),
        ("`extract_dataset` of the three modules, to disk", "disk"),
    ):
        yield Row(f"ResNet-18, 256 images, {what}, beside the plain forward", f"{times[way] / base:.2f}x", "", None)


_PEAK = """
import sys
sys.path.insert(0, {root!r})
import torch
import torchlens as tl
from benchmarks.extraction import BATCH, resnet18

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return {count}

    def __getitem__(self, number):
        return torch.randn(3, 64, 64)

torch.set_num_threads(1)
tl.extract_dataset(resnet18(), Images(), ["relu_1_3", "layer3", "avgpool"], batch_size=BATCH, output_dir={folder!r},
                   progress=False)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def _memory() -> Iterator[Row]:
    """Peak memory over 2,000 images beside that over 500, each in processes of their own."""
    peaks = {count: median(_peak(count) for _ in range(3)) for count in (COUNT // 4, COUNT)}
    growth = peaks[COUNT] / peaks[COUNT // 4]
    shown = f"{growth:.3f}x ({peaks[COUNT] / 1024:.0f} MB, {peaks[COUNT // 4] / 1024:.0f} MB; 561 MB are written)"
    what = f"ResNet-18, peak memory of `extract_dataset` to disk over {COUNT:,} images, beside {COUNT // 4}"
    yield Row(what, shown, "constant", growth <= 1.05)


def _peak(count: int) -> int:
    root = str(Path(__file__).parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        code = _PEAK.format(root=root, count=count, folder=folder)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
