"""Norms: what stands before the learned scale and shift, and what the features were divided by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torchlens_core.errors import ValueNotSaved
from torchlens_core.facets import Computed, Facet, ModuleNode, Recipe
from torchlens_core.facets.numpy_verbs import verbs_for
from torchlens_core.records.op import Op
from torchlens_core.selectors import module

_FEATURES: Final = ("batch", "position", "feature")
_ONE: Final = ("batch", "position", "1")
_EPSILON: Final = ("eps", "variance_epsilon")
_RMS_BY_ANOTHER_NAME: Final = ("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm")
_NEVER_MADE: Final = "the norm is worked out again from what the module was given; act on its output"


def _epsilon(node: ModuleNode) -> float | None:
    values = (node.attributes.get(name) for name in _EPSILON)
    return next((value for value in values if isinstance(value, float)), None)


def _is_norm(node: ModuleNode) -> bool:
    return _is_layer_norm(node) or (
        (node.cls.endswith("RMSNorm") or node.cls in _RMS_BY_ANOTHER_NAME) and _epsilon(node) is not None
    )


def _is_layer_norm(node: ModuleNode) -> bool:
    shape = node.attributes.get("normalized_shape")
    return node.cls == "LayerNorm" and _epsilon(node) is not None and isinstance(shape, tuple) and len(shape) == 1


def _facets(node: ModuleNode) -> Mapping[str, Facet]:
    epsilon = _epsilon(node)
    assert epsilon is not None
    here = module(node.address)
    centred = _is_layer_norm(node)
    ways = (
        ("normalized", _FEATURES, "what is scaled and shifted by the parameters", _normalized(node, epsilon, centred)),
        ("scale", _ONE, "what the features are divided by", _scale(node, epsilon, centred)),
    )
    return {
        name: Facet(axes, doc, computed=Computed(here, function, here, _NEVER_MADE))
        for name, axes, doc, function in ways
    }


def _given(op: Op, node: ModuleNode) -> Any:
    """What the module was given in the call that returned an Op, in float32 at least where it can be."""
    call = next(call for call in map(op.trace.modules.call, op.output_of_module_calls) if call.address == node.address)
    if not call.inputs:
        raise ValueNotSaved(f"What {call.call_label} was given was not recorded.")
    return call.inputs[0].out


def _scale(node: ModuleNode, epsilon: float, centred: bool) -> Callable[[Op], Any]:
    def scale(op: Op) -> Any:
        x = _given(op, node)
        mean = verbs_for(op.trace, x).mean
        if centred:
            x = x - mean(x, (-1,))
        return (mean(x * x, (-1,)) + epsilon) ** 0.5

    return scale


def _normalized(node: ModuleNode, epsilon: float, centred: bool) -> Callable[[Op], Any]:
    def normalized(op: Op) -> Any:
        x = _given(op, node)
        if centred:
            x = x - verbs_for(op.trace, x).mean(x, (-1,))
        return x / _scale(node, epsilon, centred)(op)

    return normalized


RECIPES: Final = (Recipe("norms", _is_norm, _facets, "torch"),)
