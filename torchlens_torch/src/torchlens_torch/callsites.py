"""Call sites: the Python frames from an operation out to the enclosing module call, as (code, offset) pairs.

Walking frames is most of what a captured operation costs, so what to do with a frame is remembered by code object.
"""

from __future__ import annotations

import os
from types import CodeType, FrameType
from typing import Any

import torch

_KEEP, _SKIP, _STOP, _OVERRIDES = range(4)

_TORCH = os.path.dirname(torch.__file__) + os.sep
# Interception and generic wrappers: their frames are no place in the user's program.
_SKIPPED_FILES = tuple(
    _TORCH + name.replace("/", os.sep)
    for name in (
        "_jit_internal.py", "_tensor.py", "_ops.py", "_compile.py", "compiler/", "_dynamo/", "utils/_contextlib.py",
        "utils/_device.py", "utils/_python_dispatch.py", "nn/modules/module.py", "jit/", "_functorch/apis.py", "_functorch/vmap.py",
        "fx/_symbolic_trace.py",
    )
)  # fmt: skip
_OVERRIDES_FILE = _TORCH + "overrides.py"
_OWN = os.path.dirname(__file__) + os.sep

_kinds: dict[int, tuple[CodeType, int]] = {}  # by id of the code object, which is kept so that the id stays its own


def stop_at(code: CodeType) -> None:
    """Chains end at frames of this function: it encloses a module call."""
    _kinds[id(code)] = (code, _STOP)


def _kind(code: CodeType) -> int:
    file = code.co_filename
    if file == _OVERRIDES_FILE:
        kind = _OVERRIDES
    elif file.startswith(_SKIPPED_FILES) or file.startswith(_OWN):
        kind = _SKIP
    else:
        kind = _KEEP
    _kinds[id(code)] = (code, kind)
    return kind


def chain(frame: FrameType | None) -> tuple[tuple[Any, ...], list[tuple[CodeType, int]]]:
    """The call site that ``frame`` is the innermost frame of: a hashable key, and the calls, innermost first."""
    key: list[int] = []
    calls: list[tuple[CodeType, int]] = []
    via_overrides = False  # the next frame is the library function itself, dispatching to us
    while frame is not None:
        code = frame.f_code
        known = _kinds.get(id(code))
        kind = known[1] if known is not None else _kind(code)
        if kind == _KEEP:
            if not via_overrides:
                offset = frame.f_lasti
                key.append(id(code))
                key.append(offset)
                calls.append((code, offset))
            via_overrides = False
        elif kind == _OVERRIDES:
            via_overrides = True
        elif kind == _STOP:
            break
        else:
            via_overrides = False
        frame = frame.f_back
    return tuple(key), calls
