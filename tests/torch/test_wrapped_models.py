"""Models inside wrappers and arrays of every kind: traced, the same values, nothing changed."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.two_tensor import TwoTensor

import torchlens as tl
from tests.torch.wrapped_models import (
    CASES,
    PLAIN_TYPES,
    Made,
    _flat,
    _sharded,
    _tensor_parallel,
    net,
    process_group,  # noqa: F401 (a fixture)
    quietly,
    with_each,
    x,
)
from torchlens_core.errors import CaptureWarning, NotSupported, ValueOverwritten
from torchlens_torch.arrays import TorchArrays
from torchlens_torch.kinds import is_without_data
from torchlens_torch.sharding import whole

pytestmark = pytest.mark.usefixtures("process_group")
arrays = TorchArrays()

# What `op.numpy()` says of kinds that numpy has not.
NO_NUMPY = {
    "tensor parallel (DTensor)": "full_tensor", "nested arrays": "unbind", "masked arrays": "get_mask",
    "wrapper subclasses of Tensor": "TwoTensor", "arrays without data": "no data",
}  # fmt: skip


def types(log: tl.Trace) -> list[str]:
    return [op.type for op in log.compute_ops]


def leaves(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, tuple) else [out]


def same(left: Tensor, right: Tensor) -> bool:
    left, right = whole(left), whole(right)
    if is_without_data(left):
        return left.shape == right.shape
    return arrays.equal(left.detach(), right.detach(), rtol=0.0, atol=0.0)


@with_each(CASES)
def test_outputs_values_and_state(name: str, make: Callable[[], Made]) -> None:
    with quietly():
        model, *args = make()
        if name != "lazy modules":
            state = [whole(p).detach().clone() for p in model.parameters()] if isinstance(model, nn.Module) else []
            plain = leaves(model(*args))
            log = tl.trace(model, args)
            after = leaves(model(*args))
            assert all(map(same, state, list(getattr(model, "parameters", list)())))
        else:
            log = tl.trace(model, args)
            plain = after = leaves(model(*args))
        outputs = [op.out for op in log if op.is_output]
        assert len(outputs) == len(plain) >= 1
        assert all(map(same, plain, outputs)) and all(map(same, plain, after))
        assert log.num_ops >= 1
        for op in log:
            try:
                assert op.numpy() is not None
            except NotSupported as error:
                assert NO_NUMPY[name] in str(error)
            assert repr(op) and str(op) and op.nbytes >= 0
        assert log.summary() and log.activation_nbytes >= 0 and log.flops >= 0


# Without data there is nothing to compare; a replay runs on plain copies of what is given; a replay has no tape.
UNPROVEN = {"arrays without data", "subclasses with __torch_function__", "lazy modules", "torch.func.grad and the like"}
PROVEN = [case for case in CASES if case.values[0] not in UNPROVEN]


@with_each(PROVEN)
def test_the_trace_is_proven(name: str, make: Callable[[], Made]) -> None:
    with quietly():
        model, *args = make()
        before = leaves(model(*args))
        report = tl.validate(model, args)
        assert report, str(report)
        assert report.num_ops >= 1
        assert all(map(same, before, leaves(model(*args))))


@with_each(CASES)
def test_it_saves_and_loads(name: str, make: Callable[[], Made], tmp_path: Any) -> None:
    with quietly():
        model, *args = make()
        log = tl.trace(model, args)
        log.save(tmp_path / "log.tlspec")
        assert types(tl.load(tmp_path / "log.tlspec")) == types(log)


class TestAddresses:
    @pytest.mark.parametrize("wrap", [nn.DataParallel, DistributedDataParallel, torch.compile])
    def test_are_those_of_the_module_inside(self, wrap: Any) -> None:
        log = tl.trace(wrap(net()), x())
        assert [op.module for op in log.compute_ops] == ["0:1", "1:1", "2:1"]
        assert [param.address for param in log.params] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert log.model_name == "Sequential"
        assert [op.address for op in log if op.is_input] == ["input.input"]

    def test_of_sharded_parameters(self) -> None:
        log = tl.trace(*_sharded())
        assert types(log) == PLAIN_TYPES
        assert [[param.address for param in op.params] for op in log.compute_ops] == [
            ["0.weight", "0.bias"],
            [],
            ["2.weight", "2.bias"],
        ]
        assert not log.orphans

    def test_of_tensor_parallel_parameters(self) -> None:
        log = tl.trace(*_tensor_parallel())
        assert [t for t in types(log) if t not in ("viewas", "wrap", "unwrap")] == PLAIN_TYPES
        assert [param.address for param in log["linear_1"].params] == ["0.weight", "0.bias"]
        assert log["output_1"].min_distance_from_input is not None


class TestTraining:
    def test_gradients_come_through_ddp(self) -> None:
        model, plain = DistributedDataParallel(net()), net()
        tl.trace(model, x())[-1].out.sum().backward()
        plain(x()).sum().backward()
        for left, right in zip(model.module.parameters(), plain.parameters(), strict=True):
            assert torch.equal(left.grad, right.grad)

    def test_gradients_come_through_fully_shard(self) -> None:
        model, plain = _sharded()[0], net()
        for _ in range(2):
            tl.trace(model, x())[-1].out.sum().backward()
            plain(x()).sum().backward()
        for left, right in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(left.grad.full_tensor(), right.grad)

    def test_a_parameter_handed_on_is_still_a_parameter(self) -> None:
        kinds: list[bool] = []

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(3))

            def forward(self, a: Tensor) -> Tensor:
                weight = self.weight.to(a.dtype)
                kinds.append(isinstance(weight, nn.Parameter))
                return a * weight

        model = Net()
        model(torch.ones(3))
        tl.trace(model, torch.ones(3))[-1].out.sum().backward()
        assert kinds == [True, True]
        assert torch.equal(model.weight.grad, torch.ones(3))


class TestWrapping:
    def test_where_arrays_go_into_a_wrapper_and_come_out(self) -> None:
        def model(a: Tensor) -> Tensor:
            both = TwoTensor(a * 2, a * 3).relu()
            return both.a + both.b

        log = tl.trace(model, x())
        assert types(log) == ["mul", "mul", "wrap", "relu", "unwrap", "unwrap", "add"]
        assert log["wrap_1"].parents == ["mul_1_1", "mul_2_2"]
        assert log["add_1"].parents == ["unwrap_1_5", "unwrap_2_6"]
        assert tl.validate(model, x())

    def test_freed_memory_is_an_error_and_no_crash(self) -> None:
        def model(a: Tensor) -> Tensor:
            return a * 2 + 1

        log = tl.trace(model, x())
        log["mul_1"].out.untyped_storage().resize_(0)
        with pytest.raises(ValueOverwritten, match="has been freed since"):
            _ = log["mul_1"].out
        assert torch.equal(log["add_1"].out, x() * 2 + 1)

    def test_nested_arrays_that_the_model_makes(self) -> None:
        with quietly(), pytest.warns(CaptureWarning, match=r"shape \(20,\)"):
            log = tl.trace(lambda a, b: torch.nested.nested_tensor([a, b]).to_padded_tensor(0.0), [x()[:2], x()])
        assert types(log) == ["source", "topaddedtensor"]

    def test_flat_parameters_that_are_freed(self) -> None:
        with quietly():
            model, arg = _flat()
            log = tl.trace(model, arg)
            assert {"linear", "relu"} <= set(types(log))
            assert copy.deepcopy([op.label for op in log]) == [op.label for op in log]


TWO_PROCESSES = textwrap.dedent(
    """
    import os
    import sys
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    import torchlens as tl


    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


    def run(rank, folder):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", 2), rank=rank, world_size=2)
        x = torch.linspace(-1, 1, 12).reshape(3, 4)
        mesh, expected = init_device_mesh("cpu", (2,)), net()(x)
        sharded = net()
        fully_shard(sharded[0], mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        parallel = parallelize_module(net(), mesh, plan)
        for model in (nn.parallel.DistributedDataParallel(net()), sharded, parallel):
            log = tl.trace(model, x)
            assert torch.allclose(log[-1].out, expected, atol=1e-6), type(model)
            assert {"linear", "relu"} <= {op.type for op in log.compute_ops}
            assert [param.address for param in log["linear_1"].params] == ["0.weight", "0.bias"]
            found = tl.validate(model, x)
            assert found, str(found)
            assert torch.allclose(model(x), expected, atol=1e-6)
        dist.barrier()  # gloo's threads of one process must not find the other gone
        os._exit(0)  # and now and then abort it where the interpreter ends with them


    if __name__ == "__main__":
        torch.multiprocessing.spawn(run, (sys.argv[1],), nprocs=2)
        print("both done")
    """
)


def test_two_processes(tmp_path: Any) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "both done" in done.stdout, done.stderr[-3000:]
