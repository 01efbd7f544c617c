"""Facets of torch.nn's own layers, against values computed by hand; gradients; and steering by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from torchlens_core.facets import Flatten, Permute, SplitBatch, Unflatten, split_heads
from torchlens_core.interventions.at import At
from torchlens_core.interventions.target import Target
from torchlens_torch.arrays import TorchArrays

HEADS, DIM, BATCH, POSITIONS, KEYS = 4, 8, 2, 5, 6
WIDTH = HEADS * DIM


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# -- nn.MultiheadAttention ---------------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "one projection": {},
    "batch first": {"batch_first": True},
    "three projections": {"kdim": 16, "vdim": 24},
    "no bias": {"bias": False},
}


def attention_case(name: str, *, self_attention: bool = False) -> tuple[nn.MultiheadAttention, list[Tensor]]:
    options = LAYOUTS[name]
    layer = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
    query = torch.randn(BATCH, POSITIONS, WIDTH)
    key = torch.randn(BATCH, KEYS, options.get("kdim", WIDTH))
    value = torch.randn(BATCH, KEYS, options.get("vdim", WIDTH))
    arrays = [query, query, query] if self_attention else [query, key, value]
    return layer, arrays if options.get("batch_first") else [array.transpose(0, 1) for array in arrays]


def by_hand(layer: nn.MultiheadAttention, arrays: list[Tensor]) -> dict[str, Tensor]:
    """Queries, keys, values, pattern and z from the parameters."""
    if layer.in_proj_weight is not None:
        weights = layer.in_proj_weight.chunk(3)
    else:
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    biases = layer.in_proj_bias.chunk(3) if layer.in_proj_bias is not None else (None, None, None)
    if not layer.batch_first:
        arrays = [array.transpose(0, 1) for array in arrays]
    q, k, v = (
        F.linear(array, weight, bias).unflatten(-1, (HEADS, DIM)).transpose(1, 2)
        for array, weight, bias in zip(arrays, weights, biases, strict=True)
    )
    pattern = torch.softmax(q @ k.mT / DIM**0.5, -1)
    return {"q": q, "k": k, "v": v, "pattern": pattern, "z": pattern @ v}


@pytest.mark.parametrize("self_attention", [False, True], ids=["cross", "self"])
@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "with weights"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_multihead_attention(name: str, need_weights: bool, self_attention: bool) -> None:
    if self_attention and "kdim" in LAYOUTS[name]:
        self_attention = False  # keys of another size cannot be the queries
    layer, arrays = attention_case(name, self_attention=self_attention)
    log = tl.trace(layer, arrays, {"need_weights": need_weights})
    facets = log.modules["self"].facets
    for facet, wanted in by_hand(layer, arrays).items():
        torch.testing.assert_close(facets[facet], wanted, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(facets[facet, 2], wanted[:, 2], atol=1e-6, rtol=1e-5)
    assert facets.place("pattern").access == ("writable" if need_weights else "computed")


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "with weights"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_multihead_attention_is_steered(name: str, need_weights: bool) -> None:
    layer, arrays = attention_case(name)
    hand = by_hand(layer, arrays)

    def output(z: Tensor) -> Tensor:
        made = layer.out_proj(z.transpose(1, 2).flatten(2))
        return made if layer.batch_first else made.transpose(0, 1)

    scaled = hand["q"].clone()
    scaled[:, 1] *= 3
    expected = output(torch.softmax(scaled @ hand["k"].mT / DIM**0.5, -1) @ hand["v"])
    kwargs = {"need_weights": need_weights}
    log = tl.trace(layer, arrays, kwargs, intervene=tl.when(tl.module("self").facet("q").head(1), tl.scale(3.0)))
    torch.testing.assert_close(log["output_1"].out, expected, atol=1e-6, rtol=1e-5)

    without = hand["z"].clone()
    without[:, 2] = 0
    log = tl.trace(layer, arrays, kwargs, intervene=tl.when(tl.module("self") & tl.head(2), tl.zero_ablate()))
    torch.testing.assert_close(log["output_1"].out, output(without), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bools", "numbers", "causal"])
def test_the_pattern_of_fused_attention_knows_masks(kind: str) -> None:
    layer, arrays = attention_case("batch first")
    mask = torch.rand(POSITIONS, KEYS) > 0.7 if kind == "bools" else torch.randn(POSITIONS, KEYS)
    if kind == "causal":
        mask = torch.ones(POSITIONS, KEYS).triu(1).bool()
    mask[:, 0] = 0
    kwargs = {"attn_mask": mask, "average_attn_weights": False}
    wanted = layer(*arrays, **kwargs)[1]
    fused = tl.trace(layer, arrays, {**kwargs, "need_weights": False}).modules["self"].facets["pattern"]
    torch.testing.assert_close(fused, wanted, atol=1e-6, rtol=1e-5)


def test_the_pattern_of_fused_attention_cannot_be_changed() -> None:
    layer, arrays = attention_case("batch first")
    target = tl.module("self").facet("pattern").head(0)
    with pytest.raises(tl.errors.InterventionError, match=r"never acted.*Where there is none: attention is one fused"):
        tl.trace(layer, arrays, {"need_weights": False}, intervene=tl.when(target, tl.zero_ablate()))
    log = tl.trace(layer, arrays, intervene=tl.when(target, tl.zero_ablate()))
    assert not log.modules["self"].facets["z", 0].any() and log.modules["self"].facets["z", 1].all()


def test_a_loss_of_the_pattern_trains() -> None:
    """The computed pattern stays on the gradient tape, and its gradient is that of the softmax."""
    layer, arrays = attention_case("batch first")
    weights = torch.randn(BATCH, HEADS, POSITIONS, KEYS)
    fused = tl.trace(layer, arrays, {"need_weights": False}).modules["self"].facets["pattern"]
    (fused * weights).sum().backward()
    got = layer.in_proj_weight.grad.clone()
    layer.zero_grad()
    (by_hand(layer, arrays)["pattern"] * weights).sum().backward()
    torch.testing.assert_close(got, layer.in_proj_weight.grad, atol=1e-6, rtol=1e-4)


# -- layers of the transformer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=True, norm_first=norm_first).eval()
    x = torch.randn(BATCH, POSITIONS, WIDTH)
    facets = tl.trace(layer, x).modules["self"].facets
    given = layer.norm1(x) if norm_first else x
    middle = x + layer.self_attn(given, given, given, need_weights=False)[0]
    middle = middle if norm_first else layer.norm1(middle)
    pre = layer.linear1(layer.norm2(middle) if norm_first else middle)
    wanted = {"resid_pre": x, "resid_mid": middle, "pre": pre, "post": pre.relu(), "resid_post": layer(x)}
    for name, value in wanted.items():
        torch.testing.assert_close(facets[name], value, atol=1e-5, rtol=1e-5)
    log = tl.trace(layer, x, intervene=tl.when(tl.module("self").facet("post"), tl.zero_ablate()))
    end = middle + layer.linear2.bias
    torch.testing.assert_close(log["output_1"].out, end if norm_first else layer.norm2(end), atol=1e-5, rtol=1e-5)


def test_decoder_layer() -> None:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 48, batch_first=True).eval()
    x, memory = torch.randn(BATCH, POSITIONS, WIDTH), torch.randn(BATCH, KEYS, WIDTH)
    log = tl.trace(layer, [x, memory])
    hand = by_hand(layer.self_attn, [x, x, x])
    first = layer.norm1(x + layer.self_attn(x, x, x, need_weights=False)[0])
    crossed = by_hand(layer.multihead_attn, [first, memory, memory])
    for address, wanted in (("self_attn", hand), ("multihead_attn", crossed)):
        for name, value in wanted.items():
            torch.testing.assert_close(log.modules[address].facets[name], value, atol=1e-5, rtol=1e-5)
    facets = log.modules["self"].facets
    assert "resid_mid" not in facets  # there are two streams between three parts
    torch.testing.assert_close(facets["resid_post"], layer(x, memory))


@pytest.mark.parametrize("rms", [False, True])
def test_norms(rms: bool) -> None:
    layer = nn.RMSNorm(WIDTH, eps=1e-5) if rms else nn.LayerNorm(WIDTH)
    nn.init.normal_(layer.weight)
    x = torch.randn(BATCH, POSITIONS, WIDTH)
    facets = tl.trace(nn.Sequential(layer), x).modules["0"].facets
    torch.testing.assert_close(facets["normalized"] * layer.weight, layer(x), atol=1e-6, rtol=1e-5)
    centred = x if rms else x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(facets["normalized"] * facets["scale"], centred, atol=1e-6, rtol=1e-5)


# -- recurrent layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("kind", ["batch", "one", "packed", "packed, in another order"])
def test_recurrent_layers(cls: Any, options: dict[str, Any], kind: str) -> None:
    layer = cls(3, 4, **options)
    x: Any = torch.randn(5, 3) if kind == "one" else torch.randn(5, 5, 3)
    if kind.startswith("packed"):
        lengths = [5, 4, 2, 1, 1] if kind == "packed" else [1, 5, 2, 4, 1]
        first = options.get("batch_first", False)
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=kind == "packed")
    facets = tl.trace(nn.Sequential(layer), [x]).modules["0"].facets
    output, states = layer(x)
    wanted = {"output": getattr(output, "data", output), "h_n": states[0] if cls is nn.LSTM else states}
    if cls is nn.LSTM:
        wanted["c_n"] = states[1]
    assert set(wanted) <= set(facets)
    for name, value in wanted.items():
        torch.testing.assert_close(facets[name], value)


def test_recurrent_layers_are_steered() -> None:
    layer = nn.LSTM(3, 4, num_layers=2)
    x = torch.randn(5, 2, 3)
    output, (h, c) = layer(x)
    target = tl.module("layer").facet("c_n").at[1]
    log = tl.trace(lambda x: layer(x), x, intervene=tl.when(target, tl.zero_ablate()))
    facets = log.modules["layer"].facets
    assert not facets["c_n"][1].any()
    for got, wanted in ((facets["c_n"][0], c[0]), (facets["h_n"], h), (facets["output"], output)):
        torch.testing.assert_close(got, wanted)


def test_cells() -> None:
    x = torch.randn(2, 3)
    for cls in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        cell = cls(3, 4)
        facets = tl.trace(nn.Sequential(cell), x).modules["0"].facets
        states = cell(x)
        torch.testing.assert_close(facets["h_n"], states[0] if cls is nn.LSTMCell else states)
        assert ("c_n" in facets) == (cls is nn.LSTMCell)
        if cls is nn.LSTMCell:
            torch.testing.assert_close(facets["c_n"], states[1])


def test_cells_in_a_loop() -> None:
    cell = nn.LSTMCell(3, 4)

    def model(x: Tensor) -> Tensor:
        state = None
        for step in x:
            state = cell(step, state)
        return state[0]

    x = torch.randn(4, 2, 3)
    log = tl.trace(model, x)
    states = [call.facets["c_n"] for call in log.modules["cell"].calls]
    assert len(states) == 4
    torch.testing.assert_close(states[0], cell(x[0])[1])
    changed = tl.trace(model, x, intervene=tl.when(tl.module("cell:3").facet("c_n"), tl.zero_ablate()))
    torch.testing.assert_close(changed.modules["cell"].calls[1].facets["c_n"], states[1])
    assert not changed.modules["cell"].calls[2].facets["c_n"].any()


# -- attention by structure --------------------------------------------------------------------------------------------


class Separate(nn.Module):
    """Attention with names that nobody has registered a class for, and fewer heads of keys."""

    def __init__(self, q: str, k: str, v: str, o: str, **attributes: int) -> None:
        super().__init__()
        self.names = (q, k, v, o)
        for name, value in attributes.items():
            setattr(self, name, value)
        for name, width in ((q, WIDTH), (k, WIDTH // 2), (v, WIDTH // 2), (o, WIDTH)):
            self.add_module(name, nn.Linear(WIDTH, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (getattr(self, name)(x).unflatten(-1, (-1, DIM)).transpose(1, 2) for name in self.names[:3])
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return getattr(self, self.names[3])(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    "layer",
    [
        Separate("q_proj", "k_proj", "v_proj", "o_proj", head_dim=DIM),
        Separate("to_q", "to_k", "to_v", "to_out", heads=HEADS),
        Separate("query", "key", "value", "dense", num_attention_heads=HEADS),
        Separate("wq", "wk", "wv", "wo", n_heads=HEADS),
    ],
    ids=lambda layer: layer.names[0],
)
def test_grouped_queries_by_structure(layer: Separate) -> None:
    x = torch.randn(BATCH, POSITIONS, WIDTH)
    facets = tl.trace(nn.Sequential(layer), x).modules["0"].facets
    k = getattr(layer, layer.names[1])(x).unflatten(-1, (HEADS // 2, DIM)).transpose(1, 2)
    torch.testing.assert_close(facets["k"], k)
    torch.testing.assert_close(facets["k_expanded"], k.repeat_interleave(2, 1))
    q = facets["q"]
    scores = (q @ facets["k_expanded"].mT / DIM**0.5).masked_fill(torch.ones(POSITIONS, POSITIONS).triu(1).bool(), -1e9)
    torch.testing.assert_close(facets["pattern"], scores.softmax(-1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(facets["z"], scores.softmax(-1) @ facets["v_expanded"], atol=1e-6, rtol=1e-5)
    with pytest.raises(
        tl.errors.FacetError, match=r"can only be read: each head of the keys and values serves several"
    ):
        tl.trace(nn.Sequential(layer), x, intervene=tl.when(tl.module("0").facet("k_expanded"), tl.zero_ablate()))


class Masked(Separate):
    """Attention behind a mask that no operation makes."""

    mask = torch.ones(POSITIONS, POSITIONS).tril().bool()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (getattr(self, name)(x).unflatten(-1, (-1, DIM)).transpose(1, 2) for name in self.names[:3])
        mixed = F.scaled_dot_product_attention(q, k, v, self.mask, enable_gqa=True)
        return getattr(self, self.names[3])(mixed.transpose(1, 2).flatten(2))


def test_a_mask_that_no_operation_makes() -> None:
    layer, x = Masked("q_proj", "k_proj", "v_proj", "o_proj", head_dim=DIM), torch.randn(BATCH, POSITIONS, WIDTH)
    with pytest.raises(tl.errors.ValueNotSaved, match=r"The attn_mask that .* replay_ready=True keeps it"):
        _ = tl.trace(nn.Sequential(layer), x).modules["0"].facets["pattern"]
    facets = tl.trace(nn.Sequential(layer), x, replay_ready=True).modules["0"].facets
    assert not facets["pattern"].triu(1).any()
    torch.testing.assert_close(facets["pattern"] @ facets["v_expanded"], facets["z"], atol=1e-6, rtol=1e-5)


def test_a_fused_operation_with_heads_in_the_batch() -> None:
    """Its pattern has an axis of heads all the same, and one head of z can be changed."""

    class Folded(Separate):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (getattr(self, name)(x).unflatten(-1, (-1, DIM)).transpose(1, 2) for name in self.names[:3])
            k, v = (array.repeat_interleave(2, 1) for array in (k, v))
            mixed = F.scaled_dot_product_attention(*(array.flatten(0, 1) for array in (q, k, v)))
            return getattr(self, self.names[3])(mixed.unflatten(0, (-1, HEADS)).transpose(1, 2).flatten(2))

    layer, x = Folded("q_proj", "k_proj", "v_proj", "o_proj", head_dim=DIM), torch.randn(BATCH, POSITIONS, WIDTH)
    facets = tl.trace(nn.Sequential(layer), x).modules["0"].facets
    assert facets["pattern"].shape == (BATCH, HEADS, POSITIONS, POSITIONS)
    torch.testing.assert_close(facets["pattern"] @ facets["v_expanded"], facets["z"], atol=1e-6, rtol=1e-5)
    log = tl.trace(nn.Sequential(layer), x, intervene=tl.when(tl.module("0").head(2), tl.zero_ablate()))
    z = facets["z"].clone()
    z[:, 2] = 0
    torch.testing.assert_close(log["output_1"].out, layer.o_proj(z.transpose(1, 2).flatten(2)))


def test_without_the_number_of_heads_there_is_no_guessing() -> None:
    layer = Separate("q_proj", "k_proj", "v_proj", "o_proj")
    assert list(tl.trace(nn.Sequential(layer), torch.randn(2, 3, WIDTH)).modules["0"].facets) == ["out"]


class Fused(nn.Module):
    """A fused projection, and attention by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4)
        pattern = (q @ k.mT * DIM**-0.5).softmax(-1)
        return self.proj((pattern @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("wrap", [lambda m: m, torch.compile], ids=["eager", "compiled"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_fused_projection_is_steered(wrap: Any, autocast: bool) -> None:
    layer, x = Fused(), torch.randn(BATCH, POSITIONS, WIDTH)
    model = wrap(nn.Sequential(layer))
    hook = layer.qkv.register_forward_hook(
        lambda m, a, y: torch.cat([y[..., :DIM] * 0, y[..., DIM : 2 * WIDTH], y[..., 2 * WIDTH :]], -1)
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        wanted = layer(x)
        hook.remove()
        log = tl.trace(model, x, intervene=tl.when(tl.module("0").facet("q").head(0), tl.zero_ablate()))
    torch.testing.assert_close(log["output_1"].out, wanted)
    assert log.modules["0"].facets["q"].dtype == (torch.bfloat16 if autocast else torch.float32)


def test_after_the_run() -> None:
    """fork, set, do, replay and rerun take facets as sites."""
    layer, x = Fused(), torch.randn(BATCH, POSITIONS, WIDTH)
    model = nn.Sequential(layer)
    wanted = tl.trace(model, x, intervene=tl.when(tl.module("0").head(1), tl.zero_ablate()))["output_1"].out
    log = tl.trace(model, x, replay_ready=True)
    fork = log.fork()
    fork.set(tl.module("0").head(1), 0.0)
    torch.testing.assert_close(fork.replay()["output_1"].out, wanted)
    torch.testing.assert_close(fork.rerun(model, x)["output_1"].out, wanted)
    assert not fork.replay().modules["0"].facets["z", 1].any()


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_at_a_facet() -> None:
    layer, x = Fused(), torch.randn(BATCH, POSITIONS, WIDTH)
    log = tl.trace(nn.Sequential(layer), x, save_grads=True)
    log.log_backward(log["output_1"].out.square().sum())
    facets = log.modules["0"].facets

    projected = layer.qkv(x)
    q, k, v = projected.unflatten(-1, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4)
    pattern = (q @ k.mT * DIM**-0.5).softmax(-1)
    z = pattern @ v
    loss = layer.proj(z.transpose(1, 2).flatten(2)).square().sum()
    wanted = dict(zip("qkvz", torch.autograd.grad(loss, [q, k, v, z], retain_graph=True), strict=True))
    wanted["pattern"] = torch.autograd.grad(loss, pattern)[0]
    for name, value in wanted.items():
        torch.testing.assert_close(facets.grad(name), value, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(facets.head(3).grad(name), value[:, 3], atol=1e-5, rtol=1e-4)
    assert facets.grad("q").shape == facets["q"].shape


ALL = slice(None)
VIEWS = {
    "separate": (split_heads(2), (2, 3, 6)),
    "thirds": ((Unflatten(-1, (3, -1, 2)), At((..., 1, ALL, ALL)), Permute((0, 2, 1, 3))), (2, 2, 12)),
    "by group": ((Unflatten(-1, (-1, 4, 2)), At((..., slice(0, 2), ALL)), Flatten(-3, -2)), (1, 2, 16)),
    "folded": ((SplitBatch(2), At((ALL, 1))), (4, 2, 3)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_differentiable(name: str) -> None:
    views, shape = VIEWS[name]
    verbs, target = TorchArrays(), Target(tl.module("self"), views)
    array = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    part = torch.randn_like(target.get(array, verbs)).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: target.get(a, verbs), array)
    assert torch.autograd.gradcheck(lambda a, p: target.put(a, p, verbs), (array, part))
    kept = array.detach().clone()
    target.put(array, part, verbs)
    torch.testing.assert_close(array, kept, atol=0, rtol=0)


def test_the_weights_of_attention_are_differentiable() -> None:
    q = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    k = torch.randn(1, 2, 5, 2, dtype=torch.float64, requires_grad=True)
    weights = TorchArrays().attention_weights
    assert torch.autograd.gradcheck(lambda q, k: weights(q, k, scale=0.3), (q, k))
    from torchlens_core.facets.numpy_verbs import attention_weights

    numbers = attention_weights(q.detach().numpy(), k.detach().numpy(), scale=0.3)
    np.testing.assert_allclose(weights(q, k, scale=0.3).detach(), numbers, atol=1e-12)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "torch"])
def test_in_a_file(tmp_path: Path, backend: str | None) -> None:
    layer, arrays = attention_case("batch first")
    kwargs = {"need_weights": False, "attn_mask": torch.ones(POSITIONS, KEYS).triu(1).bool()}
    log = tl.trace(layer, arrays, kwargs)
    tl.save(log, tmp_path / "t.tl")
    loaded = tl.load(tmp_path / "t.tl", backend=backend) if backend else tl.load(tmp_path / "t.tl")
    facets, wanted = loaded.modules["self"].facets, log.modules["self"].facets
    assert list(facets) == list(wanted)
    for name in facets:
        assert isinstance(facets[name], Tensor if backend else np.ndarray), name
        torch.testing.assert_close(torch.tensor(np.asarray(facets[name])), wanted[name].detach(), atol=1e-6, rtol=1e-5)
