"""The kernel level: aten operators, seen by ``TorchDispatchMode`` below torch's API.

Used where Python sees nothing (script modules), and for the whole run with ``granularity='kernel'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from .capture import Recorder


class KernelRecorder(TorchDispatchMode):
    """Records every aten operator as an operation."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._recorder.__torch_function__(func, types, args, kwargs)


class KernelNames(TorchDispatchMode):
    """Notes which kernels ran below each recorded operation."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._session = recorder.session

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        row = len(self._session.rows)  # the row that is being executed is appended when it has returned
        self._session.kernels[row] = (*self._session.kernels.get(row, ()), func.name())
        return func(*args, **(kwargs or {}))
