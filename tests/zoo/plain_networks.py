"""Small feed-forward models in plain torch: graphs, sequences, images, points, tables, generation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    """One of torch's own recurrent layers: to the caller a single operation, whatever its loop inside."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = self.layer(x)
        return self.out(outputs), state[0] if isinstance(state, tuple) else state


class GraphConvolutions(nn.Module):
    """Two graph convolutions over a dense adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        linked = adjacency + torch.eye(len(adjacency))
        degree = linked.sum(dim=1).rsqrt()
        spread = degree[:, None] * linked * degree
        return spread @ self.second(F.relu(spread @ self.first(nodes)))


class GraphAttention(nn.Module):
    """Attention of one head over the neighbours given as a list of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.score = nn.Linear(8, 16, bias=False), nn.Linear(32, 1)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        h = self.project(nodes)
        weight = F.leaky_relu(self.score(torch.cat([h[source], h[target]], dim=1))).exp()
        total = h.new_zeros(len(h), 1).index_add_(0, target, weight)
        return h.new_zeros(h.shape).index_add_(0, target, weight / total[target] * h[source])


class GraphSAGE(nn.Module):
    """Mean over sampled neighbours, two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(32, 3)

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        h = F.normalize(F.relu(self.first(torch.cat([nodes, nodes[neighbours].mean(dim=1)], dim=1))))
        return self.second(torch.cat([h, h[neighbours].mean(dim=1)], dim=1))


class VAE(nn.Module):
    """A variational autoencoder, sampling in its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.mean, self.spread = nn.Linear(32, 4), nn.Linear(32, 4)
        self.decode = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.encode(x)
        mean, log_variance = self.mean(h), self.spread(h)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return {"reconstruction": self.decode(z), "mean": mean, "log_variance": log_variance}


class VectorQuantized(nn.Module):
    """An autoencoder through the nearest vectors of a codebook, straight-through."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv2d(3, 8, 4, 4), nn.ConvTranspose2d(8, 3, 4, 4)
        self.codebook = nn.Embedding(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encode(x).permute(0, 2, 3, 1)
        codes = torch.cdist(z.flatten(0, 2), self.codebook.weight).argmin(dim=1).view(z.shape[:3])
        quantized = z + (self.codebook(codes) - z).detach()
        return self.decode(quantized.permute(0, 3, 1, 2)), codes


def _twice(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(2, outside), nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Down twice, up twice, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _twice(3, 8), _twice(8, 16), _twice(16, 32)
        self.rise2, self.up2 = nn.ConvTranspose2d(32, 16, 2, 2), _twice(32, 16)
        self.rise1, self.up1 = nn.ConvTranspose2d(16, 8, 2, 2), _twice(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = self.down2(F.max_pool2d(fine, 2))
        h = self.middle(F.max_pool2d(coarse, 2))
        h = self.up2(torch.cat([coarse, self.rise2(h)], dim=1))
        return self.out(self.up1(torch.cat([fine, self.rise1(h)], dim=1)))


class Denoiser(nn.Module):
    """One step of diffusion: an image and the time, as sines, to the noise in it."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.inside, self.out = (
            nn.Linear(16, 8),
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(8.0))
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.out(F.silu(self.inside(x) + self.time(waves)[:, :, None, None]))


class Generator(nn.Module):
    """The generator of a DCGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(16, 16, 4), nn.BatchNorm2d(16), nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z[:, :, None, None])


class Discriminator(nn.Module):
    """A discriminator under spectral normalisation."""

    def __init__(self) -> None:
        super().__init__()
        normed = nn.utils.parametrizations.spectral_norm
        self.first, self.second = normed(nn.Conv2d(3, 8, 4, 2, 1)), normed(nn.Conv2d(8, 16, 4, 2, 1))
        self.out = normed(nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)
        return self.out(h.mean(dim=(2, 3)))


class Coupling(nn.Module):
    """A normalising flow of two affine couplings, with the log-determinant."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 4) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            kept, changed = x.chunk(2, dim=1)
            scale, shift = layer(kept).tanh().chunk(2, dim=1)
            x, total = torch.cat([changed * scale.exp() + shift, kept], dim=1), total + scale.sum(dim=1)
        return x, total


class TopKExperts(nn.Module):
    """A mixture of experts: each token goes to the two best of four."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        gates, chosen = self.router(x).softmax(dim=-1).topk(2, dim=-1)
        output = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            if len(token):
                output.index_add_(0, token, gates[token, place, None] * expert(x[token]))
        return output


class WaveNet(nn.Module):
    """Dilated causal convolutions with gates and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 8, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3))
        self.mixed = nn.ModuleList(nn.Conv1d(8, 16, 1) for _ in range(3))
        self.out = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, skips = self.first(x), 0
        for dilated, mixed in zip(self.dilated, self.mixed, strict=True):
            signal, gate = dilated(F.pad(h, (dilated.dilation[0], 0))).chunk(2, dim=1)
            residual, skip = mixed(signal.tanh() * gate.sigmoid()).chunk(2, dim=1)
            h, skips = h + residual, skips + skip
        return self.out(F.relu(skips))


