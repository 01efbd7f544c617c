"""What can be captured, what happens when it cannot, and that nothing is left behind.

After every test here ``conftest`` asserts that no mode, class or hook is left.
"""

from __future__ import annotations

import copy
import gc
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import torchlens as tl
from tests.torch.cases import Model, graph, layers, places, setup, traced, x
from tests.torch.conftest import assert_nothing_left
from tests.torch.oracle import same
from torchlens_core.errors import BackendMissing, CaptureWarning, NestedTraceError, NothingCaptured, SelectorError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


NET = (
    "input_1 = input.x\nlinear_1_1 <- input_1\nrelu_1_2 <- linear_1_1\nlinear_2_3 <- relu_1_2\n"
    "output_1 = output <- linear_2_3"
)


# -- compiled, exported, scripted --------------------------------------------------------------------------------------


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_in_place(model: nn.Module) -> Any:
    model.compile(backend="eager")
    return model


def compiled_and_warm(model: nn.Module) -> Any:
    """Compiled code in the cache: it must not be what runs."""
    result = torch.compile(model, backend="eager")
    result(x())
    return result


@pytest.mark.parametrize("form", [compiled, compiled_in_place, compiled_and_warm])
def test_compiled_models_run_eagerly(form: Any) -> None:
    trace = traced(lambda: (form(Net()), x()))
    assert graph(trace) == NET
    assert places(trace).splitlines()[0] == "linear_1 in fc1:1 -> fc1:1"
    assert trace.model_name == "Net"


def test_a_compiled_function() -> None:
    function = torch.compile(lambda x: torch.sin(x) + 1, backend="eager")
    function(x())
    trace = tl.trace(lambda x: function(x) * 2, x())
    assert layers(trace) == "sin_1_1, add_1_2, mul_1_3"


def test_a_compiled_model_still_compiles_after_a_trace() -> None:
    frames: list[Any] = []

    def backend(module: Any, inputs: Any) -> Any:
        frames.append(module)
        return module

    torch._dynamo.reset()
    model = torch.compile(Net(), backend=backend)
    tl.trace(model, x())
    assert frames == []
    model(x())
    assert len(frames) == 1


def test_an_exported_program() -> None:
    model = Net()
    program = torch.export.export(model, (x(),)).module()
    given = x()
    trace = tl.trace(program, given)
    assert [op.type for op in trace.compute_ops] == ["linear", "relu", "linear"]
    assert trace["linear_1"].param_addresses == ["fc1.weight", "fc1.bias"]
    assert same(trace["output_1"].out, model(given))


def test_an_fx_graph_module() -> None:
    traced_module = torch.fx.symbolic_trace(Net())
    trace = tl.trace(traced_module, x())
    assert graph(trace).splitlines()[1:] == NET.splitlines()[1:]
    assert places(trace).splitlines() == [
        "linear_1 in fc1:1 -> fc1:1", "relu_1 in act:1 -> act:1", "linear_2 in fc2:1 -> fc2:1 self:1",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", [torch.jit.script, lambda model: torch.jit.trace(model, x())])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("save", [True, tl.func("addmm")])
def test_script_modules_at_kernel_level(form: Any, mode: Any, save: Any) -> None:
    model = Net()
    scripted = form(model)
    given = x()
    with mode():
        for _ in range(3):  # its interpreter optimises after some calls
            trace = tl.trace(scripted, given, save=save)
            assert layers(trace) == "t_1_1, addmm_1_2, relu_1_3, t_2_4, addmm_2_5"
            assert trace["addmm_1"].parents == ["input_1", "t_1_1"]
            assert trace["t_1"].param_addresses == ["fc1.weight"]
            assert trace["addmm_1"].param_addresses == ["fc1.bias"]
            assert same(trace["addmm_2"].out, model(given))
    assert not trace.is_recurrent


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_inside_a_model() -> None:
    @torch.jit.script
    def swish(x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return left * torch.sigmoid(right) + left

    def make() -> Any:
        model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())))
        return Model(lambda self, x: swish(self.net(x)).sum(), net=model), x()

    trace = traced(make, values=False)
    assert layers(trace) == (
        "linear_1_1, t_1_2, addmm_1_3, relu_1_4, split_1_5, split_2_6, sigmoid_1_7, mul_1_8, add_1_9, sum_1_10"
    )
    assert trace["add_1"].parents == ["mul_1_8", "split_1_5"]
    assert trace["relu_1"].output_of_module_calls == ["net.1:1", "net:1"]
    assert "<kernels>" in trace["sigmoid_1"].code_context[-1].file


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_called_twice_is_passes_of_its_kernels() -> None:
    @torch.jit.script
    def step(x: Tensor) -> Tensor:
        return torch.sin(x) + torch.sin(x * 2)

    def forward(x: Tensor) -> Tensor:
        for _ in range(3):
            x = step(x)
        return x

    assert layers(tl.trace(forward, x())) == "sin_1_1 x3, mul_1_2 x3, sin_2_3 x3, add_1_4 x3"


