"""Extraction of PyTorch models: beside forward hooks by hand, from datasets and loaders, killed and continued."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import torchlens as tl

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    """A block with an in-place activation after its normalisation, one that is used twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(x + 0.5)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def by_hand(model: nn.Module, images: Tensor, batch_size: int, *names: str) -> dict[str, Tensor]:
    """The outputs of modules, by forward hooks that copy."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, i, out, n=name: kept[n].append(out.clone()))
        for name in names
    ]
    with torch.no_grad():
        for begin in range(0, len(images), batch_size):
            model(images[begin : begin + batch_size])
    for handle in handles:
        handle.remove()
    return {name: torch.cat(arrays) for name, arrays in kept.items()}


def extracted(model: Any, stimuli: Any, layers: Any, **options: Any) -> tl.Extraction:
    return tl.extract_dataset(model, stimuli, layers, progress=False, **options)


# -- one input ---------------------------------------------------------------------------------------------------------


def test_modules_and_labels_agree_with_hooks(net: Net, images: Tensor) -> None:
    """Before a write in place too, with modules alone and with the graph."""
    wanted = by_hand(net, images[:4], 4, "conv", "norm", "head")
    for layers in (
        {"conv": "conv", "norm": "norm", "head": "head"},
        {"conv": "conv2d_1_1", "norm": "batchnorm_1_2", "head": "linear_1"},
        {"conv": tl.func("conv2d"), "norm": "norm", "head": "output_1"},
    ):
        found = tl.extract(net, images[:4], layers)
        assert list(found) == list(wanted)
        for key, value in found.items():
            assert torch.equal(value, wanted[key]), (layers, key)
            assert not value.requires_grad and value.grad_fn is None


def test_what_is_given_back_is_the_caller_s_own(net: Net, images: Tensor) -> None:
    x = images[:2].clone()
    for layers in (["input_1", "output_1"], {"all": "self"}):
        for value in tl.extract(net, x, layers).values():
            value.fill_(7.0)
    for options in ({"transform": lambda a: a[:, :1]}, {"dtype": torch.float32}, {"device": "cpu"}):
        tl.extract(net, x, ["input_1"], **options)["input_1"].fill_(7.0)
    assert torch.equal(x, images[:2])
    assert torch.equal(net(images[:2]), net(x))


def test_a_part_of_what_is_overwritten_next_stays(net: Net, images: Tensor) -> None:
    wanted = by_hand(net, images[:4], 4, "norm")["norm"][:, :2]
    for name in ("norm", "batchnorm_1_2"):
        assert torch.equal(tl.extract(net, images[:4], [name], transform=lambda a: a[:, :2])[name], wanted)


def test_the_model_and_torch_are_left_as_they_were(net: Net, images: Tensor) -> None:
    net.train()
    net.head.weight.grad = torch.ones_like(net.head.weight)
    flags = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    with pytest.warns(tl.errors.ExtractionWarning, match=r"norm \(writes its buffers\)"):
        extracted(net, images, ["head"])
    assert net.training and net.norm.training and torch.is_grad_enabled()
    assert flags == {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    assert torch.equal(net.head.weight.grad, torch.ones_like(net.head.weight))
    assert net.norm.num_batches_tracked.item() == 2, "two batches, and nothing else"
    assert not net.head._forward_hooks


def test_activations_can_be_trained_on(net: Net, images: Tensor) -> None:
    """They are no inference tensors."""
    features = extracted(net, images, ["relu:2"])["relu:2"].flatten(1)
    probe = nn.Linear(features.shape[1], 1)
    probe(features).sum().backward()
    assert probe.weight.grad is not None


def test_several_outputs_are_asked_for_one_by_one() -> None:
    model = nn.LSTM(3, 5)
    with pytest.raises(tl.errors.SelectorError, match="stands for 3 arrays"):
        tl.extract(nn.Sequential(model), torch.ones(2, 4, 3), ["0"])
    several = tl.extract(model, torch.ones(2, 4, 3), [tl.func("lstm")])
    assert [tuple(value.shape) for value in several.values()] == [(2, 4, 5), (1, 4, 5), (1, 4, 5)]


# -- stimuli -----------------------------------------------------------------------------------------------------------


class Pairs(Dataset[tuple[Tensor, int]]):
    """Without an end: indexing past it wraps around."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.images[number % len(self.images)], number


