"""What tells a model from another: its class; of each parameter and buffer the shape, the type and some elements."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np

from ..backend import Backend, Discovery
from ..errors import NotSupported

_SAMPLE: Final = 4096  # elements of an array that are looked at, evenly spread


def fingerprint(backend: Backend, discovery: Discovery) -> dict[str, str]:
    """Of the whole model (``''``) its class, and of each array of its state, by address, what it is and a hash."""
    root = discovery.modules[0][0]
    described = {"": root.qualname or root.cls}
    for state in discovery.state:
        described[state.address] = _described(backend, state.array)
    return described


def _described(backend: Backend, array: Any) -> str:
    try:
        meta = backend.arrays.meta(array)
        shape = tuple(map(int, meta.shape))
    except (RuntimeError, ValueError):  # of a lazy module: it gets a shape at the first call
        return "not initialised"
    text = f"{backend.arrays.dtype_name(meta.dtype)} {list(shape)}"
    try:
        flat = np.ascontiguousarray(_sample(backend.arrays.to_numpy(array)))
    except NotSupported:  # no data: a meta device
        return text
    return f"{text} {hashlib.sha256(flat.view(np.uint8).data).hexdigest()[:16]}"


def device_of(backend: Backend, array: Any) -> Any:
    """Where an array is; None for a parameter of a lazy module."""
    try:
        return backend.arrays.meta(array).device
    except (RuntimeError, ValueError):
        return None


def _sample(array: Any) -> Any:
    flat = array.reshape(-1)
    step = max(1, -(-flat.size // _SAMPLE))
    return flat[::step]


def difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    """In words, how two models differ; None where they do not."""
    if before == now:
        return None
    if before.get("") != now.get(""):
        return f"the model was a {before.get('')} and is a {now.get('')}"
    for address in [*before, *now]:
        if address not in now:
            return f"the model had {address!r} and has it no more"
        if address not in before:
            return f"the model has {address!r} and had it not"
    changed = [address for address in before if before[address] != now[address]]
    first = changed[0]
    was, is_ = before[first].rpartition(" "), now[first].rpartition(" ")
    if was[0] != is_[0]:
        return f"{first!r} was {was[0]} and is {is_[0]}"
    more = f" (and of {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"the values of {first!r}{more} are others"
