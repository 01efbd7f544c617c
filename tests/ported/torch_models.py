"""Models in PyTorch, and their traces as files: what the ports to other frameworks are compared with.

``python -m tests.ported.torch_models`` writes the files. They are kept, so that a port is tested where there is no
PyTorch.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import torchlens as tl
from tests.ported.weights import SHAPES, input_of, weights_of
from torchlens_core.records.trace import Trace

TRACES = Path(__file__).parent / "traces"


class MLP(nn.Module):
    """Three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = F.gelu(self.second(x))
        return F.softmax(self.head(x), dim=-1)


class CNN(nn.Module):
    """Two convolutions, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        x = F.relu(self.conv2(x))
        return self.head(x.reshape(x.shape[0], -1))


class Loop(nn.Module):
    """A recurrent cell, run over time: (batch, time, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.rec = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h = torch.tanh(self.inp(x[:, t]) + self.rec(h))
        return self.head(h)


class Attention(nn.Module):
    """Attention of several heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """A transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(12)
        self.attn = Attention(12, heads=3)
        self.norm2 = nn.LayerNorm(12)
        self.up = nn.Linear(12, 24)
        self.down = nn.Linear(24, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.TransformerEncoderLayer):
    """A layer of the library: one projection of queries, keys and values, time before batch inside."""

    def __init__(self) -> None:
        super().__init__(12, 3, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)


def traced(name: str) -> Trace:
    """The trace of a model with the common weights, on the common input."""
    model = globals()[name]().eval()
    model.load_state_dict({address: torch.from_numpy(array) for address, array in weights_of(name).items()})
    return tl.trace(model, torch.from_numpy(input_of(name)))


if __name__ == "__main__":
    for each in SHAPES:
        tl.save(traced(each), TRACES / f"{each}.safetensors", overwrite=True)
