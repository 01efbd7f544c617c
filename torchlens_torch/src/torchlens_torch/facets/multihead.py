"""``torch.nn.MultiheadAttention``: one class, several ways through its function, the same views of q, k and v in all.

Whatever the projections (one for all three, one for keys and values, three), ``multi_head_attention_forward`` shows
queries, keys and values, in this order, as (positions, batch * heads, head_dim): its first three calls of ``view``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torchlens_core.facets import Facet, ModuleNode, Permute, Recipe, Unflatten, directly

from .scores import HEADS, KEYS, attention_facets


def _matches(node: ModuleNode) -> bool:
    return node.qualname == "torch.nn.modules.activation.MultiheadAttention" and node.number("num_heads") is not None


def _facets(node: ModuleNode) -> Mapping[str, Facet]:
    heads = node.number("num_heads")
    assert heads is not None
    views = (Unflatten(1, (-1, heads)), Permute((1, 2, 0, 3)))
    names = (("q", HEADS, "queries"), ("k", KEYS, "keys"), ("v", KEYS, "values"))
    made = {
        name: Facet(axes, f"{doc}, as projected", directly(node.address, "view", number), views)
        for number, (name, axes, doc) in enumerate(names, start=1)
    }
    return {**made, **attention_facets(node.address, heads, heads)}


RECIPES: Final = (Recipe("torch.nn.MultiheadAttention", _matches, _facets, "torch"),)
