"""Semantics, section 5: modules and their calls, hooks, wrappers, parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchlens as tl
from tests.torch.cases import Case, Model, Table, places, setup, traced, x

TABLE = Table()
RENDER = places


@pytest.mark.parametrize("case", TABLE.cases, ids=repr)
def test_places(case: Case) -> None:
    assert places(traced(case.make, **case.options)) == case.expected


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x))


@TABLE("""
    linear_1 in 0:1 0.0:1 -> 0.0:1
    relu_1 in 0:1 0.1:1 -> 0.1:1 0:1
    linear_2 in 1:1 1.0:1 -> 1.0:1 1:1 self:1
""")
def containers_return_what_their_last_module_returned() -> Any:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4))), x()


@TABLE("""
    chunk_1 in split:1 -> split:1
    chunk_2 in split:1 -> -
    relu_1 in split:1 -> split:1
    add_1 in - -> self:1
""")
def a_module_with_several_outputs() -> Any:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            left, right = x.chunk(2, dim=1)
            return {"left": left, "right": right.relu()}

    def forward(self: Any, x: Tensor) -> Tensor:
        parts = self.split(x)
        return parts["left"] + parts["right"]

    return Model(forward, split=Split()), x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 -> 1:1
    linear_3 in 2:1 -> -
    add_1 in 2:1 -> 2:1 self:1
""")
def modules_of_a_base_class_and_of_a_subclass() -> Any:
    class Mine(nn.Linear):
        pass

    class Own(nn.Linear):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs) + 1

    return nn.Sequential(nn.Linear(4, 4), Mine(4, 4), Own(4, 4)), x()


@TABLE("""
    linear_1 in - -> self:1
""")
def a_module_that_calls_a_functional_of_another() -> Any:
    """Not a module call: ``forward`` is called directly."""
    return Model(lambda self, x: self.fc.forward(x), fc=nn.Linear(4, 4)), x()


@TABLE("""
    linear_1:1 in a:1 -> a:1
    linear_1:2 in a:2 -> a:2 self:1
""")
def a_shared_module_under_two_names() -> Any:
    shared = nn.Linear(4, 4)
    return Model(lambda self, x: self.b(self.a(x)), a=shared, b=shared), x()


@TABLE("""
    linear_1 in inner:1 inner.inner:1 inner.inner.fc:1 -> inner.inner.fc:1 inner.inner:1
    linear_2 in inner:1 inner.fc:1 -> inner.fc:1 inner:1
    linear_3 in fc:1 -> fc:1 self:1
""")
def a_recursive_module() -> Any:
    class Nest(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.inner = Nest(depth - 1) if depth else None
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x if self.inner is None else self.inner(x))

    return Nest(2), x()


@TABLE("""
    add_1 in - -> -
    mul_1 in self:2 -> self:2 self:1
""")
def the_model_calls_itself() -> Any:
    class Again(nn.Module):
        def forward(self, x: Tensor, times: int = 1) -> Tensor:
            return self(x + 1, times - 1) if times else x * 2

    return Again(), x()


# -- hooks -------------------------------------------------------------------------------------------------------------


@TABLE("""
    linear_1 in 0:1 -> -
    mul_1 in 0:1 -> 0:1
    relu_1 in 1:1 -> 1:1 self:1
""")
def a_forward_hook_that_replaces_the_output() -> Any:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, out: out * 2)
    return model, x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    add_1 in 1:1 -> -
    relu_1 in 1:1 -> 1:1 self:1
""")
def a_forward_pre_hook() -> Any:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return model, x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    relu_1 in 1:1 -> 1:1 self:1
""")
def a_hook_that_looks_on() -> Any:
    seen: list[Any] = []
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    return model, x()


# -- wrappers ----------------------------------------------------------------------------------------------------------


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 1.fc:1 -> 1.fc:1
    relu_1 in 1:1 1.act:1 -> 1.act:1 1:1 self:1
""")
def a_compiled_model() -> Any:
    return torch.compile(nn.Sequential(nn.Linear(4, 4), Block()), backend="eager"), x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 1.fc:1 -> 1.fc:1
    relu_1 in 1:1 1.act:1 -> 1.act:1 1:1 self:1
""")
def a_compiled_part() -> Any:
    return nn.Sequential(nn.Linear(4, 4), torch.compile(Block(), backend="eager")), x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 1.fc:1 -> 1.fc:1
    relu_1 in 1:1 1.act:1 -> 1.act:1 1:1 self:1
