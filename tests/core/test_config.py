"""What an operation is said to be set to, by its type."""

import pytest

from torchlens_core.cost_rules.query import CostQuery
from torchlens_core.show.config import config


def of(type_, in_shapes, out_shape=(), **settings):
    return config(CostQuery(type_, tuple(in_shapes), (out_shape,), {}), settings)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            of("conv2d", [(1, 192, 13, 13), (384, 192, 3, 3), (384,)], padding=(1, 1)),
            {"out_channels": 384, "in_channels": 192, "kernel_size": (3, 3), "padding": (1, 1)},
        ),
        (
            of("conv1d", [(1, 8, 20), (16, 2, 5)], groups=4),
            {"out_channels": 16, "in_channels": 8, "kernel_size": (5,), "groups": 4},
        ),
        (  # a plugin whose weight ends in the output channels
            of("conv2d", [(1, 9, 9, 3), (5, 5, 3, 7)], out_channels=7),
            {"out_channels": 7, "in_channels": 3, "kernel_size": (5, 5)},
        ),
        (  # what a plugin states is believed
            of("conv2d", [(1, 9, 9, 3), (7, 5, 5, 3)], in_channels=3, kernel_size=(5, 5)),
            {"out_channels": 7, "in_channels": 3, "kernel_size": (5, 5)},
        ),
        (
            of("convtranspose2d", [(1, 8, 4, 4), (8, 3, 2, 2)], groups=2, stride=2),
            {"out_channels": 6, "in_channels": 8, "kernel_size": (2, 2), "groups": 2, "stride": 2},
        ),
        (of("linear", [(7, 64), (10, 64), (10,)], (7, 10)), {"in_features": 64, "out_features": 10}),
        (of("linear", [(64,), (10, 64)], (10,)), {"in_features": 64, "out_features": 10}),
        (
            of("embedding", [(2, 5), (1000, 32)], (2, 5, 32), padding_idx=0),
            {"num_embeddings": 1000, "embedding_dim": 32, "padding_idx": 0},
        ),
        (of("batchnorm", [(2, 6, 4, 4), (6,), (6,)], eps=1e-3), {"num_features": 6, "eps": 1e-3}),
        (of("layernorm", [(2, 6), (6,), (6,)], normalized_shape=(6,)), {"normalized_shape": (6,)}),
        (of("dropout", [(2, 6)]), {"p": 0.5}),
        (of("dropout", [(2, 6)], p=0.1, training=False), {"p": 0.1, "training": False}),
        (of("softmax", [(2, 6)], dim=-1, _stacklevel=5), {"dim": -1}),
        (of("maxpool2d", [(2, 6, 8, 8)], kernel_size=3, stride=2), {"kernel_size": 3, "stride": 2}),
        (
            of("lstm", [(3, 2, 6), (1, 2, 5), (1, 2, 5), (20, 6), (20, 5)], num_layers=1),
            {"input_size": 6, "hidden_size": 5, "num_layers": 1},
        ),
        (of("relu", [(2, 6)], inplace=True), {"inplace": True}),
        (of("getitem", [(2, 6, 4)], key=(slice(None), slice(1, None, 2), 0)), {"key": "[:, 1::2, 0]"}),
        (of("getitem", [(2, 6)], key=(..., slice(None, -1))), {"key": "[..., :-1]"}),
        (of("getitem", [(2, 6)], key=0), {"key": 0}),
    ],
)
def test_configuration(made, expected):
    assert made == expected
    assert list(made)[: len(expected)] == list(expected)  # sizes first, then settings


@pytest.mark.parametrize("type_", ["conv2d", "convtranspose2d", "linear", "embedding", "batchnorm", "lstm"])
def test_shapes_that_tell_nothing_are_left_out(type_):
    assert of(type_, [], (), scale=2) == {"scale": 2}
