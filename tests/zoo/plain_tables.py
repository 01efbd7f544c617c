"""More small feed-forward models in plain torch: perceptrons, tables, recommendation, rarer layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SplineNetwork(nn.Module):
    """A Kolmogorov-Arnold network: a learned function on every edge, here a sum of radial bumps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, 5))
        self.first, self.second = nn.Parameter(torch.randn(8, 4, 5) / 4), nn.Parameter(torch.randn(3, 8, 5) / 4)

    def forward(self, x: Tensor) -> Tensor:
        for weight in (self.first, self.second):
            bumps = torch.exp(-((x[..., None] - self.centres) ** 2))
            x = torch.einsum("bik,oik->bo", bumps, weight)
        return x


class Highway(nn.Module):
    """Layers that choose between passing on and transforming."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms, self.gates = (nn.ModuleList(nn.Linear(8, 8) for _ in range(3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            share = gate(x).sigmoid()
            x = share * F.relu(transform(x)) + (1 - share) * x
        return x


class HyperNetwork(nn.Module):
    """One network writes the weights of another, for each example, under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.write = nn.Linear(4, 3 * 8 + 3)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        written = self.write(task)
        return torch.func.vmap(self._apply_written)(x, written)

    def _apply_written(self, x: Tensor, written: Tensor) -> Tensor:
        return F.linear(x, written[:24].view(3, 8), written[24:])


class MixtureDensity(nn.Module):
    """Means, spreads and weights of a mixture, and the likelihood of a target under it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 9)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        weight, mean, spread = self.out(torch.tanh(self.hidden(x))).chunk(3, dim=1)
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=weight), torch.distributions.Normal(mean, spread.exp())
        )
        return mixture.log_prob(target)


class FactorizationMachine(nn.Module):
    """DeepFM: pairwise products of embeddings beside a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.weight = nn.Embedding(30, 4), nn.Embedding(30, 1)
        self.deep = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, fields: Tensor) -> Tensor:
        factors = self.embed(fields)
        pairs = (factors.sum(dim=1).square() - factors.square().sum(dim=1)).sum(dim=1, keepdim=True) / 2
        return torch.sigmoid(self.weight(fields).sum(dim=1) + pairs + self.deep(factors.flatten(1)))


class RecommendationModel(nn.Module):
    """DLRM: bags of categories and dense features, dot products between all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(20, 8, mode="mean") for _ in range(3))
        self.bottom, self.top = nn.Linear(4, 8), nn.Linear(8 + 6, 1)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        bottom = F.relu(self.bottom(dense))
        vectors = torch.stack([bottom, *(bag(sparse[:, i]) for i, bag in enumerate(self.bags))], dim=1)
        dots = torch.bmm(vectors, vectors.mT)
        row, column = torch.tril_indices(4, 4, offset=-1)
        return self.top(torch.cat([bottom, dots[:, row, column]], dim=1)).sigmoid()


class TabTransformer(nn.Module):
    """Columns as tokens: categories by embedding, numbers by scaling."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.scale, self.shift = (
            nn.Embedding(12, 16),
            nn.Parameter(torch.randn(3, 16)),
            nn.Parameter(torch.randn(3, 16)),
        )
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encode, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 2)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        tokens = torch.cat([self.embed(categories), numbers[..., None] * self.scale + self.shift], dim=1)
        return self.out(self.encode(tokens).mean(dim=1))


class Translator(nn.Module):
    """nn.Transformer, with a causal mask on what it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.transformer = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
        self.out = nn.Linear(16, 20)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class Bilinear(nn.Module):
    """Two inputs through torch's bilinear layer, and a product of them by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 6, 5)
        self.core = nn.Parameter(torch.randn(4, 6, 5))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(left, right), torch.einsum("bi,ijo,bj->bo", left, self.core, right)


class TextCNN(nn.Module):
    """Convolutions of several widths over words, their maxima joined."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.windows = nn.ModuleList(nn.Conv1d(8, 4, width) for width in (2, 3, 4))
        self.out = nn.Linear(12, 2)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words).mT
        return self.out(torch.cat([F.relu(window(x)).max(dim=2).values for window in self.windows], dim=1))


class CrossStitch(nn.Module):
    """Two tasks whose layers exchange features."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.ModuleList(nn.Linear(8, 8) for _ in range(2)) for _ in range(2))
        self.mix = nn.ParameterList(nn.Parameter(torch.eye(2) * 0.8 + 0.1) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = b = x
        for left, right, mix in zip(self.left, self.right, self.mix, strict=True):
            a, b = torch.unbind(torch.einsum("ij,jbf->ibf", mix, torch.stack([left(a).relu(), right(b).relu()])))
        return a, b


class SuperResolution(nn.Module):
    """Sub-pixel convolution on top of an upsampled image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + F.interpolate(x, scale_factor=2, mode="bicubic")).clamp(0, 1)


class StyleBlock(nn.Module):
    """Weights modulated by a style and demodulated, as one grouped convolution over the batch, with noise added."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.style, self.strength = (
            nn.Parameter(torch.randn(8, 4, 3, 3)),
            nn.Linear(6, 4),
            nn.Parameter(torch.tensor(0.1)),
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weight = self.weight * (self.style(style) + 1)[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, batch * channels, height, width), weight.flatten(0, 1), padding=1, groups=batch)
        x = x.view(batch, 8, height, width)
        return F.leaky_relu(x + self.strength * torch.randn(batch, 1, height, width), 0.2)
