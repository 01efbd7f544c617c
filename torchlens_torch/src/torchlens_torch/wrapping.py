"""Arrays that wrap others (DTensor, quantised weights): where one was wrapped, and where a part was taken out.

Both happen in Python code that no function of torch shows, and are found from the parts.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable
from time import perf_counter_ns
from types import FrameType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchlens_core.program import HOLE, Func, Row

from .callsites import chain
from .kinds import is_wrapper, parts_of, tensors_in

if TYPE_CHECKING:
    from .capture import Recorder


def wrap(cls: Any, parts: dict[str, Any], context: Any, shape: Any, stride: Any) -> Tensor:
    """An array of a wrapper's class around its parts."""
    made: Tensor = cls.__tensor_unflatten__(parts, context, shape, stride)
    return made


def unwrap(array: Tensor, name: str) -> Tensor:
    """A part of a wrapper."""
    part: Tensor = getattr(array, name)
    return part


_PLAIN = (Tensor, nn.Parameter)
_WRAP = Func(wrap, "wrap", "wrap")


@functools.cache
def _unwrapping(name: str) -> Func:
    """To take one part out is another operation than to take another."""
    return Func(unwrap, name, "unwrap")


def find(recorder: Recorder, array: Tensor, alive: Iterable[Tensor], frame: FrameType | None) -> int:
    """The value id of an array that wraps known ones or is part of a known wrapper, as an operation; -1 for others."""
    if is_wrapper(array):
        inner = tensors_in(array)
        if not any(map(recorder.is_known, inner)):
            return -1
        parts = {name: HOLE if isinstance(part, Tensor) else part for name, part in parts_of(array).items()}
        context = array.__tensor_flatten__()[1]  # type: ignore[attr-defined]
        args = (type(array), parts, context, tuple(array.shape), tuple(array.stride()))
        return _append(recorder, _WRAP, args, tuple(map(recorder.vid_of, inner)), array, frame)
    for wrapper in alive:
        if type(wrapper) not in _PLAIN and is_wrapper(wrapper):
            for name, part in parts_of(wrapper).items():
                if part is array:
                    return _append(recorder, _unwrapping(name), (HOLE, name), (recorder.vid_of(wrapper),), array, frame)
    return -1


def _append(
    recorder: Recorder, func: Func, args: tuple[Any, ...], ins: tuple[int, ...], array: Tensor, frame: FrameType | None
) -> int:
    session = recorder.session
    key, calls = chain(frame)
    site = session.site(key, lambda: tuple(calls))
    now = perf_counter_ns()
    vid = recorder.assign(array)
    recorder.known[id(array)] = (weakref.ref(array), vid)
    recorder.append(Row(func, args, {}, ins, vid, session.scope, site, now, now, None), array)
    return vid
