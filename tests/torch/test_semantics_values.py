"""Semantics, sections 4 and 7: values as they were at their Op, in any mode of the model; call sites, types, costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import torchlens as tl
from tests.torch.cases import Case, Model, Table, graph, setup, traced, x
from torchlens_core.errors import CaptureWarning, NotSupported, ValueNotSaved, ValueOverwritten

# -- out and numpy -----------------------------------------------------------------------------------------------------


def test_out_is_the_value_in_torchs_own_type() -> None:
    given = x()
    op = tl.trace(lambda x: x * 2, given)["mul_1"]
    assert type(op.out) is Tensor
    assert torch.equal(op.out, given * 2)
    assert op.has_saved_value


def test_an_op_that_was_not_saved_names_the_selector_to_add() -> None:
    trace = tl.trace(lambda x: (x * 2).relu(), x(), save=tl.func("relu"))
    with pytest.raises(ValueNotSaved, match="save="):
        _ = trace["mul_1"].out
    assert not trace["mul_1"].has_saved_value
    assert trace["mul_1"].shape == (2, 4)


NUMPY: dict[str, tuple[Any, Any]] = {
    "float32": (lambda x: x * 2, np.float32),
    "float64": (lambda x: x.double(), np.float64),
    "float16": (lambda x: x.half(), np.float16),
    "bfloat16": (lambda x: x.bfloat16(), ml_dtypes.bfloat16),
    "float8_e4m3fn": (lambda x: x.to(torch.float8_e4m3fn), ml_dtypes.float8_e4m3fn),
    "complex64": (lambda x: torch.complex(x, x), np.complex64),
    "conjugated": (lambda x: torch.complex(x, x).conj(), np.complex64),
    "int64": (lambda x: x.argsort(), np.int64),
    "bool": (lambda x: x > 0, np.bool_),
    "with a gradient tape": (lambda x: x.requires_grad_() * 2, np.float32),
    "not contiguous": (lambda x: x.T, np.float32),
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpy(name: str) -> None:
    function, dtype = NUMPY[name]
    op = traced(lambda: (function, x())).compute_ops[-1]
    array = op.numpy()
    assert array.dtype == dtype
    assert array.shape == op.shape
    expected = op.out.detach().to(torch.complex64).resolve_conj()
    assert np.array_equal(array.astype(np.complex64), expected.numpy())


def test_numpy_of_a_sparse_value_is_dense() -> None:
    trace = tl.trace(lambda x: x.to_sparse() * 2, torch.eye(3))
    assert trace["mul_1"].numpy().tolist() == (torch.eye(3) * 2).tolist()


# -- overwritten after the run -----------------------------------------------------------------------------------------


def test_a_value_overwritten_after_the_run_is_an_error() -> None:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        return y, y + 1

    model = Model(lambda self, x: forward(x))
    given = x()
    trace = tl.trace(model, given)
    trace["mul_1"].out.add_(1)
    with pytest.raises(ValueOverwritten, match="overwritten since"):
        _ = trace["mul_1"].out
    with pytest.raises(ValueOverwritten):
        trace["mul_1"].numpy()
    assert torch.equal(trace["add_1"].out, given * 2 + 1)


def test_an_input_overwritten_after_the_run_is_an_error_for_the_input_alone() -> None:
    given = x()
    trace = tl.trace(lambda x: x * 2, given)
    given.zero_()
    with pytest.raises(ValueOverwritten):
        _ = trace["input_1"].out
    assert trace["mul_1"].out.abs().sum() > 0


def test_a_copy_that_was_asked_for_is_safe() -> None:
    given = x()
    trace = tl.trace(lambda x: x * 2, given, save=tl.keep(None, transform=lambda t: t.clone()))
    before = given.clone()
    given.zero_()
    assert torch.equal(trace["input_1"].out, before)


def test_a_write_that_nothing_shows_is_an_error_and_no_wrong_number() -> None:
    """Setting ``.imag`` reaches no function mode. The value that it overwrote is refused, the later ones are right."""

    def forward(x: Tensor) -> Tensor:
        y = torch.complex(x, x)
        y.imag = torch.ones(2, 4)
        return y.abs()

    given = x()
    with pytest.warns(CaptureWarning, match=r"1 kept value\(s\) were overwritten"):
        trace = tl.trace(forward, given)
    with pytest.raises(ValueOverwritten):
        _ = trace["complex_1"].out
    assert torch.equal(trace["abs_1"].out, torch.complex(given, torch.ones(2, 4)).abs())


def test_set_gives_other_memory_unseen_and_a_warning_says_so() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y.set_(x * 3)
        return y + 1

    given = x()
    with pytest.warns(CaptureWarning, match="Tensor.set_"):
        trace = tl.trace(forward, given)
    assert torch.equal(trace["add_1"].out, given * 3 + 1)
    with pytest.raises(ValueOverwritten):
        _ = trace["mul_1"].out


def test_memory_handed_to_numpy_is_copied_from_then_on() -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            y = x * 2
            shared = y.numpy()
            z = y + 1
            shared[0] = 7
            return z + y

        return forward, x()

    trace = traced(make)
    given = setup(make).args[0]
    assert torch.equal(trace["mul_1"].out, given * 2)
    assert trace["add_2"].out[0].tolist() == (given[0] * 2 + 1 + 7).tolist()


def test_an_array_that_numpy_made_is_copied() -> None:
    def forward(x: Tensor) -> Tensor:
        memory = np.ones(4, dtype=np.float32)
        y = torch.from_numpy(memory)
        z = x + y
        memory[:] = 5
        return z * y

    with pytest.warns(CaptureWarning, match="cannot be seen"):
        trace = tl.trace(forward, x())
    assert trace["source_1"].out.tolist() == [1, 1, 1, 1]


# -- autograd ----------------------------------------------------------------------------------------------------------


def mlp() -> Any:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
    return model, x().requires_grad_()


def test_autograd_works_through_a_trace_as_without() -> None:
    plain = setup(mlp)
    (plain.model(*plain.args) ** 2).sum().backward()
    made = setup(mlp)
    trace = tl.trace(made.model, list(made.args))
    (trace["output_1"].out ** 2).sum().backward()
    assert torch.equal(made.args[0].grad, plain.args[0].grad)
    for ours, theirs in zip(made.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_autograd_passes_through_aliases_of_what_passed_through() -> None:
    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x.contiguous()  # the array itself: no_grad does not cut it
        return (y.to(torch.float32) * 3).sum()

    given, other = x().requires_grad_(), x().requires_grad_()
    tl.trace(forward, given)["output_1"].out.backward()
    forward(other).backward()
    assert torch.equal(given.grad, other.grad)


def test_values_stay_attached_unless_detached() -> None:
    model, given = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), x()
    assert tl.trace(model, given)["linear_1"].out.grad_fn is not None
    trace = tl.trace(model, given, detach=True)
    assert trace["linear_1"].out.grad_fn is None
    assert trace["linear_1"].grad_fn_class_name == "AddmmBackward0"
    assert trace["input_1"].grad_fn_class_name is None


# -- modes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes_around_a_trace(mode: Any) -> None:
    def make() -> Any:
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.BatchNorm1d(4), nn.Dropout().eval()), x()

    with mode():
        trace = traced(make)
    assert [op.type for op in trace.compute_ops] == ["linear", "relu", "add", "batchnorm", "dropout"]
    assert trace["output_1"].out.is_inference() == (mode is torch.inference_mode)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_inside_a_model(mode: Any) -> None:
    def make() -> Any:
        def forward(self: Any, x: Tensor) -> Tensor:
            with mode():
                y = self.fc(x).relu_()
            return y + 1

        return Model(forward, fc=nn.Linear(4, 4)), x()

    trace = traced(make)
    assert [op.parents for op in trace.compute_ops] == [["input_1"], ["linear_1_1"], ["relu_1_2"]]


def test_autocast() -> None:
    def make() -> Any:
        def forward(self: Any, x: Tensor) -> Tensor:
            y = self.a(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.b(y)

        return Model(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), x()

    trace = traced(make)
    first, second = trace.compute_ops
    assert (first.dtype, first.autocast) == (torch.float32, None)
    assert (second.dtype, second.autocast) == (torch.bfloat16, "bfloat16")


def test_a_model_in_bfloat16() -> None:
    trace = traced(lambda: (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).bfloat16(), x().bfloat16()))
    assert {op.dtype for op in trace} == {torch.bfloat16}
    assert trace["linear_1"].nbytes == 16


def test_a_complex_model() -> None:
    def make() -> Any:
        weight = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
        return Model(lambda self, x: torch.fft.ifft(torch.fft.fft(x) @ self.w).real, w=weight), x()

    trace = traced(make)
    assert [op.type for op in trace.compute_ops] == ["fft", "matmul", "ifft", "real"]


def test_dtype_device_and_size() -> None:
    op = tl.trace(lambda x: x.argsort(), x())["argsort_1"]
    assert (op.dtype, op.device, op.shape, op.nbytes) == (torch.int64, torch.device("cpu"), (2, 4), 64)


# -- shapes without data -----------------------------------------------------------------------------------------------


def big() -> nn.Module:
    """A model that would take 20 GB."""
    layers = [nn.Linear(50_000, 50_000, bias=False), nn.ReLU(inplace=True), nn.Linear(50_000, 50_000)]
    return nn.Sequential(*layers, nn.BatchNorm1d(50_000))


def test_a_model_on_the_meta_device() -> None:
    with torch.device("meta"):
        model, given = big(), torch.empty(8, 50_000)
    trace = tl.trace(model, given)
    assert [op.shape for op in trace] == [(8, 50_000)] * 3 + [(8, 50_000)] + [()] + [(8, 50_000)] * 2
    assert trace["linear_1"].flops == 2 * 8 * 50_000**2
    assert trace.num_params == 2 * 50_000**2 + 3 * 50_000
    assert trace["linear_1"].out.device.type == "meta"
    with pytest.raises(NotSupported, match="meta device"):
        trace["linear_1"].numpy()
    assert len(tl.sites(model, given)) == len(trace.find_sites(tl.in_module("self")))


def test_a_model_of_fake_tensors() -> None:
    with FakeTensorMode():
        model, given = big(), torch.empty(8, 50_000)
        trace = tl.trace(model, given)
        sites = tl.sites(model, given)
    assert trace["linear_2"].shape == (8, 50_000)
    assert trace["linear_2"].flops >= 2 * 8 * 50_000**2
    assert [op.parents for op in trace.compute_ops][:3] == [["input_1"], ["linear_1_1"], ["relu_1_2"]]
    assert len(sites) == len(trace.find_sites(tl.in_module("self")))
    with pytest.raises(NotSupported, match="fake"):
        trace["linear_1"].numpy()


# -- transforms --------------------------------------------------------------------------------------------------------

TABLE = Table()


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_graph_of_transforms(case: Case) -> None:
    assert graph(traced(case.make, **case.options)) == case.expected


@TABLE(
    """
    input_1 = input.x
    linear_1_1 <- input_1
    sin_1_2 <- linear_1_1
    sum_1_3 <- sin_1_2
    mul_1_4 <- sum_1_3
    output_1 = output <- mul_1_4
