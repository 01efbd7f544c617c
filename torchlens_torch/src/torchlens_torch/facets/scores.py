"""What every attention has, however its projections are written: pattern, z, the queries and keys that it took.

Attention is either one fused operation, ``scaled_dot_product_attention``, or a softmax of a product, whose result goes
into a product with the values, perhaps through a dropout, a cast or a mask of heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchlens_core.facets import Computed, Facet, SplitBatch, argument, argument_op, setting
from torchlens_core.facets.numpy_verbs import verbs_for
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.selectors import Selector, followed_by, func, in_module, preceded_by

HEADS = ("batch", "head", "position", "head_dim")
KEYS = ("batch", "head", "key", "head_dim")
PATTERN = ("batch", "head", "position", "key")

_FUSED = "scaled_dot_product_attention"
_FUSED_PARAMETERS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_PRODUCTS = ("matmul", "bmm", "baddbmm", "einsum")
_AFTER_SOFTMAX = ("dropout", "to", "identity", "mul", "view", "reshape", "typeas", "type", "contiguous", "getitem")
_BEFORE_SOFTMAX = (
    "add", "mul", "div", "sub", "to", "type", "float", "view", "reshape", "where", "maskedfill", "max", "maximum",
    "tanh", "clamp", "contiguous", "identity",
)  # fmt: skip
_TURNED = ("transpose", "permute", "t", "mt", "swapaxes")
_MOST_BETWEEN = 3  # operations between the softmax and the product with the values

_NEVER_MADE = (
    "attention is one fused operation here, which never makes the pattern; load the model with "
    "attn_implementation='eager' (transformers), call timm.layers.set_fused_attn(False) (timm), or call it with "
    "need_weights=True (nn.MultiheadAttention)"
)
_FOUND_LATE = "which operation makes what attention takes is known only when it is taken; act on q or k"


def attention_facets(address: str, heads: int, shared: int) -> dict[str, Facet]:
    """``z``, ``pattern``, ``q_rot`` and ``k_rot`` of the attention in a module.

    Args:
        address: of the module.
        heads: how many heads the queries have, to unfold those that are folded into the batch.
        shared: how many heads the keys have, where several heads of the queries share one.
    """
    unfolded = (SplitBatch(heads),)
    fused = func(_FUSED) & in_module(address)
    return {
        "z": Facet(HEADS, "what a head gives to the output projection", fused | _mixed(address), unfolded),
        "pattern": Facet(
            PATTERN,
            "how much of each key a position takes",
            _softmax(address),
            unfolded,
            computed=Computed(fused, _pattern(unfolded[0]), fused | followed_by(fused), _NEVER_MADE),
        ),
        "q_rot": Facet(
            HEADS,
            "queries as attention takes them",
            views=unfolded,
            find=_taken("query", address, (heads,)),
            read_only=_FOUND_LATE,
        ),
        "k_rot": Facet(
            KEYS,
            "keys as attention takes them",
            views=(SplitBatch(heads, shared=shared),),
            find=_taken("key", address, (heads, shared)),
            read_only=_FOUND_LATE,
        ),
    }


def _softmax(address: str) -> Selector:
    return func("softmax") & in_module(address)


def _any_of(names: tuple[str, ...]) -> Selector:
    made = func(names[0])
    for name in names[1:]:
        made = made | func(name)
    return made


def _mixed(address: str) -> Selector:
    """The product of the pattern with the values."""
    weights = latest = _softmax(address)
    for _ in range(_MOST_BETWEEN):
        latest = _any_of(_AFTER_SOFTMAX) & in_module(address) & preceded_by(latest)
        weights = weights | latest
    return _any_of(_PRODUCTS) & in_module(address) & preceded_by(weights)


def _pattern(unfolded: SplitBatch) -> Callable[[Op], Any]:
    """The pattern of a fused attention, from what it took."""

    def pattern(op: Op) -> Any:
        query, key, mask = (argument(op, name, _FUSED_PARAMETERS) for name in ("query", "key", "attn_mask"))
        scale = setting(op, "scale", _FUSED_PARAMETERS)
        is_causal = setting(op, "is_causal", _FUSED_PARAMETERS, default=False)
        verbs = verbs_for(op.trace, query)
        weights = verbs.attention_weights(query, key, mask=mask, scale=scale, is_causal=is_causal)
        return unfolded.get(weights, verbs)

    return pattern


def _taken(name: str, address: str, heads: tuple[int, ...]) -> Callable[[ModuleCall], list[Op]]:
    """Finds the Op whose array attention takes as its queries or keys, with so many heads or these in the batch."""

    def find(call: ModuleCall) -> list[Op]:
        op = _argument_of_attention(call, name, address)
        fits = op is not None and (len(op.shape) == 3 or (len(op.shape) == 4 and op.shape[1] in heads))
        return [op] if op is not None and fits else []

    return find


def _argument_of_attention(call: ModuleCall, name: str, address: str) -> Op | None:
    fused = [op for op in call.ops if op.func_name == _FUSED]
    if len(fused) == 1:
        return argument_op(fused[0], name, _FUSED_PARAMETERS)
    softmaxes = [op for op in call.ops if _softmax(address).matches(op)]
    product = _product_before(softmaxes[0]) if len(softmaxes) == 1 else None
    if product is None or len(product.parent_ops()) < 2:
        return None
    query, key = product.parent_ops()[-2:]  # baddbmm takes what it adds to first
    if name == "query":
        return query
    turned = key.parent_ops()[:1] if key.type in _TURNED else []
    return turned[0] if turned else None


def _product_before(op: Op) -> Op | None:
    """The product of queries and keys that a softmax is taken of, through scales, masks and casts."""
    while op.type not in _PRODUCTS:
        earlier = [parent for parent in op.parent_ops() if parent.type in (*_PRODUCTS, *_BEFORE_SOFTMAX)]
        if op.type not in (*_BEFORE_SOFTMAX, "softmax") or not earlier:
            return None
        op = earlier[0]
    return op
