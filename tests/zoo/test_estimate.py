"""Estimates of real models: what they say is what the trace of the same call holds."""

import resource

import pytest
import torch
import transformers
from torch import nn

import torchlens as tl
from tests.zoo.catalogue import ENTRIES, select
from tests.zoo.torchvision_cpu import import_torchvision
from torchlens_torch.abstract import Peak
from torchlens_torch.arrays import TorchArrays

pytestmark = pytest.mark.filterwarnings("ignore")

torchvision = import_torchvision()
# Those of transformers build their attention masks in another way where values cannot be looked at.
SAME = ["plain/", "torchvision/", "timm/"]


def assert_same(model: nn.Module, args: tuple, kwargs: dict, tolerance: float = 0.0) -> None:
    estimate = tl.estimate(model, args, kwargs)
    with torch.no_grad():
        log = tl.trace(model, args, kwargs)
    assert [(op.label, op.shape, op.dtype) for op in estimate.trace] == [(op.label, op.shape, op.dtype) for op in log]
    assert estimate.flops == log.flops
    held = TorchArrays().nbytes_held(log.values[vid] for vid in log.values)
    assert estimate.saved_nbytes == pytest.approx(held, rel=tolerance)


def test_resnet50() -> None:
    model, x = torchvision.models.resnet50(weights=None).eval(), torch.randn(2, 3, 224, 224)
    assert_same(model, (x,), {})
    with torch.no_grad(), Peak([x, *model.parameters(), *model.buffers()]) as peak:
        model(x)
    assert tl.estimate(model, x).peak_nbytes == peak.nbytes


def test_gpt2() -> None:
    model = transformers.GPT2Model(transformers.GPT2Config()).eval()
    assert_same(model, (torch.randint(50257, (1, 64)),), {})


@pytest.mark.parametrize("name", [entry.name for entry in select(SAME)[::5]])
def test_catalogue(name: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    model = entry.model()
    try:
        assert_same(model, *entry.arguments(), tolerance=0.03)  # kernels may lay out results as no fake tensor has them
    except tl.errors.EstimateError as error:
        assert "depends on values" in str(error)


def test_a_language_model_of_seven_billion_parameters() -> None:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    estimates = [
        tl.estimate(model, (), {"input_ids": torch.zeros(1, 2048, dtype=torch.long, device=device)})
        for device in ("cpu", "meta")
    ]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100_000_000
    assert estimates[0].num_params == 6_738_415_616
    assert estimates[0].saved_nbytes == estimates[1].saved_nbytes > 30_000_000_000
    # 2 FLOPs a parameter and token, the embedding left out, and attention beside
    assert 1.0 < estimates[0].flops / (2 * 2048 * (6_738_415_616 - 32000 * 4096)) < 1.15
    assert all(param.is_meta for param in model.parameters())


def test_the_report_of_a_hugging_face_model() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50)).eval()
    report = tl.compat.report(model, torch.arange(5)[None], run=True)
    assert report["Hugging Face model"].detected and report["tied parameters"].evidence == "transformer.wte.weight"
    assert report["this model, run"].status == "pass", report["this model, run"]
