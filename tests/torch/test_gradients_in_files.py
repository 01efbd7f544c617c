"""Gradients in trace files: what is saved is what is loaded, and what contradicts itself is refused."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import torchlens as tl


@pytest.fixture
def trace() -> tl.Trace:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    made = tl.trace(model, torch.randn(3, 4, requires_grad=True), save_grads=True)
    loss = made["output_1"].out.sum()
    made.log_backward(loss, calls=True, retain_graph=True)
    (3 * loss).backward()
    return made


@pytest.mark.parametrize("name", ["run", "run.safetensors"])
def test_round_trip(trace: tl.Trace, tmp_path: Path, name: str) -> None:
    path = tl.save(trace, tmp_path / name)
    assert tl.verify(path) == []
    loaded = tl.load(path)
    assert list(loaded.gradients) == list(trace.gradients)
    for label in trace.gradients:
        for bwd in (1, 2):
            np.testing.assert_array_equal(loaded[label].grad_for(bwd=bwd), trace[label].grad_for(bwd=bwd).numpy())
    np.testing.assert_array_equal(
        loaded.params["0.weight"].grad_for(bwd=2), trace.params["0.weight"].grad_for(bwd=2).numpy()
    )
    assert [done.to_dict() for done in loaded.backward_passes] == [done.to_dict() for done in trace.backward_passes]
    assert [each.to_dict() for each in loaded.grad_fns] == [each.to_dict() for each in trace.grad_fns]
    assert [each.to_dict() for each in loaded.grad_fn_calls] == [each.to_dict() for each in trace.grad_fn_calls]
    assert loaded.draw_backward(return_graph=True).dot == trace.draw_backward(return_graph=True).dot
    assert loaded["tanh_1"].grad_nbytes == trace["tanh_1"].grad_nbytes
    again = tl.load(tl.save(loaded, tmp_path / "again"), backend="torch")
    assert torch.equal(again["tanh_1"].grad_for(bwd=1), trace["tanh_1"].grad_for(bwd=1))


def test_a_loaded_trace_runs_no_backward(trace: tl.Trace, tmp_path: Path) -> None:
    loaded = tl.load(tl.save(trace, tmp_path / "run"), backend="torch")
    with pytest.raises(tl.errors.GradientError, match="loaded trace has no gradient tape"):
        loaded.log_backward(torch.ones((), requires_grad=True))
    with pytest.raises(tl.errors.ReplayError, match="loaded from a file"):
        loaded.gradients(of=lambda out: out.sum())
    without = tl.load(tl.save(trace, tmp_path / "bare", include_values=False))
    assert len(without.gradients) == 0 and len(without.grad_fns) == len(trace.grad_fns)


def test_transformed_gradients(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    norms = tl.trace(model, torch.randn(3, 4), save_grads=True, grad_transform=lambda gradient: gradient.norm())
    norms.log_backward(norms["output_1"].out.sum())
    loaded = tl.load(tl.save(norms, tmp_path / "norms"))
    assert loaded["linear_1"].grad == pytest.approx(norms["linear_1"].grad.item())
    numbers = tl.trace(model, torch.randn(3, 4), save_grads=True, grad_transform=lambda gradient: gradient.sum().item())
    numbers.log_backward(numbers["output_1"].out.sum())
    with pytest.warns(tl.errors.SaveWarning, match="made a float of it"):
        tl.save(numbers, tmp_path / "numbers")


def rewritten(path: Path, change: Any) -> Path:
    manifest = msgspec.json.decode((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return path


def _gradient(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(array for array in manifest["arrays"] if array["role"] == "gradient")


@pytest.mark.parametrize("bwd", [0, 3])
def test_a_gradient_of_no_pass_is_refused(trace: tl.Trace, tmp_path: Path, bwd: int) -> None:
    path = tl.save(trace, tmp_path / "run")
    rewritten(path, lambda manifest: _gradient(manifest).update(bwd=bwd))
    assert any("rule A6" in str(problem) for problem in tl.verify(path))
    with pytest.raises(tl.errors.TraceFileError):
        tl.load(path)


def test_the_feature_is_required(trace: tl.Trace, tmp_path: Path) -> None:
    path = tl.save(trace, tmp_path / "run")
    assert msgspec.json.decode((path / "manifest.json").read_bytes())["requires"] == ["gradients"]
    rewritten(path, lambda manifest: manifest.pop("requires"))
    with pytest.raises(tl.errors.GraphError, match="rule M3"):
        tl.load(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [(("watched",), [999]), (("passes", 0, "grad_fns"), [99]), (("grad_fns", 0, "next"), [99]),
     (("grad_fns", 1, "values"), [999]), (("grad_fns", 2, "leaf"), 999), (("grad_fns", 0, "origin"), 9)],
)  # fmt: skip
def test_references_that_lead_nowhere_are_refused(
    trace: tl.Trace, tmp_path: Path, where: tuple[Any, ...], value: Any
) -> None:
    from torchlens_core.file.encode import encode
    from torchlens_core.file.rules import breaches
    from torchlens_core.file.schema import Records

    raw = msgspec.to_builtins(encode(trace, id_="0" * 32, include_source=True, numbers=()))
    at = raw["gradients"]
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    found = list(breaches(msgspec.convert(raw, Records), "here"))
    assert found and all("rule G1" in str(each) for each in found)
