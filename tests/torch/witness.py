"""A census of kernels: an independent witness that the recorder missed no operation.

``TorchDispatchMode`` sees every kernel below torch's API, whoever called it. Each one that ran while the model ran must
have done so during a call that the trace holds, going by the clock; what did not is listed here as an exception, is the
recorder's own doing (told by the file it was called from), or was missed.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from pathlib import Path
from time import perf_counter_ns
from types import FrameType
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode

import torchlens_torch

_PLUGIN = str(Path(torchlens_torch.__file__).parent)

# Frames of the plugin that run the model's own code, or a function of torch for it. All others work for the plugin.
_RUNNERS = frozenset({"__torch_function__", "__torch_dispatch__", "run", "__call__", "capture"})

# Kernels that make no array: reads are events on the Op that they read, and the profiler's marks are nothing.
NO_ARRAY = (
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::allclose",
    "aten::item",
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit._RecordFunction",
)

# Functions that hand an array out of torch, and make none.
EXPORTS = ("numpy", "__array__", "__dlpack__", "tolist")


class Kernel(NamedTuple):
    """One kernel that ran: its name, when it began, the plugin's function and torch's it ran under, and the line."""

    name: str
    time_ns: int
    runner: str | None
    function: str
    caller: str


class Witness(TorchDispatchMode):
    """``with Witness() as witness: trace = tl.trace(...)``, then ``witness.unrecorded(trace)``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels.append(Kernel(func.name(), perf_counter_ns(), *_where(sys._getframe(1))))
        return func(*args, **(kwargs or {}))

    def unrecorded(self, trace: Any) -> list[str]:
        """Kernels that ran in the model and under no recorded operation, each with the line that called it."""
        rows = trace.program.rows
        starts = [row.start_ns for row in rows]
        missed = []
        for kernel in self.kernels:
            if kernel.runner not in _RUNNERS or kernel.name in NO_ARRAY or kernel.function in EXPORTS:
                continue
            row = bisect_right(starts, kernel.time_ns) - 1
            if row < 0 or kernel.time_ns > rows[row].end_ns:
                missed.append(f"{kernel.name} at {kernel.caller}")
        return missed


def _where(frame: FrameType | None) -> tuple[str | None, str, str]:
    """The function of the plugin (None outside of a trace) and of torch that a kernel ran under, and who called it."""
    caller = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PLUGIN):
            return frame.f_code.co_name, getattr(frame.f_locals.get("func"), "__name__", ""), caller
        if not caller and "/torch/" not in file:
            caller = f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return None, "", caller
