"""``tl.extract``: the activations of chosen layers for one input, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..backend import Arrays
from ..dtypes import numpy_dtype
from ..errors import ExtractionError, OptionError
from ..tracing import backend_for, make_call
from .layers import LayerSpec, wanted
from .readout import Finish, Readout


def extract(
    model: Any,
    args: Any,
    layers: LayerSpec,
    kwargs: Mapping[str, Any] | None = None,
    *,
    backend: str | None = None,
    transform: Callable[[Any], Any] | None = None,
    dtype: Any = None,
    device: Any = None,
) -> dict[str, Any]:
    """The activations of some layers for one input: ``tl.extract(model, x, ['relu_1_2', 'layer3'])``.

    The model runs once, without a gradient tape. Where all layers are given by the addresses of modules, the run is not
    recorded and costs what forward hooks cost; labels and selectors need the graph of the run.

    Args:
        model: what is called: a module, a function, a bound method.
        args: a list or tuple of positional arguments; anything else is the one argument.
        layers: labels (``'relu_1_2'``, ``'linear_1_1:2'``), addresses of modules (``'layer3'``, ``'fc:2'``) and
            selectors; or a dict of them, ``{alias: layer}``.
        kwargs: keyword arguments.
        backend: name of the framework's backend; by default the model and the arrays tell.
        transform: applied to each activation; its result is given back instead.
        dtype: of what is given back, by name (``'float16'``) or as the framework's object.
        device: where what is given back is put.

    Returns:
        By the name that was asked for (the label of the Op for selectors, each Op under its own) an array of the
        framework, cut from any gradient tape and in memory of its own.

    Raises:
        SelectorError, LabelError: the model has no such layer, or the layer is not one array; with the nearest names.
    """
    asked = wanted(layers)
    call = make_call(model, args, kwargs)
    chosen = backend_for(call, backend)
    finish = finishing(chosen.arrays, transform, dtype_name(chosen.arrays, dtype), device, "transform")
    with chosen.no_gradients():
        return Readout(chosen, asked, finish).read(call)


def finishing(
    arrays: Arrays, function: Callable[[Any], Any] | None, dtype: str | None, device: Any, argument: str
) -> Finish:
    """What is done with each activation: a function of the user's, another dtype, another device."""

    def finish(array: Any) -> Any:
        if function is not None:
            made = function(array)
            if not arrays.is_array(made):
                raise ExtractionError(
                    f"{argument}= is to return an array of the framework; it returned {type(made).__name__}."
                )
            array = arrays.copy(made)  # it may be a part of memory that the model is about to overwrite
        return array if dtype is None and device is None else arrays.cast(array, dtype, device)

    return finish


def dtype_name(arrays: Arrays, dtype: Any) -> str | None:
    """``dtype=`` by the name that all frameworks share; None where none was given."""
    if dtype is None:
        return None
    name = dtype if isinstance(dtype, str) else arrays.dtype_name(dtype)
    if numpy_dtype(name) is None:
        raise OptionError(f"dtype= takes an element type by name, such as 'float16' or 'bfloat16'; got {dtype!r}.")
    return name
