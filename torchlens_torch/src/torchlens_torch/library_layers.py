"""Layers of torch itself of which it is known which functions they call, so that nobody needs to watch inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch.nn.functional as F
from torch import nn

from torchlens_core.program import Func
from torchlens_core.vocabulary import canonical_type

from .functions import TorchFunc, describe

_CONVOLUTION = {"pad"}
_NORM = {"batch_norm", "__add__", "add", "add_", "__iadd__"}
_CALLS: dict[type, set[str]] = {  # class -> every function that its forward can call, under any setting
    nn.Linear: {"linear"},
    nn.Embedding: {"embedding"},
    nn.Conv1d: {"conv1d", *_CONVOLUTION},
    nn.Conv2d: {"conv2d", *_CONVOLUTION},
    nn.Conv3d: {"conv3d", *_CONVOLUTION},
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.BatchNorm3d: _NORM,
    nn.LayerNorm: {"layer_norm"},
    nn.GroupNorm: {"group_norm"},
    nn.Dropout: {"dropout"},
    nn.GELU: {"gelu"},
    nn.ReLU: {"relu"},
    nn.SiLU: {"silu"},
    nn.Tanh: {"tanh"},
    nn.Sigmoid: {"sigmoid"},
    nn.Softmax: {"softmax"},
    nn.MaxPool2d: {"boolean_dispatch", "max_pool2d", "max_pool2d_with_indices"},
    nn.AvgPool2d: {"avg_pool2d"},
    nn.AdaptiveAvgPool2d: {"adaptive_avg_pool2d"},
    nn.Flatten: {"flatten"},
    nn.Identity: {"identity"},
}
_ONE_CALL: dict[type, Callable[..., Any]] = {  # class -> the function whose result is all that its forward is
    nn.ReLU: F.relu,
    nn.GELU: F.gelu,
    nn.SiLU: F.silu,
    nn.Linear: F.linear,
    nn.LayerNorm: F.layer_norm,
}
_FUNCS = {cls: [Func(None, name, canonical_type(name)) for name in names] for cls, names in _CALLS.items()}
_FORWARDS = {cls: cls.forward for cls in _CALLS}


def quiet_layers(classes: Iterable[type], concerns: Callable[[Func], bool]) -> frozenset[type]:
    """Those of the classes that are such layers, as torch made them, and call nothing that concerns."""
    known = (cls for cls in classes if cls in _CALLS and cls.forward is _FORWARDS[cls])
    return frozenset(cls for cls in known if not any(map(concerns, _FUNCS[cls])))


def one_call(classes: Iterable[type]) -> dict[type, TorchFunc]:
    """Those of the classes that, as torch made them, are one call of a function on their argument: which function."""
    return {cls: describe(_ONE_CALL[cls]) for cls in classes if cls in _ONE_CALL and cls.forward is _FORWARDS[cls]}


def is_plain(module: nn.Module) -> bool:
    """Whether a module has its class's forward, and writes to none of its arguments."""
    own = vars(module)
    return "forward" not in own and not own.get("inplace")


def library_calls() -> dict[type, frozenset[str]]:
    """The table, for those who check it against what torch does."""
    return {cls: frozenset(names) for cls, names in _CALLS.items()}


def has_hooks(module: nn.Module) -> bool:
    """Whether code that torch did not write runs when a module is called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