class Counted(IterableDataset[Tensor]):
    """With a length, and with the base class's indexing, which raises."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images)


class Stream(IterableDataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images)


KINDS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "list": list,
    "dataset": Pairs,
    "tensor dataset": TensorDataset,
    "stream": Stream,
    "stream with a length": Counted,
    "dict": lambda x: {"x": x},
    "list of dicts": lambda x: [{"x": row} for row in x],
    "loader": lambda x: DataLoader(Pairs(x), batch_size=8),
    "loader of a stream": lambda x: DataLoader(Stream(x), batch_size=8),
    "loader with workers": lambda x: DataLoader(Pairs(x), batch_size=8, num_workers=2),
    "loader of dicts": lambda x: DataLoader([{"x": row} for row in x], batch_size=8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_stimuli_of_every_kind(kind: str, net: Net, images: Tensor, tmp_path: Path) -> None:
    wanted = by_hand(net, images, 8, "norm", "head")
    in_memory = extracted(net, KINDS[kind](images), ["norm", "head"], batch_size=8)
    on_disk = extracted(net, KINDS[kind](images), ["norm", "head"], batch_size=8, output_dir=tmp_path, shard_size=20)
    for key, value in wanted.items():
        assert isinstance(in_memory[key], Tensor) and torch.equal(in_memory[key], value)
        assert on_disk[key].numpy().tobytes() == value.numpy().tobytes()


def test_a_loader_that_shuffles_is_refused(net: Net, images: Tensor) -> None:
    for loader in (
        DataLoader(Pairs(images), batch_size=8, shuffle=True),
        DataLoader(Pairs(images), sampler=torch.utils.data.SubsetRandomSampler(range(9))),
    ):
        with pytest.raises(tl.errors.OptionError, match="shuffle=False"):
            extracted(net, loader, ["head"])


def test_loaders_whose_size_is_told(net: Net, images: Tensor, tmp_path: Path) -> None:
    found = extracted(net, DataLoader(Pairs(images), batch_size=8, drop_last=True), ["head"], output_dir=tmp_path)
    assert found.num_stimuli == 48
    assert json.loads((tmp_path / "extraction.json").read_text())["settings"]["num_stimuli"] == 48
    with pytest.raises(tl.errors.ResumeError, match="batch_size= was 8 and is 4"):
        extracted(net, DataLoader(Pairs(images), batch_size=4, drop_last=True), ["head"], output_dir=tmp_path)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_loader_is_continued_where_it_was(at: int, net: Net, images: Tensor, tmp_path: Path) -> None:
    class Stops(Pairs):
        left = 8 * at

        def __getitem__(self, number: int) -> tuple[Tensor, int]:
            self.left -= 1
            if self.left == 0:
                raise OSError("the disk with the images is gone")
            return super().__getitem__(number)

    dataset = Stops(images)
    layers = {"norm": "norm", "relu": "relu_1_3"}
    with pytest.raises(OSError, match="the disk with the images is gone") as caught:
        extracted(net, DataLoader(dataset, batch_size=8), layers, output_dir=tmp_path / "one", shard_size=10)
    assert any("continues there" in note for note in caught.value.__notes__)
    extracted(net, DataLoader(dataset, batch_size=8), layers, output_dir=tmp_path / "one", shard_size=10)
    extracted(net, DataLoader(Pairs(images), batch_size=8), layers, output_dir=tmp_path / "two", shard_size=10)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_texts_of_different_lengths(tmp_path: Path) -> None:
    """Token numbers; a mean over positions, or a list."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 5)).eval()
    texts = [torch.arange(1 + number % 4) for number in range(9)]
    with pytest.raises(tl.errors.ExtractionError, match=r"'1' gave rows of the shape .*pool="):
        extracted(model, texts, ["1"], batch_size=1)
    with pytest.raises(tl.errors.ExtractionError, match="do not fit into one batch"):
        extracted(model, texts, ["1"], batch_size=4)
    pooled = extracted(model, texts, ["1"], batch_size=1, pool=lambda a: a.mean(1))["1"]
    listed = extracted(model, texts, ["1"], batch_size=1, ragged="list", output_dir=tmp_path)["1"]
    with torch.no_grad():
        for number, text in enumerate(texts):
            assert np.array_equal(listed[number], model(text).numpy())
            assert torch.equal(pooled[number], model(text[None]).mean(1)[0])


