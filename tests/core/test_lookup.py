"""``trace[key]``: every way of naming something, and what is said of names that do not work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Everything, Plain
from torchlens_core.errors import AmbiguousLabel, LabelError, MultiPassError, SelectorError, ValueNotSaved
from torchlens_core.records.layer import Layer
from torchlens_core.records.module import Module as ModuleRecord
from torchlens_core.records.module import ModuleCall
from torchlens_core.records.op import Op
from torchlens_core.records.param import Buffer, Param
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func
from torchlens_core.testing.tape import Tape
from torchlens_core.testing.toy_framework import Array, Module, relu, split
from torchlens_core.testing.toy_layers import Linear, Sequential
from torchlens_core.tracing import trace


@pytest.fixture
def plain(x: Array) -> Trace:
    return trace(Plain(), x)


@pytest.fixture
def everything(x: Array) -> Trace:
    return trace(Everything(), x)


class TestPositions:
    def test_index_inputs_operations_and_outputs(self, plain: Trace) -> None:
        assert [plain[i].label for i in range(len(plain))] == [op.label for op in plain]
        assert [op.type for op in plain] == ["input", "linear", "relu", "linear", "output"]

    def test_count_from_the_end_too(self, plain: Trace) -> None:
        assert plain[-1].label == "output_1:1"
        assert plain[-len(plain)].label == "input_1:1"

    def test_leave_out_buffers_and_orphans(self, everything: Trace) -> None:
        assert len(everything) == len(list(everything)) == 34
        assert not any(op.is_buffer or op.is_orphan for op in everything)

    def test_slices_give_lists(self, plain: Trace) -> None:
        assert [op.type for op in plain[1:-1]] == ["linear", "relu", "linear"]
        assert plain[10:] == []

    @pytest.mark.parametrize("index", [5, -6, 100])
    def test_out_of_range_says_the_range(self, plain: Trace, index: int) -> None:
        with pytest.raises(LabelError, match=rf"5 Ops, 0 to 4 .*got {index}"):
            plain[index]


class TestNames:
    @pytest.mark.parametrize("name", ["relu_1_2:1", "relu_1_2", "relu_1", "relu_1:1", "act:1", "act"])
    def test_all_names_of_one_op(self, plain: Trace, name: str) -> None:
        assert plain[name].label == "relu_1_2:1"
        assert isinstance(plain[name], Op)

    def test_of_a_layer_of_several_passes_give_the_layer(self, everything: Trace) -> None:
        layer = everything["linear_5_18"]
        assert isinstance(layer, Layer)
        assert isinstance(everything["linear_5"], Layer)
        assert [op.label for op in layer.ops] == ["linear_5_18:1", "linear_5_18:2", "linear_5_18:3"]
        assert everything["linear_5_18:2"].label == everything["linear_5:2"].label == "linear_5_18:2"

    def test_of_a_module_called_once_give_what_it_returned(self, everything: Trace) -> None:
        assert everything["mid"].label == everything["mid.layers.1"].label == "add_4_14:1"
        assert everything["mid.layers.0.act:1"].label == "relu_1_8:1"

    def test_of_a_module_called_several_times_give_the_module(self, everything: Trace) -> None:
        assert isinstance(everything["act"], ModuleRecord)
        assert everything["act"].num_calls == 4
        assert everything["act:4"].label == "relu_4_28:1"

    def test_of_a_module_never_called_give_the_module(self, x: Array) -> None:
        model = Plain()
        model.unused = Linear(4, 4)
        found = trace(model, x)["unused"]
        assert isinstance(found, ModuleRecord)
        assert found.num_calls == 0

    def test_of_a_module_that_returned_several_arrays_give_the_module_or_call(self, x: Array) -> None:
        class Halves(Module):
            def forward(self, x: Array) -> Any:
                return split(x, 2)

        made = trace(Sequential(Linear(4, 4), Halves()), x)
        assert isinstance(made["layers.1"], ModuleRecord)
        assert isinstance(made["layers.1:1"], ModuleCall)

    def test_self_is_what_the_model_returned(self, plain: Trace) -> None:
        assert plain["self"].label == plain["self:1"].label == "linear_2_3:1"

    def test_of_parameters_and_buffers(self, everything: Trace) -> None:
        assert isinstance(everything["cell.weight"], Param)
        assert isinstance(everything["norm.center"], Buffer)
        assert everything["buffer_1"].address == "norm.center"

    def test_of_a_module_under_two_names(self, x: Array) -> None:
        model = Plain()
        model.twin = model.act
        made = trace(model, x)
        assert made["twin"] == made["act"]
        assert made.modules["twin"].address == "act"
        assert made.modules["act"].aliases == ("twin",)

    def test_of_a_parameter_under_two_names(self, x: Array) -> None:
        model = Plain()
        model.head.tied = model.fc.weight
        made = trace(model, x)
        assert made["head.tied"].address == "fc.weight"

    def test_work_in_any_case(self, plain: Trace) -> None:
        assert plain["ReLU_1"] == plain["RELU_1_2:1"] == plain["Act"] == plain["relu_1"]
        assert plain["FC.weight"].address == "fc.weight"

    def test_exact_goes_before_any_case(self, x: Array) -> None:
        model = Plain()
        model.ACT = Linear(4, 4)
        made = trace(model, x)
        assert made["act"].label == "relu_1_2:1"
        with pytest.raises(AmbiguousLabel, match="'Act' could be any of 2: 'act', 'ACT'"):
            made["Act"]

    def test_a_part_that_only_one_label_has_is_enough(self, plain: Trace) -> None:
        assert plain["relu"].label == "relu_1_2:1"
        assert plain["ar_2"].label == "linear_2_3:1"
        assert plain["PUT_1".replace("PUT", "outPUT")].label == "output_1:1"

    def test_a_label_goes_before_a_module_of_the_same_name(self, x: Array) -> None:
        model = Plain()
        model.relu_1 = model.head
        made = trace(model, x)
        assert made["relu_1"].type == "relu"
        assert made["Relu_1"].type == "relu"

    def test_selectors_give_their_one_site(self, plain: Trace) -> None:
        assert plain[func("relu")].label == "relu_1_2:1"
        with pytest.raises(SelectorError, match=r"should match 1 Op\(s\) and matched 2: linear_1_1, linear_2_3"):
            plain[func("linear")]
        with pytest.raises(SelectorError, match="matched 0: none"):
            plain[func("tanh")]


class TestErrors:
    def test_unknown_names_come_with_the_nearest(self, plain: Trace) -> None:
        with pytest.raises(LabelError, match=r"Nothing here is called 'relu_1_3'.*Did you mean 'relu_1_2'"):
            plain["relu_1_3"]
        with pytest.raises(LabelError, match=r"Did you mean 'head"):
            plain["haed"]

    def test_the_message_is_shown_as_it_is(self, plain: Trace) -> None:
        with pytest.raises(KeyError) as raised:
            plain["no such thing"]
        assert str(raised.value).startswith("Nothing here is called 'no such thing'. Names are labels")

    def test_a_part_that_several_labels_have_lists_them(self, plain: Trace) -> None:
        with pytest.raises(AmbiguousLabel, match=r"'linear' could be any of 2: 'linear_1_1', 'linear_2_3'\. Say which"):
            plain["linear"]

    def test_a_long_list_is_cut(self, tape: Tape) -> None:
        x = tape.input()
        for _ in range(20):
            x = tape.op("relu", x)
        tape.output(x)
        with pytest.raises(AmbiguousLabel, match=r"any of 20: ('relu_\d+_\d+', ){8}\.\.\. Say"):
            tape.trace()["relu"]

    @pytest.mark.parametrize("key", [None, 1.5, True, ("relu_1",), b"relu_1"])
    def test_other_types_are_refused(self, plain: Trace, key: Any) -> None:
        with pytest.raises(LabelError, match=r"takes an integer, a slice, a name or a selector; got"):
            plain[key]

    def test_the_empty_name_is_no_part_of_every_label(self, plain: Trace) -> None:
        with pytest.raises(LabelError, match="Nothing here is called ''"):
            plain[""]

    @pytest.mark.parametrize("name", ["out", "numpy", "pass_index"])
    def test_a_layer_of_several_passes_has_no_single_value(self, everything: Trace, name: str) -> None:
        with pytest.raises(MultiPassError, match=rf"relu_3_19 has 3 passes.*trace\['relu_3_19:1'\].{name}"):
            getattr(everything["relu_3"], name)

    def test_a_layer_says_what_is_the_same_in_all_its_passes(self, everything: Trace) -> None:
        layer = everything["relu_3"]
        assert (layer.label, layer.num_passes, layer.parents) == ("relu_3_19", 3, ["linear_5_18"])

    def test_a_layer_of_one_pass_answers_for_it(self, everything: Trace) -> None:
        layer = everything.layers["tanh_1_25"]
        assert isinstance(layer, Layer)
        assert layer.out.shape == (2, 2)

    @pytest.mark.parametrize("number", [0, 4, -4])
    def test_a_pass_that_is_not_there(self, everything: Trace, number: int) -> None:
        with pytest.raises(MultiPassError, match=f"has passes 1 to 3; got {number}"):
            everything["relu_3"][number]
        with pytest.raises(LabelError):
            everything[f"relu_3:{number}"]

    def test_a_value_that_was_not_saved(self, x: Array) -> None:
        made = trace(Plain(), x, save=func("linear"))
        with pytest.raises(ValueNotSaved, match=r"relu_1_2:1 was not saved.*save=tl.func\('relu'\)"):
            _ = made["relu_1"].out


def test_contains(plain: Trace, everything: Trace) -> None:
    assert "relu_1" in plain
    assert "act" in plain
    assert "nothing" not in plain
    assert "linear" not in plain  # could be either
    assert plain[0] in plain
    assert everything[0] not in plain
    assert 3 not in plain


def test_lookup_keys_are_all_that_finds_an_op(everything: Trace) -> None:
    for op in everything:
        keys = op.lookup_keys
        assert keys
        assert all(everything[key] == op for key in keys)


def test_every_name_finds_something(everything: Trace) -> None:
    for name in everything.lookup.names():
        assert everything[name] is not None


def test_find_sites_takes_names(x: Array) -> None:
    model = Plain()
    model.conv_1 = model.act  # an address that looks like a label
    made = trace(model, x)
    assert made.find_sites("conv_1").labels() == ["relu_1_2"]
    assert made.find_sites("relu_1").labels() == ["relu_1_2"]
    assert made.find_sites("head:1").labels() == ["linear_2_3"]


def test_values_are_found_through_any_name(plain: Trace, x: Array) -> None:
    model = Plain()
    hidden = relu(model.fc(x))
    assert np.array_equal(plain["act"].out.data, hidden.data)
    assert np.array_equal(plain["self"].numpy(), model.head(hidden).data)
