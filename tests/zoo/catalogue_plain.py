"""Architectures written here in plain torch: what no library of models holds, and the smallest case of each kind."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tests.zoo import plain_loops as loops
from tests.zoo import plain_networks as networks
from tests.zoo import plain_tables as tables
from tests.zoo.catalogue_entry import Arguments, Entry, floats, image, tokens

Row = tuple[str, str, Callable[[], nn.Module], Callable[[], Arguments]]  # name, kind, builder, inputs
Loop = tuple[str, str, Callable[[], nn.Module], Callable[[], Arguments], str]  # and why it is recurrent

SEQUENCE = floats((2, 5, 8))
TREE = (((), ()), ((), ((), ())))


def _edges() -> Arguments:
    """Five nodes with features and seven directed edges between them."""
    return (torch.randn(5, 8), torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 4]])), {}


def _adjacency() -> Arguments:
    """Five nodes with features and the matrix of their links."""
    upper = torch.randint(2, (5, 5)).float().triu(1)
    return (torch.randn(5, 8), upper + upper.T), {}


def _neighbours() -> Arguments:
    """Six nodes with features and three neighbours of each."""
    return (torch.randn(6, 8), torch.randint(6, (6, 3))), {}


def _numbers_and_categories() -> Arguments:
    """Four dense features, three bags of two categories each."""
    return (torch.randn(2, 4), torch.randint(20, (2, 3, 2))), {}


def _row() -> Arguments:
    """Two categories and three numbers of each row of a table."""
    return (torch.randint(12, (4, 2)), torch.randn(4, 3)), {}


def _noisy() -> Arguments:
    """Two images and their times."""
    return (torch.randn(2, 3, 8, 8), torch.rand(2)), {}


def _story() -> Arguments:
    """Six sentences of four words and a question."""
    return (torch.randint(20, (6, 4)), torch.randint(20, (1, 3))), {}


FORWARD: list[Row] = [
    ("lstm", "recurrent layer", lambda: networks.Recurrent(nn.LSTM(8, 16, 2, batch_first=True)), SEQUENCE),
    ("gru", "recurrent layer", lambda: networks.Recurrent(nn.GRU(8, 16, bidirectional=True)), SEQUENCE),
    ("rnn", "recurrent layer", lambda: networks.Recurrent(nn.RNN(8, 16, nonlinearity="relu")), SEQUENCE),
    ("lstm with projection", "recurrent layer", lambda: networks.Recurrent(nn.LSTM(8, 16, proj_size=4)), SEQUENCE),
    ("graph convolutions", "graph", networks.GraphConvolutions, _adjacency),
    ("graph attention", "graph", networks.GraphAttention, _edges),
    ("graphsage", "graph", networks.GraphSAGE, _neighbours),
    ("vae", "generation", networks.VAE, floats((2, 16))),
    ("vq-vae", "generation", networks.VectorQuantized, image(16)),
    ("dcgan generator", "generation", networks.Generator, floats((2, 16))),
    ("sn-gan discriminator", "generation", networks.Discriminator, image(16)),
    ("realnvp", "generation", networks.Coupling, floats((3, 4))),
    ("pixelcnn", "generation", networks.PixelCNN, image(8, 1)),
    ("wavenet", "generation", networks.WaveNet, floats((1, 1, 20))),
    ("stylegan2 block", "generation", tables.StyleBlock, floats((2, 4, 8, 8), (2, 6))),
    ("ddpm denoiser", "diffusion", networks.Denoiser, _noisy),
    ("u-net", "segmentation", networks.UNet, image(16)),
    ("top-k experts", "moe", networks.TopKExperts, floats((6, 8))),
    ("tcn", "convolution in time", networks.TemporalConvolutions, floats((1, 4, 16))),
    ("s4d", "state space", networks.StateSpaceConvolution, floats((2, 4, 16))),
    ("fourier neural operator", "operator learning", networks.SpectralOperator, floats((2, 16, 1))),
    ("spatial transformer", "cnn", networks.SpatialTransformer, image(16, 1)),
    ("espcn", "super-resolution", tables.SuperResolution, image(8)),
    ("pointnet", "point clouds", networks.PointNet, floats((2, 3, 20))),
    ("set transformer", "sets", networks.SetTransformer, floats((2, 7, 4))),
    ("siamese", "metric learning", networks.Siamese, floats((2, 8), (2, 8))),
    ("nerf", "implicit", networks.RadianceField, floats((4, 6, 3))),
    ("siren", "implicit", networks.Siren, floats((5, 2))),
    ("kolmogorov-arnold", "perceptron", tables.SplineNetwork, floats((3, 4))),
    ("highway", "perceptron", tables.Highway, floats((3, 8))),
    ("hypernetwork", "perceptron", tables.HyperNetwork, floats((3, 8), (3, 4))),
    ("mixture density", "perceptron", tables.MixtureDensity, floats((3, 8), (3,))),
    ("bilinear", "perceptron", tables.Bilinear, floats((2, 4), (2, 6))),
    ("cross-stitch", "perceptron", tables.CrossStitch, floats((2, 8))),
    # A Hamiltonian network differentiates in its forward: it is traced, and cannot be replayed, as tl.validate says.
    ("deepfm", "recommendation", tables.FactorizationMachine, tokens(30, (4, 3))),
    ("dlrm", "recommendation", tables.RecommendationModel, _numbers_and_categories),
    ("tabtransformer", "tables", tables.TabTransformer, _row),
    ("nn.Transformer", "encoder-decoder", tables.Translator, tokens(20, (2, 7), (2, 5))),
    ("textcnn", "cnn", tables.TextCNN, tokens(20, (2, 9))),
]

LOOPS: list[Loop] = [
    ("lstm cell loop", "recurrent", lambda: loops.CellLoop(nn.LSTMCell(8, 16)), SEQUENCE, "one cell, every step"),
    ("gru cell loop", "recurrent", lambda: loops.CellLoop(nn.GRUCell(8, 16)), SEQUENCE, "one cell, every step"),
    ("elman", "recurrent", loops.HandWrittenRNN, SEQUENCE, "the state goes through one layer at every step"),
    ("convlstm", "recurrent", loops.ConvLSTM, floats((1, 4, 3, 8, 8)), "one cell, every frame"),
    ("seq2seq with attention", "recurrent", loops.Seq2Seq, tokens(20, (2, 6)), "the decoder reads its last word"),
    ("neural turing machine", "recurrent", loops.NeuralTuringMachine, SEQUENCE, "memory is read and written in turn"),
    ("neural ode", "implicit depth", loops.NeuralODE, floats((3, 4)), "one vector field, evaluated 16 times"),
    ("deep equilibrium", "implicit depth", loops.DeepEquilibrium, floats((2, 8)), "iterates to a fixed point"),
    ("hopfield", "implicit depth", loops.Hopfield, floats((2, 8)), "repeated retrieval from the same patterns"),
    ("unrolled sparse coding", "implicit depth", loops.UnrolledSparseCoding, floats((2, 8)), "tied weights"),
    ("pondernet", "implicit depth", loops.PonderNet, floats((2, 8)), "one cell until it halts"),
    (
        "universal transformer",
        "implicit depth",
        loops.UniversalTransformer,
        floats((2, 5, 16)),
        "one layer, three times",
    ),
    ("tree-rnn", "recursive", lambda: loops.TreeRNN(TREE), floats((5, 8)), "one cell at every node of the tree"),
    ("capsules", "routing", loops.Capsules, floats((2, 6, 8)), "routing by agreement, three rounds"),
    ("slot attention", "routing", loops.SlotAttention, floats((7, 8)), "one update, three rounds"),
    ("memory network", "memory", loops.MemoryNetwork, _story, "three hops over one memory"),
    ("gated graph", "graph", loops.GatedGraph, _edges, "the same messages, three times"),
    ("diffusion sampler", "diffusion", loops.DiffusionSampler, floats((3, 2)), "one denoiser, four steps"),
]


def _built(build: Callable[[], nn.Module], inputs: Callable[[], Arguments]) -> nn.Module:
    """Lazy layers take their sizes from one call."""
    model = build()
    args, kwargs = inputs()
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        model(*args, **kwargs)
    return model


ENTRIES = [
    Entry(f"plain/{name}", name, kind, partial(_built, build, inputs), inputs, bool(notes), *notes)
    for name, kind, build, inputs, *notes in (*FORWARD, *LOOPS)
]