class TemporalConvolutions(nn.Module):
    """Two residual blocks of weight-normalised dilated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.first, self.second = normed(nn.Conv1d(4, 8, 3, dilation=1)), normed(nn.Conv1d(8, 8, 3, dilation=2))
        self.short = nn.Conv1d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(F.pad(x, (2, 0))))
        return F.relu(F.relu(self.second(F.pad(h, (4, 0)))) + self.short(x))


class SpectralOperator(nn.Module):
    """A Fourier neural operator: complex weights on the low frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.project = nn.Linear(1, 8), nn.Linear(8, 1)
        self.weight = nn.Parameter(torch.randn(8, 8, 5, dtype=torch.cfloat) / 8)
        self.skip = nn.Conv1d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x).transpose(1, 2)
        spectrum = torch.fft.rfft(h)
        low = torch.einsum("bik,iok->bok", spectrum[..., :5], self.weight)
        spectrum = torch.zeros_like(spectrum)
        spectrum[..., :5] = low
        h = F.gelu(torch.fft.irfft(spectrum, n=h.shape[-1]) + self.skip(h))
        return self.project(h.transpose(1, 2))


class StateSpaceConvolution(nn.Module):
    """A diagonal state space (S4D) as one long convolution by FFT."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.angle = nn.Parameter(torch.rand(4, 8)), nn.Parameter(torch.rand(4, 8) * 3)
        self.mix, self.skip = nn.Parameter(torch.randn(4, 8, dtype=torch.cfloat)), nn.Parameter(torch.randn(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        poles = torch.complex(-self.decay.exp(), self.angle) * 0.1
        kernel = 2 * torch.einsum("dn,dnl->dl", self.mix, (poles[..., None] * torch.arange(length)).exp()).real
        output = torch.fft.irfft(torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(kernel, n=2 * length))[..., :length]
        return F.gelu(output + self.skip * x)


class SpatialTransformer(nn.Module):
    """Crops its image by a learned affine transformation."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(
            nn.Conv2d(1, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)
        )
        self.classify = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x: Tensor) -> Tensor:
        theta = self.locate(x).view(-1, 2, 3) + torch.eye(2, 3)
        return self.classify(F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False))


class PixelCNN(nn.Module):
    """Masked convolutions: each pixel sees those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        mask = torch.ones(3, 3)
        mask[1, 2], mask[2] = 0, 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        centre = self.mask.clone()
        centre[1, 1] = 0
        h = F.relu(F.conv2d(x, self.first.weight * centre, self.first.bias, padding=1))
        return F.conv2d(h, self.second.weight * self.mask, self.second.bias, padding=1)


class PointNet(nn.Module):
    """Points through one shared perceptron and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 1))
        self.all = nn.Linear(32, 4)

    def forward(self, points: Tensor) -> Tensor:
        return self.all(self.each(points).amax(dim=2))


class SetTransformer(nn.Module):
    """Induced attention over a set, pooled by a seed."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.points, self.seed = (
            nn.Linear(4, 16),
            nn.Parameter(torch.randn(1, 3, 16)),
            nn.Parameter(torch.randn(1, 1, 16)),
        )
        self.gather, self.spread, self.pool = (nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        batch = len(h)
        induced, _ = self.gather(self.points.expand(batch, -1, -1), h, h)
        h = h + self.spread(h, induced, induced, need_weights=False)[0]
        return self.pool(self.seed.expand(batch, -1, -1), h, h)[0].squeeze(1)


class Siamese(nn.Module):
    """Two inputs through one encoder, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.encode(left), self.encode(right))


class RadianceField(nn.Module):
    """A neural radiance field: positions by sines, a skip, colour and density, summed along the ray."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3 * 8, 32), nn.Linear(32 + 3 * 8, 32)
        self.density, self.colour = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, points: Tensor) -> Tensor:
        angles = points[..., None] * 2.0 ** torch.arange(4)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        h = F.relu(self.second(torch.cat([F.relu(self.first(waves)), waves], dim=-1)))
        opacity = 1 - torch.exp(-F.softplus(self.density(h)) * 0.1)
        reach = torch.cumprod(torch.cat([torch.ones_like(opacity[:, :1]), 1 - opacity + 1e-6], dim=1), dim=1)[:, :-1]
        return (reach * opacity * self.colour(h).sigmoid()).sum(dim=1)


class Siren(nn.Module):
    """A perceptron of sines."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.sin(30 * self.second(torch.sin(30 * self.first(x)))))
