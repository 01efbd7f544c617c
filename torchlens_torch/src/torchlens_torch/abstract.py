"""A call on arrays that have shapes and no elements: torch's fake tensors. Nothing is allocated, nothing computed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from torchlens_core.backend import Abstract, Call, Discovery
from torchlens_core.errors import EstimateError, NotSupported

from .wrappers import unwrap

_OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_ON_VALUES = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
_NO_KERNEL = (fake_tensor.UnsupportedOperatorException, fake_tensor.UnsupportedFakeTensorException)
_NO_DATA = ("not supported for tensor subclasses", "data pointer of Tensor", "Cannot copy out of meta tensor")


@contextmanager
def abstract(call: Call, discovery: Discovery) -> Iterator[Abstract]:
    """A context in which the model runs on fake tensors, without a gradient tape.

    The parameters stay what they are: torch puts a fake in the place of each as an operation takes it. Those on the
    meta device stand for ones on the device of the others, the CPU where all are on it.
    """
    _refuse_uninitialised(discovery)
    model = unwrap(call.model) if isinstance(call.model, torch.nn.Module) else call.model
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    given = [array for array in tree_leaves((call.args, dict(call.kwargs))) if isinstance(array, Tensor)]
    state = [item.array for item in discovery.state]
    device = next((array.device for array in [*state, *given] if array.device.type != "meta"), torch.device("cpu"))
    try:
        fakes = {id(array): _fake(mode, array, device) for array in [*state, *given]}
        args, kwargs = tree_map_only(Tensor, lambda array: fakes[id(array)], (call.args, dict(call.kwargs)))
        peak = Peak(fakes.values())
        made = Abstract(Call(model, args, kwargs))
        with torch.no_grad(), mode, peak:
            yield made
            made.peak_nbytes = peak.nbytes
    except (*_ON_VALUES, *_NO_KERNEL, RuntimeError) as error:
        told = _told(error)
        if told is None:
            raise
        raised = EstimateError(f"{told}{_place(error)}")
        raised.partial_trace = getattr(error, "partial_trace", None)
        raise raised from error


def _refuse_uninitialised(discovery: Discovery) -> None:
    for item in discovery.state:
        if is_lazy(item.array):
            raise EstimateError(
                f"{item.address} is a parameter of a lazy module, which has no shape before its first call: "
                "call the model once."
            )
        if type(item.array).__name__ == "DTensor":
            raise NotSupported(
                f"{item.address} is sharded over processes: estimate the model before it is sharded "
                "(with torch.device('meta') it takes no memory)."
            )


def _fake(mode: FakeTensorMode, array: Tensor, device: torch.device) -> Tensor:
    converter = mode.fake_tensor_converter
    if array.device.type != "meta" or (type(array) is not Tensor and not isinstance(array, torch.nn.Parameter)):
        return mode.from_tensor(array)
    made = converter.from_meta_and_device(mode, torch.empty_like(array, requires_grad=False), device)
    converter.set_tensor_memo(array, made)
    return made


class Peak(TorchDispatchMode):
    """Follows the memory of arrays that operations make.

    Attributes:
        nbytes: the most that was held at any moment.
    """

    def __init__(self, known: Any) -> None:
        super().__init__()
        self._known = {array.untyped_storage()._cdata for array in known if array.layout == torch.strided}
        self._held: dict[int, tuple[int, Any]] = {}  # identifier of a storage -> (bytes, weak reference)
        self._now = 0
        self.nbytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for array in tree_leaves(out):
            if isinstance(array, Tensor) and array.layout == torch.strided:
                self._add(array.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known or key in self._held:
            return
        size = storage.nbytes()
        self._held[key] = (size, weakref.ref(storage, lambda _: self._drop(key)))
        self._now += size
        self.nbytes = max(self.nbytes, self._now)

    def _drop(self, key: int) -> None:
        self._now -= self._held.pop(key)[0]


def _told(error: BaseException) -> str | None:
    """What to say of an error that only a run without data raises; None for one of the model's own."""
    if isinstance(error, _ON_VALUES):
        return (
            f"The run depends on values ({error}), which an estimate has not: a test of an array, .item(), a shape "
            "that depends on data. Estimate the part without it, or trace a smaller input and scale"
        )
    if isinstance(error, _NO_KERNEL) or "no fake impl registered" in str(error):
        return (
            f"An operation cannot run without data ({error}). For one of your own, torch.library.register_fake says "
            "what it returns"
        )
    if any(text in str(error) for text in _NO_DATA):
        return f"The model takes data out of torch ({str(error).splitlines()[0]}), and an estimate has none"
    return None


def _place(error: BaseException) -> str:
    """Where in the user's code an error came up."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    ours = [(file, line) for file, line in frames if not file.startswith(_OWN) and "torchlens_core" not in file]
    return f". At {ours[-1][0]}:{ours[-1][1]}." if ours else "."
