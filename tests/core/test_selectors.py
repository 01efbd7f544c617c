"""Selectors: what they match, while the model runs and after it, and what ``save=`` and ``halt=`` do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Everything, Plain
from torchlens_core.errors import SelectorError
from torchlens_core.plan import keep
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import (
    Selector,
    contains,
    followed_by,
    func,
    in_module,
    label,
    module,
    output,
    preceded_by,
    regex,
    where,
)  # fmt: skip
from torchlens_core.testing.toy_framework import Array
from torchlens_core.tracing import trace


@pytest.fixture
def everything(x: Array) -> Trace:
    return trace(Everything(), x)


def saved(made: Trace) -> set[int]:
    """Value ids of what a trace kept."""
    return set(made.values)


def found(made: Trace, selector: Selector | str) -> set[int]:
    return {made.graph.vids[op.raw_index] for op in made.find_sites(selector)}


EACH: dict[str, tuple[Selector, list[str]]] = {
    "func by type": (func("linear"), ["linear_1_7", "linear_2_9", "linear_3_11", "linear_4_13",
                                      "linear_5_18:1", "linear_5_18:2", "linear_5_18:3"]),
    "func by name": (func("add_"), ["add_1_4", "add_2_5", "add_3_10", "add_4_14", "add_5_20", "add_6_29"]),
    "func, one output": (func("split", output=1), ["split_2_22"]),
    "func of inputs": (func("input"), ["input_1"]),
    "func of outputs": (func("output"), ["output_1", "output_2"]),
    "func of buffers": (func("buffer"), ["buffer_1", "buffer_2", "buffer_3", "buffer_4"]),
    "output by position": (output(0), ["split_1_21", "sort_1_26"]),
    "output by name": (output("indices"), ["sort_2_27"]),
    "in_module": (in_module("mid.layers.1"), ["linear_3_11", "relu_2_12", "linear_4_13", "add_4_14"]),
    "in_module, one call": (in_module("act:4"), ["relu_4_28"]),
    "in_module, shared": (in_module("act"), ["relu_3_19:1", "relu_3_19:2", "relu_3_19:3", "relu_4_28"]),
    "module": (module("mid"), ["add_4_14"]),
    "module, nested": (module("mid.layers.0.act"), ["relu_1_8"]),
    "module, one call": (module("act:2"), ["relu_3_19:2"]),
    "module, the model": (module("self"), ["sort_2_27", "add_6_29"]),
    "label of a layer": (label("relu_3_19"), ["relu_3_19:1", "relu_3_19:2", "relu_3_19:3"]),
    "label of a pass": (label("relu_3:2"), ["relu_3_19:2"]),
    "label of an output": (label("output_2"), ["output_2"]),
    "label of a buffer": (label("buffer_2"), ["buffer_2"]),
    "contains": (contains("TANH"), ["tanh_1_25"]),
    "regex": (regex(r"^(gt|sum)_"), ["sum_1_23", "gt_1_24"]),
    "where, a value": (where(lambda op: op.type == "tanh" and op.out.shape == (2, 2)), ["tanh_1_25"]),
    "where, a shape": (where(lambda op: op.shape == ()), ["buffer_3", "add_2_5", "buffer_4", "sum_1_23", "gt_1_24"]),
    "where, a label": (where(lambda op: op.layer_label == "mul_3_15"), ["mul_3_15"]),
    "where, modules": (where(lambda op: op.modules == ["cell:2"]), ["linear_5_18:2"]),
    "where, the future": (where(lambda op: op.num_passes == 3 and op.type == "relu"),
                          ["relu_3_19:1", "relu_3_19:2", "relu_3_19:3"]),
    "where, its module": (where(lambda op: "mid:1" in op.output_of_module_calls), ["add_4_14"]),
    "followed_by": (followed_by(func("tanh")), ["split_1_21"]),
    "preceded_by": (preceded_by(func("split")), ["sum_1_23", "tanh_1_25", "sort_1_26", "sort_2_27"]),
    "preceded_by a buffer": (preceded_by(func("buffer")), ["mul_1_1", "add_2_5", "sub_1_6"]),
    "preceded_by, not a parameter": (preceded_by(~func("relu")) & func("linear"),
                                     ["linear_1_7", "linear_3_11", "linear_5_18:1"]),
    "outputs preceded_by": (preceded_by(func("sort")) & func("output"), ["output_2"]),
    "nth": (func("relu").nth(4), ["relu_3_19:2"]),
    "nth, with another": (func("relu").nth(6) & in_module("act"), ["relu_4_28"]),
    "and": (func("relu") & in_module("mid"), ["relu_1_8", "relu_2_12"]),
    "or": (func("tanh") | module("cell:1"), ["linear_5_18:1", "tanh_1_25"]),
    "not": (in_module("mid") & ~func("linear"), ["relu_1_8", "add_3_10", "relu_2_12", "add_4_14"]),
    "not module": (func("linear") & in_module("mid") & ~module("mid.layers.0.first"),
                   ["linear_2_9", "linear_3_11", "linear_4_13"]),
    "module and output": (module("self") & output(1), ["sort_2_27"]),
    "followed_by and func": (followed_by(func("linear")) & func("add"), ["add_3_10"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EACH)
class TestEach:
    def test_after_the_run(self, name: str, everything: Trace) -> None:
        selector, expected = EACH[name]
        assert everything.find_sites(selector).labels() == expected

    def test_as_the_model_runs(self, name: str, everything: Trace, x: Array) -> None:
        selector, _ = EACH[name]
        made = trace(Everything(), x, save=selector)
        assert saved(made) == found(everything, selector)
        for vid in saved(made):
            assert np.array_equal(made.values.numpy(vid), everything.values.numpy(vid))


class TestAlgebra:
    def test_repr_says_how_it_is_made(self) -> None:
        assert (
            repr(func("relu") & ~in_module("a") | label("relu_1"))
            == "((func('relu') & ~in_module('a')) | label('relu_1'))"
        )
        assert repr(func("topk", output=1).nth(2)) == "func('topk', output=1).nth(2)"
        assert repr(preceded_by(module("a")) | followed_by(output("values"))) == (
            "(preceded_by(module('a')) | followed_by(output('values')))"
        )
        assert repr(contains("a") & regex("b") & where(len, "long")) == "((contains('a') & regex('b')) & where('long'))"

    def test_equal_selectors_are_equal(self) -> None:
        assert func("relu") & module("a") == func("relu") & module("a")
        assert func("relu") & module("a") != func("relu") | module("a")
        assert len({func("relu"), func("relu"), func("relu").nth(1)}) == 2

    def test_is_neither_true_nor_false(self) -> None:
        with pytest.raises(SelectorError, match=r"combine selectors with & \| ~, not with and/or/not"):
            bool(func("relu"))

    @pytest.mark.parametrize("other", [True, "relu", len, None])
    def test_combines_with_selectors_only(self, other: Any) -> None:
        with pytest.raises(
            SelectorError, match=r"Selectors combine with selectors; got .* Wrap a function in tl.where"
        ):
            func("relu") & other
        with pytest.raises(SelectorError):
            func("relu") | other

    @pytest.mark.parametrize("number", [0, -1])
    def test_nth_counts_from_one(self, number: int) -> None:
        with pytest.raises(SelectorError, match=rf"nth\(\) counts from 1; got {number}"):
            func("relu").nth(number)

    @pytest.mark.parametrize("late", [label("relu_1"), followed_by(func("relu")), module("act"), contains("relu")])
    def test_nth_cannot_count_what_is_known_later(self, late: Selector) -> None:
        with pytest.raises(SelectorError, match="is answered too late to be counted"):
            late.nth(1)

    def test_nth_counts_all_matches_whatever_it_is_combined_with(self, everything: Trace, x: Array) -> None:
        second, inside = func("relu").nth(3), in_module("act")
        for selector in (second & inside, inside & second, ~(~inside | ~second)):
            assert everything.find_sites(selector).labels() == ["relu_3_19:1"]
            assert trace(Everything(), x, save=selector).saved_ops[0].label == "relu_3_19:1"

    def test_nth_of_what_only_a_finished_run_knows(self, everything: Trace, x: Array) -> None:
        selector = where(lambda op: op.num_passes > 1).nth(3)
        assert everything.find_sites(selector).labels() == ["linear_5_18:2"]
        assert saved(trace(Everything(), x, save=selector)) == found(everything, selector)

    def test_a_regular_expression_has_to_be_one(self) -> None:
        with pytest.raises(SelectorError, match=r"'\(' is no regular expression"):
            regex("(")


class TestSelection:
    def test_is_a_value(self, everything: Trace) -> None:
        selection = everything.find_sites(func("tanh") | func("sum"))
        assert len(selection) == 2
        assert selection.labels() == ["sum_1_23", "tanh_1_25"]
        assert selection.first() == selection[0]
        assert selection[0] in selection
        assert everything["mul_3"] not in selection
        assert func("tanh").count(everything) == len(func("tanh").sites(everything)) == 1
        assert selection.where(lambda op: op.shape == ()).one().type == "sum"

    def test_asserts(self, everything: Trace) -> None:
        assert everything.find_sites(func("tanh")).assert_some().assert_count(1).one().type == "tanh"
        with pytest.raises(SelectorError, match=r"func\('exp'\) matched nothing"):
            everything.find_sites(func("exp")).assert_some()
        with pytest.raises(SelectorError, match=r"should match 2 Op\(s\) and matched 1: tanh_1_25"):
            everything.find_sites(func("tanh")).assert_count(2)

    def test_calling_a_selector_asks_it_of_one_op(self, everything: Trace) -> None:
        assert func("tanh")(everything["tanh_1"])
        assert not func("tanh").nth(2)(everything["tanh_1"])


class TestErrorsBeforeTheRun:
    @pytest.mark.parametrize(
        ("save", "message"),
        [
            (module("hed"), r"The model has no module 'hed'. Did you mean 'head'"),
            (in_module("layers.0:1"), r"The model has no module 'layers.0:1'"),
            ("hed", r"The model has no module 'hed'. Did you mean 'head'"),
            (func("rellu"), r"No function is called 'rellu' here. Did you mean 'relu'"),
            ("rellu_1_2", r"No function is of type 'rellu'.*Did you mean 'relu'"),
            (label("a b"), r"'a b' is no label: labels look like 'relu_1_2'"),
            (func("relu") & ~module("nothing"), r"no module 'nothing'"),
            (func("nothing").nth(2), r"No function is called 'nothing'"),
            (followed_by(module("nothing")), r"no module 'nothing'"),
            (preceded_by(func("nothing")) | func("relu"), r"No function is called 'nothing'"),
            (keep(module("nothing")), r"no module 'nothing'"),
            (keep("nothing"), r"no module 'nothing'"),
            (len, r"is a plain function: wrap it, save=tl.where"),
            (3, r"save= takes True, False, a selector, .* got 3"),
            ([func("relu"), 3], r"save= takes .* got 3"),
        ],
    )
    def test_save(self, save: Any, message: str, x: Array) -> None:
        class Model(Plain):
            def forward(self, x: Array) -> Any:
                raise AssertionError("the model must not run")

        with pytest.raises(SelectorError, match=message):
            trace(Model(), x, save=save)

    @pytest.mark.parametrize("halt", ["relu_1", label("relu_1"), followed_by(func("relu")), contains("x")])
    def test_halt_by_what_is_known_later_names_what_to_use(self, halt: Any, x: Array) -> None:
        with pytest.raises(SelectorError, match=r"known only after the run.*tl.module\(address\).*tl.func\(name\).nth"):
            trace(Plain(), x, halt=halt)

    def test_halt_takes_selectors(self, x: Array) -> None:
        with pytest.raises(SelectorError, match=r"halt= takes a selector, .*got <built-in function len>"):
            trace(Plain(), x, halt=len)  # type: ignore[arg-type]
        with pytest.raises(SelectorError, match="no module 'nothing'"):
            trace(Plain(), x, halt=module("nothing"))
