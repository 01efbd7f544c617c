"""``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from torchlens_core.facets import Facet, ModuleNode, Recipe
from torchlens_core.records.module_call import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.selectors import module, output

_STATE: Final = ("layer and direction", "batch", "feature")


def _is_layer(node: ModuleNode) -> bool:
    return node.qualname.startswith("torch.nn.modules.rnn.") and node.cls in ("LSTM", "GRU", "RNN")


def _layer(node: ModuleNode) -> Mapping[str, Facet]:
    steps = ("batch", "position", "feature") if node.attributes.get("batch_first") else ("position", "batch", "feature")
    here = module(node.address)
    made = {
        "output": Facet(steps, "hidden states of the last layer at every position", here & output(0), find=_first),
        "h_n": Facet(
            _STATE,
            "last hidden state of every layer and direction",
            here & output(1),
            find=_from_end(2 if node.cls == "LSTM" else 1),
        ),
    }
    if node.cls == "LSTM":
        doc = "last cell state of every layer and direction"
        made["c_n"] = Facet(_STATE, doc, here & output(2), find=_from_end(1))
    return made


def _first(call: ModuleCall) -> list[Op]:
    """The sequences, where what the layer returns is not what it computed: of inputs without a batch."""
    return call.outputs[:1]


def _from_end(number: int) -> Callable[[ModuleCall], list[Op]]:
    """States of packed sequences are returned in the order of the batch, which an operation of its own restores."""
    return lambda call: call.outputs[-number:][:1] if len(call.outputs) > number else []


def _is_cell(node: ModuleNode) -> bool:
    return node.qualname.startswith("torch.nn.modules.rnn.") and node.cls in ("LSTMCell", "GRUCell", "RNNCell")


def _cell(node: ModuleNode) -> Mapping[str, Facet]:
    here = module(node.address)
    if node.cls != "LSTMCell":
        return {"h_n": Facet(("batch", "feature"), "next hidden state", here)}
    return {
        "h_n": Facet(("batch", "feature"), "next hidden state", here & output(0)),
        "c_n": Facet(("batch", "feature"), "next cell state", here & output(1)),
    }


RECIPES: Final = (
    Recipe("torch.nn recurrent layers", _is_layer, _layer, "torch"),
    Recipe("torch.nn recurrent cells", _is_cell, _cell, "torch"),
)