""")
def a_model_compiled_in_place() -> Any:
    model = nn.Sequential(nn.Linear(4, 4), Block())
    model.compile(backend="eager")
    return model, x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 1.fc:1 -> 1.fc:1
    relu_1 in 1:1 1.act:1 -> 1.act:1 1:1 self:1
""")
def a_part_compiled_in_place() -> Any:
    model = nn.Sequential(nn.Linear(4, 4), Block())
    model[1].compile(backend="eager")
    return model, x()


@TABLE("""
    linear_1 in 0:1 -> 0:1
    linear_2 in 1:1 1.fc:1 -> 1.fc:1
    relu_1 in 1:1 1.act:1 -> 1.act:1 1:1 self:1
""")
def data_parallel_on_the_cpu() -> Any:
    return nn.DataParallel(nn.Sequential(nn.Linear(4, 4), Block())), x()


# -- records -----------------------------------------------------------------------------------------------------------


def test_modules_root_first_then_in_order_of_first_call() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Linear(4, 4)
            self.unused = nn.Linear(4, 4)
            self.early = Block()

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(x))

    trace = traced(lambda: (Net(), x()))
    assert trace.modules.keys() == ["self", "early", "early.fc", "early.act", "late", "unused"]
    assert [module.address for module in trace.modules.never_called] == ["unused"]
    root, early = trace.modules["self"], trace.modules["early"]
    assert (root.cls, root.depth, root.parent, root.num_calls) == ("Net", 0, None, 1)
    assert root.children == ["late", "unused", "early"]
    assert (early.cls, early.depth, early.parent, early.num_calls) == ("Block", 1, "self", 1)
    assert early.children == ["early.fc", "early.act"]
    assert early.layers == ["linear_1_1", "relu_1_2"]
    assert [param.address for param in early.params] == ["early.fc.weight", "early.fc.bias"]
    assert early.input_ops == ["input_1"]
    assert early.output_ops == ["relu_1_2"]
    assert root.output_ops == ["linear_2_3"]
    assert early.training is True
    assert trace.modules["early.fc"].num_params == 20
    assert trace.modules["unused"].layers == []


def test_calls_of_a_module() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.block(self.block(x) + 1)

    trace = traced(lambda: (Model(forward, block=Block()), x()))
    block = trace.modules["block"]
    assert block.call_labels == ["block:1", "block:2"]
    first, second = block.calls
    assert first.op_labels == ["linear_1_1:1", "relu_1_2:1"]
    assert second.op_labels == ["linear_1_1:2", "relu_1_2:2"]
    assert second.input_ops == ["add_1_3"]
    assert second.parent_call == "self:1"
    assert trace.modules.call("block.fc:2").parent_call == "block:2"
    assert trace["add_1"].parents == ["relu_1_2:1"]
    assert trace["add_1"].input_to_module_calls == ["block:2", "block.fc:2"]


def test_a_module_under_two_names_has_one_record() -> None:
    trace = traced(a_shared_module_under_two_names)
    assert trace.modules.keys() == ["self", "a"]
    assert trace.modules["b"].address == "a"
    assert trace.modules["a"].aliases == ("b",)
    assert trace.modules["a"].num_calls == 2
    assert trace.params["b.weight"].address == "a.weight"


def test_a_selector_matches_what_a_module_finally_returned() -> None:
    model, given = a_forward_hook_that_replaces_the_output()
    trace = tl.trace(model, given, save=tl.module("0"))
    assert trace.find_sites(tl.module("0")).labels() == ["mul_1_2"]
    assert [op.layer_label for op in trace.saved_ops] == ["mul_1_2"]
    assert torch.equal(trace["0"].out, F.linear(given, model[0].weight, model[0].bias) * 2)


@pytest.mark.parametrize("make", [a_compiled_model, data_parallel_on_the_cpu, a_model_compiled_in_place])
def test_wrapper_names_are_dropped(make: Any) -> None:
    trace = traced(make)
    assert trace.model_name == "Sequential"
    assert trace.modules.keys() == ["self", "0", "1", "1.fc", "1.act"]
    assert trace.params.keys() == ["0.weight", "0.bias", "1.fc.weight", "1.fc.bias"]


