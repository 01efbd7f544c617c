"""Call sites: which Python frames are no place in the user's program. The walk itself is core's."""

from __future__ import annotations

import os
from types import CodeType

import torch

from torchlens_core.callsites import DISPATCH, KEEP, SKIP, CallSites

_TORCH = os.path.dirname(torch.__file__) + os.sep
# Interception and generic wrappers: their frames are no place in the user's program.
_SKIPPED_FILES = tuple(
    _TORCH + name.replace("/", os.sep)
    for name in (
        "_jit_internal.py", "_tensor.py", "_ops.py", "_compile.py", "compiler/", "_dynamo/", "utils/_contextlib.py",
        "utils/_device.py", "utils/_python_dispatch.py", "nn/modules/module.py", "jit/", "_functorch/apis.py",
        "_functorch/vmap.py", "fx/_symbolic_trace.py",
    )
)  # fmt: skip
_OVERRIDES_FILE = _TORCH + "overrides.py"
_OWN = os.path.dirname(__file__) + os.sep


def _classify(code: CodeType) -> int:
    file = code.co_filename
    if file == _OVERRIDES_FILE:
        return DISPATCH
    return SKIP if file.startswith(_SKIPPED_FILES) or file.startswith(_OWN) else KEEP


_sites = CallSites(_classify)
chain = _sites.chain
stop_at = _sites.stop_at
