"""Trace files of PyTorch models: everything comes back, even without PyTorch, and replays with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from examples.alexnet import AlexNet
from tests.core.same_trace import differences
from torchlens_core.file.decode import NotReplayable
from torchlens_core.plugins import get_backend
from torchlens_core.replay import Replay
from torchlens_torch.functions import describe
from torchlens_torch.resolving import resolve

ROOT = Path(__file__).parents[2]
FORMS = ["trace", "trace.safetensors"]


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.fc(x)
            x = x + 1
            x = x * 2
        return x


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if x.sum() > 1e9:
            x = x.relu()
        elif x.mean() > -1e9:
            x = x.sigmoid()
        while x.norm() < 10:
            x = x * 2
        return x * x.max().item()


class Arguments(nn.Module):
    """Arguments of every kind: dtypes, devices, layouts, slices, infinities, containers; writes and several outputs."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = x.to(torch.float64).masked_fill(x > 0, float("-inf"))
        q, k = x.clone().split(2, 1)
        q.mul_(3)
        z = torch.zeros(2, dtype=torch.bfloat16, device="cpu", layout=torch.strided) + 1.5
        last = x.contiguous(memory_format=torch.channels_last)[..., 0:2, None]
        return {"a": torch.cat([q, k], dim=1), "b": torch.sort(k.flatten()), "y": y, "z": z, "last": last}


class Types(nn.Module):
    """An array of each element type that PyTorch and files share."""

    def forward(self, x: Tensor) -> list[Tensor]:
        kinds = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float64 complex64 complex128".split()
        return [x.to(getattr(torch, kind)) for kind in (*kinds, "float8_e4m3fn", "float8_e5m2")]


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3)).train()


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "alexnet": lambda: (AlexNet().eval(), torch.randn(1, 3, 224, 224)),
    "loop": lambda: (Loop(), torch.randn(6, 5)),
    "batch norm in training": lambda: (batch_norm(), torch.randn(2, 3, 8, 8)),
    "branch": lambda: (Branch(), torch.randn(2, 5)),
    "arguments": lambda: (Arguments(), torch.randn(2, 4, 3, 3)),
    "types": lambda: (Types(), torch.rand(3, 2)),
    "attention": lambda: (nn.MultiheadAttention(8, 2), [torch.randn(3, 1, 8)] * 3),
    "lstm": lambda: (nn.LSTM(4, 4, num_layers=2), torch.randn(3, 2, 4)),
}


def traced(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return tl.trace(*MODELS[name](), **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_load_gives_what_was_saved(name: str, form: str, tmp_path: Path) -> None:
    live = traced(name, replay_ready=name != "alexnet")
    tl.save(live, tmp_path / form)
    loaded = tl.load(tmp_path / form)
    assert differences(live, loaded) == []
    assert tl.verify(tmp_path / form) == []
    for op in loaded:
        assert type(op.out) is np.ndarray


def _comparable(array: Tensor) -> Tensor:
    """An array as ``torch.equal`` takes it: elements of one byte as their bits."""
    return array.resolve_conj().view(torch.uint8) if array.element_size() == 1 else array


def bits(array: Tensor) -> Tensor:
    """The array, or the bits of one of the narrow types that torch does not compare."""
    return array.detach().view(torch.uint8) if array.element_size() == 1 else array


@pytest.mark.parametrize("name", MODELS)
def test_with_the_backend_values_are_tensors_and_constants_are_torch_s(name: str, tmp_path: Path) -> None:
    live = traced(name)
    tl.save(live, tmp_path / "trace")
    loaded = tl.load(tmp_path / "trace", backend="torch")
    assert differences(live, loaded) == []
    for here, there in zip(live, loaded, strict=True):
        assert here.out.dtype == there.out.dtype
        assert torch.equal(_comparable(here.out.detach()), _comparable(there.out))
        assert not isinstance(there.func, NotReplayable)
    for here, there in zip(live.program.rows, loaded.program.rows, strict=True):
        assert (here.args, dict(here.kwargs)) == (there.args, dict(there.kwargs)), (
            "dtypes and devices are objects again"
        )


@pytest.mark.parametrize("name", ["alexnet", "loop", "branch", "arguments", "attention", "lstm"])
def test_a_loaded_trace_replays(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]()
    with torch.no_grad():
        live = tl.trace(model.eval(), x, replay_ready=True)
    tl.save(live, tmp_path / "trace")
    loaded = tl.load(tmp_path / "trace", backend="torch")
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sources = {s.vid: state[s.address].detach() for s in loaded.program.sources if s.kind in ("param", "buffer")}
    sources |= {vid: array.clone() for vid, array in loaded.program.constants.items()}
    compared = 0
    with torch.no_grad():
        for step in Replay(loaded.program, get_backend("torch"), sources).steps():
            for vid, array in step.arrays.items():
                if vid in loaded.values:
                    assert torch.equal(array, loaded.values[vid])
                    compared += 1
    assert compared >= live.num_ops


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
import torchlens as tl
loaded = tl.load(sys.argv[1], verify="eager")
expected = np.load(sys.argv[2])
assert len(expected) == len(loaded) > 20
for op in loaded:
    assert np.array_equal(op.out, expected[op.label]), op.label
    str(op), op.parents, op.code_context, op.flops
print(loaded.summary())
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_file_opens_where_torch_is_not_installed(form: str, tmp_path: Path) -> None:
    live = traced("alexnet")
    tl.save(live, tmp_path / form)
    np.savez(tmp_path / "expected.npz", **{op.label: op.numpy() for op in live})
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / form), str(tmp_path / "expected.npz")],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == live.summary(), done.stderr