""",
    values=False,
)
def vmap_in_a_model() -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: torch.sin(self.fc(row)).sum())(x) * 2

    return Model(forward, fc=nn.Linear(4, 4)), x()


@TABLE(
    """
    input_1 = input.x
    sin_1_1 <- input_1
    permute_1_2 <- sin_1_1
    add_1_3 <- permute_1_2
    output_1 = output <- add_1_3
""",
    values=False,
)
def vmap_that_moves_the_batch_axis() -> Any:
    return lambda x: torch.func.vmap(lambda c: torch.sin(c), in_dims=1, out_dims=0)(x) + 1, x()


@TABLE(
    """
    input_1 = input.x
    sin_1_1 <- input_1
    sum_1_2 <- sin_1_1
    grad_1_3 <- sum_1_2, input_1
    mul_1_4 <- grad_1_3
    output_1 = output <- mul_1_4
""",
    values=False,
)
def grad_in_a_model() -> Any:
    return lambda x: torch.func.grad(lambda y: torch.sin(y).sum())(x) * 2, x()


@TABLE(
    """
    input_1 = input.x
    sin_1_1 <- input_1
    sum_1_2 <- sin_1_1
    grad_1_3 <- sum_1_2, input_1
    mul_1_4 <- grad_1_3
    output_1 = output <- mul_1_4