def test_the_whole_run_at_kernel_level() -> None:
    def make() -> Any:
        def forward(self: Any, x: Tensor) -> Tensor:
            y = self.bn(self.fc(x)).relu_()
            left, right = y.chunk(2, dim=1)
            return torch.einsum("ij,ij->i", left, right) if y.sum() > -1 else left

        return Model(forward, fc=nn.Linear(4, 4), bn=nn.BatchNorm1d(4)), x()

    trace = traced(make, values=False, granularity="kernel")
    assert layers(trace).split(", ")[:8] == [
        "t_1_1", "addmm_1_2", "add_1_3", "nativebatchnorm_1_5", "nativebatchnorm_2_6", "nativebatchnorm_3_7",
        "relu_1_8", "split_1_9",
    ]  # fmt: skip
    assert trace["relu_1"].parents == ["nativebatchnorm_1_5"]
    assert trace["relu_1"].is_inplace
    assert trace["addmm_1"].output_of_module_calls == ["fc:1"]
    assert trace.buffers["bn.running_mean"].num_versions == 2
    assert trace["gt_1"].bool_value is True
    function = traced(make)
    assert torch.allclose(function["output_1"].out, trace["output_1"].out)
    assert torch.equal(trace["relu_1"].out, torch.relu(trace["nativebatchnorm_1"].out))
    assert trace["nativebatchnorm_1"].out.min() < 0
    assert torch.equal(trace["split_2"].out, trace["relu_1"].out[:, 2:])
    unsaved = traced(make, values=False, granularity="kernel", save=False)
    assert graph(unsaved) == graph(trace)


def test_names_of_the_kernels_below_each_op() -> None:
    trace = tl.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout().eval()), x(), kernels=True)
    assert trace["linear_1"].kernels == ("aten::t", "aten::addmm")
    assert "aten::relu_" in trace["relu_1"].kernels
    assert "aten::clone" not in trace["relu_1"].kernels  # the recorder's own
    assert trace["input_1"].kernels == ()


# -- what models do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.Identity(), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.block, x, use_reentrant=use_reentrant) + 1

    def make() -> Any:
        return Checkpointed(), x().requires_grad_()

    trace = traced(make)
    assert layers(trace) == "linear_1_1, dropout_1_2, identity_1_3, relu_1_4, add_1_5"
    assert trace["add_1"].parents == ["relu_1_4"]
    plain = setup(make)
    plain.model(*plain.args).sum().backward()
    made = setup(make)
    tl.trace(made.model, list(made.args))["output_1"].out.sum().backward()
    assert torch.equal(made.args[0].grad, plain.args[0].grad)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class Same(torch.autograd.Function):
    """Returns what it was given, the way it does without a trace and by operations that pass it through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 10


class Negated(torch.autograd.Function):
    """Goes through numpy, where nothing sees it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(-x.detach().numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


@pytest.mark.parametrize("function", [Square, Same])
def test_an_autograd_function(function: Any) -> None:
    def make() -> Any:
        return (lambda x: function.apply(x) + 1), x().requires_grad_()

    trace = traced(make, values=function is Square)  # autograd itself makes a view where an argument is returned
    assert trace["add_1"].parents == [trace.compute_ops[0].layer_label]
    assert trace.compute_ops[0].parents == ["input_1"]
    plain = setup(make)
    plain.model(*plain.args).sum().backward()
    made = setup(make)
    tl.trace(made.model, list(made.args))["output_1"].out.sum().backward()
    assert torch.equal(made.args[0].grad, plain.args[0].grad)


def test_an_autograd_function_through_numpy_is_a_source() -> None:
    with pytest.warns(CaptureWarning, match="cannot be seen"):
        trace = tl.trace(lambda x: Negated.apply(x) + 1, x())
    assert layers(trace) == "detach_1_1, source_1_2, add_1_3"
    assert trace["add_1"].parents == ["source_1_2"]


def test_generators_inside_a_model() -> None:
    def make() -> Any:
        def pieces(x: Tensor) -> Iterator[Tensor]:
            for row in x:
                yield row * 2

        return (lambda x: sum(pieces(x))), x()

    assert layers(traced(make)) == "unbind_1_1, unbind_2_2, mul_1_3 x2, add_1_4 x2"


def test_modules_nested_as_deep_as_a_plain_call_can_go() -> None:
    class Nest(nn.Module):
        def __init__(self, inner: nn.Module | None) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if self.inner is None else self.inner(x + 1)

    def make() -> Any:
        model: nn.Module | None = None
        for _ in range(180):
            model = Nest(model)
        return model, x()

    trace = traced(make)
    assert trace.num_ops == 180
    assert len(trace.compute_ops[-1].modules) == 179


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_are_initialised_as_by_a_plain_call() -> None:
    def make() -> Any:
        return nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()), x()

    plain = setup(make)
    expected = plain.model(*plain.args)
    made = setup(make)
    trace = tl.trace(made.model, list(made.args))
    assert torch.equal(trace["output_1"].out, expected)
    assert torch.equal(made.model[0].weight, plain.model[0].weight)
    assert trace["linear_1"].param_addresses == ["0.weight", "0.bias"]
    assert trace.params["0.weight"].shape == (3, 4)
    assert trace.num_params == 3 * 4 + 3 + 3 + 3
    assert len(tl.sites(*make())) > 0