def test_a_function_has_the_root_alone_and_what_it_reaches() -> None:
    trace = traced(lambda: (lambda x: x + 1, x()))
    assert trace.modules.keys() == ["self"]
    assert trace.modules["self"].num_calls == 1


# -- parameters --------------------------------------------------------------------------------------------------------


def test_parameters() -> None:
    def make() -> Any:
        model = Model(lambda self, x: self.a(x) * self.scale, a=nn.Linear(4, 3), scale=nn.Parameter(torch.ones(3)))
        model.register_parameter("unused", nn.Parameter(torch.ones(2), requires_grad=False))
        return model, x()

    trace = traced(make)
    assert trace.params.keys() == ["scale", "unused", "a.weight", "a.bias"]
    weight = trace.params["a.weight"]
    assert (weight.shape, weight.dtype, weight.is_trainable, weight.num_params) == ((3, 4), torch.float32, True, 12)
    assert (weight.name, weight.module_address, weight.nbytes) == ("weight", "a", 48)
    assert weight.used_by_ops == ["linear_1_1:1"]
    assert weight.co_params == ["a.bias"]
    assert trace.params["unused"].num_uses == 0
    assert trace.params["unused"].is_trainable is False
    assert trace["linear_1"].param_addresses == ["a.weight", "a.bias"]
    assert trace["linear_1"].num_params == 15
    assert trace["mul_1"].param_addresses == ["scale"]
    assert trace["mul_1"].parents == ["linear_1_1"]
    assert (trace.num_params, trace.num_params_trainable) == (20, 18)


def test_tied_weights_have_one_record_with_all_addresses_and_uses() -> None:
    def make() -> Any:
        model = Model(lambda self, ids: self.head(self.table(ids)), table=nn.Embedding(7, 4), head=nn.Linear(4, 7))
        model.head.weight = model.table.weight
        return model, torch.tensor([[1, 2]])

    trace = traced(make)
    assert trace.params.keys() == ["table.weight", "head.bias"]
    tied = trace.params["head.weight"]
    assert (tied.address, tied.aliases, tied.num_uses) == ("table.weight", ("head.weight",), 2)
    assert tied.used_by_layers == ["embedding_1_1", "linear_1_2"]
    assert trace.num_params == 35


def test_a_parameter_written_in_the_forward_stays_a_parameter() -> None:
    def make() -> Any:
        def forward(self: Any, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.fc.weight.clamp_(-0.1, 0.1)
                self.fc.bias.data.mul_(0)
            y = self.fc(x)
            self.fc.bias.data = torch.ones(4)
            return self.fc(y)

        return Model(forward, fc=nn.Linear(4, 4)), x()

    trace = traced(make)
    first, second = trace["linear_1"].ops
    assert first.param_addresses == second.param_addresses == ["fc.weight", "fc.bias"]
    assert first.parents == ["input_1", "clamp_1_1", "mul_1_3"]
    assert first.write_parents == ["clamp_1_1", "mul_1_3"]
    assert second.write_parents == ["clamp_1_1", "data_2_6"]
    assert trace["clamp_1"].param_addresses == ["fc.weight"]
    assert trace["clamp_1"].out.abs().max() <= 0.1
    assert tl.validate(*make()).problems == []


def test_an_embedding_that_renormalises_its_weight() -> None:
    def make() -> Any:
        return nn.Embedding(5, 4, max_norm=0.5), torch.tensor([[0, 1]])

    trace = traced(make)
    op = trace["embedding_1"]
    assert op.param_addresses == ["weight"]
    assert op.is_inplace
    assert op.out.norm(dim=-1).max() <= 0.5 + 1e-6


def test_a_parametrised_weight() -> None:
    def make() -> Any:
        return nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), x()

    trace = traced(make)
    assert sorted(trace.params.keys()) == [
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1",
    ]  # fmt: skip
    assert trace["output_1"].parents == [trace.compute_ops[-1].layer_label]
    assert trace.compute_ops[-1].type == "linear"


def test_setup_gives_equal_models() -> None:
    """The tables compare separate models: they have to be the same one."""
    one, other = setup(a_recursive_module), setup(a_recursive_module)
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)
    assert torch.equal(one.args[0], other.args[0])
