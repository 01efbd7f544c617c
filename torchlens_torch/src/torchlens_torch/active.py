"""Which run records the calls of this thread, and of which models it is a run that each call begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

if TYPE_CHECKING:
    from .modules import ModuleCalls
    from .recording import RecordedModel


class _Active(threading.local):
    calls: ModuleCalls | None = None
    recorded: Mapping[int, RecordedModel] | None = None  # by id, the models whose calls are recorded


active = _Active()


@contextmanager
def unwatched() -> Iterator[None]:
    """What runs in here is the user's own: its calls of modules are no part of the run."""
    calls, active.calls = active.calls, None
    try:
        yield
    finally:
        active.calls = calls


@contextmanager
def as_outside(recorder: TorchFunctionMode) -> Iterator[None]:
    """Like ``unwatched``, where torch's functions are off or the recorder is on: what the user's code finds is neither.

    Modes of the user's, such as a default device, and classes with ``__torch_function__`` do what they always do.
    """
    modes = [_pop_mode() for _ in range(torch._C._len_torch_function_stack())][::-1]
    _push([mode for mode in modes if mode is not recorder])
    try:
        with unwatched(), torch._C._EnableTorchFunction():
            yield
    finally:
        for _ in range(torch._C._len_torch_function_stack()):
            _pop_mode()
        _push(modes)


def _push(modes: list[TorchFunctionMode]) -> None:
    for mode in modes:
        _push_mode(mode)
