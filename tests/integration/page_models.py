"""The models of the public page's examples."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from examples.alexnet import AlexNet


def torchvision_models() -> Any:
    """``torchvision.models`` where torchvision is installed, and the project's own AlexNet under its name where not."""
    if importlib.util.find_spec("torchvision") is None:
        return SimpleNamespace(alexnet=lambda weights=None: AlexNet())
    from tests.zoo.torchvision_cpu import import_torchvision

    import_torchvision()
    return importlib.import_module("torchvision.models")


class EncoderDecoder(nn.Module):
    """A model with an ``encoder``: arrays of shape (N, 12) to arrays of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3), nn.Tanh())
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class SmallResNet(nn.Module):
    """A residual network with ``layer1`` to ``layer3``: images of shape (N, 3, 32, 32) to logits of shape (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(ResidualBlock(4, 8))
        self.layer2 = nn.Sequential(ResidualBlock(8, 16))
        self.layer3 = nn.Sequential(ResidualBlock(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values, as vision transformers have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        z = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(z.transpose(1, 2).reshape(count, length, width))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Two blocks of attention on patches already embedded: arrays of shape (N, L, 8) to logits of shape (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(TransformerBlock(8, 2), TransformerBlock(8, 2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


class SimpleRecurrent(nn.Module):
    """The page's recurrent model: one linear layer, four times."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features=5, out_features=5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.fc(x)
            x = x + 1
            x = x * 2
        return x


def module_outputs(model: nn.Module, x: Tensor, *classes: type[nn.Module]) -> dict[str, Tensor]:
    """What the modules of these classes return in a plain run, by address: the oracle, from torch's own hooks."""
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, out, address=address: outputs.__setitem__(address, out.detach().clone())
        )
        for address, module in model.named_modules()
        if isinstance(module, classes)
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def seeded(run: Any) -> Any:
    """Run something from a fixed state of the random generator, so that dropout draws the same."""
    torch.manual_seed(0)
    return run()
