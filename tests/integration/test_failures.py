"""A run that ends badly ends as it would without TorchLens, and leaves nothing behind."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import torchlens as tl
from torchlens_core.errors import NestedTraceError, NothingCaptured


class Ends(nn.Module):
    """A linear layer, and then whatever is to happen."""

    def __init__(self, what: BaseException | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.inner = nn.Sequential(nn.ReLU())
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.fc(x))
        if self.what is not None:
            raise self.what
        return x + 1


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    call = nn.Module.__call__
    hooks = dict(nn.modules.module._global_buffer_registration_hooks)
    yield
    assert nn.Module.__call__ is call
    assert all("__call__" not in vars(cls) for cls in (Ends, nn.Linear, nn.ReLU, nn.Sequential))
    assert torch._C._len_torch_function_stack() == 0
    assert dict(nn.modules.module._global_buffer_registration_hooks) == hooks
    model, x = Ends(), torch.ones(2, 3)
    assert vars(model.fc).keys() == vars(nn.Linear(3, 3)).keys()
    log = tl.trace(model, x)  # the next trace is as good as the first
    assert [op.type for op in log] == ["input", "linear", "relu", "add", "output"]


class OutOfMemory(RuntimeError):
    """An error of the model's own."""


@pytest.mark.parametrize("error", [ValueError("bad shape"), OutOfMemory("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_model_raises_is_raised_with_the_trace_up_to_there(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        tl.trace(Ends(error), torch.ones(2, 3))
    assert caught.value is error
    partial = error.partial_trace  # type: ignore[attr-defined]
    assert [op.layer_label for op in partial] == ["input_1", "linear_1_1", "relu_1_2"]
    assert partial.is_partial and partial.error.startswith(type(error).__name__)
    assert partial["relu_1"].out.shape == (2, 3)
    assert "ended by" in partial.summary()


def test_a_bad_call_raises_what_the_plain_call_raises() -> None:
    model = Ends()
    with pytest.raises(RuntimeError) as plain:
        model(torch.ones(2, 4))
    with pytest.raises(RuntimeError) as traced:
        tl.trace(model, torch.ones(2, 4))
    assert str(traced.value) == str(plain.value)


def test_a_trace_in_a_traced_model_is_an_error() -> None:
    with pytest.raises(NestedTraceError, match="already running in this thread"):
        tl.trace(lambda x: tl.trace(nn.ReLU(), x)[-1].out, torch.ones(2))


def test_a_run_without_operations_is_an_error() -> None:
    with pytest.raises(NothingCaptured, match="not one operation of torch was seen"):
        tl.trace(lambda x: 3, torch.ones(2))


def test_a_halted_run_is_no_failure() -> None:
    log = tl.trace(Ends(ValueError("not reached")), torch.ones(2, 3), halt=tl.module("inner"))
    assert log.halted == log["relu_1_2"] == log[-1]
    assert log.error is None
