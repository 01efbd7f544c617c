"""One changed parameter in a real model: the first divergence is the operation that uses it."""

import copy
import random
from typing import Any

import pytest
import torch
from torch import nn

import torchlens as tl
from tests.zoo.torchvision_cpu import import_torchvision

import_torchvision()  # before those that import it themselves
import timm  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: E402

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(9).reshape(1, 9)
LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def resnet18() -> nn.Module:
    return import_torchvision().models.resnet18()


def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3)


def gpt2() -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100, **ends))


def llama(**options: Any) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**LLAMA, **options))


MODELS = [(resnet18, IMAGES), (vit, IMAGES), (gpt2, TOKENS), (llama, TOKENS)]


@pytest.mark.parametrize(("make", "x"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_parameter_is_found(make: Any, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = make().eval()
    before = tl.trace(model, x)
    assert tl.bundle([before, tl.trace(model, x)]).first_divergence(rtol=0) is None
    names = [name for name, _ in model.named_parameters()]
    for name in random.Random(0).sample(names, 5):
        changed = copy.deepcopy(model)
        with torch.no_grad():
            parameter = changed.get_parameter(name)
            parameter.mul_(1.5).add_(0.1 * torch.randn_like(parameter))
        found = tl.bundle({"before": before, "after": tl.trace(changed, x)}).first_divergence()
        assert found is not None, name
        assert name in found.ops[0].param_addresses
        assert found.inputs_agree


@pytest.mark.parametrize(("make", "x"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_double_precision_is_no_divergence(make: Any, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = make().eval()
    double = tl.trace(copy.deepcopy(model).double(), x.double() if x.is_floating_point() else x)
    assert tl.bundle([tl.trace(model, x), double]).first_divergence() is None


def test_two_ways_to_compute_attention_agree() -> None:
    """Other operations inside each attention, the same everywhere else."""
    torch.manual_seed(0)
    fused = llama().eval()
    plain = llama(attn_implementation="eager").eval()
    plain.load_state_dict(fused.state_dict())
    bundle = tl.bundle({"fused": tl.trace(fused, TOKENS), "plain": tl.trace(plain, TOKENS)})
    assert not bundle.is_structurally_consistent
    alone = {site.type for site in bundle.unmatched["fused"]}
    assert "scaleddotproductattention" in alone and "linear" not in alone
    assert bundle.first_divergence() is None
