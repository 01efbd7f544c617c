"""MLPs: the projection into the hidden layer, what the second projection is given, and what comes out.

``pre`` is before the activation, ``post`` what the output projection is given. Of gated ones (``down(act(gate) * up)``)
``pre`` is the gate and ``up`` what it multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from torchlens_core.facets import Facet, ModuleNode, Recipe
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.selectors import Selector, func, in_module, module, preceded_by

_PLAIN: Final = (
    ("fc1", "fc2"),
    ("c_fc", "c_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc_in", "fc_out"),
    ("lin1", "lin2"),
    ("linear1", "linear2"),
    ("wi", "wo"),
    ("intermediate.dense", "output.dense"),
    ("up_proj", "down_proj"),
)
_GATED: Final = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("wi_0", "wi_1", "wo"))
_ACTIVATIONS: Final = (
    "act", "act_fn", "activation", "activation_fn", "activation_function", "gelu_impl",
    "intermediate.intermediate_act_fn",
)  # fmt: skip
_HIDDEN: Final = ("batch", "position", "hidden")
_FOUND_LATE: Final = "which operation makes it is known only when the output projection is given it; act on pre or out"


def _gated(node: ModuleNode) -> tuple[str, str, str] | None:
    return next((names for names in _GATED if node.has(*names)), None)


def _plain(node: ModuleNode) -> tuple[str, str] | None:
    return next((names for names in _PLAIN if node.has(*names)), None)


def _given(path: str, call: ModuleCall) -> list[Op]:
    """What a module inside was given, in a call."""
    found = [inside for inside in _inside(call) if inside.address == path]
    return found[0].inputs[:1] if len(found) == 1 else []


def _inside(call: ModuleCall) -> Iterator[ModuleCall]:
    """The calls of modules inside one, at any depth."""
    for child in call.children:
        yield child
        yield from _inside(child)


def _facets(node: ModuleNode) -> Mapping[str, Facet]:
    gated, plain = _gated(node), _plain(node)
    names = gated or plain
    assert names is not None
    made = {"pre": Facet(_HIDDEN, "hidden layer before the activation", module(node.path(names[0])))}
    activation = node.first(*_ACTIVATIONS)
    if activation is None and names == ("linear1", "linear2"):
        activation = node.child("dropout")  # nn.TransformerEncoderLayer: linear2(dropout(activation(linear1(x))))
    site: Selector | None = None
    if gated is not None:
        up = module(node.path(gated[1]))
        made["up"] = Facet(_HIDDEN, "what the gate multiplies", up)
        site = func("mul") & in_module(node.address) & preceded_by(up)
    elif activation is not None:
        site = module(activation.address)
    made["post"] = Facet(
        _HIDDEN,
        "hidden layer after the activation",
        site,
        find=lambda call: _given(node.path(names[-1]), call),
        read_only="" if site is not None else _FOUND_LATE,
    )
    return made


RECIPES: Final = (Recipe("mlp", lambda node: _gated(node) is not None or _plain(node) is not None, _facets, "torch"),)
