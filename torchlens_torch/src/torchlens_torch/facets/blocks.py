"""Residual blocks of transformers: the residual stream before, between and after attention and MLP.

``resid_pre`` is what a block is given, ``resid_post`` what it returns, ``resid_mid`` the stream after attention has
been added. Blocks that run attention and MLP side by side have no stream between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torchlens_core.facets import Facet, ModuleNode, Recipe, directly
from torchlens_core.selectors import in_module, module

_ATTENTION: Final = ("attn", "self_attn", "attention", "self_attention", "SelfAttention")
_OTHER_ATTENTION: Final = ("encoder_attn", "crossattention", "cross_attn", "multihead_attn", "inter_attention")
_MLP: Final = ("mlp", "ffn", "feed_forward", "fc1", "linear1", "intermediate", "block_sparse_moe")
_STREAM: Final = ("batch", "position", "feature")
_SECOND_NORM: Final = (  # of blocks that norm before they attend: what stands between attention and MLP
    "ln_2", "post_attention_layernorm", "norm2", "norm_2", "layernorm_after", "layer_norm2",
    "pre_feedforward_layernorm",
)  # fmt: skip
_MADE_BEFORE: Final = (
    "it is made before the module is called; act on what makes it, such as resid_post of the block before"
)


def _matches(node: ModuleNode) -> bool:
    return node.first(*_ATTENTION) is not None and node.first(*_MLP) is not None


def _facets(node: ModuleNode) -> Mapping[str, Facet]:
    made = {
        "resid_pre": Facet(
            _STREAM,
            "residual stream that the block is given",
            find=lambda call: call.inputs[:1],
            read_only=_MADE_BEFORE,
        )
    }
    middle = _middle(node)
    if middle is not None:
        made["resid_mid"] = middle
    returned = module(node.address)  # beside the stream, some blocks return the weights of their attention
    for name in (*_ATTENTION, *_OTHER_ATTENTION):
        if node.has(name):
            returned = returned & ~in_module(node.path(name))
    made["resid_post"] = Facet(_STREAM, "residual stream that the block returns", returned)
    return made


def _middle(node: ModuleNode) -> Facet | None:
    """The stream between attention and MLP, where the class is known to have one."""
    doc = "residual stream after attention"
    attributes = node.attributes
    if attributes.get("norm_first") is False and node.has("norm1", "norm2") and not node.has("norm3"):
        return Facet(_STREAM, f"{doc}, normed", module(node.path("norm1")))  # nn.TransformerEncoderLayer
    normed_before = node.first(*_SECOND_NORM) is not None or attributes.get("do_layer_norm_before") is True
    if not normed_before or attributes.get("use_parallel_residual") or attributes.get("norm_first") is False:
        return None
    return Facet(_STREAM, doc, directly(node.address, "add", 1))


RECIPES: Final = (Recipe("residual blocks", _matches, _facets, "torch"),)
