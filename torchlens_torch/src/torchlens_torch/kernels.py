"""The kernel level: aten operators, seen by ``TorchDispatchMode`` below torch's API.

Used for scripts, in which Python sees nothing, for the whole run with ``granularity='kernel'``, and for the names of
the kernels below each Op with ``kernels=True``.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torchlens_core.derived.frames import Frame
from torchlens_core.program import walk_outs

from .containers import leaves
from .functions import describe

if TYPE_CHECKING:
    from .capture import Recorder

_DETACH = torch.ops.aten.detach.default


class KernelRecorder(TorchDispatchMode):
    """Records every aten operator as an operation.

    All kernels of one call have one call site, so each is told apart by which of them it is: a last frame says that.
    """

    def __init__(self, recorder: Recorder, caller: str = "") -> None:
        super().__init__()
        self._recorder = recorder
        self._sites: dict[tuple[int, str, int], int] = {}
        self.begin(caller)

    def begin(self, caller: str) -> None:
        """What runs from here on are the kernels of a call of ``caller``."""
        self._caller = caller
        self._number = 0

    def __enter__(self) -> Any:
        self._recorder.in_kernels = True
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._recorder.in_kernels = False
        super().__exit__(kind, error, traceback)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._is_torch_function_all_disabled():  # the recorder's own doing
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return self._record(func, types, args, kwargs)

    def _record(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        recorder = self._recorder
        if func is _DETACH:  # the interpreter's and autograd's way to say "the same array"
            out = func(*args, **(kwargs or {}))
            recorder.known[id(out)] = (weakref.ref(out), recorder.vid_of(args[0]))
            return out
        rows = recorder.session.rows
        count = len(rows)
        out = recorder.__torch_function__(func, types, args, kwargs)
        if len(rows) > count:
            row = tuple(rows[-1])
            rows[-1] = (*row[:6], self._place(row[6]), *row[7:])  # type: ignore[call-overload]
            for _, array in leaves(out):
                recorder.origins.note_kernel_output(array, recorder.vid_of(array))
            self._forget_versions(row[4])
        return out

    def _forget_versions(self, outs: Any) -> None:
        """Versions say nothing yet: autograd, above the kernels, moves them when a kernel has returned."""
        values = self._recorder.session.values
        for vid in (*(vid for vid, _ in walk_outs(outs)), *self._recorder.memory.beside):
            if vid in values:
                values[vid] = (values[vid][0], None)
                self._recorder.origins.without_version.append(vid)

    def _place(self, site: int) -> int:
        """The site of the kernel that just ran: that of its call, and which kernel of the call it is."""
        self._number += 1
        session = self._recorder.session
        key = (site, self._caller, self._number)
        if key not in self._sites:
            frame = Frame("<kernels>", self._number, -1, self._number, -1, self._caller, 0)
            calls = session.sites[site] if site >= 0 else ()
            self._sites[key] = session.site(("kernel", *key), lambda: (frame, *calls))
        return self._sites[key]


class FunctionCalls(TorchFunctionMode):
    """Above a ``KernelRecorder``: says which call of torch's API the kernels belong to, and notes reads of arrays."""

    def __init__(self, recorder: Recorder, kernels: KernelRecorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._kernels = kernels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        info = describe(func)
        self._kernels.begin(info.name)
        if info.exposes:
            self._recorder.memory.expose(args[0])
        out = func(*args, **(kwargs or {}))
        if info.event is not None:
            self._recorder.note_read(info, args, out)
        return out


class KernelNames(TorchDispatchMode):
    """Notes which kernels ran below each recorded operation."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._session = recorder.session
        self._ran: list[tuple[int, str]] = []  # when, and what

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._ran.append((perf_counter_ns(), func.name()))
        return func(*args, **(kwargs or {}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        rows, kernels = self._session.rows, self._session.kernels
        starts = [row[7] for row in rows]
        for time, name in self._ran:
            row = bisect_right(starts, time) - 1
            if row >= 0 and time <= rows[row][8]:  # else the recorder's own doing, between two operations
                kernels[row] = (*kernels.get(row, ()), name)
