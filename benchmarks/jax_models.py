"""The JAX models measured: a transformer of Equinox and a ResNet of Flax NNX, written out."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx


class Block(eqx.Module):
    """A transformer's block: attention and an MLP, each after a norm and added to what came in."""

    norm_1: eqx.nn.LayerNorm
    norm_2: eqx.nn.LayerNorm
    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    out: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, key: jax.Array) -> None:
        keys = jax.random.split(key, 6)
        self.norm_1, self.norm_2 = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (eqx.nn.Linear(width, width, key=key) for key in keys[:4])
        self.up = eqx.nn.Linear(width, 4 * width, key=keys[4])
        self.down = eqx.nn.Linear(4 * width, width, key=keys[5])
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.vmap(self.norm_1)(x)
        query, key, value = (self._split(jax.vmap(layer)(y)) for layer in (self.query, self.key, self.value))
        scores = jnp.einsum("hqd,hkd->hqk", query, key) / query.shape[-1] ** 0.5
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[1:], bool)), scores, -jnp.inf)
        y = jnp.einsum("hqk,hkd->hqd", jax.nn.softmax(scores), value)
        x = x + jax.vmap(self.out)(y.transpose(1, 0, 2).reshape(x.shape))
        y = jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm_2)(x)))
        return x + jax.vmap(self.down)(y)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], self.heads, -1).transpose(1, 0, 2)


class Transformer(eqx.Module):
    """Tokens to logits."""

    embedding: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, layers: int, width: int, heads: int, words: int, key: jax.Array) -> None:
        keys = jax.random.split(key, layers + 2)
        self.embedding = eqx.nn.Embedding(words, width, key=keys[0])
        self.blocks = [Block(width, heads, key) for key in keys[2:]]
        self.norm = eqx.nn.LayerNorm(width)
        self.head = eqx.nn.Linear(width, words, key=keys[1])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.up_to(tokens, len(self.blocks))
        return jax.vmap(self.head)(jax.vmap(self.norm)(x))

    def up_to(self, tokens: jax.Array, count: int) -> jax.Array:
        """What the first blocks make of tokens."""
        x = jax.vmap(self.embedding)(tokens)
        for block in self.blocks[:count]:
            x = block(x)
        return x


class Residual(nnx.Module):
    """Two convolutions with their norms, added to what came in."""

    def __init__(self, width_in: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv_1 = nnx.Conv(width_in, width, (3, 3), (stride, stride), use_bias=False, rngs=rngs)
        self.norm_1 = nnx.BatchNorm(width, rngs=rngs)
        self.conv_2 = nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs)
        self.norm_2 = nnx.BatchNorm(width, rngs=rngs)
        changes = stride > 1 or width_in != width
        self.shortcut = nnx.Conv(width_in, width, (1, 1), (stride, stride), rngs=rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """Images (batch, height, width, 3) to ten classes: three stages of residual blocks, as for CIFAR-10."""

    def __init__(self, blocks: int, width: int, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, width, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        widths = [width * 2**stage for stage in range(3) for _ in range(blocks)]
        inputs = [width, *widths]
        self.blocks = nnx.List([Residual(a, b, 1 if a == b else 2, rngs) for a, b in zip(inputs, widths, strict=False)])
        self.head = nnx.Linear(widths[-1], 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.up_to(x, len(self.blocks))
        return self.head(jnp.mean(x, (1, 2)))

    def up_to(self, x: jax.Array, count: int) -> jax.Array:
        """What the first blocks make of images."""
        x = nnx.relu(self.norm(self.stem(x)))
        for _, block in zip(range(count), self.blocks, strict=False):
            x = block(x)
        return x


def transformer() -> tuple[Transformer, tuple[Any, ...]]:
    """Four layers of width 256 on 128 tokens."""
    model = Transformer(4, 256, 8, 1000, jax.random.key(0))
    return model, (jnp.arange(128) % 1000,)


def resnet(*, training: bool, images: int = 8) -> tuple[ResNet, tuple[Any, ...]]:
    """ResNet-20 on images of 32 by 32."""
    model = ResNet(3, 16, nnx.Rngs(0))
    (model.train if training else model.eval)()
    return model, (jax.random.normal(jax.random.key(1), (images, 32, 32, 3)),)
