"""Attention by structure: the names of its projections, and how many heads their outputs hold.

Separate projections (``q_proj``, ``k_proj``, ``v_proj`` and their like) give (batch, position, heads * head_dim). Of a
fused one the layout has to be known: queries, keys and values one after another, or interleaved head by head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from torchlens_core.facets import (
    Facet,
    Flatten,
    ModuleNode,
    Permute,
    Recipe,
    RepeatHeads,
    Unflatten,
    directly,
    split_heads,
)
from torchlens_core.interventions.at import At
from torchlens_core.interventions.target import View
from torchlens_core.selectors import module

from .scores import HEADS, KEYS, attention_facets

_SEPARATE: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("self.query", "self.key", "self.value"),
    ("attention.query", "attention.key", "attention.value"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("Wq", "Wk", "Wv"),
    ("linear_q", "linear_k", "linear_v"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_head", "k_head", "v_head"),
    ("q", "k", "v"),
)
_HEAD_DIM: Final = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "d_kv", "dim_head", "d_head")
_HEADS: Final = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "num_query_heads")
_SHARED: Final = ("num_key_value_heads", "num_kv_heads", "kv_heads")
_UNEQUAL: Final = ("key_dim", "val_dim", "value_dim", "attn_ratio")  # of attention whose values have another size
_OTHERWISE: Final = ("CodeGen", "GPTBigCode")  # use the names of equal thirds for another layout
_OVER_CHANNELS: Final = ("XCA", "CrossCovarianceAttn", "ChannelAttention")  # features attend to features
_TIME_FIRST: Final = ("transformers.models.fsmt.",)  # (position, batch, feature)
_GATED: Final = ("Qwen3Next", "Qwen3_5")  # each head of the queries is followed by its gate
_FEATURES: Final = ("out_features", "nf")  # of Linear, and of the Conv1D of transformers
_DOCS: Final = {"q": "queries, as projected", "k": "keys, as projected", "v": "values, as projected"}
_MANY: Final = "each head of the keys and values serves several heads of the queries; act on {name}, the head itself"
_BY_WEIGHT: Final = ("timm.models.beit", "timm.models.eva", "timm.models.swin_transformer_v2.")  # never call `qkv`
_EVERYTHING: Final = slice(None)
_BY_HEAD: Final = Permute((0, 2, 1, 3))  # (batch, position, head, head_dim) -> (batch, head, position, head_dim)


def features(node: ModuleNode | None) -> int | None:
    """How many features a projection gives; None where it is none."""
    return None if node is None else node.number(*_FEATURES)


def head_dim_of(node: ModuleNode, projected: int | None) -> int | None:
    """The size of one head, noted by the module or from how many heads share the features."""
    noted = node.number(*_HEAD_DIM)
    if noted is not None:
        return noted
    heads = node.number(*_HEADS)
    return projected // heads if heads and projected and projected % heads == 0 else None


# -- separate projections ----------------------------------------------------------------------------------------------


def _separate(node: ModuleNode) -> tuple[tuple[str, str, str], ModuleNode] | None:
    """The names of the projections, and the module that notes how many heads they hold."""
    for names in _SEPARATE:
        holder = node.child(names[0].rpartition(".")[0]) if "." in names[0] else node
        if holder is not None and node.has(*names) and features(node.child(names[0])):
            return names, holder
    return None


def _has_separate(node: ModuleNode) -> bool:
    found = _separate(node)
    if found is None or node.qualname.startswith(_TIME_FIRST):
        return False
    query, key = (features(node.child(name)) for name in found[0][:2])
    head_dim = head_dim_of(found[1], query)
    if head_dim is None or not query or not key or query % head_dim:
        return False
    groups = node.number("num_key_value_groups")
    return groups is None or query == key * groups * (2 if node.cls.startswith(_GATED) else 1)


def _separate_facets(node: ModuleNode) -> Mapping[str, Facet]:
    found = _separate(node)
    assert found is not None
    names, holder = found
    widths = [features(node.child(name)) for name in names]
    head_dim = head_dim_of(holder, widths[0])
    assert head_dim is not None
    is_gated = node.cls.startswith(_GATED)
    if is_gated:
        widths[0] = (widths[0] or 0) // 2
    query, key = (width or 0 for width in widths[:2])
    heads, groups = query // head_dim, max(query // key, 1)
    made = {}
    for letter, name, width in zip("qkv", names, widths, strict=True):
        size = head_dim
        if letter == "v" and width and width * groups != query:
            size = width * groups // heads  # values of another size than the keys
        axes = HEADS if letter == "q" else KEYS
        made[letter] = Facet(axes, _DOCS[letter], module(node.path(name)), split_heads(size))
    if is_gated:
        made["q"] = replace(made["q"], views=(Unflatten(-1, (-1, 2, head_dim)), At((..., 0, _EVERYTHING)), _BY_HEAD))
    return {**made, **_expanded(made, groups), **attention_facets(node.address, heads, heads // groups)}


def _expanded(made: Mapping[str, Facet], groups: int) -> dict[str, Facet]:
    """Keys and values with a head for each head of the queries."""
    if groups <= 1:
        return {}
    return {
        f"{name}_expanded": Facet(
            made[name].axes, f"{_DOCS[name]}, one head for each head of the queries", made[name].site,
            (*made[name].views, RepeatHeads(groups)), read_only=_MANY.format(name=name),
        )
        for name in ("k", "v")
    }  # fmt: skip


# -- fused projections -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fused:
    """Where queries, keys and values stand in the output of one projection.

    Attributes:
        projection: name of the module.
        q, k, v: the views of each.
        heads: of the queries.
        groups: how many of them share one head of keys and values.
    """

    projection: str
    q: tuple[View, ...]
    k: tuple[View, ...]
    v: tuple[View, ...]
    heads: int
    groups: int = 1

    def facets(self, node: ModuleNode) -> dict[str, Facet]:
        """The facets of an attention with this projection."""
        site = module(node.path(self.projection))
        if node.qualname.startswith(_BY_WEIGHT):
            site = directly(node.address, "linear", 1)
        made = {
            "q": Facet(HEADS, _DOCS["q"], site, self.q),
            "k": Facet(KEYS, _DOCS["k"], site, self.k),
            "v": Facet(KEYS, _DOCS["v"], site, self.v),
        }
        if node.cls.startswith(_OVER_CHANNELS):
            return made
        return {
            **made,
            **_expanded(made, self.groups),
            **attention_facets(node.address, self.heads, self.heads // self.groups),
        }


def in_thirds(projection: str, heads: int, head_dim: int) -> Fused:
    """All queries, then all keys, then all values: features of (3, heads, head_dim)."""

    def third(number: int) -> tuple[View, ...]:
        return Unflatten(-1, (3, heads, head_dim)), At((..., number, _EVERYTHING, _EVERYTHING)), _BY_HEAD

    return Fused(projection, third(0), third(1), third(2), heads)


def in_runs(projection: str, heads: int, shared: int, head_dim: int) -> Fused:
    """The heads of the queries, then the fewer ones of the keys, then those of the values."""

    def run(first: int, last: int) -> tuple[View, ...]:
        return Unflatten(-1, (heads + 2 * shared, head_dim)), At((..., slice(first, last), _EVERYTHING)), _BY_HEAD

    ends = (0, heads, heads + shared, heads + 2 * shared)
    q, k, v = (run(first, last) for first, last in pairwise(ends))
    return Fused(projection, q, k, v, heads, heads // shared)


def by_head(projection: str, heads: int, head_dim: int) -> Fused:
    """Query, key and value of each head together: features of (heads, 3, head_dim)."""

    def one(number: int) -> tuple[View, ...]:
        return Unflatten(-1, (heads, 3, head_dim)), At((..., number, _EVERYTHING)), _BY_HEAD

    return Fused(projection, one(0), one(1), one(2), heads)


def by_group(projection: str, heads: int, shared: int, head_dim: int) -> Fused:
    """For each head of the keys the queries that it serves, then it, then its values."""
    groups = heads // shared
    split = Unflatten(-1, (shared, groups + 2, head_dim))
    queries = (split, At((..., slice(0, groups), _EVERYTHING)), Flatten(-3, -2), _BY_HEAD)
    key, value = ((split, At((..., groups + n, _EVERYTHING)), _BY_HEAD) for n in range(2))
    return Fused(projection, queries, key, value, heads, groups)


def _thirds(node: ModuleNode) -> Fused | None:
    """Of the names that mean three equal parts, where the numbers agree."""
    if node.cls.startswith(_OTHERWISE) or any(name in node.attributes for name in _UNEQUAL):
        return None
    for name in ("qkv", "c_attn", "Wqkv", "qkv_proj", "to_qkv", "att_proj"):
        width = features(node.child(name))
        if width is None or width % 3:
            continue
        head_dim = head_dim_of(node, width // 3)
        if head_dim is not None and width // 3 % head_dim == 0:
            heads = width // 3 // head_dim
            if node.number(*_HEADS) in (None, heads) and node.number(*_SHARED) in (None, heads):
                return in_thirds(name, heads, head_dim)
    return None


def _runs(node: ModuleNode) -> Fused | None:
    """Of grouped queries, where the numbers agree."""
    head_dim, shared, groups = node.number(*_HEAD_DIM), node.number(*_SHARED), node.number("num_key_value_groups")
    heads = node.number(*_HEADS) or (shared * groups if shared and groups else None)
    if not head_dim or not shared or not heads or shared == heads or heads % shared:
        return None
    for name in ("qkv_proj", "Wqkv"):
        if features(node.child(name)) == (heads + 2 * shared) * head_dim:
            return in_runs(name, heads, shared, head_dim)
    return None


def _bigcode(node: ModuleNode) -> Fused | None:
    heads, head_dim = node.number("num_heads"), node.number("head_dim")
    if not node.cls.startswith("GPTBigCode") or not heads or not head_dim or node.has("q_attn"):
        return None
    multi_query = node.attributes.get("multi_query")
    return in_runs("c_attn", heads, 1, head_dim) if multi_query else by_head("c_attn", heads, head_dim)


def _interleaved(node: ModuleNode) -> Fused | None:
    if not node.cls.startswith(("GPTNeoX", "Bloom", "Persimmon")):
        return None
    width, head_dim = features(node.child("query_key_value")), node.number(*_HEAD_DIM)
    return by_head("query_key_value", width // 3 // head_dim, head_dim) if width and head_dim else None


def _deberta(node: ModuleNode) -> Fused | None:
    heads, width = node.number("num_attention_heads"), features(node.child("in_proj"))
    if node.cls != "DisentangledSelfAttention" or not heads or not width:
        return None
    return by_head("in_proj", heads, width // 3 // heads)


def _falcon(node: ModuleNode) -> Fused | None:
    width, head_dim = features(node.child("query_key_value")), node.number("head_dim")
    heads, shared = node.number("num_heads"), node.number("num_kv_heads")
    if not node.cls.startswith("Falcon") or not width or not head_dim or not heads:
        return None
    if node.attributes.get("new_decoder_architecture"):
        return by_group("query_key_value", heads, shared, head_dim) if shared else None
    if node.attributes.get("multi_query"):
        return in_runs("query_key_value", heads, 1, head_dim)
    return by_head("query_key_value", heads, head_dim)


_LAYOUTS: Final = (_falcon, _interleaved, _bigcode, _deberta, _runs, _thirds)


def _fused(node: ModuleNode) -> Fused | None:
    return next((found for layout in _LAYOUTS if (found := layout(node)) is not None), None)


def _fused_facets(node: ModuleNode) -> Mapping[str, Facet]:
    found = _fused(node)
    assert found is not None
    return found.facets(node)


RECIPES: Final = (
    Recipe("attention, separate projections", _has_separate, _separate_facets, "torch"),
    Recipe("attention, fused projection", lambda node: _fused(node) is not None, _fused_facets, "torch"),
)