# -- what is not as simple ---------------------------------------------------------------------------------------------


def test_arrays_without_data_are_listed_as_not_stored(tmp_path: Path) -> None:
    live = tl.trace(nn.Linear(3, 2, device="meta"), torch.randn(1, 3, device="meta"))
    with pytest.warns(tl.errors.SaveWarning, match="2 value.*input_1:1: This array has a shape and no data"):
        tl.save(live, tmp_path / "trace")
    loaded = tl.load(tmp_path / "trace")
    assert loaded["linear_1"].shape == (1, 2)
    assert [each.name for each in tl.inspect(tmp_path / "trace").not_stored] == ["input_1:1", "linear_1_1:1"]
    assert "no data" in str(tl.inspect(tmp_path / "trace"))


def test_quantised_arrays_are_stored_dequantised_and_say_so(tmp_path: Path) -> None:
    live = tl.trace(
        lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.qint8).dequantize() * 2, torch.tensor([0.4, 1.2])
    )
    tl.save(live, tmp_path / "trace")
    loaded = tl.load(tmp_path / "trace")
    quantised = next(op for op in loaded if op.dtype == "qint8")
    assert quantised.out.tolist() == [0.5, 1.0]
    record = next(array for array in tl.inspect(tmp_path / "trace").arrays if array.name == quantised.label)
    assert (record.dtype, record.fidelity) == ("float32", "converted")


def test_arrays_kept_through_a_transform_say_so(tmp_path: Path) -> None:
    live = tl.trace(*MODELS["loop"](), activation_transform=lambda t: t.half().mean(0))
    tl.save(live, tmp_path / "trace")
    assert differences(live, tl.load(tmp_path / "trace")) == []
    assert {array.fidelity for array in tl.inspect(tmp_path / "trace").arrays} == {"transformed"}


def test_a_value_that_was_overwritten_since_is_named(tmp_path: Path) -> None:
    x = torch.randn(3)
    live = tl.trace(torch.relu, x)
    x.add_(1)
    with pytest.raises(tl.errors.SaveError, match="input_1:1 has been overwritten since the run"):
        tl.save(live, tmp_path / "trace")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "view", [lambda t: t.T, lambda t: t[::2, 1:], lambda t: t.expand(2, 4, 6), lambda t: t.to_sparse()]
)
def test_views_and_sparse_arrays_come_back(view: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    live = tl.trace(view, torch.arange(24.0).reshape(4, 6) % 5)
    tl.save(live, tmp_path / "trace")
    assert differences(live, tl.load(tmp_path / "trace")) == []


def test_the_source_lines_of_a_model_come_along(tmp_path: Path) -> None:
    tl.save(traced("loop"), tmp_path / "trace")
    location = tl.load(tmp_path / "trace")["mul_1:1"].code_context[-1]
    assert (location.file, location.call_line) == ("tests/torch/test_files.py", "x = x * 2")
    assert "for _ in range(4):" in "\n".join(location.source_context(3))
    tl.save(traced("loop"), tmp_path / "bare", include_source=False)
    assert tl.load(tmp_path / "bare")["mul_1:1"].code_context == []


def test_everything_can_be_asked_of_a_loaded_trace(tmp_path: Path) -> None:
    live = traced("branch")
    tl.save(live, tmp_path / "trace")
    loaded = tl.load(tmp_path / "trace")
    assert str(loaded) == str(live)
    assert loaded.to_pandas().drop(columns="dtype_name").shape == live.to_pandas().drop(columns="dtype_name").shape
    assert loaded.conditional_branch_edges == live.conditional_branch_edges
    assert loaded.conditional_arm_entry_edges == live.conditional_arm_entry_edges
    assert str(loaded.draw(vis_fileformat="dot", vis_outpath=str(tmp_path / "graph"))) != ""


# -- functions by path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "os.system", "torch.load", "torch.save", "torch.hub.load", "torch._dynamo", "torch.from_file",
        "torch.Tensor.__class__", "torch.Tensor.__reduce_ex__", "torch.Tensor.__setstate__",
        "torch.Tensor.module_load", "torch.ops.load_library", "torch.ops.aten.add.__class__",
        "torch.ops.aten.add.__init__", "torch.ops.aten.from_file.default",
        "torch.nn.functional.torch", "torch.nn.functional.__builtins__", "torch.utils.cpp_extension.load", "", "torch.",
    ],
)  # fmt: skip
def test_files_can_ask_for_operations_alone(path: str) -> None:
    assert resolve(path) is None


@pytest.mark.parametrize(
    "kind, name", [("dtype", "_dynamo"), ("dtype", "Tensor"), ("device", "os.system"), ("layout", "x"), ("", "")]
)
def test_files_can_ask_for_constants_alone(kind: str, name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"."):
        get_backend("torch").arrays.constant(kind, name)
    assert set(sys.modules) == before


def test_every_operation_is_found_by_its_path() -> None:
    given = [func for group in torch.overrides.get_overridable_functions().values() for func in group]
    refused = {"torch.Tensor.__reduce_ex__", "torch.Tensor.__setstate__", "torch.Tensor.module_load"}
    paths = {describe(func).path for func in given} - refused
    assert len(paths) > 1000
    assert [path for path in paths if resolve(path) is None] == []
    assert resolve("torch.zeros") is torch.zeros
    assert resolve("torch.fft.fftfreq") is None and resolve(describe(torch.fft.fftfreq).path) is torch.fft.fftfreq
