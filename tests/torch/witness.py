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

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torchlens_torch

_PLUGIN = str(Path(torchlens_torch.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)

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

# Functions that read an array, and make none.
READERS = ("numpy", "__array__", "__dlpack__", "tolist", "__contains__")


class Kernel(NamedTuple):
    """One kernel that ran: its name, when it began, for whom, and under which function of torch."""

    name: str
    time_ns: int
    caller: str  # the innermost line that is not torch's; '' outside of a trace
    function: str  # '' where no recorder saw one being called


class Witness(TorchDispatchMode):
    """``with Witness() as witness: trace = tl.trace(...)``, then ``witness.unrecorded(trace)``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:  # a view made unseen, such as where vmap ends, is known by the memory that it covers
            self.kernels.append(Kernel(func.name(), perf_counter_ns(), *_where(sys._getframe(1))))
        with torch._C.DisableTorchFunction():  # or what nothing had seen would be seen being called from here
            return func(*args, **(kwargs or {}))

    def unrecorded(self, trace: Any) -> list[str]:
        """Kernels that ran in the model and under no recorded operation, each with the line that called it."""
        rows = trace.program.rows
        starts = [row.start_ns for row in rows]
        missed = []
        for kernel in self.kernels:
            if not kernel.caller or kernel.name in NO_ARRAY or kernel.function in READERS:
                continue
            row = bisect_right(starts, kernel.time_ns) - 1
            if row < 0 or kernel.time_ns > rows[row].end_ns:
                missed.append(f"{kernel.name} at {kernel.caller}")
        return missed


def _where(frame: FrameType | None) -> tuple[str, str]:
    """For whom a kernel runs: the line that called it, and the function of torch that a recorder saw being called.

    Nobody where it is the recorder's own work: where a function of the plugin other than its handler called it.
    """
    caller = function = ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PLUGIN):
            if code.co_name == "__torch_function__":
                function = getattr(frame.f_locals.get("func"), "__name__", "?")
            elif not caller:
                return "", ""
            return caller or function, function
        if not caller and not code.co_filename.startswith(_TORCH):
            caller = f"{Path(code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "", ""
