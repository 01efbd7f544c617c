"""Weights and inputs of the ported models, without any framework: as PyTorch lays them out."""

from __future__ import annotations

import math
import zlib

import numpy as np

Array = np.ndarray
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "MLP": {
        "first.weight": (16, 8), "first.bias": (16,), "second.weight": (16, 16), "second.bias": (16,),
        "head.weight": (3, 16), "head.bias": (3,),
    },
    "CNN": {
        "conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "norm.weight": (8,), "norm.bias": (8,),
        "conv2.weight": (6, 8, 3, 3), "conv2.bias": (6,), "head.weight": (5, 6 * 4 * 4), "head.bias": (5,),
    },
    "Loop": {
        "inp.weight": (6, 4), "inp.bias": (6,), "rec.weight": (6, 6), "rec.bias": (6,), "head.weight": (2, 6),
        "head.bias": (2,),
    },
    "Block": {
        "norm1.weight": (12,), "norm1.bias": (12,),
        **{f"attn.{name}.{part}": (12, 12) if part == "weight" else (12,) for name in ("q", "k", "v", "out")
           for part in ("weight", "bias")},
        "norm2.weight": (12,), "norm2.bias": (12,), "up.weight": (24, 12), "up.bias": (24,), "down.weight": (12, 24),
        "down.bias": (12,),
    },
    "Encoder": {
        "self_attn.in_proj_weight": (36, 12), "self_attn.in_proj_bias": (36,), "self_attn.out_proj.weight": (12, 12),
        "self_attn.out_proj.bias": (12,), "linear1.weight": (24, 12), "linear1.bias": (24,),
        "linear2.weight": (12, 24), "linear2.bias": (12,), "norm1.weight": (12,), "norm1.bias": (12,),
        "norm2.weight": (12,), "norm2.bias": (12,),
    },
}  # fmt: skip
INPUTS = {"MLP": (5, 8), "CNN": (2, 3, 8, 8), "Loop": (3, 4, 4), "Block": (4, 7, 12), "Encoder": (2, 7, 12)}
MODELS = ("MLP", "CNN", "Loop", "Block")  # written alike in all frameworks


def _normal(name: str, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def weights_of(model: str) -> dict[str, Array]:
    """Address -> array, as PyTorch lays it out: (outputs, inputs), (outputs, inputs, height, width)."""
    return {
        address: _normal(f"{model} {address}", shape) / np.float32(math.sqrt(math.prod(shape[1:])))
        for address, shape in SHAPES[model].items()
    }


def input_of(model: str) -> Array:
    """The input of a model; images are (batch, channels, height, width)."""
    return _normal(f"{model} x", INPUTS[model])
