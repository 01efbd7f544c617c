"""Modules of libraries that are one operation: what a framework with modules for everything calls by one name."""

from __future__ import annotations

_CLASSES = {
    "equinox.nn._linear": "Linear linear",
    "equinox.nn._embedding": "Embedding embedding",
    "equinox.nn._normalisation": "LayerNorm layer_norm, RMSNorm rms_norm, GroupNorm group_norm",
    "equinox.nn._batch_norm": "BatchNorm batch_norm",
    "equinox.nn._conv": "Conv conv, Conv1d conv1d, Conv2d conv2d, Conv3d conv3d, ConvTranspose conv_transpose, "
    "ConvTranspose1d conv_transpose1d, ConvTranspose2d conv_transpose2d, ConvTranspose3d conv_transpose3d",
    "equinox.nn._dropout": "Dropout dropout",
    "equinox.nn._activations": "PReLU prelu",
    "equinox.nn._pool": "MaxPool1d max_pool1d, MaxPool2d max_pool2d, MaxPool3d max_pool3d, AvgPool1d avg_pool1d, "
    "AvgPool2d avg_pool2d, AvgPool3d avg_pool3d, AdaptiveAvgPool1d adaptive_avg_pool1d, "
    "AdaptiveAvgPool2d adaptive_avg_pool2d, AdaptiveMaxPool1d adaptive_max_pool1d, "
    "AdaptiveMaxPool2d adaptive_max_pool2d",
    "flax.linen.linear": "Dense linear, DenseGeneral linear, Conv conv, ConvTranspose conv_transpose, Embed embedding",
    "flax.linen.normalization": "LayerNorm layer_norm, RMSNorm rms_norm, GroupNorm group_norm, BatchNorm batch_norm, "
    "InstanceNorm instance_norm",
    "flax.linen.stochastic": "Dropout dropout",
    "flax.linen.activation": "PReLU prelu",
    "flax.nnx.nn.linear": "Linear linear, LinearGeneral linear, Conv conv, ConvTranspose conv_transpose, "
    "Embed embedding",
    "flax.nnx.nn.normalization": "LayerNorm layer_norm, RMSNorm rms_norm, GroupNorm group_norm, BatchNorm batch_norm, "
    "InstanceNorm instance_norm",
    "flax.nnx.nn.stochastic": "Dropout dropout",
    "flax.nnx.nn.activations": "PReLU prelu",
    "haiku._src.basic": "Linear linear",
    "haiku._src.conv": "ConvND conv, Conv1D conv1d, Conv2D conv2d, Conv3D conv3d, ConvNDTranspose conv_transpose, "
    "Conv1DTranspose conv_transpose1d, Conv2DTranspose conv_transpose2d, Conv3DTranspose conv_transpose3d",
    "haiku._src.depthwise_conv": "DepthwiseConv1D conv1d, DepthwiseConv2D conv2d, DepthwiseConv3D conv3d",
    "haiku._src.embed": "Embed embedding",
    "haiku._src.layer_norm": "LayerNorm layer_norm, InstanceNorm instance_norm",
    "haiku._src.rms_norm": "RMSNorm rms_norm",
    "haiku._src.group_norm": "GroupNorm group_norm",
    "haiku._src.batch_norm": "BatchNorm batch_norm",
    "haiku._src.pool": "MaxPool max_pool, AvgPool avg_pool",
    "penzai.nn.linear_and_affine": "Affine linear, Linear linear",
    "penzai.nn.standardization": "LayerNorm layer_norm, RMSLayerNorm rms_norm",
    "penzai.nn.basic_ops": "Softmax softmax",
    "penzai.nn.embeddings": "EmbeddingLookup embedding",
    "penzai.nn.dropout": "StochasticDropout dropout, DisabledDropout dropout",
}

# Class of a module -> the operation that it is.
LAYERS = {
    f"{module}.{cls}": name
    for module, pairs in _CLASSES.items()
    for cls, name in (pair.split() for pair in pairs.split(", "))
}

# Operations that are named after the dimensions of the space that their windows move in.
BY_DIMENSIONS = frozenset({"conv", "conv_transpose", "max_pool", "avg_pool"})
