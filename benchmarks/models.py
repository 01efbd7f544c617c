"""The models measured: chains of tiny operations, and ResNet-50 and GPT-2 small as their libraries have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Chain(nn.Module):
    """``count`` tiny operations in a row, nothing else."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.count // 4):
            x = x + 1
            x = torch.relu(x)
            x = x * 0.5
            x = torch.tanh(x)
        return x


class Stack(nn.Module):
    """``count`` operations, each a module's own: Linear and ReLU in turn."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(count // 2) for layer in (nn.Linear(8, 8), nn.ReLU())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class InPlace(nn.Module):
    """``count`` operations, every second one of them in place."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.count // 2):
            x = x + 1
            x.mul_(0.5)
        return x


def resnet50() -> tuple[nn.Module, tuple[Any, ...]]:
    """ResNet-50 at batch 1, random weights."""
    from tests.zoo.torchvision_cpu import import_torchvision

    build = import_torchvision().models.resnet50
    return build(weights=None).eval(), (torch.randn(1, 3, 224, 224),)


def gpt2() -> tuple[nn.Module, tuple[Any, ...]]:
    """GPT-2 small on 64 tokens at batch 1, random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()
    return model, (torch.randint(0, 50257, (1, 64)),)


def leaves(model: nn.Module) -> list[nn.Module]:
    """The modules that hold no other."""
    return [module for module in model.modules() if not list(module.children())]
