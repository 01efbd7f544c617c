"""What an operation is set to, by its type: sizes that its parameters show, then arguments that differ from defaults.

Names are those of the operation that the type is named after. Weights are read as that operation lays them out; a
plugin whose arrays are laid out differently states ``out_channels``, ``in_channels`` or ``kernel_size`` as a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..cost_rules.query import CostQuery, Shape

Settings = Mapping[str, Any]
Rule = Callable[[CostQuery, Settings], dict[str, Any]]


def config(query: CostQuery, settings: Settings) -> dict[str, Any]:
    """The configuration of one call.

    Args:
        query: its type and shapes.
        settings: its arguments by name, arrays and those at their default left out.

    >>> query = CostQuery("conv2d", ((1, 192, 13, 13), (384, 192, 3, 3), (384,)), ((1, 384, 13, 13),), {})
    >>> config(query, {"padding": (1, 1)})
    {'out_channels': 384, 'in_channels': 192, 'kernel_size': (3, 3), 'padding': (1, 1)}
    """
    shown = {name: _brackets(value) for name, value in settings.items() if not name.startswith("_")}
    rule = RULES.get(query.type)
    return {**rule(query, shown), **shown} if rule is not None else shown


def _brackets(value: Any) -> Any:
    """An index with slices as it is written: ``[:, 0]``. Any other value as it is."""
    items = value if isinstance(value, tuple) else (value,)
    if not any(item is Ellipsis or isinstance(item, slice) for item in items):
        return value
    return f"[{', '.join(map(_index, items))}]"


def _index(item: Any) -> str:
    if item is Ellipsis:
        return "..."
    if not isinstance(item, slice):
        return repr(item)
    start, stop, step = ("" if part is None else repr(part) for part in (item.start, item.stop, item.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


# -- rules: what comes before the settings -----------------------------------------------------------------------------


def _convolution(query: CostQuery, settings: Settings) -> dict[str, Any]:
    """Weight (outputs, inputs / groups, *kernel), with ``out_channels`` stated (*kernel, inputs / groups, outputs)."""
    weight = _array(query, 1)
    if len(weight) < 3:
        return {}
    if "out_channels" in settings:
        *kernel, inputs, outputs = weight
    else:
        outputs, inputs, *kernel = weight
    return {"out_channels": outputs, "in_channels": inputs * settings.get("groups", 1), "kernel_size": tuple(kernel)}


def _transposed_convolution(query: CostQuery, settings: Settings) -> dict[str, Any]:
    """Weight (inputs, outputs / groups, *kernel)."""
    weight = _array(query, 1)
    if len(weight) < 3:
        return {}
    inputs, outputs, *kernel = weight
    return {"out_channels": outputs * settings.get("groups", 1), "in_channels": inputs, "kernel_size": tuple(kernel)}


def _linear(query: CostQuery, settings: Settings) -> dict[str, Any]:
    given, made = _array(query, 0), query.out_shapes[0] if query.out_shapes else ()
    return {"in_features": given[-1], "out_features": made[-1]} if given and made else {}


def _embedding(query: CostQuery, settings: Settings) -> dict[str, Any]:
    weight = _array(query, 1)
    return {"num_embeddings": weight[0], "embedding_dim": weight[1]} if len(weight) == 2 else {}


def _channel_norm(query: CostQuery, settings: Settings) -> dict[str, Any]:
    """Statistics, scale and shift have one element for each channel."""
    vectors = [shape for shape in query.in_shapes[1:] if len(shape) == 1]
    return {"num_features": vectors[0][0]} if vectors else {}


def _dropout(query: CostQuery, settings: Settings) -> dict[str, Any]:
    return {"p": settings.get("p", 0.5)}


def _recurrent(query: CostQuery, settings: Settings) -> dict[str, Any]:
    """Input (..., features), states (layers, batch, units)."""
    given = _array(query, 0)
    states = [shape for shape in query.in_shapes[1:] if len(shape) == 3]
    sizes = {"input_size": given[-1]} if given else {}
    return sizes | ({"hidden_size": states[0][-1]} if states else {})


def _array(query: CostQuery, index: int) -> Shape:
    return query.in_shapes[index] if index < len(query.in_shapes) else ()


def _table(*rows: tuple[Rule, str]) -> dict[str, Rule]:
    return {type_: rule for rule, names in rows for type_ in names.split()}


RULES: dict[str, Rule] = _table(
    (_convolution, "conv1d conv2d conv3d convolution"),
    (_transposed_convolution, "convtranspose1d convtranspose2d convtranspose3d"),
    (_linear, "linear"),
    (_embedding, "embedding embeddingbag"),
    (_channel_norm, "batchnorm instancenorm groupnorm"),
    (_dropout, "dropout dropout1d dropout2d dropout3d alphadropout featurealphadropout"),
    (_recurrent, "lstm gru rnntanh rnnrelu"),
)
