"""Models of libraries, with tiny configurations."""

import warnings
from typing import Any

import diffrax
import e3nn_jax as e3nn
import equimo.models
import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from mamba2_jax import Mamba2Config, Mamba2ForCausalLM
from penzai import pz
from penzai.models.transformer.variants import llamalike_common as llamalike

from tests.zoo_jax.entry import KEY, Built, Entry, floats, tokens, waken

SIZE = 64  # of images


def _haiku(network: Any, *rest: Any) -> Built:
    transformed = hk.transform_with_state(lambda x, is_training: network(x, is_training))
    x = floats(4, SIZE, SIZE, 3)
    params, state = jax.jit(transformed.init, static_argnums=2)(KEY, x, True)
    return Built(transformed.apply, (waken(params), state, None, x, True))


class Equivariant(nn.Module):
    """One convolution over all pairs of points, equivariant to rotations."""

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        n = points.shape[0]
        senders, receivers = (each.ravel() for each in np.meshgrid(range(n), range(n)))
        harmonics = e3nn.spherical_harmonics("1o + 2e", points[receivers] - points[senders], True)
        ones = e3nn.IrrepsArray("0e", jnp.ones((len(senders), 1)))
        x = e3nn.flax.Linear("8x0e + 4x1o")(e3nn.concatenate([ones, harmonics]))
        x = e3nn.gate(e3nn.flax.Linear("8x0e + 4x0e + 4x1o")(e3nn.tensor_product(x, harmonics)))
        x = e3nn.scatter_sum(x, dst=jnp.asarray(receivers), output_size=n)
        return e3nn.flax.Linear("2x0e")(x).array


class Field(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, t: Any, y: jax.Array, args: Any) -> jax.Array:
        return self.mlp(y)


class NeuralODE(eqx.Module):
    """Chen et al., arXiv:1806.07366, by fixed steps."""

    field: Field

    def __call__(self, start: jax.Array) -> jax.Array:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(self.field), diffrax.Tsit5(), t0=0.0, t1=1.0, dt0=0.25, y0=start, max_steps=4
        )
        return solution.ys


def resnet50() -> Built:
    """Batch normalisation in training: the call returns the new statistics."""
    return _haiku(lambda x, is_training: hk.nets.ResNet50(10)(x, is_training))


def mobilenet() -> Built:
    return _haiku(lambda x, is_training: hk.nets.MobileNetV1(num_classes=10)(x, is_training))


def vision_transformer() -> Built:
    model = equimo.models.VisionTransformer(
        img_size=32, in_channels=3, dim=64, patch_size=8, num_heads=[4], depths=[3], num_classes=10, key=KEY
    )
    return Built(waken(model), (floats(3, 32, 32), KEY), {"inference": True})


def mamba2() -> Built:
    config = Mamba2Config(
        vocab_size=64, hidden_size=32, state_size=16, head_dim=8, num_hidden_layers=2, expand=2, chunk_size=8
    )
    return Built(Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)), (tokens(1, 16),))


def bert() -> Built:
    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.FlaxBertModel(config, seed=0)
    ids = tokens(1, 12)
    places = jnp.arange(12)[None]
    inputs = (ids, jnp.ones_like(ids), jnp.zeros_like(ids), places, None)
    return Built(model.module.apply, ({"params": waken(model.params)}, *inputs))


def gpt2() -> Built:
    transformers = _transformers()
    config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    model = transformers.FlaxGPT2LMHeadModel(config, seed=0)
    ids = tokens(1, 12)
    return Built(model.module.apply, ({"params": waken(model.params)}, ids, jnp.ones_like(ids), jnp.arange(12)[None]))


def _transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
    return transformers


def llama() -> Built:
    config = llamalike.LlamalikeTransformerConfig(
        num_kv_heads=2, query_head_multiplier=2, embedding_dim=32, projection_dim=8, mlp_hidden_dim=64,
        num_decoder_blocks=2, vocab_size=64, mlp_variant="swiglu", rope_wavelength=10000,
        tie_embedder_and_logits=False, attention_type=llamalike.AttentionTypeGlobalCausal(), rms_norm_eps=1e-6,
    )  # fmt: skip
    model = llamalike.build_llamalike_transformer(config, init_base_rng=KEY)
    ids = pz.nx.wrap(tokens(1, 8)).tag("batch", "seq")
    return Built(model, (ids,), {"token_positions": pz.nx.arange("seq", 8)})


def equivariant() -> Built:
    points = floats(5, 3)
    return Built(Equivariant().apply, (Equivariant().init(KEY, points), points))


def neural_ode() -> Built:
    mlp = eqx.nn.MLP(2, 2, 8, 1, activation=jax.nn.softplus, key=KEY)
    return Built(NeuralODE(Field(mlp)), (floats(2),))


ENTRIES = [
    Entry("ResNet-50", "Haiku", "dm-haiku", resnet50),
    Entry("MobileNet", "Haiku", "dm-haiku", mobilenet),
    Entry("ViT", "Equinox", "equimo", vision_transformer),
    Entry("Mamba-2", "Flax NNX", "mamba2-jax", mamba2, recurrent=True),  # a sum over the taps of its convolution
    Entry("BERT", "Flax Linen", "transformers", bert),
    Entry("GPT-2", "Flax Linen", "transformers", gpt2),
    Entry("Llama-like", "Penzai", "penzai", llama),
    Entry("E(3)-equivariant network", "Flax Linen", "e3nn-jax", equivariant),
    Entry("neural ODE", "Equinox", "diffrax", neural_ode, recurrent=True),
]
