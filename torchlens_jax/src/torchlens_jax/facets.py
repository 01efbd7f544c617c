"""Recipes of facets for modules of Flax and Equinox: attention, and the cells of recurrent layers.

They go by class names and by the names of the modules inside, so that they import no library, and work on trace files.
What attention takes of each key is no facet here: it is one operation, and whether it is causal is not among what it
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from torchlens_core.facets import Facet, ModuleNode, Permute, Recipe, directly
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.selectors import func, in_module, module

_HEADS: Final = ("batch", "head", "position", "head_dim")
_KEYS: Final = ("batch", "head", "key", "head_dim")
_STATE: Final = ("batch", "feature")
_TURNED: Final = (Permute((0, 2, 1, 3)),)  # positions come before heads

_FLAX_ATTENTION: Final = frozenset(
    f"{place}.{cls}"
    for place in ("flax.nnx.nn.attention", "flax.linen.attention")
    for cls in ("MultiHeadAttention", "MultiHeadDotProductAttention", "SelfAttention")
)
_FLAX_CELLS: Final = ("flax.nnx.nn.recurrent.", "flax.linen.recurrent.")
_EQUINOX_CELLS: Final = "equinox.nn._rnn."


def _is_flax_attention(node: ModuleNode) -> bool:
    return node.qualname in _FLAX_ATTENTION and node.has("query", "key", "value")


def _flax_attention(node: ModuleNode) -> Mapping[str, Facet]:
    mixed = func("scaled_dot_product_attention") & in_module(node.address)
    return {
        "q": Facet(_HEADS, "queries, as projected", module(node.path("query")), _TURNED),
        "k": Facet(_KEYS, "keys, as projected", module(node.path("key")), _TURNED),
        "v": Facet(_KEYS, "values, as projected", module(node.path("value")), _TURNED),
        "z": Facet(_HEADS, "what a head gives to the output projection", mixed, _TURNED),
    }


def _is_equinox_attention(node: ModuleNode) -> bool:
    return node.qualname == "equinox.nn._attention.MultiheadAttention"


def _equinox_attention(node: ModuleNode) -> Mapping[str, Facet]:
    names = (("q", "position", "queries"), ("k", "key", "keys"), ("v", "key", "values"))
    return {
        name: Facet(
            ("head", axis, "head_dim"),
            f"{doc} of one example, as projected",
            directly(node.address, "reshape", number),
            (Permute((1, 0, 2)),),
        )
        for number, (name, axis, doc) in enumerate(names, start=1)
    }


def _is_cell(node: ModuleNode) -> bool:
    return node.qualname.startswith((*_FLAX_CELLS, _EQUINOX_CELLS)) and node.cls.endswith("Cell")


def _cell(node: ModuleNode) -> Mapping[str, Facet]:
    """Flax returns the next state, ``(c, h)`` or ``h``, and ``h`` again; Equinox ``(h, c)`` or ``h``."""
    is_flax = node.qualname.startswith(_FLAX_CELLS)
    if "LSTM" not in node.cls:
        return {"h_n": Facet(_STATE, "next hidden state", find=_output(0))}
    return {
        "h_n": Facet(_STATE, "next hidden state", find=_output(1 if is_flax else 0)),
        "c_n": Facet(_STATE, "next cell state", find=_output(0 if is_flax else 1)),
    }


def _output(number: int) -> Callable[[ModuleCall], list[Op]]:
    return lambda call: call.outputs[number : number + 1]


RECIPES: Final = (
    Recipe("flax attention", _is_flax_attention, _flax_attention, "jax"),
    Recipe("equinox.nn.MultiheadAttention", _is_equinox_attention, _equinox_attention, "jax"),
    Recipe("flax and equinox recurrent cells", _is_cell, _cell, "jax"),
)
