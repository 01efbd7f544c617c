"""The models in Flax NNX: images with the channels last."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.ported.weights import Array, input_of, weights_of

_RNGS = nnx.Rngs(0)


class MLP(nnx.Module):
    """Three layers."""

    def __init__(self) -> None:
        self.first = nnx.Linear(8, 16, rngs=_RNGS)
        self.second = nnx.Linear(16, 16, rngs=_RNGS)
        self.head = nnx.Linear(16, 3, rngs=_RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.first(x))
        x = nnx.gelu(self.second(x), approximate=False)
        return nnx.softmax(self.head(x), axis=-1)


class CNN(nnx.Module):
    """Two convolutions, flattened with the channels last."""

    def __init__(self) -> None:
        self.conv1 = nnx.Conv(3, 8, (3, 3), padding=1, rngs=_RNGS)
        self.norm = nnx.GroupNorm(8, num_groups=2, epsilon=1e-5, rngs=_RNGS)
        self.conv2 = nnx.Conv(8, 6, (3, 3), strides=2, padding=1, rngs=_RNGS)
        self.head = nnx.Linear(6 * 4 * 4, 5, rngs=_RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv1(x)))
        x = nnx.relu(self.conv2(x))
        return self.head(x.reshape(x.shape[0], -1))


class Loop(nnx.Module):
    """A recurrent cell, run over time."""

    def __init__(self) -> None:
        self.inp = nnx.Linear(4, 6, rngs=_RNGS)
        self.rec = nnx.Linear(6, 6, rngs=_RNGS)
        self.head = nnx.Linear(6, 2, rngs=_RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.zeros((x.shape[0], 6))
        for t in range(x.shape[1]):
            h = jnp.tanh(self.inp(x[:, t]) + self.rec(h))
        return self.head(h)


class Attention(nnx.Module):
    """Attention of several heads."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.q, self.k, self.v, self.out = (nnx.Linear(dim, dim, rngs=_RNGS) for _ in range(4))

    def split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def weights(self, q: jax.Array, k: jax.Array) -> jax.Array:
        return nnx.softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5, axis=-1)

    def join(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return x.transpose(0, 2, 1, 3).reshape(shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        return self.out(self.join(self.weights(q, k) @ v, x.shape))


class Block(nnx.Module):
    """A transformer block."""

    def __init__(self) -> None:
        self.norm1 = nnx.LayerNorm(12, epsilon=1e-5, rngs=_RNGS)
        self.attn = Attention(12, heads=3)
        self.norm2 = nnx.LayerNorm(12, epsilon=1e-5, rngs=_RNGS)
        self.up = nnx.Linear(12, 24, rngs=_RNGS)
        self.down = nnx.Linear(24, 12, rngs=_RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class Encoder(nnx.Module):
    """A transformer block of the library's layers: queries, keys and values each have a projection."""

    def __init__(self) -> None:
        self.ln1 = nnx.LayerNorm(12, epsilon=1e-5, rngs=_RNGS)
        self.attention = nnx.MultiHeadAttention(3, 12, 12, decode=False, rngs=_RNGS)
        self.ln2 = nnx.LayerNorm(12, epsilon=1e-5, rngs=_RNGS)
        self.up = nnx.Linear(12, 24, rngs=_RNGS)
        self.down = nnx.Linear(24, 12, rngs=_RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.ln1(x))
        return x + self.down(nnx.gelu(self.up(self.ln2(x)), approximate=False))


def encoder() -> Encoder:
    """The encoder with the common weights."""
    model, weights = Encoder(), weights_of("Encoder")
    for layer, name in ((model.ln1, "norm1"), (model.ln2, "norm2")):
        layer.scale[...], layer.bias[...] = weights[f"{name}.weight"], weights[f"{name}.bias"]
    for layer, name in ((model.up, "linear1"), (model.down, "linear2")):
        layer.kernel[...], layer.bias[...] = weights[f"{name}.weight"].T, weights[f"{name}.bias"]
    attention = model.attention
    kernels = np.split(weights["self_attn.in_proj_weight"], 3)
    biases = np.split(weights["self_attn.in_proj_bias"], 3)
    for layer, kernel, bias in zip((attention.query, attention.key, attention.value), kernels, biases, strict=True):
        layer.kernel[...], layer.bias[...] = kernel.T.reshape(12, 3, 4), bias.reshape(3, 4)
    attention.out.kernel[...] = weights["self_attn.out_proj.weight"].T.reshape(3, 4, 12)
    attention.out.bias[...] = weights["self_attn.out_proj.bias"]
    return model


def model_of(name: str) -> Any:
    """A model with the common weights."""
    model = globals()[name]()
    for address, array in weights_of(name).items():
        *path, part = address.split(".")
        module = model
        for attribute in path:
            module = getattr(module, attribute)
        state = getattr(module, _name_of(part, array))
        state[...] = jnp.asarray(_laid_out(name, address, array))
    return model


def _name_of(part: str, array: Array) -> str:
    return part if part == "bias" else "scale" if array.ndim == 1 else "kernel"


def _laid_out(model: str, address: str, array: Array) -> Array:
    """(inputs, outputs); (height, width, inputs, outputs); behind the flatten (height, width, channels)."""
    if (model, address) == ("CNN", "head.weight"):
        return array.reshape(5, 6, 4, 4).transpose(2, 3, 1, 0).reshape(-1, 5)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def example(name: str) -> jax.Array:
    """The common input; images have their channels last."""
    array = input_of(name)
    return jnp.asarray(array.transpose(0, 2, 3, 1) if name == "CNN" else array)
