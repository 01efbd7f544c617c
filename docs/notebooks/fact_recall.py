"""A small transformer that knows 300 facts: what the notebooks beside this file look into.

A fact is a first name, a last name and a relation (three tokens), and an object (the answer), drawn at random: to
answer, the model has to bring all three together at the last position. It learns them by heart in a few seconds on a
CPU.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_NAMES, LAST_NAMES, RELATIONS, OBJECTS = 10, 10, 3, 12


class Facts(NamedTuple):
    """All facts. Tokens of names, relations and objects are numbered one after the other."""

    tokens: Tensor  # (300, 3) int64: first name, last name, relation
    answers: Tensor  # (300,) int64: the token of the object


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to the residual stream: (N, positions, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(heads.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Recall(nn.Module):
    """Tokens (N, 3) to logits of the answer (N, vocabulary)."""

    def __init__(self, vocabulary: int, width: int = 64, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(3, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1]))


def make_facts() -> Facts:
    """Every pair of names with every relation, each with an object drawn at random."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.meshgrid(*map(torch.arange, (FIRST_NAMES, LAST_NAMES, RELATIONS)), indexing="ij")
    starts = (0, FIRST_NAMES, FIRST_NAMES + LAST_NAMES)
    tokens = torch.stack([start + axis.flatten() for start, axis in zip(starts, grid, strict=True)], -1)
    objects = torch.randint(OBJECTS, (len(tokens),), generator=generator)
    return Facts(tokens, FIRST_NAMES + LAST_NAMES + RELATIONS + objects)


def train(facts: Facts, steps: int = 200) -> Recall:
    """A model that knows the facts, ready to be looked into."""
    torch.manual_seed(0)
    model = Recall(FIRST_NAMES + LAST_NAMES + RELATIONS + OBJECTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(steps):
        batch = torch.randint(len(facts.tokens), (150,))
        loss = F.cross_entropy(model(facts.tokens[batch]), facts.answers[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)