def test_a_tensor_subclass() -> None:
    class Tagged(Tensor):
        pass

    def make() -> Any:
        return (lambda x: (x * 2).relu() + 1), x().as_subclass(Tagged)

    trace = traced(make)
    assert layers(trace) == "mul_1_1, relu_1_2, add_1_3"
    assert type(trace["mul_1"].out) is Tagged


@torch.library.custom_op("torchlens_tests::scaled", mutates_args=())
def scaled(x: Tensor, factor: float) -> Tensor:
    return x * factor


@torch.library.custom_op("torchlens_tests::double_", mutates_args={"x"})
def double_(x: Tensor) -> None:
    x.mul_(2)


@torch.library.custom_op("torchlens_tests::add_into", mutates_args={"sink"})
def add_into(x: Tensor, sink: Tensor) -> None:
    sink.add_(x)


def test_custom_operators() -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            y = scaled(x, 3.0)
            double_(y)
            sink = torch.zeros(2, 4)
            add_into(y, sink)
            torch.ops.torchlens_tests.add_into(y, sink)
            return y + sink

        return forward, x()

    trace = traced(make, values=False)
    assert graph(trace).splitlines() == [
        "input_1 = input.x",
        "scaled_1_1 <- input_1",
        "double_1_2 <- scaled_1_1",
        "zeros_1_3",
        "addinto_1_4 <- double_1_2, zeros_1_3",
        "addinto_2_5 <- double_1_2, addinto_1_4",
        "add_1_6 <- double_1_2, addinto_2_5",
        "output_1 = output <- add_1_6",
    ]
    given = setup(make).args[0]
    assert torch.equal(trace["scaled_1"].out, given * 3)
    assert torch.equal(trace["addinto_1"].out, given * 6)


def test_sparse_and_quantized_values() -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            s = x.to_sparse().coalesce()
            q = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
            return torch.sparse.mm(s, x.T) + q.dequantize() @ x.T

        return forward, x()

    trace = traced(make, values=False)
    assert [op.type for op in trace.compute_ops][:3] == ["tosparse", "coalesce", "quantizepertensor"]
    assert trace["sparsemm_1"].parents == ["coalesce_1_2", "t_1_4"]
    assert trace["matmul_1"].parents == ["dequantize_1_6", "t_2_7"]


@pytest.mark.filterwarnings("ignore:.*cannot be seen")  # torch keeps an array of its own for jagged ones
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout: torch.layout) -> None:
    def make() -> Any:
        def forward(x: Tensor) -> Tensor:
            nested = torch.nested.as_nested_tensor([x[0, :2], x[1]], layout=layout)
            return (nested * 2).to_padded_tensor(0.0).sum()

        return forward, x()

    trace = traced(make, values=False)
    assert trace["output_1"].parents == [trace.compute_ops[-1].layer_label]
    assert trace["output_1"].input_ancestors == ["input_1"]