""",
    values=False,
)
def vmap_of_grad() -> Any:
    return lambda x: torch.func.vmap(torch.func.grad(lambda row: torch.sin(row).sum()))(x) * 2, x()


@TABLE(
    """
    input_1 = input.x
    oneslike_1_1 <- input_1
    makedual_1_2 <- input_1, oneslike_1_1
    sin_1_3 <- makedual_1_2
    unpackdual_1_4 <- sin_1_3
    unpackdual_2_5 <- sin_1_3
    mul_1_6 <- unpackdual_2_5
    output_1 = output <- mul_1_6
""",
    values=False,
)
def jvp_in_a_model() -> Any:
    return lambda x: torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1] * 2, x()


@TABLE(
    """
    input_1 = input.x
    detach_1_1 <- input_1
    requiresgrad_1_2 <- detach_1_1
    sin_1_3 <- requiresgrad_1_2
    sum_1_4 <- sin_1_3
    grad_1_5 <- sum_1_4, requiresgrad_1_2
    add_1_6 <- grad_1_5
    output_1 = output <- add_1_6
""",
    values=False,
)
def autograd_grad_in_a_model() -> Any:
    def forward(x: Tensor) -> Tensor:
        y = x.detach().requires_grad_()
        energy = torch.sin(y).sum()
        return torch.autograd.grad(energy, y)[0] + 1

    return forward, x()


def test_values_inside_vmap_are_batched() -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            def one(row: Tensor) -> Tensor:
                y = torch.sin(row)
                y = y.clone().mul_(2)
                y[0] = 5
                return y.sum()

            return torch.func.vmap(one)(x) + 1

        return forward, x()

    trace = traced(make, values=False)
    given = setup(make).args[0]
    sin = torch.sin(given)
    written = (sin * 2).index_fill(1, torch.tensor([0]), 5.0)
    expected = [sin, sin, sin * 2, written, written.sum(1), written.sum(1) + 1]
    assert [op.type for op in trace.compute_ops] == ["sin", "clone", "mul", "setitem", "sum", "add"]
    for op, value in zip(trace.compute_ops, expected, strict=True):
        assert op.shape == tuple(value.shape)
        assert torch.allclose(op.out, value)
        assert op.numpy().shape == value.shape
    assert [op.batch_dims for op in trace.compute_ops] == [(0,), (0,), (0,), (0,), (0,), ()]


def test_nested_vmaps_note_both_axes() -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.vmap(lambda element: element * 2, in_dims=0), in_dims=1)(x)

    op = tl.trace(forward, x(2, 4))["mul_1"]
    assert op.shape == (4, 2)
    assert op.batch_dims == (0, 1)
    assert tl.validate(forward, x(2, 4))


def test_a_replay_runs_operations_of_vmap_under_vmap() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        def one(row: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            y = F.dropout(torch.cat([self.fc(row), row]) @ weight, 0.5)
            values, _ = y.sort()
            return values, torch.rand_like(values)

        first, second = torch.func.vmap(one, in_dims=(0, None), out_dims=(1, 0), randomness="different")(x, self.w)
        return first.T + second

    model = Model(forward, fc=nn.Linear(4, 4), w=nn.Parameter(torch.randn(8, 3)))
    report = tl.validate(model, x())
    assert report, str(report)
    assert report.replay_difference == 0


# -- randomness --------------------------------------------------------------------------------------------------------


def test_a_trace_draws_the_random_numbers_of_a_plain_run() -> None:
    traced(lambda: (lambda x: F.dropout(x) + torch.rand(4) + torch.randn_like(x).uniform_(), x()))


# -- call sites --------------------------------------------------------------------------------------------------------


def doubled(x: Tensor) -> Tensor:
    return x * 2


class Located(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.inner = Model(lambda self, x: doubled(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return self.inner(x) + 1


def test_code_context_from_the_models_own_forward_inwards() -> None:
    trace = tl.trace(Located(), x())
    here = str(Path(__file__))
    first = Located.forward.__code__.co_firstlineno
    linear, mul, add = (op.code_context for op in trace.compute_ops)
    assert [(frame.func_name, frame.line_number - first) for frame in (linear[0], mul[0], add[0])] == [
        ("forward", 1), ("forward", 2), ("forward", 2),
    ]  # fmt: skip
    assert all(frame.file == here for frame in (linear[0], mul[0], add[0]))
    assert len(add) == 1
    assert linear[-1].func_qualname == "Linear.forward"
    assert linear[-1].file.endswith("linear.py")
    assert [frame.func_name for frame in mul] == ["forward", "<lambda>", "doubled"]
    assert mul[-1].call_line == "return x * 2"
    assert mul[-1].col_offset == len("    return ")
    assert add[0].col_offset == len("        return ")
    assert any("x = self.fc(x)" in line for line in add[0].source_context())


def test_code_context_leaves_out_interception_and_the_traces_callers() -> None:
    trace = tl.trace(torch.compile(Located(), backend="eager"), x())
    plugin = str(Path(sys.modules["torchlens_torch"].__file__).parent)
    files = {frame.file for op in trace.compute_ops for frame in op.code_context}
    assert not any(file.startswith(plugin) or "torchlens_core" in file for file in files)
    assert not any(file.endswith(("module.py", "_tensor.py", "overrides.py", "eval_frame.py")) for file in files)
    assert all(op.code_context[0].func_name == "forward" for op in trace.compute_ops)


def test_durations() -> None:
    trace = tl.trace(lambda x: x @ x @ x, torch.randn(300, 300))
    assert all(0 < op.duration_ns < 1e9 for op in trace.compute_ops)
    assert trace["input_1"].duration_ns is None
    assert sum(op.duration_ns for op in trace.compute_ops) <= trace.facts["duration_ns"]
    assert trace.modules["self"].duration_ns > 0


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_reduction_a_dtype_and_a_device_of_what_is_kept() -> None:
    given = torch.randn(2, 3, 4, 4)
    keep = tl.keep(tl.func("relu"), transform=lambda t: t.mean((2, 3)), dtype="float16", device="cpu")
    trace = tl.trace(lambda x: F.relu(x) * 2, given, save=keep)
    kept = trace["relu_1"].out
    assert (kept.shape, kept.dtype) == ((2, 3), torch.float16)
    assert trace["relu_1"].shape == (2, 3, 4, 4)
    assert not kept.requires_grad
    assert [op.label for op in trace.saved_ops] == ["relu_1_1:1"]


def test_a_transform_leaves_no_op() -> None:
    """Also where it is asked of what a module returned, outside of any operation."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    trace = tl.trace(model, x(), save=tl.keep(tl.module("0"), transform=lambda t: (t * 2).sum()))
    assert [op.type for op in trace.compute_ops] == ["linear", "relu"]
    assert trace["linear_1"].out.shape == ()
