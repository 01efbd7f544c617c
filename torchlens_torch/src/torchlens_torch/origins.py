"""Arrays that no recorded operation made: constants of the model's code, views made unseen, those of unknown origin."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterator
from time import perf_counter_ns
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchlens_core.backend import Discovery
from torchlens_core.errors import CaptureWarning
from torchlens_core.program import HOLE, Row

from . import sharding, wrapping
from .callsites import chain
from .constants import Constants
from .functions import describe
from .kinds import shape_of
from .memory import Region, meta_of, place_of, stamp

if TYPE_CHECKING:
    from .capture import Recorder
    from .transforms import TransformedCalls


class TransformBegun(Exception):
    """The array that was asked for is a transform's, whose handler now stands before the recorder's."""


class Origins:
    """Finds out, for one run, where arrays come from that were not seen being made."""

    def __init__(self, recorder: Recorder, model: Any) -> None:
        self._recorder = recorder
        self._model = model
        # of a recording nobody asks where arrays come from, and looking through all modules takes time
        self._constants = Constants(recorder.session.discovery if recorder.sees_operations else Discovery("", []))
        self._transforms: TransformedCalls | None = None
        self._unknown: list[str] = []
        self.without_version: list[int] = []  # vids of kept values whose version is to be noted when the run is over
        self._of_kernels: dict[tuple[int, Region, torch.dtype], int] = {}  # place and type -> vid of a kernel's output

    def add(self, array: Tensor) -> int:
        """Give an array a value id."""
        if torch._C._functorch.is_functorch_wrapped_tensor(array):
            return self._transformed_calls().vid_of(array)
        with torch._C.DisableTorchFunction():
            frame = sys._getframe(2)
            vid = self._gathered(array)
            if vid < 0:
                vid = wrapping.find(self._recorder, array, self._alive(), frame)
            if vid < 0:
                vid = self._view(array, frame)
            return vid if vid >= 0 else self._source(array, frame)

    def _gathered(self, array: Tensor) -> int:
        """The value id of the parameter that an array is, gathered from its shards; -1 for other arrays."""
        if not isinstance(array, torch.nn.Parameter):
            return -1
        recorder = self._recorder
        param = sharding.sharded(array, (module for _, module in recorder.session.discovery.modules))
        if param is None:
            return -1
        vid = recorder.vid_of(param)
        recorder.known[id(array)] = (weakref.ref(array), vid)
        return vid

    def note_kernel_output(self, array: Tensor, vid: int) -> None:
        """A kernel made this array. What leaves torch may be another object in its place: autograd's view of it."""
        self._of_kernels[(*place_of(array), array.dtype)] = vid

    def _transformed_calls(self) -> TransformedCalls:
        if self._transforms is None:
            from .transforms import TransformedCalls  # what it imports takes time, and few models need it

            self._transforms = TransformedCalls(self._recorder)
        return self._transforms

    def _source(self, array: Tensor, frame: FrameType | None) -> int:
        recorder, session = self._recorder, self._recorder.session
        address = self._constants.find(array, frame, self._model)
        if address is not None:
            vid = session.source("const", address, meta_of(array))
        else:
            vid = session.source("unknown", "", meta_of(array), row=len(session.rows))
            self._unknown.append(f"shape {shape_of(array)}, in {session.scope.address or 'the model itself'}")
            recorder.memory.expose(array)  # who made it unseen can write it unseen
            recorder.keep_source(vid, array)
        if recorder.replay:
            session.constants[vid] = array.detach().clone().requires_grad_(array.requires_grad)
        recorder.pin(array, vid)
        return vid

    def _view(self, array: Tensor, frame: FrameType | None) -> int:
        """The value id of an array made unseen in the memory of a known one; -1 where its memory is its own.

        The same elements are the same value; a view of others is recorded as the operation that makes it.
        """
        recorder, session = self._recorder, self._recorder.session
        storage, region = place_of(array)
        vid = self._of_kernels.get((storage, region, array.dtype), -1)
        if vid >= 0:
            recorder.known[id(array)] = (weakref.ref(array), vid)
            return vid
        bases = [base for base in self._alive() if place_of(base)[0] == storage and base.dtype == array.dtype]
        if not bases:
            vid = self._held(array)
            if vid >= 0:
                recorder.known[id(array)] = (weakref.ref(array), vid)
            return vid
        same = [base for base in bases if place_of(base)[1] == region]
        if same:
            vid = recorder.vid_of(same[-1])
            recorder.known[id(array)] = (weakref.ref(array), vid)
            return vid
        vid = recorder.vid_of(bases[0])
        function, arguments = _making(bases[0], array)
        key, calls = chain(frame)
        site = session.site(key, lambda: tuple(calls))
        now = perf_counter_ns()
        new = recorder.assign(array)
        row = Row(describe(function), (HOLE, *arguments), {}, (vid,), new, session.scope, site, now, now, None)
        recorder.append(row, array)
        return new

    def _held(self, array: Tensor) -> int:
        """The value id under which an array was kept out of a wrapper that is gone; -1 where it was not."""
        place = place_of(array)
        values = self._recorder.session.values.items()
        return next((vid for vid, (held, _) in values if place_of(held) == place and held.dtype == array.dtype), -1)

    def _alive(self) -> Iterator[Tensor]:
        """The known arrays that are still there, in the order in which they became known."""
        yield from self._recorder.pinned
        for reference, _ in list(self._recorder.known.values()):
            array = reference() if isinstance(reference, weakref.ref) else None
            if array is not None:
                yield array

    def finish(self) -> None:
        """The run is over: one warning for all arrays of unknown origin, and one for writes that nothing showed."""
        values = self._recorder.session.values
        for vid in self.without_version:
            if vid in values and values[vid][1] is None:
                values[vid] = (values[vid][0], stamp(values[vid][0]))
        unseen = sum(version is not None and array._version != version for array, version in values.values())
        if unseen:
            warnings.warn(
                f"{unseen} kept value(s) were overwritten during the run by what cannot be seen (Tensor.set_, setting "
                ".real or .imag, an extension). Asking for them is an error, and who read them may lack a parent.",
                CaptureWarning,
                stacklevel=2,
            )
        if self._unknown:
            shown = "; ".join(self._unknown[:3]) + (" ..." if len(self._unknown) > 3 else "")
            warnings.warn(
                f"{len(self._unknown)} array(s) came from code that cannot be seen (another thread, numpy, a compiled "
                f"extension): {shown}. They are 'source' Ops; what made them is missing from the graph.",
                CaptureWarning,
                stacklevel=2,
            )


def _making(base: Tensor, view: Tensor) -> tuple[Any, tuple[Any, ...]]:
    """The function and arguments beside ``base`` that make a view of it: its axes in another order, or any other."""
    axes = list(zip(base.shape, base.stride(), strict=True))
    wanted = list(zip(view.shape, view.stride(), strict=True))
    has_same_axes = len(set(axes)) == len(axes) and sorted(axes) == sorted(wanted)
    if has_same_axes and base.storage_offset() == view.storage_offset():
        return torch.permute, (tuple(axes.index(axis) for axis in wanted),)
    return torch.as_strided, (tuple(view.shape), view.stride(), view.storage_offset())
