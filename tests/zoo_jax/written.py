"""Models written here, as the examples of the libraries of modules have them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

from tests.zoo_jax.entry import KEY, Built, Entry, floats, tokens, waken

# -- Equinox -----------------------------------------------------------------------------------------------------------


class Block(eqx.Module):
    """A block of a decoder: attention to what came before, then a perceptron."""

    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, heads: int, key: jax.Array) -> None:
        first, second, third = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=first)
        self.up = eqx.nn.Linear(width, 4 * width, key=second)
        self.down = eqx.nn.Linear(4 * width, width, key=third)

    def __call__(self, x: jax.Array) -> jax.Array:
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        y = jax.vmap(self.norm1)(x)
        x = x + self.attention(y, y, y, mask)
        y = jax.vmap(self.norm2)(x)
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(y)))


class GPT(eqx.Module):
    """A small decoder."""

    token: eqx.nn.Embedding
    place: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, depth: int = 2, width: int = 32, vocabulary: int = 64, *, key: jax.Array = KEY) -> None:
        first, second, third, *rest = jax.random.split(key, depth + 3)
        self.token = eqx.nn.Embedding(vocabulary, width, key=first)
        self.place = eqx.nn.Embedding(32, width, key=second)
        self.blocks = [Block(width, 4, each) for each in rest]
        self.norm = eqx.nn.LayerNorm(width)
        self.head = eqx.nn.Linear(width, vocabulary, use_bias=False, key=third)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = jax.vmap(self.token)(ids) + jax.vmap(self.place)(jnp.arange(len(ids)))
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.head)(jax.vmap(self.norm)(x))


class ScannedGPT(eqx.Module):
    """The same blocks with their parameters stacked, run by a scan."""

    blocks: Block

    def __init__(self, depth: int = 3, *, key: jax.Array = KEY) -> None:
        self.blocks = eqx.filter_vmap(lambda each: Block(32, 4, each))(jax.random.split(key, depth))

    def __call__(self, x: jax.Array) -> jax.Array:
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def step(x: jax.Array, arrays: Any) -> tuple[jax.Array, None]:
            return eqx.combine(arrays, rest)(x), None

        return jax.lax.scan(step, x, arrays)[0]


class UNet(eqx.Module):
    """Down and up again, with skips (Ronneberger et al., arXiv:1505.04597)."""

    down: list[eqx.nn.Conv2d]
    middle: eqx.nn.Conv2d
    up: list[eqx.nn.ConvTranspose2d]
    head: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d

    def __init__(self, *, key: jax.Array = KEY) -> None:
        keys = jax.random.split(key, 6)
        self.down = [eqx.nn.Conv2d(i, o, 3, padding=1, key=k) for i, o, k in ((3, 8, keys[0]), (8, 16, keys[1]))]
        self.middle = eqx.nn.Conv2d(16, 16, 3, padding=1, key=keys[2])
        self.up = [eqx.nn.ConvTranspose2d(i, o, 2, 2, key=k) for i, o, k in ((16, 16, keys[3]), (32, 8, keys[4]))]
        self.head = eqx.nn.Conv2d(16, 2, 1, key=keys[5])
        self.pool = eqx.nn.MaxPool2d(2, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        skips = []
        for conv in self.down:
            x = jax.nn.relu(conv(x))
            skips.append(x)
            x = self.pool(x)
        x = jax.nn.relu(self.middle(x))
        for conv, skip in zip(self.up, reversed(skips), strict=True):
            x = jnp.concatenate([conv(x), skip])
        return self.head(x)


class Recurrent(eqx.Module):
    """A GRU over a sequence, by a scan."""

    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, *, key: jax.Array = KEY) -> None:
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(4, 8, key=first)
        self.head = eqx.nn.Linear(8, 3, key=second)

    def __call__(self, xs: jax.Array) -> jax.Array:
        last, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(8), xs)
        return jax.nn.log_softmax(self.head(last))


# -- Flax NNX ----------------------------------------------------------------------------------------------------------


class Encoder(nnx.Module):
    """A block of an encoder, with the attention of the library."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.norm2(x)))))


class Transformer(nnx.Module):
    """An encoder of tokens, with dropout on."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(64, 32, rngs=rngs)
        self.blocks = nnx.List([Encoder(32, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(32, 5, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Residual(nnx.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.conv1, self.conv2 = (nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs) for _ in range(2))
        self.bn1, self.bn2 = (nnx.BatchNorm(width, rngs=rngs) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(x + self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x))))))


class ResNet(nnx.Module):
    """Training: the statistics of the batch normalisations change."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Residual(16, rngs=rngs) for _ in range(3)])
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


