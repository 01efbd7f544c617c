"""Facets of real models of timm and transformers (random weights), against the models' own code and forward hooks.

For each: queries, keys and values by hand from the projections' outputs; the pattern that the model itself gives
(``output_attentions``), eager and fused; what the heads give to the output projection; and one head changed, against
the same change by a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from tests.zoo.torchvision_cpu import import_torchvision

import_torchvision()

import timm  # noqa: E402
import transformers as hf  # noqa: E402
from timm.layers import set_fused_attn  # noqa: E402

hf.logging.set_verbosity_error()

COMMON: dict[str, Any] = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48,
}  # fmt: skip
TEXT = {**COMMON, "vocab_size": 40, "pad_token_id": 0}
IMAGE = {**COMMON, "image_size": 32, "patch_size": 8}
Parts = Callable[[Tensor], Tensor]


def heads(features: Tensor, dim: int) -> Tensor:
    """(batch, position, heads * dim) as (batch, head, position, dim)."""
    return features.reshape(*features.shape[:2], -1, dim).transpose(1, 2)


@dataclass
class Layout:
    """Where q, k and v come from: for each the projection, and its part of what that gives."""

    q: tuple[str, Parts]
    k: tuple[str, Parts]
    v: tuple[str, Parts]
    dim: int = 8


def separate(q: str, k: str, v: str, dim: int = 8) -> Layout:
    return Layout((q, lambda y: y), (k, lambda y: y), (v, lambda y: y), dim)


def fused(name: str, q: Parts, k: Parts, v: Parts) -> Layout:
    return Layout((name, q), (name, k), (name, v))


def thirds(name: str) -> Layout:
    return fused(name, *(lambda y, n=n: y.chunk(3, -1)[n] for n in range(3)))


def by_head(name: str) -> Layout:
    return fused(name, *(lambda y, n=n: y.unflatten(-1, (4, 3, 8))[..., n, :].flatten(-2) for n in range(3)))


def runs(name: str, shared: int) -> Layout:
    q, k = 32, 8 * shared
    return fused(name, lambda y: y[..., :q], lambda y: y[..., q : q + k], lambda y: y[..., q + k :])


def groups(name: str) -> Layout:
    def part(y: Tensor, index: Any) -> Tensor:
        return y.unflatten(-1, (2, 4, 8))[..., index, :].flatten(-3 if isinstance(index, slice) else -2)

    return fused(name, lambda y: part(y, slice(0, 2)), lambda y: part(y, 2), lambda y: part(y, 3))


@dataclass
class Case:
    model: str
    config: str
    settings: dict[str, Any]
    attention: str
    layout: Layout
    out: str  # the output projection, from the model

    def build(self, implementation: str) -> nn.Module:
        torch.manual_seed(0)
        config = getattr(hf, self.config)(attn_implementation=implementation, **self.settings)
        return getattr(hf, self.model)(config).eval()

    @property
    def given(self) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(2, 3, 32, 32) if "image_size" in self.settings else torch.arange(1, 8).repeat(2, 1)


QKV = separate("q_proj", "k_proj", "v_proj")
GROUPED = {**TEXT, "num_key_value_heads": 2}
CASES = {
    "gpt2": Case(
        "GPT2Model",
        "GPT2Config",
        {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 40},
        "h.0.attn",
        thirds("c_attn"),
        "h.0.attn.c_proj",
    ),
    "opt": Case(
        "OPTModel",
        "OPTConfig",
        {
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "hidden_size": 32,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
            "vocab_size": 40,
        },
        "decoder.layers.0.self_attn",
        QKV,
        "decoder.layers.0.self_attn.out_proj",
    ),
    "llama": Case("LlamaModel", "LlamaConfig", GROUPED, "layers.1.self_attn", QKV, "layers.1.self_attn.o_proj"),
    "mistral": Case("MistralModel", "MistralConfig", GROUPED, "layers.0.self_attn", QKV, "layers.0.self_attn.o_proj"),
    "qwen2": Case("Qwen2Model", "Qwen2Config", GROUPED, "layers.0.self_attn", QKV, "layers.0.self_attn.o_proj"),
    "qwen3": Case(
        "Qwen3Model",
        "Qwen3Config",
        {**GROUPED, "head_dim": 16},
        "layers.0.self_attn",
        separate("q_proj", "k_proj", "v_proj", 16),
        "layers.0.self_attn.o_proj",
    ),
    "gemma": Case(
        "GemmaModel",
        "GemmaConfig",
        {**TEXT, "num_key_value_heads": 1, "head_dim": 8},
        "layers.0.self_attn",
        QKV,
        "layers.0.self_attn.o_proj",
    ),
    "gemma2": Case(
        "Gemma2Model",
        "Gemma2Config",
        {**GROUPED, "head_dim": 8},
        "layers.0.self_attn",
        QKV,
        "layers.0.self_attn.o_proj",
    ),
    "phi": Case("PhiModel", "PhiConfig", TEXT, "layers.0.self_attn", QKV, "layers.0.self_attn.dense"),
    "phi3": Case(
        "Phi3Model", "Phi3Config", GROUPED, "layers.0.self_attn", runs("qkv_proj", 2), "layers.0.self_attn.o_proj"
    ),
    "gpt_neox": Case(
        "GPTNeoXModel",
        "GPTNeoXConfig",
        TEXT,
        "layers.0.attention",
        by_head("query_key_value"),
        "layers.0.attention.dense",
    ),
    "gptj": Case(
        "GPTJModel",
        "GPTJConfig",
        {"n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4, "vocab_size": 40},
        "h.0.attn",
        QKV,
        "h.0.attn.out_proj",
    ),
    "bloom": Case(
        "BloomModel",
        "BloomConfig",
        {"n_layer": 1, "n_head": 4, "hidden_size": 32, "vocab_size": 40},
        "h.0.self_attention",
        by_head("query_key_value"),
        "h.0.self_attention.dense",
    ),
    "falcon": Case(
        "FalconModel",
        "FalconConfig",
        TEXT,
        "h.0.self_attention",
        runs("query_key_value", 1),
        "h.0.self_attention.dense",
    ),
    "falcon, many keys": Case(
        "FalconModel",
        "FalconConfig",
        {**TEXT, "multi_query": False},
        "h.0.self_attention",
        by_head("query_key_value"),
        "h.0.self_attention.dense",
    ),
    "falcon, grouped": Case(
        "FalconModel",
        "FalconConfig",
        {**TEXT, "new_decoder_architecture": True, "num_kv_heads": 2},
        "h.0.self_attention",
        groups("query_key_value"),
        "h.0.self_attention.dense",
    ),
    "persimmon": Case(
        "PersimmonModel",
        "PersimmonConfig",
        {**TEXT, "qk_layernorm": False},
        "layers.0.self_attn",
        by_head("query_key_value"),
        "layers.0.self_attn.dense",
    ),
    "bigcode": Case(
        "GPTBigCodeModel",
        "GPTBigCodeConfig",
        {"n_layer": 1, "n_head": 4, "n_embd": 32, "vocab_size": 40},
        "h.0.attn",
        runs("c_attn", 1),
        "h.0.attn.c_proj",
    ),
    "bigcode, many keys": Case(
        "GPTBigCodeModel",
        "GPTBigCodeConfig",
        {"n_layer": 1, "n_head": 4, "n_embd": 32, "vocab_size": 40, "multi_query": False},
        "h.0.attn",
        by_head("c_attn"),
        "h.0.attn.c_proj",
    ),
    "mpt": Case(
        "MptModel",
        "MptConfig",
        {"d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 40},
        "blocks.0.attn",
        thirds("Wqkv"),
        "blocks.0.attn.out_proj",
    ),
    "bert": Case(
        "BertModel",
        "BertConfig",
        TEXT,
        "encoder.layer.0.attention",
        separate("self.query", "self.key", "self.value"),
        "encoder.layer.0.attention.output.dense",
    ),
    "bert, inner": Case(
        "BertModel",
        "BertConfig",
        TEXT,
        "encoder.layer.0.attention.self",
        separate("query", "key", "value"),
        "encoder.layer.0.attention.output.dense",
    ),
    "distilbert": Case(
        "DistilBertModel",
        "DistilBertConfig",
        {"n_layers": 1, "n_heads": 4, "dim": 32, "hidden_dim": 48, "vocab_size": 40},
        "transformer.layer.0.attention",
        separate("q_lin", "k_lin", "v_lin"),
        "transformer.layer.0.attention.out_lin",
    ),
    "t5": Case(
        "T5EncoderModel",
        "T5Config",
        {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 40},
        "encoder.block.0.layer.0.SelfAttention",
        separate("q", "k", "v", 16),
        "encoder.block.0.layer.0.SelfAttention.o",
    ),
    "vit": Case("ViTModel", "ViTConfig", IMAGE, "layers.0.attention", QKV, "layers.0.attention.o_proj"),
    "clip": Case(
        "CLIPVisionModel",
        "CLIPVisionConfig",
        IMAGE,
        "encoder.layers.0.self_attn",
        QKV,
        "encoder.layers.0.self_attn.out_proj",
    ),
}
EAGER_ALONE = {"bloom", "gptj", "mpt", "gemma2"}  # transformers gives these no other
RUNS = [(name, how) for name in CASES for how in ("eager", "sdpa") if how == "eager" or name not in EAGER_ALONE]
runs_of_models = pytest.mark.parametrize(("name", "how"), RUNS, ids=[f"{name}-{how}" for name, how in RUNS])


@contextmanager
def noted(model: nn.Module, *addresses: str) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What modules are given and return while the model runs, by forward hooks."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(address: str) -> Any:
        return lambda module, args, output: found.__setitem__(address, (args[0], output))

    handles = [model.get_submodule(address).register_forward_hook(note(address)) for address in addresses]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@runs_of_models
def test_values(name: str, how: str) -> None:
    case = CASES[name]
    model, layout = case.build(how), case.layout
    log = tl.trace(model, [case.given])
    facets = log.modules[case.attention].facets
    paths = {letter: f"{case.attention}.{getattr(layout, letter)[0]}" for letter in "qkv"}
    with noted(model, case.out, *set(paths.values())) as found:
        model(case.given)
    for letter, path in paths.items():
        close(facets[letter], heads(getattr(layout, letter)[1](found[path][1]), layout.dim))
    close(facets["z"], heads(found[case.out][0].reshape(*case_shape(case, found)), layout.dim))
    pattern = case.build("eager")(case.given, output_attentions=True).attentions[int("layers.1" in case.attention)]
    close(facets["pattern"], pattern)
    expanded = facets.get("v_expanded", facets["v"])
    close(facets["pattern"] @ expanded, facets["z"])
    assert facets.num_heads == 4
    assert ("k_expanded" in facets) == (facets["k"].shape[1] < 4)
    assert facets.place("pattern").access == ("writable" if how == "eager" else "computed")


def case_shape(case: Case, found: dict[str, tuple[Tensor, Tensor]]) -> tuple[int, int, int]:
    given = found[case.out][0]
    return 2, given.numel() // given.shape[-1] // 2, given.shape[-1]


@runs_of_models
def test_one_head_is_ablated(name: str, how: str) -> None:
    case = CASES[name]
    model, dim = case.build(how), case.layout.dim

    def without(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = args[0].clone()
        changed[..., 2 * dim : 3 * dim] = 0
        return (changed, *args[1:])

    clean = model(case.given).last_hidden_state
    handle = model.get_submodule(case.out).register_forward_pre_hook(without)
    wanted = model(case.given).last_hidden_state
    handle.remove()
    log = tl.trace(model, [case.given], intervene=tl.when(tl.module(case.attention) & tl.head(2), tl.zero_ablate()))
    got = next(op.out for op in log if op.is_output and op.shape == wanted.shape)
    close(got, wanted)
    assert not torch.allclose(got, clean)


@runs_of_models
def test_one_head_of_the_queries_is_changed(name: str, how: str) -> None:
    case = CASES[name]
    model = case.build(how)
    clean = tl.trace(model, [case.given]).modules[case.attention].facets
    target = (tl.module(case.attention) & tl.facet("q") & tl.head(1)).at[:, -1]
    log = tl.trace(model, [case.given], intervene=tl.when(target, tl.scale(-2.0)))
    changed = log.modules[case.attention].facets
    queries = clean["q"].clone()
    queries[:, 1, -1] *= -2
    close(changed["q"], queries)
    for letter in "kv":
        close(changed[letter], clean[letter])
    others = [0, 2, 3]
    close(changed["pattern"][:, others], clean["pattern"][:, others])
    close(changed["pattern"][:, 1, :-1], clean["pattern"][:, 1, :-1])
    assert not torch.equal(changed["pattern"][:, 1, -1], clean["pattern"][:, 1, -1])


@runs_of_models
def test_saving_facets(name: str, how: str) -> None:
    case = CASES[name]
    model = case.build(how)
    whole = tl.trace(model, [case.given]).modules[case.attention].facets
    for facet in ("q", "z", "pattern"):
        log = tl.trace(model, [case.given], save=tl.module(case.attention).facet(facet))
        close(log.modules[case.attention].facets[facet], whole[facet])
        assert len(log.values) == 1 or facet == "pattern"


ROTARY = ("llama", "qwen3", "gpt_neox", "phi")


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("how", ["eager", "sdpa"])
def test_queries_and_keys_after_the_rotary_embedding(name: str, how: str) -> None:
    """They give the pattern: without mask at the last position, which sees all keys."""
    case = CASES[name]
    facets = tl.trace(case.build(how), [case.given]).modules[case.attention].facets
    q, k = facets["q_rot"], facets["k_rot"]
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    close((q[:, :, -1:] @ k.mT / case.layout.dim**0.5).softmax(-1), facets["pattern"][:, :, -1:])
    assert not torch.allclose(q, facets["q"])


def test_layouts_that_are_not_known_have_no_facets() -> None:
    """CodeGen interleaves its fused projection in a way of its own, under a name of equal thirds."""
    torch.manual_seed(0)
    model = hf.CodeGenModel(hf.CodeGenConfig(n_layer=1, n_head=4, n_embd=32, rotary_dim=4, vocab_size=40)).eval()
    facets = tl.trace(model, [torch.arange(1, 8).repeat(2, 1)]).modules["h.0.attn"].facets
    assert not {"q", "k", "v"} & set(facets)


BLOCKS = {
    "gpt2": ("h.0", "ln_2", "mlp", "mlp.c_fc", "mlp.c_proj"),
    "llama": ("layers.0", "post_attention_layernorm", "mlp", "mlp.gate_proj", "mlp.down_proj"),
    "phi3": ("layers.0", "post_attention_layernorm", "", "", ""),
    "gemma2": ("layers.0", "pre_feedforward_layernorm", "mlp", "mlp.gate_proj", "mlp.down_proj"),
    "vit": ("layers.0", "layernorm_after", "mlp", "mlp.fc1", "mlp.fc2"),
    "clip": ("encoder.layers.0", "layer_norm2", "mlp", "mlp.fc1", "mlp.fc2"),
    "gpt_neox": ("layers.0", "", "mlp", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "phi": ("layers.0", "", "mlp", "mlp.fc1", "mlp.fc2"),
    "bloom": ("h.0", "", "mlp", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "bert": ("encoder.layer.0", "", "", "intermediate.dense", "output.dense"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_stream_and_mlp(name: str) -> None:
    block, norm, mlp, first, last = BLOCKS[name]
    case = CASES[name]
    model = case.build("eager")
    log = tl.trace(model, [case.given])
    inside = [f"{block}.{path}" for path in (norm, first, last) if path]
    with noted(model, block, *inside) as found:
        model(case.given)
    facets = log.modules[block].facets
    given, returned = found[block]
    close(facets["resid_pre"], given)
    close(facets["resid_post"], returned[0] if isinstance(returned, tuple) else returned)
    if norm:
        close(facets["resid_mid"], found[f"{block}.{norm}"][0])
    else:
        assert "resid_mid" not in facets
    if first:
        hidden = log.modules[f"{block}.{mlp}" if mlp else block].facets
        close(hidden["pre"], found[f"{block}.{first}"][1])
        close(hidden["post"], found[f"{block}.{last}"][0])


@pytest.mark.parametrize("name", ["gpt2", "llama", "vit"])
def test_the_hidden_layer_of_an_mlp_is_steered(name: str) -> None:
    block, _, mlp, _, last = BLOCKS[name]
    case = CASES[name]
    model = case.build("eager")
    handle = model.get_submodule(f"{block}.{last}").register_forward_pre_hook(lambda m, a: (a[0] * 0,))
    wanted = model(case.given).last_hidden_state
    handle.remove()
    target = tl.module(f"{block}.{mlp}").facet("post")
    log = tl.trace(model, [case.given], intervene=tl.when(target, tl.zero_ablate()))
    close(next(op.out for op in log if op.is_output and op.shape == wanted.shape), wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "t5"])
def test_norms(name: str) -> None:
    case = CASES[name]
    model = case.build("eager")
    log = tl.trace(model, [case.given])
    norms = [m for m in log.modules if m.num_calls == 1 and "normalized" in m.facets]
    assert len(norms) >= 3
    for norm in norms:
        module = model.get_submodule(norm.address)
        made = norm.facets["normalized"] * module.weight
        close(made + getattr(module, "bias", 0) if hasattr(module, "bias") else made, norm.facets["out"])


# -- timm --------------------------------------------------------------------------------------------------------------

VISION = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32}, "blocks.0.attn", 32),
    "deit": ("deit_tiny_patch16_224", {"depth": 2, "img_size": 32}, "blocks.1.attn", 32),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (2, 2), "num_heads": (3, 6)}, "layers.0.blocks.1.attn", 224),
    "beit": ("beit_base_patch16_224", {"depth": 1, "img_size": 32}, "blocks.0.attn", 32),
    "eva": ("eva02_tiny_patch14_224", {"depth": 1, "img_size": 28}, "blocks.0.attn", 28),
    "swin 2": ("swinv2_tiny_window8_256", {"depths": (1, 1), "num_heads": (3, 6)}, "layers.0.blocks.0.attn", 256),
}


@pytest.fixture(params=[False, True], ids=["eager", "fused"])
def is_fused(request: pytest.FixtureRequest) -> Iterator[bool]:
    set_fused_attn(request.param)
    yield request.param
    set_fused_attn(True)


@pytest.mark.parametrize("name", VISION)
def test_timm(name: str, is_fused: bool) -> None:
    model_name, options, attention, size = VISION[name]
    torch.manual_seed(0)
    model = timm.create_model(model_name, pretrained=False, **options).eval()
    x = torch.randn(1, 3, size, size)
    log = tl.trace(model, x)
    facets = log.modules[attention].facets
    layer = model.get_submodule(attention)
    with noted(model, attention, f"{attention}.proj") as found:
        model(x)
    given = found[attention][0]
    biases = [getattr(layer, "q_bias", None), getattr(layer, "k_bias", None), getattr(layer, "v_bias", None)]
    bias = layer.qkv.bias
    if bias is None and biases[0] is not None:
        zeros = torch.zeros_like(biases[0])
        bias = torch.cat([zeros if part is None else part for part in biases])
    qkv = nn.functional.linear(given, layer.qkv.weight, bias).chunk(3, -1)
    dim = qkv[0].shape[-1] // layer.num_heads
    for letter, wanted in zip("qkv", qkv, strict=True):
        torch.testing.assert_close(facets[letter], heads(wanted, dim), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(facets["pattern"] @ facets["v"], facets["z"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(facets["pattern"].sum(-1), torch.ones(facets["pattern"].shape[:-1]))
    assert facets.num_heads == layer.num_heads

    def without(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = args[0].clone()
        changed[..., dim : 2 * dim] = 0
        return (changed,)

    if isinstance(getattr(layer, "norm", nn.Identity()), nn.Identity):  # else the heads are normed together
        handle = layer.proj.register_forward_pre_hook(without)
        with noted(model, attention) as ablated:
            wanted = model(x)
        handle.remove()
        log = tl.trace(model, x, intervene=tl.when(tl.module(attention).head(1), tl.zero_ablate()))
        torch.testing.assert_close(log["output_1"].out, wanted, atol=1e-5, rtol=1e-5)
        got = log.modules[attention].facets["out"]
        torch.testing.assert_close(got, ablated[attention][1], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(got, found[attention][1])


def test_the_pattern_is_the_same_eager_and_fused() -> None:
    patterns = []
    for is_fused in (False, True):
        set_fused_attn(is_fused)
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32).eval()
        patterns.append(tl.trace(model, torch.ones(1, 3, 32, 32)).modules["blocks.0.attn"].facets["pattern"])
    close(*patterns)


def test_residual_stream_of_a_vit() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
    x = torch.randn(1, 3, 32, 32)
    log = tl.trace(model, x)
    with noted(model, "blocks.0", "blocks.0.norm2", "blocks.1", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2") as found:
        model(x)
    facets = log.modules["blocks.0"].facets
    close(facets["resid_pre"], found["blocks.0"][0])
    close(facets["resid_mid"], found["blocks.0.norm2"][0])
    close(facets["resid_post"], found["blocks.1"][0])
    close(log.modules["blocks.0.mlp"].facets["pre"], found["blocks.0.mlp.fc1"][1])
    target = tl.module("blocks.0").facet("resid_mid")
    changed = tl.trace(model, x, intervene=tl.when(target, tl.zero_ablate()))
    middle = torch.zeros_like(found["blocks.0.norm2"][0])
    block = model.blocks[0]
    close(changed.modules["blocks.0"].facets["resid_post"], middle + block.mlp(block.norm2(middle)))
