"""A witness for gradients that shares nothing with tracing: ``retain_grad`` on what every call into torch returns."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Key = tuple[tuple[int, ...], str, bytes]  # shape, type and elements


def key_of(array: Tensor) -> Key:
    """What tells a value from all others."""
    array = array.detach().cpu().contiguous()
    return (
        tuple(array.shape),
        str(array.dtype),
        torch.view_as_real(array).numpy().tobytes() if array.is_complex() else (array.float().numpy().tobytes()),
    )


class Retaining(TorchFunctionMode):
    """Retains the gradients of a run. What is written in place keeps the gradient of its last value only."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, tuple[Tensor, Key]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            for item in tree_leaves(out):
                if isinstance(item, Tensor) and item.grad_fn is not None:
                    item.retain_grad()
                    self._kept[id(item)] = item, key_of(item)
        return out

    def gradients(self) -> dict[Key, list[Tensor | None]]:
        """The gradients at values, for all the arrays that had them; ``None`` for those that got none."""
        found: dict[Key, list[Tensor | None]] = defaultdict(list)
        for array, key in self._kept.values():
            found[key].append(array.grad)
        return found


def scalar(out: Any) -> Tensor:
    """A loss on all floating-point outputs that depend on something."""
    arrays = [item for item in tree_leaves(out) if isinstance(item, Tensor) and item.requires_grad]
    return sum((array.abs() ** 2).sum() * (number + 1) for number, array in enumerate(arrays))  # type: ignore[return-value]


def reference(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> dict[Key, list[Tensor | None]]:
    """Gradients of ``scalar(output)`` at the values of one plain run."""
    mode = Retaining()
    with mode:
        out = model(*args, **(kwargs or {}))
    scalar(out).backward()
    return mode.gradients()
