"""Interventions on real models: equal to forward hooks written by hand, values and gradients of all parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.zoo.torchvision_cpu import import_torchvision


def resnet18() -> tuple[nn.Module, Any]:
    return import_torchvision().models.resnet18().eval(), torch.randn(2, 3, 64, 64)


def vit() -> tuple[nn.Module, Any]:
    import_torchvision()
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=64).eval(), torch.randn(2, 3, 64, 64)


def gpt2() -> tuple[nn.Module, Any]:
    import_torchvision()
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=3, n_embd=48, n_head=4, vocab_size=100, bos_token_id=0, eos_token_id=0, use_cache=False)
    return GPT2LMHeadModel(config).eval(), torch.arange(24).reshape(2, 12)


def gpt2_with_checkpoints() -> tuple[nn.Module, Any]:
    model, given = gpt2()
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, given


PLACES = {
    "resnet18 layer2": (resnet18, "layer2", 128, 1),
    "resnet18 layer2.0.relu": (resnet18, "layer2.0.relu", 128, 1),  # in place, and called twice
    "vit attention": (vit, "blocks.3.attn", 192, -1),
    "gpt2 mlp": (gpt2, "transformer.h.1.mlp", 48, -1),
    "gpt2 block": (gpt2, "transformer.h.1", 48, -1),
    "gpt2 body": (gpt2, "transformer", 48, -1),
    "gpt2 with checkpoints": (gpt2_with_checkpoints, "transformer.h.1.mlp", 48, -1),
}


def _along(width: int, axis: int, value: Tensor) -> Tensor:
    return torch.linspace(-1, 1, width).reshape([width if a == axis % value.ndim else 1 for a in range(value.ndim)])


def _off(width: int, axis: int, value: Tensor) -> Tensor:
    along = _along(width, axis, value)
    return value - (value * along).sum(axis, keepdim=True) / (along**2).sum() * along


ACTIONS: dict[str, tuple[Callable[[int], Any], Callable[[int, int, Tensor], Tensor]]] = {
    "zero_ablate": (lambda width: tl.zero_ablate(), lambda width, axis, v: torch.zeros_like(v)),
    "mean_ablate": (
        lambda width: tl.mean_ablate(over="batch"),
        lambda w, a, v: v.mean(0, keepdim=True).expand_as(v) * 1,
    ),
    "scale": (lambda width: tl.scale(0.5), lambda width, axis, v: v * 0.5),
    "clamp": (lambda width: tl.clamp(-0.1, 0.1), lambda width, axis, v: v.clamp(-0.1, 0.1)),
    "steer": (lambda width: tl.steer(np.linspace(-1, 1, width), 0.1), lambda w, a, v: v + 0.1 * _along(w, a, v)),
    "project_off": (lambda width: tl.project_off(np.linspace(-1, 1, width)), _off),
}


def _changed(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a module returned, with its first array changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return dataclasses.replace(output, last_hidden_state=change(output.last_hidden_state))


def _gradients(model: nn.Module, out: Tensor) -> list[Tensor]:
    model.zero_grad()
    out.float().pow(2).mean().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_the_forward_hook_by_hand(place: str, action: str) -> None:
    make_model, address, width, axis = PLACES[place]
    make, by_hand = ACTIONS[action]
    torch.manual_seed(0)
    model, given = make_model()
    hook = model.get_submodule(address).register_forward_hook(
        lambda module, args, output: _changed(output, lambda value: by_hand(width, axis, value))
    )
    out = model(given)
    expected = out if isinstance(out, Tensor) else out.logits
    gradients = _gradients(model, expected)
    hook.remove()  # checkpoints run it again
    trace = tl.trace(model, given, save=tl.module("self"), intervene=tl.when(tl.module(address), make(width)))
    made = trace["output_1"].out
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=3e-6)
    for ours, theirs in zip(_gradients(model, made), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert any(op.is_changed for op in trace)
