"""One model for each row of the compatibility report that says how tracing goes, and what makes it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.masked import masked_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.two_tensor import TwoTensor

Made = tuple[Any, ...]  # a model and its arguments

PLAIN_TYPES = ["linear", "relu", "linear"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def x() -> Tensor:
    return torch.linspace(-1, 1, 12).reshape(3, 4)


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    """One process that is a group by itself, without a network."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@contextmanager
def quietly() -> Iterator[None]:
    """Warnings that torch's prototypes and its deprecated parts give of themselves are not looked at."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(prototype|beta|deprecated|NO_SHARD|Sparse).*")
        yield


def parts() -> list[Tensor]:
    return [x()[:2], x()]


class Doubling(Tensor):
    """A subclass whose functions return twice what they are asked for."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [a.as_subclass(Tensor) if isinstance(a, Doubling) else a for a in args]
        out = func(*plain, **(kwargs or {}))
        return out * 2 if func is torch.Tensor.relu else out


# -- models by the row they belong to ----------------------------------------------------------------------------------


def _hooked() -> Made:
    model = net()
    model[1].register_forward_hook(lambda module, args, out: out + 1)
    return model, x()


def _tied() -> Made:
    layer = nn.Linear(4, 4)
    other = nn.Linear(4, 4)
    other.weight = layer.weight
    return nn.Sequential(layer, other), x()


def _sharded() -> Made:
    model = net()
    fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)), reshard_after_forward=True)
    return fully_shard(model, mesh=init_device_mesh("cpu", (1,))), x()


def _flat() -> Made:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(net(), device_id=torch.device("cpu")), x()


def _tensor_parallel() -> Made:
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(net(), init_device_mesh("cpu", (1,)), plan), x()


def _quantised() -> Made:
    return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}), x()


def _scripted() -> Made:
    return torch.jit.script(net()), x()


def _wrapped_weight() -> Made:
    model = net()
    model[0].weight = nn.Parameter(TwoTensor(model[0].weight.detach(), model[0].weight.detach() * 2))
    return model, x()


def _nested(layout: torch.layout) -> Callable[[], Made]:
    return lambda: (net(), torch.nested.nested_tensor(parts(), layout=layout))


GROUP = {
    "DistributedDataParallel",
    "FSDP (fully_shard)",
    "FSDP (FullyShardedDataParallel)",
    "tensor parallel (DTensor)",
}

EXAMPLES: dict[str, list[Callable[[], Made]]] = {
    "torch.compile": [lambda: (torch.compile(net()), x())],
    "TorchScript": [_scripted],
    "FX GraphModule": [lambda: (torch.fx.symbolic_trace(net()), x()),
                       lambda: (torch.export.export(net(), (x(),)).module(), x())],
    "torch.func.vmap": [lambda: (torch.func.vmap(net()), x())],
    "torch.func.grad and the like": [lambda: (torch.func.grad(lambda a: net()(a).sum()), x()),
                                     lambda: (torch.func.jacrev(lambda a: a.sin().sum()), x())],
    "DataParallel": [lambda: (nn.DataParallel(net()), x()), lambda: (nn.Sequential(nn.DataParallel(net())), x())],
    "DistributedDataParallel": [lambda: (DistributedDataParallel(net()), x()),
                                lambda: (DistributedDataParallel(net(), find_unused_parameters=True), x())],
    "FSDP (fully_shard)": [_sharded],
    "FSDP (FullyShardedDataParallel)": [_flat],
    "tensor parallel (DTensor)": [
        _tensor_parallel,
        lambda: (lambda a: (a @ a).relu(), distribute_tensor(x()[:, :3], init_device_mesh("cpu", (1,)), [Shard(0)])),
    ],
    "tied parameters": [_tied],
    "lazy modules": [lambda: (nn.Sequential(nn.LazyLinear(8), nn.ReLU()), x())],
    "hooks on modules": [_hooked],
    "activation checkpointing": [lambda: (nn.Sequential(checkpoint_wrapper(net())), x())],
    "quantised modules": [_quantised],
    "sparse arrays": [lambda: (lambda s, d: torch.sparse.mm(s, d).relu(), torch.eye(3).to_sparse(), x()),
                      lambda: (lambda s, d: (s @ d).relu(), torch.eye(3).to_sparse_csr(), x()),
                      lambda: (lambda s: (s * 2 + s).coalesce(), torch.eye(3).to_sparse())],
    "nested arrays": [_nested(torch.strided), _nested(torch.jagged),
                      lambda: (lambda n: n.to_padded_tensor(0.0) + 1, torch.nested.nested_tensor(parts()))],
    "quantised arrays": [
        lambda: (lambda q: q.relu().dequantize(), torch.quantize_per_tensor(x(), 0.1, 0, torch.qint8)),
    ],
    "complex and low-precision arrays": [lambda: (lambda c: (c * c).abs(), torch.complex(x(), x())),
                                         lambda: (net().bfloat16(), x().bfloat16()),
                                         lambda: (lambda a: a.float() + 1, x().to(torch.float8_e4m3fn))],
    "masked arrays": [lambda: (lambda m: (m * 2).sum(-1), masked_tensor(x(), x() > 0))],
    "wrapper subclasses of Tensor": [_wrapped_weight, lambda: (net(), TwoTensor(x(), x() + 1)),
                                     lambda: (lambda w: (w * 2).a + 1, TwoTensor(x(), x()))],
    "subclasses with __torch_function__": [lambda: (lambda a: a.relu() + 1, x().as_subclass(Doubling))],
    "arrays without data": [lambda: (net().to("meta"), x().to("meta"))],
}  # fmt: skip

CASES = [
    pytest.param(name, make, id=f"{name} {number}")
    for name, makes in EXAMPLES.items()
    for number, make in enumerate(makes, 1)
]
with_each = functools.partial(pytest.mark.parametrize, ("name", "make"))
