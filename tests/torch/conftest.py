"""One thread, and after every test the framework must be as it was before."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from torchlens_torch import modules, patches

torch.set_num_threads(1)

_RECURSION_LIMIT = sys.getrecursionlimit()
_CALL = nn.Module.__call__
_FUNCTIONAL = torch.nn.functional.relu
_SCRIPT_CALLS = {cls: vars(cls)["__call__"] for cls in (torch._C.ScriptFunction, torch._C.ScriptMethod)}


def assert_nothing_left() -> None:
    """No mode on the stack, no class changed, no hook registered."""
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0
    assert patches.patched_classes() == []
    assert getattr(modules.active, "calls", None) is None
    assert nn.Module.__call__ is _CALL
    assert all("__call__" not in vars(cls) for cls in (nn.Linear, nn.ReLU, nn.Sequential, nn.Dropout))
    assert all(vars(cls)["__call__"] is call for cls, call in _SCRIPT_CALLS.items())
    assert torch.nn.functional.relu is _FUNCTIONAL
    assert sys.getrecursionlimit() == _RECURSION_LIMIT
    if "torch._dynamo" in sys.modules:
        assert torch._dynamo.eval_frame._stance.stance == "default"
    assert not nn.modules.module._global_buffer_registration_hooks
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert_nothing_left()
