"""Small models in plain torch that pass through the same layers again: cells, iterations, trees, sampling loops."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CellLoop(nn.Module):
    """A recurrent cell stepped over a sequence (batch, steps, 8), read out at the end."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


class HandWrittenRNN(nn.Module):
    """An Elman network written out, with an output at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.carry, self.out = nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state, outputs = x.new_zeros(x.shape[0], 16), []
        for t in range(x.shape[1]):
            state = torch.tanh(self.read(x[:, t]) + self.carry(state))
            outputs.append(self.out(state))
        return torch.stack(outputs, dim=1), state


class ConvLSTM(nn.Module):
    """A convolutional LSTM over frames (batch, steps, channels, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 + 8, 4 * 8, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        batch, steps, _, height, width = frames.shape
        h = c = frames.new_zeros(batch, 8, height, width)
        for t in range(steps):
            i, f, g, o = self.gates(torch.cat([frames[:, t], h], dim=1)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


class Seq2Seq(nn.Module):
    """Translation by two GRUs with additive attention; the decoder reads its own last word."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.encoder = nn.GRU(16, 16, batch_first=True)
        self.cell = nn.GRUCell(32, 16)
        self.score, self.out = nn.Linear(32, 1), nn.Linear(16, 20)

    def forward(self, words: Tensor) -> Tensor:
        memory, last = self.encoder(self.embed(words))
        state, word, logits = last[0], words[:, 0], []
        for _ in range(4):
            query = state.unsqueeze(1).expand_as(memory)
            weights = self.score(torch.cat([memory, query], dim=-1)).softmax(dim=1)
            context = (weights * memory).sum(dim=1)
            state = self.cell(torch.cat([self.embed(word), context], dim=-1), state)
            logits.append(self.out(state))
            word = logits[-1].argmax(dim=-1)
        return torch.stack(logits, dim=1)


class NeuralODE(nn.Module):
    """Runge-Kutta integration of a learned vector field."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.field, self.steps = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4)), steps

    def forward(self, y: Tensor) -> Tensor:
        dt = 1.0 / self.steps
        for _ in range(self.steps):
            k1 = self.field(y)
            k2 = self.field(y + dt / 2 * k1)
            k3 = self.field(y + dt / 2 * k2)
            k4 = self.field(y + dt * k3)
            y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


class DeepEquilibrium(nn.Module):
    """Iterates one layer until it hardly moves: the number of steps depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.inject, self.weight = nn.Linear(8, 16), nn.Parameter(torch.randn(16, 16) * 0.05)

    def forward(self, x: Tensor) -> Tensor:
        injected = self.inject(x)
        z = torch.zeros_like(injected)
        while True:
            following = torch.tanh(injected + z @ self.weight)
            if (following - z).norm() < 1e-3:
                return following
            z = following


class Hopfield(nn.Module):
    """A modern Hopfield network: retrieval by repeated attention to stored patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(6, 8))

    def forward(self, state: Tensor) -> Tensor:
        for _ in range(3):
            state = torch.softmax(2.0 * state @ self.patterns.T, dim=-1) @ self.patterns
        return state


class TreeRNN(nn.Module):
    """A recursive network over the tree of ``shape``; the leaves are the steps of (steps, 8), left to right."""

    def __init__(self, shape: tuple) -> None:
        super().__init__()
        self.shape = shape
        self.leaf, self.merge, self.out = nn.Linear(8, 16), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, leaves: Tensor) -> Tensor:
        return self.out(self._fold(self.shape, iter(leaves)))

    def _fold(self, tree, leaves) -> Tensor:
        if not tree:
            return torch.tanh(self.leaf(next(leaves)))
        left, right = (self._fold(branch, leaves) for branch in tree)
        return torch.tanh(self.merge(torch.cat([left, right])))


