"""Modules: the calls around Ops, what each call took and returned, and the tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Block, Everything, Plain
from torchlens_core.errors import LabelError
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import in_module, module
from torchlens_core.testing.toy_framework import Array, Module, identity, relu, split
from torchlens_core.testing.toy_layers import Dropout, Linear, ReLU, Sequential
from torchlens_core.tracing import trace


@pytest.fixture
def made(x: Array) -> Trace:
    return trace(Everything(), x)


class TestOps:
    def test_the_calls_around_an_op_outermost_first_without_the_model(self, made: Trace) -> None:
        op = made["mid.layers.0.act"]
        assert op.modules == ["mid:1", "mid.layers.0:1", "mid.layers.0.act:1"]
        assert op.module == "mid.layers.0.act:1"
        assert made["mul_3"].modules == []
        assert made["mul_3"].module is None
        assert [call.call_label for call in op.module_calls()] == op.modules
        assert op.module_record().address == "mid.layers.0.act"
        assert made["mul_3"].module_record().address == "self"

    def test_the_calls_that_returned_it_inner_before_outer(self, made: Trace) -> None:
        assert made["add_4"].output_of_module_calls == ["mid.layers.1:1", "mid:1"]
        assert made["add_6"].output_of_module_calls == ["self:1"]
        assert made["mul_3"].output_of_module_calls == []
        assert made["add_4"].is_module_output

    def test_the_calls_that_took_it(self, made: Trace) -> None:
        assert made["norm"].input_to_module_calls == ["mid:1", "mid.layers.0:1", "mid.layers.0.first:1"]
        assert made["input_1"].input_to_module_calls == ["norm:1"]


class TestTree:
    def test_the_model_is_first_then_modules_in_order_of_their_first_call(self, x: Array) -> None:
        class Model(Module):
            def __init__(self) -> None:
                super().__init__()
                self.late, self.early, self.never = Linear(4, 4), ReLU(), Dropout()

            def forward(self, x: Array) -> Any:
                return self.late(self.early(x))

        made = trace(Model(), x)
        assert made.modules.keys() == ["self", "early", "late", "never"]
        assert [record.address for record in made.modules.never_called] == ["never"]

    def test_facts_of_a_module(self, made: Trace) -> None:
        record = made.modules["mid.layers.0"]
        assert (record.name, record.cls, record.parent, record.depth) == ("0", "Block", "mid", 2)
        assert record.qualname.endswith("example_models.Block")
        assert record.training is True
        assert made.modules["self"].parent is None
        assert made.modules["self"].depth == 0
        assert made.modules["mid"].parent == "self"
        assert made.modules["mid.layers.0"].num_params == 2 * (16 + 4)
        assert made.modules["self"].num_params == made.num_params == 5 * (16 + 4)

    def test_children(self, made: Trace) -> None:
        assert made.modules["self"].children == ["norm", "mid", "cell", "act"]
        assert made.modules["mid"].children == ["mid.layers.0", "mid.layers.1"]
        assert made.modules["mid.layers.0"].children == [
            "mid.layers.0.first",
            "mid.layers.0.act",
            "mid.layers.0.second",
        ]

    def test_what_ran_inside(self, made: Trace) -> None:
        record = made.modules["mid.layers.0"]
        assert [op.label for op in record.ops] == ["linear_1_7:1", "relu_1_8:1", "linear_2_9:1", "add_3_10:1"]
        assert record.layers == ["linear_1_7", "relu_1_8", "linear_2_9", "add_3_10"]
        assert made.modules["mid"].num_ops == 8
        assert made.modules["self"].num_ops == made.num_ops
        assert made.modules["act"].layers == ["relu_3_19", "relu_4_28"]

    def test_what_went_in_and_came_out(self, made: Trace) -> None:
        record = made.modules["mid"]
        assert (record.input_ops, record.output_ops) == (["sub_1_6"], ["add_4_14"])
        assert record.output_shape == (2, 4)
        assert made.modules["self"].input_ops == ["input_1"]
        assert made.modules["cell"].output_ops == [f"linear_5_18:{number}" for number in (1, 2, 3)]

    def test_an_unknown_address_comes_with_the_nearest(self, made: Trace) -> None:
        with pytest.raises(LabelError, match=r"No module is called 'mid.layer.0'.*Did you mean 'mid.layers.0'"):
            made.modules["mid.layer.0"]
        with pytest.raises(LabelError, match=r"No module call is labelled 'act:9'.*Did you mean 'act:"):
            made.modules.call("act:9")


class TestCalls:
    def test_are_numbered(self, made: Trace) -> None:
        record = made.modules["act"]
        assert record.call_labels == ["act:1", "act:2", "act:3", "act:4"]
        assert [call.output_ops for call in record.calls] == [
            ["relu_3_19:1"], ["relu_3_19:2"], ["relu_3_19:3"], ["relu_4_28"]
        ]  # fmt: skip

    def test_know_their_place(self, made: Trace) -> None:
        call = made.modules.call("mid.layers.1.act:1")
        assert call.parent_call == "mid.layers.1:1"
        assert made.modules.call("mid:1").parent_call == "self:1"
        assert made.modules.call("self:1").parent_call is None
        assert [location.func_name for location in call.code_context] == ["forward", "forward", "forward"]
        assert call.code_context[-1].call_line == "return x + self.second(self.act(self.first(x)))"

    def test_of_a_shared_module_belong_to_its_first_name(self, x: Array) -> None:
        shared = Block()
        made = trace(Sequential(shared, ReLU(), shared), x)
        assert made.modules["layers.0"].call_labels == ["layers.0:1", "layers.0:2"]
        assert made.modules["layers.0"].aliases == ("layers.2",)
        assert made.modules["layers.2.act"].address == "layers.0.act"
        assert made.find_sites(in_module("layers.2")).labels() == made.find_sites(in_module("layers.0")).labels()
        assert made.find_sites(module("layers.2:2")).labels() == ["add_1_4:2"]

    def test_of_a_module_that_calls_itself(self, x: Array) -> None:
        class Twice(Module):
            def forward(self, x: Array, again: bool = True) -> Any:
                return self(relu(x), False) if again else relu(x)

        made = trace(Twice(), x)
        assert made.modules["self"].call_labels == ["self:1", "self:2"]
        assert [op.modules for op in made.compute_ops] == [[], ["self:2"]]


class TestReturned:
    def test_a_module_returns_what_its_hooks_made_of_it(self, x: Array) -> None:
        model = Plain()
        model.act.hooks.append(lambda module, output: output * 2.0)
        made = trace(model, x)
        assert made["act"].type == "mul"
        assert made["mul_1"].modules == ["act:1"]
        assert made.find_sites(module("act")).labels() == ["mul_1_3"]
        assert np.array_equal(made["act"].numpy(), np.maximum(model.fc(x).data, 0) * 2)

    def test_a_module_that_returns_its_input_has_an_identity(self, x: Array) -> None:
        drop = Dropout()
        drop.training = False
        made = trace(Sequential(drop, Linear(4, 4)), x)
        assert made["layers.0"].type == "dropout"

    def test_several_arrays(self, x: Array) -> None:
        class Halves(Module):
            def forward(self, x: Array) -> Any:
                left, right = split(x, 2)
                return {"left": relu(left), "both": (right, left)}

        made = trace(Sequential(Linear(4, 4), Halves()), x)
        assert made.modules["layers.1"].output_ops == ["relu_1_4", "split_2_3", "split_1_2"]
        assert made["split_1"].output_of_module_calls == ["layers.1:1", "self:1"]

    def test_a_call_that_raised_and_was_caught_is_a_call_without_outputs(self, x: Array) -> None:
        class Fails(Module):
            def forward(self, x: Array) -> Any:
                relu(x)
                raise ValueError

        class Model(Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Sequential(Fails())

            def forward(self, x: Array) -> Any:
                try:
                    return self.inner(x)
                except ValueError:
                    return x * 2

        made = trace(Model(), x)
        assert made.modules["inner"].call_labels == ["inner:1"]
        assert made.modules["inner"].output_ops == []
        assert made["relu_1"].modules == ["inner:1", "inner.layers.0:1"]
        assert made["mul_1"].modules == []


class TestFunctions:
    def test_a_closure_has_the_modules_it_closes_over(self, x: Array) -> None:
        def make() -> Any:
            encoder, decoder = Linear(4, 3), Linear(3, 4)

            def autoencode(x: Array) -> Any:
                return decoder(relu(encoder(x)))

            return autoencode

        made = trace(make(), x)
        assert made.model_name == "autoencode"
        assert made.modules.keys() == ["self", "encoder", "decoder"]
        assert made.params.keys() == ["decoder.weight", "decoder.bias", "encoder.weight", "encoder.bias"]
        assert [op.layer_label for op in made.compute_ops] == ["linear_1_1", "relu_1_2", "linear_2_3"]

    def test_a_bound_method_has_the_module_it_is_of(self, x: Array) -> None:
        model = Plain()
        made = trace(model.forward, x)
        assert made.model_name == "Plain"
        assert made.modules.keys() == ["self", "fc", "act", "head"]

    def test_an_object_with_modules_that_is_called(self, x: Array) -> None:
        class Pipeline:
            def __init__(self) -> None:
                self.net = Plain()

            def __call__(self, x: Array) -> Any:
                return self.net(x) * 2

        made = trace(Pipeline(), x)
        assert made.modules.keys() == ["self", "net", "net.fc", "net.act", "net.head"]
        assert made["net"].label == "linear_2_3:1"

    def test_a_plain_function_has_the_root_alone(self, x: Array) -> None:
        made = trace(identity, x)
        assert made.modules.keys() == ["self"]
        assert made.modules["self"].num_ops == 1