# -- models that raise -------------------------------------------------------------------------------------------------


class Fault(Exception):
    pass


def raising(error: BaseException) -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.fc(x).relu_()
        self.deep(y, error)
        return y

    def fail(self: Any, x: Tensor, error: BaseException) -> Tensor:
        x = x + 1
        raise error

    return Model(forward, fc=nn.Linear(4, 4), deep=Model(fail), unused=nn.ReLU()), x()


@pytest.mark.parametrize(
    "error", [Fault("broken"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), RecursionError("deep")]
)
def test_what_the_model_raises_is_raised_with_the_trace_so_far(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        tl.trace(*raising(error))
    assert caught.value is error
    assert caught.traceback[-1].name == "fail"
    assert_nothing_left()
    partial = error.partial_trace  # type: ignore[attr-defined]
    assert partial.is_partial
    assert layers(partial) == "linear_1_1, relu_1_2, add_1_3"
    assert partial["add_1"].modules == ["deep:1"]
    assert partial["linear_1"].out.shape == (2, 4)
    assert type(error).__name__ in partial.facts["error"]


def test_an_error_of_torch_keeps_its_type_and_message() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied") as caught:
        tl.trace(Net(), x(2, 5))
    assert caught.value.partial_trace.num_ops == 0  # type: ignore[attr-defined]


def test_an_error_that_the_model_handles_is_its_own_affair() -> None:
    def make() -> Any:
        class Picky(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise ValueError(x.relu().shape)

        def forward(self: Any, x: Tensor) -> Tensor:
            try:
                return self.picky(x)
            except ValueError:
                return self.fc(x)

        return Model(forward, picky=Picky(), fc=nn.Linear(4, 4)), x()

    trace = traced(make)
    assert not trace.is_partial
    assert trace["linear_1"].modules == ["fc:1"]
    assert trace["relu_1"].modules == ["picky:1"]


# -- halting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("halt", "last"),
    [
        (tl.func("relu"), "relu_1_2"),
        (tl.module("fc1"), "linear_1_1"),
        (tl.in_module("act"), "relu_1_2"),
        (tl.func("linear").nth(2), "linear_2_3"),
        (tl.where(lambda op: op.shape == (2, 8)), "linear_1_1"),
    ],
)
def test_halt_stops_just_after_the_first_match(halt: Any, last: str) -> None:
    ran: list[int] = []
    model = Net()
    model.fc2.register_forward_hook(lambda *_: ran.append(1))
    trace = tl.trace(model, x(), halt=halt)
    assert_nothing_left()
    assert trace.halted.layer_label == last
    assert trace.is_partial
    assert [op.layer_label for op in trace][-1] == last
    assert trace[last].has_saved_value
    assert ran == []
    assert not any(op.is_output for op in trace)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("level", ["a script", "kernels", "vmap"])
def test_halt_wherever_operations_are_seen(level: str) -> None:
    model: Any = {
        "a script": lambda: torch.jit.script(Net()),
        "kernels": Net,
        "vmap": lambda: torch.func.vmap(Net()),
    }[level]()
    options = {"granularity": "kernel"} if level == "kernels" else {}
    trace = tl.trace(model, x(), halt=tl.func("relu"), **options)
    assert_nothing_left()
    assert trace.halted.type == "relu"
    assert trace.halted.out.shape == (2, 8)
    assert trace[-1].type == "relu"


def test_halt_passes_through_except_exception() -> None:
    def forward(x: Tensor) -> Tensor:
        try:
            return x.relu().exp()
        except Exception:
            return x

    assert tl.trace(forward, x(), halt=tl.func("relu")).halted.type == "relu"


def test_a_halt_that_matches_nothing_runs_to_the_end() -> None:
    trace = tl.trace(Net(), x(), halt=tl.func("gelu"))
    assert trace.halted is None and not trace.is_partial


# -- errors ------------------------------------------------------------------------------------------------------------


def test_nothing_captured() -> None:
    with pytest.raises(NothingCaptured, match="not one operation"):
        tl.trace(lambda x: 3, x())
    with pytest.raises(NothingCaptured, match="generator"):
        tl.trace(lambda x: (x + step for step in range(3)), x())


def test_a_trace_inside_a_trace() -> None:
    model = Model(lambda self, x: tl.trace(self.fc, x)["linear_1"].out, fc=nn.Linear(4, 4))
    with pytest.raises(NestedTraceError, match="already running"):
        tl.trace(model, x())
    assert_nothing_left()
    assert tl.trace(model.fc, x()).num_ops == 1


def test_a_torch_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(BackendMissing, match=r"torch 2\.5\.1 is installed: pip install -U torch"):
        tl.trace(Net(), x())


def test_torch_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata
    import sys

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(BackendMissing, match="pip install"):
        tl.trace(lambda: 3, [], backend="torch")


def test_a_selector_that_only_a_finished_run_can_answer() -> None:
    with pytest.raises(SelectorError):
        tl.trace(Net(), x(), halt=tl.followed_by(tl.func("relu")))


# -- threads -----------------------------------------------------------------------------------------------------------


def test_two_threads_trace_at_once() -> None:
    shared = Net()
    lines: dict[int, list[str]] = {0: [], 1: []}
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(30):
                model = shared if step % 2 else torch.compile(Net(), backend="eager") if number else Net()
                lines[number].append(graph(tl.trace(model, x())))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert lines[0] == lines[1] == [NET] * 30


def test_a_thread_that_does_not_trace_is_not_recorded() -> None:
    shared, stop = Net(), threading.Event()
    outputs: list[Tensor] = []

    def run() -> None:
        while not stop.is_set():
            outputs.append(shared(torch.ones(2, 4)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while len(outputs) < 3:
            time.sleep(0.001)
        assert [graph(tl.trace(shared, x())) for _ in range(10)] == [NET] * 10
    finally:
        stop.set()
        thread.join()
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_model_that_computes_in_its_own_threads() -> None:
    def forward(x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        thread = threading.Thread(target=lambda: parts.append(x.sum()))
        thread.start()
        thread.join()
        return x * parts[0]

    with pytest.warns(CaptureWarning, match="another thread"):
        trace = tl.trace(forward, x())
    assert trace["mul_1"].parents == ["input_1", "source_1_1"]


# -- what a trace weighs -----------------------------------------------------------------------------------------------


def test_a_trace_does_not_keep_the_model_alive() -> None:
    class Busy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = self.mean + 1
            return torch.func.vmap(torch.sin)(self.bn(self.fc(x))) + self.mean

    gc.collect()
    gc.disable()
    try:
        model, given = Busy(), x()
        references = [weakref.ref(model), weakref.ref(model.fc), weakref.ref(given)]
        trace = tl.trace(model, given, save=False)
        sites = len(tl.sites(model, given))
        del model, given
        assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()
    assert sites > trace.num_ops
    assert trace["linear_1"].param_shapes == [(4, 4), (4,)]


def test_a_trace_that_raised_does_not_keep_the_model_alive() -> None:
    gc.collect()
    gc.disable()
    try:
        model, given = raising(Fault("broken"))
        reference = weakref.ref(model.unused)
        try:
            tl.trace(model, given, save=False)
        except Fault as error:
            partial = error.partial_trace  # type: ignore[attr-defined]
        del model, given
        gc.collect()  # the exception and its traceback are a cycle, as they are without a trace
        assert reference() is None
    finally:
        gc.enable()
    assert partial.num_ops == 3


def test_nothing_is_set_on_the_users_arrays_and_modules() -> None:
    model, given = Net(), x()
    before = {id(item): sorted(vars(item)) for item in (model, *model.modules())}
    kept = tl.trace(model, given)
    assert vars(given) == {}
    assert all(vars(parameter) == {} for parameter in model.parameters())
    assert {id(item): sorted(vars(item)) for item in (model, *model.modules())} == before
    assert kept["linear_1"].out is not None
    copy.deepcopy(model)


def test_values_that_were_not_asked_for_are_let_go() -> None:
    made: list[Any] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            made.append(weakref.ref(y))
            return y.sum()

    trace = tl.trace(Watched(), x(), save=tl.func("sum"))
    assert made[0]() is None
    assert trace["mul_1"].shape == (2, 4)


def test_a_silent_run() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.trace(Net(), x())
        tl.trace(nn.LSTM(4, 3), x(5, 2, 4))
        tl.trace(nn.TransformerEncoderLayer(8, 2, 16).eval(), x(3, 1, 8))
        tl.trace(lambda x: F.relu(x).sum().item(), x())
