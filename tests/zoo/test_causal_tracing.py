"""Patching every layer and position of a GPT-2, against forward hooks written by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.zoo.torchvision_cpu import import_torchvision

import_torchvision()  # transformers imports it
transformers = pytest.importorskip("transformers")
LAYERS, TOKENS, TARGET = 4, 7, 5


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=LAYERS, n_head=4, n_embd=32, vocab_size=100, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval()


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def by_hand(model: nn.Module, clean: Tensor, corrupted: Tensor) -> np.ndarray:
    blocks, values = list(model.transformer.h), []
    handles = [block.register_forward_hook(lambda _, __, out: values.append(first(out).clone())) for block in blocks]
    model(clean)
    for handle in handles:
        handle.remove()
    effects = np.zeros((LAYERS, TOKENS))
    for layer, block in enumerate(blocks):
        for position in range(TOKENS):

            def patch(_: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
                patched = first(out).clone()
                patched[:, position] = values[layer][:, position]  # noqa: B023
                return (patched, *out[1:]) if isinstance(out, tuple) else patched

            handle = block.register_forward_hook(patch)
            effects[layer, position] = model(corrupted).logits[0, -1, TARGET]
            handle.remove()
    return effects


@torch.no_grad()
@pytest.mark.parametrize("batched", [False, True, 5])
def test_causal_tracing(model: nn.Module, batched: bool | int) -> None:
    torch.manual_seed(1)
    clean = torch.randint(100, (1, TOKENS))
    corrupted = clean.clone()
    corrupted[0, 2] = (clean[0, 2] + 1) % 100
    expected = by_hand(model, clean, corrupted)
    assert expected.std() > 1e-4
    sweep = tl.sweep(
        model,
        corrupted,
        at={(i, j): tl.module(f"transformer.h.{i}").at[:, j] for i in range(LAYERS) for j in range(TOKENS)},
        values=tl.trace(model, clean),
        metric=lambda out: out.logits[0, -1, TARGET],
        batched=batched,
    )
    effects = np.array(sweep.table()["metric"]).reshape(LAYERS, TOKENS)
    assert np.allclose(effects, expected, atol=1e-6)
    assert np.isclose(sweep.of_baseline["metric"], model(corrupted).logits[0, -1, TARGET].item(), atol=1e-6)
