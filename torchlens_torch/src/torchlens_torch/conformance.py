"""What the conformance kit is given for PyTorch."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from torchlens_core.testing.conformance import Fixtures


class Made(nn.Module):
    """A module from a function and its parts."""

    def __init__(self, forward: Callable[..., Any], parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.forward = types.MethodType(forward, self)
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, nn.ModuleList(part) if isinstance(part, list) else part)


class TorchFixtures(Fixtures):
    """PyTorch."""

    backend = "torch"
    cannot: ClassVar = {
        "gradients/a buffer written in place: at every op": "autograd takes no array that was written before it came "
        "onto the tape; the gradient is None"
    }
    error = RuntimeError

    def array(self, data: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(data.copy())

    def to_numpy(self, array: Tensor) -> np.ndarray[Any, Any]:
        return array.detach().cpu().numpy()

    def module(self, forward: Callable[..., Any], **parts: Any) -> nn.Module:
        return Made(forward, parts)

    def parameter(self, data: np.ndarray[Any, Any]) -> nn.Parameter:
        return nn.Parameter(self.array(data))

    def buffer(self, data: np.ndarray[Any, Any]) -> Tensor:
        return self.array(data)

    def linear(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None) -> nn.Module:
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        made.weight = self.parameter(weight)
        made.bias = None if bias is None else self.parameter(bias)
        return made

    def conv2d(self, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> nn.Module:
        made = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:])
        made.weight, made.bias = self.parameter(weight), self.parameter(bias)
        return made

    def dropout(self, p: float) -> nn.Module:
        return nn.Dropout(p)

    def relu_layer(self) -> nn.Module:
        return nn.ReLU()

    relu, tanh, sin, sum, sort = (
        staticmethod(each) for each in (torch.relu, torch.tanh, torch.sin, torch.sum, torch.sort)
    )
    concat, zeros, reshape, mean = (
        staticmethod(each) for each in (torch.concat, torch.zeros, torch.reshape, torch.mean)
    )

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        return torch.split(x, x.shape[-1] // parts, -1)

    def state(self, model: Any) -> Mapping[str, Tensor]:
        return dict(model.state_dict()) if isinstance(model, nn.Module) else {}

    def generator(self) -> Any:
        return torch.get_rng_state().tolist()

    def seed(self, number: int) -> None:
        torch.manual_seed(number)

    def gradient(self, function: Callable[..., Any], arrays: Sequence[Tensor]) -> Sequence[Tensor | None]:
        leaves = [array.detach().requires_grad_() for array in arrays]
        return torch.autograd.grad(function(*leaves), leaves, allow_unused=True)