class UniversalTransformer(nn.Module):
    """One encoder layer applied several times, with a step embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.steps = nn.Embedding(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        for step in range(3):
            x = self.layer(x + self.steps.weight[step])
        return x


class Capsules(nn.Module):
    """Capsules with dynamic routing by agreement."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Parameter(torch.randn(6, 3, 8, 4) * 0.1)

    def forward(self, capsules: Tensor) -> Tensor:
        votes = torch.einsum("bic,ijcd->bijd", capsules, self.transform)
        logits = votes.new_zeros(votes.shape[:3])
        for _ in range(3):
            pooled = (logits.softmax(dim=2).unsqueeze(-1) * votes).sum(dim=1)
            squared = pooled.square().sum(dim=-1, keepdim=True)
            output = squared / (1 + squared) * pooled / (squared + 1e-8).sqrt()
            logits = logits + (votes * output.unsqueeze(1)).sum(dim=-1)
        return output


class MemoryNetwork(nn.Module):
    """Several hops over one memory of sentences, for a question."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values, self.ask = (nn.EmbeddingBag(20, 16, mode="sum") for _ in range(3))
        self.out = nn.Linear(16, 20)

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        keys, values, state = self.keys(story), self.values(story), self.ask(question)
        for _ in range(3):
            state = state + torch.softmax(state @ keys.T, dim=-1) @ values
        return self.out(state)


class GatedGraph(nn.Module):
    """Message passing on a graph with the same weights at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(8, 8), nn.GRUCell(8, 8)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        for _ in range(3):
            received = torch.zeros_like(nodes).index_add_(0, target, self.message(nodes)[source])
            nodes = self.update(received, nodes)
        return nodes.mean(dim=0)


class DiffusionSampler(nn.Module):
    """Draws points from noise with one denoiser, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.denoise = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        for t in torch.linspace(1.0, 0.25, 4).tolist():
            noise = self.denoise(torch.cat([x, torch.full_like(x[:, :1], t)], dim=1))
            x = x - 0.3 * noise + 0.05 * t * torch.randn_like(x)
        return x


class NeuralTuringMachine(nn.Module):
    """A controller that reads from and writes to a memory by content."""

    def __init__(self) -> None:
        super().__init__()
        self.controller, self.heads = nn.LSTMCell(8 + 4, 16), nn.Linear(16, 4 * 3)
        self.memory = nn.Parameter(torch.randn(5, 4) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.memory.expand(x.shape[0], -1, -1)
        read, state = x.new_zeros(x.shape[0], 4), None
        for step in x.unbind(1):
            state = self.controller(torch.cat([step, read], dim=-1), state)
            key, erase, add = self.heads(state[0]).chunk(3, dim=-1)
            weights = F.cosine_similarity(memory, key.unsqueeze(1), dim=-1).softmax(dim=-1).unsqueeze(-1)
            memory = memory * (1 - weights * erase.sigmoid().unsqueeze(1)) + weights * add.unsqueeze(1)
            read = (weights * memory).sum(dim=1)
        return read


class PonderNet(nn.Module):
    """Steps a cell until it decides to stop: the decision is a Python condition on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.halt, self.out = nn.GRUCell(8, 16), nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        state, pondered, steps = x.new_zeros(x.shape[0], 16), 0.0, 0
        while pondered < 2.0 and steps < 8:
            state = self.cell(x, state)
            pondered, steps = pondered + self.halt(state).sigmoid().mean().item(), steps + 1
        return self.out(state), steps


class SlotAttention(nn.Module):
    """Slots compete for features over several rounds of one update."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(3, 8))
        self.query, self.key, self.value = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.norm, self.update = nn.LayerNorm(8), nn.GRUCell(8, 8)

    def forward(self, features: Tensor) -> Tensor:
        keys, values, slots = self.key(features), self.value(features), self.slots
        for _ in range(3):
            share = (self.query(self.norm(slots)) @ keys.T / 8**0.5).softmax(dim=0)
            slots = self.update(share / share.sum(dim=1, keepdim=True) @ values, slots)
        return slots


class UnrolledSparseCoding(nn.Module):
    """Iterative shrinkage with learned weights, the same ones at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.inhibit = nn.Linear(8, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.threshold = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        drive = self.encode(x)
        code = F.softshrink(drive, 0.1)
        for _ in range(3):
            total = drive + self.inhibit(code)
            code = total.sign() * F.relu(total.abs() - self.threshold)
        return code
