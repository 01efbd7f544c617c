"""A toy model with attention, and the recipe of its facets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from torchlens_core.facets import (
    Computed,
    Facet,
    ModuleNode,
    Permute,
    Recipe,
    RepeatHeads,
    Unflatten,
    argument,
    setting,
    split_heads,
)
from torchlens_core.facets.numpy_verbs import verbs_for
from torchlens_core.interventions.at import At
from torchlens_core.records.op import Op
from torchlens_core.selectors import followed_by, func, in_module, module
from torchlens_core.testing.toy_framework import Array, Module, operation, split
from torchlens_core.testing.toy_layers import Linear

HEADS, HEAD_DIM, POSITIONS, BATCH = 3, 2, 5, 4
WIDTH = HEADS * HEAD_DIM
ALL = slice(None)
AXES = ("batch", "head", "position", "head_dim")


def by_head(array: Any) -> Any:
    """(batch, position, heads * head_dim) of numpy as (batch, head, position, head_dim)."""
    return array.reshape(*array.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def pattern_of(q: Any, k: Any) -> Any:
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return scores / scores.sum(-1, keepdims=True)


def _attend(q: Any, k: Any, v: Any, heads: int) -> Any:
    mixed = pattern_of(by_head(q), by_head(k)) @ by_head(v)
    return mixed.transpose(0, 2, 1, 3).reshape(q.shape)


attend = operation("attend", _attend)


class Attention(Module):
    """Attention with one projection for queries, keys and values, and one fused operation."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.heads = HEADS
        self.qkv = Linear(WIDTH, 3 * WIDTH, seed=seed)
        self.out = Linear(WIDTH, WIDTH, seed=seed + 1)

    def forward(self, x: Array) -> Any:
        q, k, v = split(self.qkv(x), 3)
        return self.out(attend(q, k, v, self.heads))


class Model(Module):
    """Two blocks of attention; the second runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Attention(0), Attention(7)]
        self.unused = Attention(3)

    def forward(self, x: Array) -> Any:
        x = x + self.blocks[0](x)
        for _ in range(2):
            x = x + self.blocks[1](x)
        return x


def third(number: int) -> tuple[Any, ...]:
    return Unflatten(-1, (3, HEADS, -1)), At((..., number, ALL, ALL)), Permute((0, 2, 1, 3))


def pattern(op: Op) -> Any:
    q, k = (argument(op, name, ("q", "k", "v", "heads")) for name in "qk")
    assert setting(op, "heads", ("q", "k", "v", "heads")) == HEADS
    verbs = verbs_for(op.trace, q)
    for view in split_heads(HEAD_DIM):
        q, k = view.get(q, verbs), view.get(k, verbs)
    return verbs.attention_weights(q, k)


def facets(node: ModuleNode) -> Mapping[str, Facet]:
    projection, attention = module(node.path("qkv")), in_module(node.address) & func("attend")
    taken = in_module(node.address) & followed_by(attention)
    return {
        "q": Facet(AXES, "queries", projection, third(0)),
        "k": Facet(AXES, "keys", projection, third(1)),
        "v": Facet(AXES, "values", projection, third(2)),
        "z": Facet(AXES, "what each head gives", attention, split_heads(HEAD_DIM)),
        "k_twice": Facet(
            AXES, "keys, twice", projection, (*third(1), RepeatHeads(2)), read_only="they are there twice"
        ),
        "pattern": Facet(
            ("batch", "head", "position", "key"),
            "how much of each key",
            computed=Computed(attention, pattern, attention | taken, "no operation makes it"),
        ),
        "given": Facet((), "what it was given", find=lambda call: call.inputs[:1]),
        "both": Facet((), "two operations", projection | attention),
        "never": Facet((), "not in this run", in_module(node.address) & func("tanh")),
    }


RECIPE = Recipe("toy attention", lambda node: node.cls == "Attention" and node.number("heads") is not None, facets)
