"""What a call of a model can change, put back: its state and attributes, its arguments, the generators."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from torchlens_core.backend import Call, Discovery

from .capture import rng_state
from .containers import leaves
from .kinds import is_without_data, kind_of
from .sharding import reshard

_CONTAINERS = (dict, OrderedDict, list, set)


class _Content:
    """The elements of one array, to be written back where they have been overwritten."""

    def __init__(self, array: Tensor) -> None:
        self._array = array
        self._before = array.detach().clone()
        self._version = None if array.is_inference() else array._version

    def restore(self) -> None:
        """Write the elements back. What is written through ``.data`` moves no version, so they are compared."""
        array = self._array
        if is_without_data(array):
            return
        same_version = self._version is not None and array._version == self._version
        if same_version and (kind_of(array) != "dense" or torch.equal(array, self._before)):
            return
        array.detach().copy_(self._before)


class _Attributes:
    """The attributes of one module, and what its lists and dicts hold."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = dict(vars(module))
        self._containers = [(value, value.copy()) for value in self._attributes.values() if type(value) in _CONTAINERS]

    def arrays(self) -> Iterator[Tensor]:
        """Arrays that are no parameter, and so may be written: buffers, and plain attributes."""
        values = (*self._attributes.values(), *self._module._buffers.values())
        return (value for value in values if isinstance(value, Tensor))

    def restore(self) -> None:
        for container, before in self._containers:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        vars(self._module).clear()
        vars(self._module).update(self._attributes)


@contextmanager
def preserve(call: Call, discovery: Discovery) -> Iterator[Call]:
    """The model, the arguments and the generators (torch's, numpy's, Python's) are left as they were found.

    A lazy module that the first call initialises stays initialised.
    """
    found = (module for _, module in discovery.modules)
    modules = (module for module in found if module is not None and not isinstance(module, LazyModuleMixin))
    attributes = [_Attributes(module) for module in modules]
    arrays = {id(array): array for each in attributes for array in each.arrays()}
    arrays |= {id(array): array for value in (*call.args, *call.kwargs.values()) for _, array in leaves(value)}
    contents = [_Content(array) for array in arrays.values()]
    generators = rng_state(), np.random.get_state(), random.getstate()
    try:
        yield call
    finally:
        reshard(module for _, module in discovery.modules)
        for each in attributes:
            each.restore()
        with torch.no_grad():
            for content in contents:
                content.restore()
        set_rng(generators[0])
        np.random.set_state(generators[1])
        random.setstate(generators[2])


@contextmanager
def with_state(call: Call, discovery: Discovery, values: Mapping[str, Tensor]) -> Iterator[Call]:
    """Parameters and buffers at these addresses hold other values, in their own memory."""
    changed = [item for item in discovery.state if item.address in values]
    before = [item.array.detach().clone() for item in changed]
    try:
        _write(changed, [values[item.address] for item in changed])
        yield call
    finally:
        _write(changed, before)


def _write(state: list[Any], values: list[Tensor]) -> None:
    with torch.no_grad():
        for item, value in zip(state, values, strict=True):
            item.array.detach().copy_(value)
    torch.clear_autocast_cache()  # inside autocast torch remembers parameters that it has cast


def set_rng(state: tuple[Tensor, ...]) -> None:
    """Set the states that ``rng_state`` gave."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(list(state[1:]))