def test_a_batch_that_is_not_along_axis_0() -> None:
    model = nn.GRU(3, 5).eval()  # (positions, stimuli, features)
    sequences = torch.randn(7, 4, 3)

    def collate(items: list[Tensor]) -> tuple[Tensor]:
        return (torch.stack(items, 1),)

    with pytest.raises(tl.errors.ExtractionError, match=r"'gru_1_\d+:1|'.*\(4, 3, 5\) for 3 stimuli.*pool="):
        extracted(model, sequences, {"out": "output_1"}, batch_size=3, collate=collate)
    found = extracted(
        model, sequences, {"out": "output_1"}, batch_size=3, collate=collate, pool=lambda a: a.transpose(0, 1)
    )
    with torch.no_grad():
        assert torch.allclose(found["out"], model(sequences.transpose(0, 1))[0].transpose(0, 1), atol=1e-6)


def test_dtypes(net: Net, images: Tensor, tmp_path: Path) -> None:
    wanted = by_hand(net, images, 32, "conv")["conv"]
    for dtype in ("float16", torch.bfloat16, "float64"):
        name = str(dtype).removeprefix("torch.")
        found = extracted(net, images, ["conv"], dtype=dtype, output_dir=tmp_path / name)["conv"]
        assert found.dtype.name == name
        assert found.numpy().tobytes() == wanted.to(getattr(torch, name)).view(torch.uint8).numpy().tobytes()
        assert extracted(net, images, ["conv"], dtype=dtype)["conv"].dtype == getattr(torch, name)


def test_a_fast_path_is_the_same_in_every_batch(tmp_path: Path) -> None:
    """Attention runs fused where it is not watched: modules alone give what hooks give, also after a restart."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    data = torch.randn(20, 5, 8)
    kept = torch.cat([model(part).detach() for part in data.split(4)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = extracted(model, data, {"all": "self"}, batch_size=4)["all"]
    assert torch.allclose(found, kept, atol=1e-6)
    for at in (2, 4):
        folder = tmp_path / str(at)
        extracted(model, data, {"all": "self"}, batch_size=4, shard_size=4, output_dir=folder)
        before = contents(folder)
        manifest = json.loads(before["extraction.json"])
        del manifest["shards"], manifest["num_stimuli"]
        (folder / "extraction.json").write_text(json.dumps(manifest))
        for number in range(at, 5):
            (folder / f"activations-{number:06d}.safetensors").unlink()
        extracted(model, data, {"all": "self"}, batch_size=4, shard_size=4, output_dir=folder)
        assert contents(folder) == before


def test_a_lazy_module_is_initialised_by_the_first_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(4)).eval()
    found = extracted(model, torch.ones(6, 2, 3), ["1"], output_dir=tmp_path)
    with torch.no_grad():
        assert np.array_equal(found["1"].numpy(), model(torch.ones(6, 2, 3)).numpy())


# -- killed ------------------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from torch import nn
import torchlens as tl

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(288, 4))
data = torch.randn(600, 3, 8, 8, generator=torch.Generator().manual_seed(1))
folder, chance, kills = Path(sys.argv[1]), random.Random(5), 0


def extract(name):
    tl.extract_dataset(model.eval(), data, ["relu_1_3", "1", "linear_1_5"], batch_size=4, shard_size=12,
                       output_dir=folder / name, progress=False)


extract("warm")  # here, so that no child has to import what it needs
begin = time.perf_counter()
extract("one go")
seconds = time.perf_counter() - begin
while kills < 100:
    child = os.fork()
    if not child:
        extract("killed")
        os._exit(0)
    time.sleep(chance.uniform(0, seconds / 2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        break
    kills += 1
print(kills)
"""


def test_killed_at_any_moment_again_and_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 100, "over before it could be killed, or never over"
    assert contents(tmp_path / "killed") == contents(tmp_path / "one go")
    assert tl.load_extraction(tmp_path / "killed").verify() == []


# -- memory ------------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from pathlib import Path
import torch
from torch import nn
import torchlens as tl

torch.set_num_threads(1)


class Images(torch.utils.data.Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return torch.full((3, 32, 32), float(number))


def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3)).eval()
peaks = []
for count in (200, 2000):
    tl.extract_dataset(model, Images(count), ["relu_1_2", "0"], output_dir=Path(sys.argv[1]) / str(count),
                       shard_size=64, progress=False)
    peaks.append(peak())
print(*peaks)
"""


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """2,000 images whose activations take 524 MB, after 200 of them: the peak rises by less than a tenth of that."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large = map(float, done.stdout.split())
    stored = sum(path.stat().st_size for path in (tmp_path / "2000").iterdir()) / 2**20
    assert stored > 450
    assert large - small < 40, (small, large)
