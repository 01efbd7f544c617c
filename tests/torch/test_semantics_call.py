"""Semantics, section 0: what can be traced, how it is called, and what is left of it.

With what section 1 says of arrays whose origin cannot be seen.
"""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Model, assert_same_state, graph, setup, state_of, traced, x
from torchlens_core.errors import BackendError, CaptureWarning, SelectorError

FC = nn.Linear(4, 4)
HALF = torch.full((4,), 0.5)


def uses_a_global_module(x: Tensor) -> Tensor:
    return F.relu(FC(x))


class Plain:
    """Not a module, but it holds two, and an array."""

    def __init__(self) -> None:
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = torch.full((4,), 2.0)

    def __call__(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.scale

    def encode(self, x: Tensor) -> Tensor:
        return self.first(x) * self.scale


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def encode(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return self.fc(x) * scale


def closure() -> Any:
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    return (lambda x: decoder(encoder(x))), x()


# name -> (what makes the model, addresses of its modules, addresses of the parameters that the run used)
MODELS: dict[str, tuple[Any, list[str], list[str]]] = {
    "a module": (lambda: (nn.Linear(4, 4), x()), ["self"], ["weight", "bias"]),
    "a function": (lambda: (lambda x: x + 1, x()), ["self"], []),
    "a closure over modules": (
        closure,
        ["self", "encoder", "decoder"],
        ["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"],
    ),
    "a function that names a global module": (
        lambda: (uses_a_global_module, x()),
        ["self", "FC"],
        ["FC.weight", "FC.bias"],
    ),
    "a bound method of a module": (lambda: (Coder().encode, x()), ["self", "fc"], ["fc.weight", "fc.bias"]),
    "a bound method of an object": (lambda: (Plain().encode, x()), ["self", "first"], ["first.weight", "first.bias"]),
    "an object that can be called": (
        lambda: (Plain(), x()),
        ["self", "first", "second"],
        ["first.weight", "first.bias", "second.weight", "second.bias"],
    ),
    "a partial function": (
        lambda: (functools.partial(Coder().encode, scale=3.0), x()),
        ["self", "fc"],
        ["fc.weight", "fc.bias"],
    ),
    "a partial of a partial of a module": (
        lambda: (functools.partial(functools.partial(nn.Linear(4, 4))), x()),
        ["self"],
        ["weight", "bias"],
    ),
    "a function of torch": (lambda: (torch.relu, x()), ["self"], []),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_can_be_traced(name: str) -> None:
    make, modules, params = MODELS[name]
    trace = traced(make)
    called = [module.address for module in trace.modules if module.num_calls]
    assert called == modules
    assert sorted(param.address for param in trace.params if param.num_uses) == sorted(params)


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_a_list_or_tuple_is_the_positional_arguments_and_anything_else_the_one_argument() -> None:
    def forward(left: Any, right: Any = None) -> Tensor:
        return left["a"] if isinstance(left, dict) else left + (0 if right is None else right)

    array = x()
    assert len(tl.trace(forward, [array, array * 2]).input_layers) == 2
    assert len(tl.trace(forward, (array, array * 2)).input_layers) == 2
    assert len(tl.trace(forward, array).input_layers) == 1
    assert [op.address for op in tl.trace(lambda d: d["a"] + d["b"], {"a": array, "b": array}) if op.is_input] == [
        "input.d.a", "input.d.b",
    ]  # fmt: skip
    pair = tl.trace(lambda pair: pair[0] + pair[1], [(array, array)])
    assert [op.address for op in pair if op.is_input] == ["input.pair.0", "input.pair.1"]


def test_keyword_arguments() -> None:
    trace = tl.trace(lambda a, *, b: a + b, x(), {"b": x()})
    assert [op.address for op in trace if op.is_input] == ["input.a", "input.b"]


def test_a_model_without_arguments() -> None:
    model = Model(lambda self: self.fc(torch.ones(2, 4)), fc=nn.Linear(4, 4))
    trace = tl.trace(model)
    assert graph(trace) == "ones_1_1\nlinear_1_2 <- ones_1_1\noutput_1 = output <- linear_1_2"


def test_what_cannot_be_called_or_is_of_no_framework() -> None:
    with pytest.raises(BackendError, match="not callable"):
        tl.trace(x(), x())  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="No backend recognises"):
        tl.trace(lambda a: a + 1, 3)
    with pytest.raises(BackendError, match="torhc"):
        tl.trace(nn.Identity(), x(), backend="torhc")


def test_a_framework_can_be_named_where_no_array_tells() -> None:
    assert tl.trace(lambda n: torch.ones(n) + 1, 3, backend="torch").num_ops == 2


def test_arrays_inside_containers_tell_the_framework() -> None:
    assert tl.trace(lambda batch: batch["x"] + 1, {"x": x()}).num_ops == 1
    assert tl.trace(lambda *, items: items[0][0] + 1, [], {"items": [(x(),)]}).num_ops == 1


# -- what is left ------------------------------------------------------------------------------------------------------


class Forgetful(nn.Module):
    """Changes all that a call can change."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
        self.register_buffer("mean", torch.zeros(4))
        self.calls = 0
        self.history: list[int] = []
        self.cache = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean * 0.9 + x.mean(0)
        self.calls += 1
        self.history.append(self.calls)
        self.cache.add_(1)
        self.last = x.detach()
        self.register_buffer("seen", torch.ones(()))
        x.mul_(2)
        np.random.rand()
        return F.dropout(self.bn(x) + self.mean) + torch.rand(4)


def test_a_trace_leaves_a_model_as_one_plain_call_does() -> None:
    def make() -> Any:
        return Forgetful(), x()

    traced(make)
    plain, made = setup(make), setup(make)
    plain.model(*plain.args)
    tl.trace(made.model, list(made.args))
    assert (made.model.calls, made.model.history) == (plain.model.calls, plain.model.history) == (1, [1])
    assert torch.equal(made.model.cache, plain.model.cache)
    assert sorted(vars(made.model)) == sorted(vars(plain.model))


@pytest.mark.parametrize("several_runs", [tl.sites, tl.validate])
def test_what_runs_a_model_more_often_leaves_it_as_it_was(several_runs: Any) -> None:
    made = setup(lambda: (Forgetful(), x()))
    before, attributes = state_of(made), sorted(vars(made.model))
    numpy_state = np.random.get_state()[1].tolist()
    assert several_runs(made.model, list(made.args))
    assert_same_state(state_of(made), before)
    assert (made.model.calls, made.model.history, made.model.cache.tolist()) == (0, [], [0, 0, 0, 0])
    assert sorted(vars(made.model)) == attributes
    assert "seen" not in made.model._buffers
    assert np.random.get_state()[1].tolist() == numpy_state


def test_what_is_given_in_other_layouts_is_left_as_it_was() -> None:
    def forward(left: Tensor, right: Tensor, nothing: Tensor) -> Tensor:
        right.mul_(2)
        return left @ right

    left, right = torch.eye(4).to_sparse_csr(), torch.ones(4, 2)
    assert len(tl.sites(forward, [left, right, torch.empty(3, device="meta")])) == 6
    assert right.tolist() == torch.ones(4, 2).tolist()


def test_sites_lists_what_could_be_selected_and_keeps_no_value() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    sites = tl.sites(model, x())
    assert sites.labels() == ["input_1", "linear_1_1", "relu_1_2", "output_1"]
    assert not any(op.has_saved_value for op in sites)


# -- save= -------------------------------------------------------------------------------------------------------------


def test_a_selector_that_names_what_the_model_cannot_have_is_an_error_before_the_run() -> None:
    calls: list[int] = []
    model = Model(lambda self, x: calls.append(1) or self.fc(x), fc=nn.Linear(4, 4))
    for selector, text in ((tl.module("fx"), "'fc'"), (tl.func("rellu"), "'relu'"), (tl.in_module("fc.0"), "fc")):
        with pytest.raises(SelectorError, match=text):
            tl.trace(model, x(), save=selector)
    assert calls == []


# -- arrays of unknown origin ------------------------------------------------------------------------------------------


def in_a_thread(function: Any) -> Any:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def _gradient(x: Tensor) -> Tensor:
    x.sum().backward()
    assert x.grad is not None
    return x.grad


UNKNOWN: dict[str, Any] = {
    "numpy": lambda x: x + torch.from_numpy(np.ones(4, dtype=np.float32)),
    "another thread": lambda x: x + in_a_thread(lambda: torch.ones(4)),
    "the constructor of Tensor": lambda x: x + torch.Tensor([1.0, 1.0, 1.0, 1.0]),
    "a parameter made inside": lambda x: x + nn.Parameter(torch.ones(4)).data,
    "backward": lambda x: x + _gradient(torch.ones(4, requires_grad=True)),
    "dlpack": lambda x: x + torch.from_dlpack(np.ones(4, dtype=np.float32)),
}


@pytest.mark.parametrize("name", [name for name in UNKNOWN if name != "a parameter made inside"])
def test_an_array_of_unknown_origin_is_a_source_with_one_warning(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace = tl.trace(UNKNOWN[name], x())
    ours = [warning for warning in caught if issubclass(warning.category, CaptureWarning)]
    assert len(ours) == 1
    assert "'source' Ops" in str(ours[0].message)
    source = trace["source_1"]
    assert source.is_internal_source and source.is_compute and source.step_index == 1
    assert source.out.tolist() == [1, 1, 1, 1]
    assert trace["add_1"].parents == ["input_1", source.layer_label]


def test_several_unknown_arrays_give_one_warning() -> None:
    def forward(x: Tensor) -> Tensor:
        for _ in range(5):
            x = x + torch.from_numpy(np.ones(4, dtype=np.float32))
        return x

    with pytest.warns(CaptureWarning, match="5 array"):
        trace = tl.trace(forward, x())
    assert [op.type for op in trace.compute_ops].count("source") == 5


def test_an_array_made_outside_in_a_module_in_the_run_is_no_constant() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.mask = torch.from_numpy(np.ones(4, dtype=np.float32))
            return x * self.mask

    with pytest.warns(CaptureWarning):
        trace = tl.trace(Masked(), x())
    assert trace["mul_1"].parents == ["input_1", "source_1_1"]


def test_a_parameter_made_of_a_known_array_is_that_array() -> None:
    trace = tl.trace(UNKNOWN["a parameter made inside"], x())
    assert trace["add_1"].parents[0] == "input_1"
    assert "ones_1_1" in graph(trace)
    assert "source" not in graph(trace)


def test_a_view_made_unseen_is_a_child_of_its_base() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        view = in_a_thread(lambda: y.T)
        same = in_a_thread(y.detach)
        return view.sum() + same.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = tl.trace(forward, x())
    assert graph(trace).splitlines()[1:-1] == [
        "mul_1_1 <- input_1", "permute_1_2 <- mul_1_1", "sum_1_3 <- permute_1_2", "sum_2_4 <- mul_1_1",
        "add_1_5 <- sum_1_3, sum_2_4",
    ]  # fmt: skip


# -- constants ---------------------------------------------------------------------------------------------------------


class Config:
    offset = torch.ones(4)


CONSTANTS: dict[str, Any] = {
    "a global": lambda: (lambda x: x * HALF, x()),
    "a closure": lambda: (lambda half: lambda x: x * half)(torch.full((4,), 0.5)),
    "a default": lambda: (lambda half: lambda x, half=half: x * half)(torch.full((4,), 0.5)),
    "an attribute of the module": lambda: _with_attribute("half", torch.full((4,), 0.5)),
    "in a list of the module": lambda: _with_attribute("_halves", [torch.full((4,), 0.5)]),
    "an attribute of an object": lambda: Plain().encode,
    "an attribute of a class": lambda: lambda x: x * Config.offset,
    "an attribute of an object of the module": lambda: _with_attribute("config", Config()),
}


def _with_attribute(name: str, value: Any) -> nn.Module:
    reads = {"half": lambda s: s.half, "_halves": lambda s: s._halves[0], "config": lambda s: s.config.offset}
    model = Model(lambda self, x: x * reads[name](self))
    setattr(model, name, value)
    return model


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_that_the_code_can_reach_are_arguments_and_no_ops(name: str) -> None:
    made = CONSTANTS[name]()
    model = made[0] if isinstance(made, tuple) else made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = tl.trace(model, x())
    op = trace["mul_1"]
    assert len(op.parents) == 1
    assert str(op.args[1]) == "<array>"
    assert "source" not in graph(trace)