# -- Flax Linen --------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A block of the ResNet for ImageNet of Flax's examples."""

    filters: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        residual = x
        for size, strides in ((1, 1), (3, self.strides)):
            x = nn.Conv(self.filters, (size, size), (strides, strides), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        x = nn.Conv(4 * self.filters, (1, 1), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        if residual.shape != x.shape:
            strides = (self.strides, self.strides)
            residual = nn.Conv(4 * self.filters, (1, 1), strides, use_bias=False, name="conv_proj")(residual)
            residual = nn.BatchNorm(use_running_average=False, name="norm_proj")(residual)
        return nn.relu(residual + x)


class ImageNet(nn.Module):
    """Its network, with few blocks."""

    stages: Sequence[int] = (2, 1)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(16, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], use_bias=False, name="conv_init")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="bn_init")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                x = Bottleneck(16 * 2**stage, 2 if stage > 0 and block == 0 else 1)(x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


class Seq2Seq(nn.Module):
    """An LSTM reads, another one writes."""

    @nn.compact
    def __call__(self, source: jax.Array, target: jax.Array) -> jax.Array:
        carry, _ = nn.RNN(nn.OptimizedLSTMCell(16), return_carry=True, name="encoder")(source)
        out = nn.RNN(nn.OptimizedLSTMCell(16), name="decoder")(target, initial_carry=carry)
        return nn.Dense(5, name="head")(out)


class Step(nn.Module):
    """A perceptron around which the input is added."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        inner = nn.gelu(nn.Dense(32, name="up")(nn.LayerNorm(name="norm")(x)))
        return x + nn.Dense(16, name="down")(inner), None


class LayersInScan(nn.Module):
    """Blocks with stacked parameters, by ``nn.scan``; each is checkpointed."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = nn.scan(nn.remat(Step), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(4, name="head")(x)


# -- Haiku and plain functions -----------------------------------------------------------------------------------------


def _haiku_transformer(ids: jax.Array) -> jax.Array:
    x = hk.Embed(64, 32)(ids) + hk.get_parameter("places", [ids.shape[1], 32], init=hk.initializers.TruncatedNormal())
    for layer in range(2):
        y = hk.LayerNorm(-1, True, True, name=f"norm_{layer}")(x)
        x = x + hk.MultiHeadAttention(4, 8, w_init_scale=1.0, model_size=32, name=f"attention_{layer}")(y, y, y)
        x = x + hk.nets.MLP([64, 32], activation=jax.nn.gelu, name=f"mlp_{layer}")(x)
    return hk.Linear(5)(x)


def _haiku_lstm(xs: jax.Array) -> jax.Array:
    core = hk.LSTM(8)
    out, _ = hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))
    return hk.Linear(3)(out)


def plain_transformer(params: Any, ids: jax.Array) -> jax.Array:
    """A decoder without a library: parameters in a dictionary."""
    x = params["token"][ids] + params["place"][: ids.shape[-1]]
    for layer in params["layers"]:
        y = _normalised(x, layer["norm1"])
        query, key, value = (y @ layer[name] for name in ("query", "key", "value"))
        heads = (jnp.reshape(each, (*each.shape[:-1], 4, -1)) for each in (query, key, value))
        attended = jax.nn.dot_product_attention(*heads, is_causal=True)
        x = x + attended.reshape(x.shape) @ layer["out"]
        y = _normalised(x, layer["norm2"])
        x = x + jax.nn.gelu(y @ layer["up"] + layer["up_bias"]) @ layer["down"]
    return x @ params["token"].T


def _normalised(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * scale


def plain_params(width: int = 32, depth: int = 2) -> Any:
    """Random parameters of it."""
    keys = iter(jax.random.split(KEY, 100))

    def weight(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

    def layer() -> dict[str, jax.Array]:
        square = {name: weight(width, width) for name in ("query", "key", "value", "out")}
        perceptron = {"up": weight(width, 64), "up_bias": weight(64), "down": weight(64, width)}
        return square | perceptron | {"norm1": 1 + weight(width), "norm2": 1 + weight(width)}

    return {"token": weight(64, width), "place": weight(32, width), "layers": [layer() for _ in range(depth)]}


# -- entries -----------------------------------------------------------------------------------------------------------


def _linen(module: nn.Module, *inputs: jax.Array, **kwargs: Any) -> Built:
    return Built(module.apply, (waken(module.init(KEY, *inputs)), *inputs), kwargs)


def _haiku(function: Any, *inputs: jax.Array) -> Built:
    transformed = hk.without_apply_rng(hk.transform(function))
    return Built(transformed.apply, (waken(transformed.init(KEY, *inputs)), *inputs))


ENTRIES = [
    Entry("GPT", "Equinox", "", lambda: Built(GPT(), (tokens(8),))),
    Entry("GPT, layers in a scan", "Equinox", "", lambda: Built(ScannedGPT(), (floats(8, 32),)), recurrent=True),
    Entry("U-Net", "Equinox", "", lambda: Built(UNet(), (floats(3, 16, 16),))),
    Entry("GRU", "Equinox", "", lambda: Built(Recurrent(), (floats(6, 4),)), recurrent=True),
    Entry("transformer, dropout", "Flax NNX", "", lambda: Built(Transformer(rngs=nnx.Rngs(0)), (tokens(2, 8),))),
    Entry("ResNet, training", "Flax NNX", "", lambda: Built(ResNet(rngs=nnx.Rngs(0)), (floats(4, 16, 16, 3),))),
    Entry(
        "ResNet, training", "Flax Linen", "",
        lambda: _linen(ImageNet(), floats(4, 64, 64, 3), mutable=["batch_stats"]),
    ),
    Entry("LSTMs", "Flax Linen", "", lambda: _linen(Seq2Seq(), floats(2, 5, 4), floats(2, 6, 4)), recurrent=True),
    Entry("perceptrons in a scan", "Flax Linen", "", lambda: _linen(LayersInScan(), floats(2, 16)), recurrent=True),
    Entry("transformer", "Haiku", "", lambda: _haiku(_haiku_transformer, tokens(2, 8))),
    Entry("LSTM", "Haiku", "", lambda: _haiku(_haiku_lstm, floats(5, 2, 4)), recurrent=True),
    Entry("transformer", "plain", "", lambda: Built(plain_transformer, (plain_params(), tokens(2, 8)))),
]  # fmt: skip
