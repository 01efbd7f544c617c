"""The four models in Equinox: layers of one example, mapped over the batch; images with the channels first."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tests.ported.weights import input_of, weights_of

_KEY = jax.random.key(0)


def linear(inputs: int, outputs: int) -> eqx.nn.Linear:
    """A linear layer, its weights to be replaced."""
    return eqx.nn.Linear(inputs, outputs, key=_KEY)


class MLP(eqx.Module):
    """Three layers."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self) -> None:
        self.first, self.second, self.head = linear(8, 16), linear(16, 16), linear(16, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(jax.vmap(self.first)(x))
        x = jax.nn.gelu(jax.vmap(self.second)(x), approximate=False)
        return jax.nn.softmax(jax.vmap(self.head)(x), axis=-1)


class CNN(eqx.Module):
    """Two convolutions, flattened."""

    conv1: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self) -> None:
        self.conv1 = eqx.nn.Conv2d(3, 8, 3, padding=1, key=_KEY)
        self.norm = eqx.nn.GroupNorm(2, 8)
        self.conv2 = eqx.nn.Conv2d(8, 6, 3, stride=2, padding=1, key=_KEY)
        self.head = linear(6 * 4 * 4, 5)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(jax.vmap(self.norm)(jax.vmap(self.conv1)(x)))
        x = jax.nn.relu(jax.vmap(self.conv2)(x))
        return jax.vmap(self.head)(x.reshape(x.shape[0], -1))


class Loop(eqx.Module):
    """A recurrent cell, run over time."""

    inp: eqx.nn.Linear
    rec: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self) -> None:
        self.inp, self.rec, self.head = linear(4, 6), linear(6, 6), linear(6, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.zeros((x.shape[0], 6))
        for t in range(x.shape[1]):
            h = jnp.tanh(jax.vmap(self.inp)(x[:, t]) + jax.vmap(self.rec)(h))
        return jax.vmap(self.head)(h)


class ScannedLoop(Loop):
    """The same for one example, with ``scan``: to be mapped over a batch."""

    def __call__(self, x: jax.Array) -> jax.Array:
        def step(h: jax.Array, now: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(self.inp(now) + self.rec(h)), None

        return self.head(jax.lax.scan(step, jnp.zeros(6), x)[0])


class Attention(eqx.Module):
    """Attention of several heads."""

    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    out: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, dim: int, heads: int) -> None:
        self.q, self.k, self.v, self.out = (linear(dim, dim) for _ in range(4))
        self.heads = heads

    def split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (self.split(jax.vmap(jax.vmap(layer))(x)) for layer in (self.q, self.k, self.v))
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5, axis=-1)
        return jax.vmap(jax.vmap(self.out))((weights @ v).transpose(0, 2, 1, 3).reshape(x.shape))


class Block(eqx.Module):
    """A transformer block."""

    norm1: eqx.nn.LayerNorm
    attn: Attention
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self) -> None:
        self.norm1, self.norm2 = eqx.nn.LayerNorm(12), eqx.nn.LayerNorm(12)
        self.attn = Attention(12, heads=3)
        self.up, self.down = linear(12, 24), linear(24, 12)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(jax.vmap(jax.vmap(self.norm1))(x))
        hidden = jax.nn.gelu(jax.vmap(jax.vmap(self.up))(jax.vmap(jax.vmap(self.norm2))(x)), approximate=False)
        return x + jax.vmap(jax.vmap(self.down))(hidden)


class Batched(eqx.Module):
    """A model of one example, mapped over a batch."""

    model: eqx.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.vmap(self.model)(x)


def model_of(name: str, cls: type | None = None) -> Any:
    """A model with the common weights."""
    model = (cls or globals()[name])()
    for address, array in weights_of(name).items():
        *path, part = address.split(".")

        def there(tree: Any, path: list[str] = path, part: str = part) -> Any:
            for attribute in path:
                tree = getattr(tree, attribute)
            return getattr(tree, part)

        model = eqx.tree_at(there, model, jnp.asarray(array).reshape(there(model).shape))
    return model


def example(name: str) -> jax.Array:
    """The common input."""
    return jnp.asarray(input_of(name))
