"""An independent witness that nothing was missed: every kernel that runs during a trace, and under which call it ran.

Kernels are seen by torch's dispatcher, below the interception that is being proven. Each of them must have run inside a
call that the recorder saw. Kernels of what the recorder does on its own account (aliases, copies) are told apart by
the file that they were called from.
"""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torchlens_torch
from torchlens_torch.capture import Recorder
from torchlens_torch.run import capture

_HANDLER = Recorder.__torch_function__.__code__
_RUN = capture.__code__
_MADE_OF_NUMBERS = {"aten::lift_fresh"}  # torch.IntTensor([3]): no call that can be seen; its array is a `source` Op
_SHOWING = {"__format__", "__repr__"}  # of an array in a message: read to be printed
_PLUGIN = str(Path(torchlens_torch.__file__).parent)


class Census(TorchDispatchMode):
    """Sorts the kernels of one trace.

    Attributes:
        seen: kernels under calls that the recorder writes down.
        silent: kernels under calls that it takes for mere reads (``.shape``), by the call and the kernel.
        unseen: kernels that ran while the model ran, under no call that the recorder saw, by kernel and caller.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.silent: Counter[str] = Counter()
        self.unseen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() not in _MADE_OF_NUMBERS:
            self._note(func.name(), sys._getframe(1))
        with torch._C.DisableTorchFunction():  # a kernel that nothing recorded must not be recorded by this call
            return func(*args, **(kwargs or {}))

    def _note(self, kernel: str, frame: FrameType | None) -> None:
        caller = ""
        while frame is not None and frame.f_code is not _RUN:
            if frame.f_code is _HANDLER and "info" in frame.f_locals:
                info = frame.f_locals["info"]
                if info.silent and info.name not in _SHOWING:
                    self.silent[f"{kernel} under {info.name}"] += 1
                elif info.opened is None:
                    self.seen[kernel] += 1
                if info.opened is None:
                    return
            elif not caller and "/torch/" not in frame.f_code.co_filename:
                if frame.f_code.co_filename.startswith(_PLUGIN) and frame.f_code is not _HANDLER:
                    return  # the recorder's own doing
                caller = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            frame = frame.f_back
        if frame is not None:  # else before or after the run
            self.unseen[f"{kernel} at {caller}"] += 1
