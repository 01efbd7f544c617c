"""TorchScript: no function mode sees what its interpreter runs, so that is recorded kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from torchlens_core.session import Halt

from .active import active
from .kernels import KernelRecorder
from .patches import replaced_calls

_CALLABLES = (torch._C.ScriptFunction, torch._C.ScriptMethod)


def watching_scripts() -> AbstractContextManager[None]:
    """Calls of scripted functions and methods are reported to the recorder of their thread."""
    return replaced_calls(_CALLABLES, _recording)


def _recording(cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = active.calls
        # Kernels are recorded already in a run at kernel level, and in scripts run by scripts.
        if calls is None or calls.recorder.in_kernels:
            return original(self, *args, **kwargs)
        with KernelRecorder(calls.recorder, self.name):
            try:
                return original(self, *args, **kwargs)
            except RuntimeError:
                if calls.session.halted_vid >= 0:  # the interpreter makes its own error of whatever is raised in it
                    raise Halt from None
                raise

    return __call__
