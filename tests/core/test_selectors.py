"""Selectors: what they match, while the model runs and after it, and what ``save=`` and ``halt=`` do with them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Everything, Plain
from torchlens_core.errors import SelectorError, SelectorWarning, ValueNotSaved
from torchlens_core.plan import keep
from torchlens_core.plucking import pluck
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
from torchlens_core.testing.toy_framework import Array, Module, relu, sort, split, tanh
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential
from torchlens_core.trace import Trace
from torchlens_core.tracing import sites, trace


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


class TestSave:
    def test_everything_or_nothing(self, x: Array) -> None:
        made = trace(Plain(), x)
        assert all(op.has_saved_value for op in made)
        for nothing in (False, None, [], ()):
            assert saved(trace(Plain(), x, save=nothing)) == set()

    @pytest.mark.parametrize("text", ["relu_1_2", "relu_1", "relu_1_2:1", "act", "act:1"])
    def test_names(self, text: str, x: Array) -> None:
        assert [op.label for op in trace(Plain(), x, save=text).saved_ops] == ["relu_1_2:1"]

    def test_the_model_by_name(self, x: Array) -> None:
        made = trace(Plain(), x, save="self")
        assert [op.label for op in made.saved_ops] == ["linear_2_3:1", "output_1:1"]

    def test_an_address_goes_before_a_label(self, x: Array) -> None:
        model = Plain()
        model.relu_9 = model.fc
        assert [op.label for op in trace(model, x, save="relu_9").saved_ops] == ["linear_1_1:1"]

    def test_a_list_is_any_of_them(self, x: Array) -> None:
        made = trace(Plain(), x, save=["fc", func("relu"), keep("head", transform=lambda a: a.sum())])
        assert [op.label for op in made.saved_ops] == ["linear_1_1:1", "relu_1_2:1", "linear_2_3:1", "output_1:1"]
        assert made["head"].out.shape == ()

    def test_the_first_of_a_list_that_matches_decides(self, x: Array) -> None:
        made = trace(Plain(), x, save=[keep(func("relu"), transform=lambda a: a.sum()), func("relu")])
        assert made["relu_1"].out.shape == ()

    def test_a_value_that_was_not_saved_says_what_to_save(self, x: Array) -> None:
        made = trace(Plain(), x, save="fc")
        with pytest.raises(ValueNotSaved, match=r"save=tl.func\('relu'\) or save='relu_1_2'"):
            _ = made["act"].out

    def test_an_op_in_a_module_called_from_two_others(self, x: Array) -> None:
        class Half(Module):
            def __init__(self, shared: Module) -> None:
                super().__init__()
                self.shared = shared

            def forward(self, x: Array) -> Any:
                return self.shared(x)

        class Model(Module):
            def __init__(self) -> None:
                super().__init__()
                self.act = ReLU()
                self.left, self.right = Half(self.act), Half(self.act)

            def forward(self, x: Array) -> Any:
                return self.left(x) + self.right(x)

        made = trace(Model(), x, save=in_module("right"))
        assert [op.label for op in made.saved_ops] == ["relu_2_2:1"]

    def test_one_output_of_a_module_with_several(self, x: Array) -> None:
        class Sorts(Module):
            def forward(self, x: Array) -> Any:
                return sort(x)

        model = Sequential(Linear(4, 4), Sorts())
        made = trace(model, x, save=module("layers.1") & output("values"))
        assert [op.label for op in made.saved_ops] == ["sort_1_2:1", "output_1:1"]

    def test_a_module_under_another_name(self, x: Array) -> None:
        model = Plain()
        model.twin = model.act
        assert [op.label for op in trace(model, x, save=module("twin")).saved_ops] == ["relu_1_2:1"]
        assert [op.label for op in trace(model, x, save=in_module("twin")).saved_ops] == ["relu_1_2:1"]

    def test_a_returned_parameter_is_saved_with_everything(self, x: Array) -> None:
        model = Plain()
        made = trace(lambda x: (relu(model.fc(x)), model.fc.weight), x)
        assert np.array_equal(made["output_2"].numpy(), model.fc.weight.data)


class TestKeep:
    def test_a_transform_of_every_value(self, x: Array) -> None:
        made = trace(Plain(), x, save=keep(transform=lambda a: a.mean(axis=0)))
        assert made["relu_1"].out.shape == (4,)
        assert made["relu_1"].shape == (2, 4)

    def test_the_result_of_a_transform_is_no_op(self, x: Array) -> None:
        assert [op.type for op in trace(Plain(), x, save=keep(transform=tanh)).compute_ops] == [
            "linear",
            "relu",
            "linear",
        ]

    def test_a_transform_may_give_anything(self, x: Array) -> None:
        model = Plain()
        made = trace(model, x, save=keep(func("relu"), transform=lambda a: float(a.mean())))
        assert made["relu_1"].out == float(relu(model.fc(x)).mean())
        assert made.program.events == []

    def test_dtype_and_transform(self, x: Array) -> None:
        made = trace(Plain(), x, save=keep(func("relu"), transform=lambda a: a * 2.0, dtype="float16"))
        assert made["relu_1"].out.dtype == np.float16
        assert made["relu_1"].dtype == np.float64

    def test_what_is_kept_of_a_written_array_is_what_it_was(self, x: Array) -> None:
        def model(x: Array) -> Any:
            y = relu(x)
            y += 100.0
            return y

        made = trace(model, x, save=keep(func("relu"), dtype="float32"))
        assert made["relu_1"].out.data.max() == 1.0

    def test_activation_transform_and_its_exception_in_a_list(self, x: Array) -> None:
        made = trace(
            Plain(), x,
            save=[keep(func("relu"), transform=lambda a: a.sum(axis=0)), func("linear")],
            activation_transform=lambda a: a.sum(),
        )  # fmt: skip
        assert (made["relu_1"].out.shape, made["linear_1"].out.shape) == ((4,), ())

    @pytest.mark.parametrize("late", [label("relu_1_2"), followed_by(func("linear")), contains("relu")])
    def test_candidates_are_transformed_too(self, late: Selector, x: Array) -> None:
        made = trace(Plain(), x, save=keep(late & func("relu"), transform=lambda a: a.sum()))
        assert [op.label for op in made.saved_ops] == ["relu_1_2:1"]
        assert made["relu_1"].out.shape == ()


class TestLookback:
    def model(self, gap: int) -> Any:
        def run(x: Array) -> Any:
            first = tanh(x)
            for _ in range(gap):
                x = x * 2.0
            return relu(first) + x

        return run

    @pytest.mark.parametrize(("gap", "kept"), [(0, True), (2, True), (3, False), (30, False)])
    def test_a_candidate_waits_for_so_many_calls(self, gap: int, kept: bool, x: Array) -> None:
        selector = followed_by(func("relu")) & func("tanh")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SelectorWarning)
            made = trace(self.model(gap), x, save=[selector, followed_by(func("exp"))], lookback=3)
        assert made["tanh_1"].has_saved_value is kept

    def test_without_it_to_the_end(self, x: Array) -> None:
        made = trace(self.model(30), x, save=followed_by(func("relu")))
        assert [op.label for op in made.saved_ops] == ["tanh_1_1:1"]

    def test_no_more_than_so_many_are_held(self, x: Array) -> None:
        held: list[int] = []

        def model(x: Array) -> Any:
            for _ in range(50):
                x = x * 2.0
                tanh(x)
            return relu(x)

        from torchlens_core import session as session_module

        original = session_module.Session.keep

        def counting(self: Any, *args: Any) -> None:
            original(self, *args)
            held.append(len(self.values))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_module.Session, "keep", counting)
            trace(model, x, save=func("tanh") & followed_by(func("relu")) | func("relu"), lookback=4)
        assert max(held) <= 4

    def test_it_drops_no_candidate_that_waits_for_its_label(self, x: Array) -> None:
        made = trace(self.model(10), x, save=["tanh_1_1", followed_by(func("exp"))], lookback=2)
        assert [op.label for op in made.saved_ops] == ["tanh_1_1:1"]

    def test_the_policy_is_the_only_one(self, x: Array) -> None:
        with pytest.raises(ValueError, match=r"'detached_raw'.*got 'metadata_only'"):
            trace(Plain(), x, lookback_payload_policy="metadata_only")  # type: ignore[arg-type]


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


class TestNoMatch:
    def test_is_a_warning_and_a_trace_without_values(self, x: Array) -> None:
        with pytest.warns(SelectorWarning, match=r"\[func\('exp'\)\] matched nothing.*tl.sites"):
            made = trace(Plain(), x, save=func("exp"))
        assert saved(made) == set()
        assert made.num_ops == 3

    def test_of_candidates_too(self, x: Array) -> None:
        with pytest.warns(SelectorWarning, match="matched nothing"):
            trace(Plain(), x, save="relu_2_9")

    def test_of_halt(self, x: Array) -> None:
        with pytest.warns(SelectorWarning, match=r"halt=func\('exp'\) matched nothing: the model ran to its end"):
            made = trace(Plain(), x, halt=func("exp"))
        assert made.halted is None
        assert not made.is_partial


class TestHalt:
    @pytest.mark.parametrize(
        ("halt", "last"),
        [
            (func("relu"), "relu_1_8"),
            (func("relu").nth(3), "relu_3_19"),
            (module("mid.layers.0"), "add_3_10"),
            (in_module("cell"), "linear_5_18"),
            (module("cell:1"), "linear_5_18"),
            (preceded_by(func("split")), "sum_1_23"),
            (where(lambda op: op.shape == (2, 2)), "split_1_21"),
            (output(1), "split_2_22"),
        ],
    )
    def test_stops_just_after_the_first_match_which_is_included(self, halt: Selector, last: str, x: Array) -> None:
        made = trace(Everything(), x, halt=halt)
        assert made.halted is not None
        assert made.halted.layer_label == last
        assert made.is_partial
        assert made.output_layers == []
        assert made.halted.has_saved_value
        assert made.halted.func_call_id == len(made.program.rows) - 1

    def test_nothing_is_hidden(self, x: Array) -> None:
        made = trace(Everything(), x, halt=in_module("cell"))
        assert "zeros_1_16:1" in [op.label for op in made]

    def test_leaves_the_framework_unwatched_and_scopes_closed(self, x: Array) -> None:
        from torchlens_core.testing.toy_framework import watcher_here

        made = trace(Everything(), x, halt=func("tanh"))
        assert watcher_here() is None
        assert all(scope.last_row >= scope.first_row for scope in made.program.scopes)
        assert made.modules["self"].num_ops == made.num_ops

    def test_no_except_of_the_model_sees_it(self, x: Array) -> None:
        def model(x: Array) -> Any:
            try:
                return relu(x)
            except Exception:
                raise AssertionError from None

        assert trace(model, x, halt=func("relu")).halted is not None

    def test_saves_what_is_asked_for(self, x: Array) -> None:
        made = trace(Everything(), x, halt=module("mid"), save=func("linear"))
        assert {op.type for op in made.saved_ops} == {"linear"}
        assert len(made.saved_ops) == 4


class TestPluck:
    @pytest.mark.parametrize("layer", ["act", "relu_1_2", "relu_1", "act:1", func("relu"), module("act")])
    def test_gives_one_value(self, layer: Any, x: Array) -> None:
        model = Plain()
        assert np.array_equal(pluck(model, x, layer).data, np.maximum(model.fc(x).data, 0))

    def test_the_output_of_the_model(self, x: Array) -> None:
        model = Plain()
        for name in ("output_1", "self"):
            assert np.array_equal(pluck(model, x, name).data, model(x).data)

    def test_what_is_not_there(self, x: Array) -> None:
        with pytest.raises(SelectorError, match="no module 'nothing'"):
            pluck(Plain(), x, "nothing")
        with pytest.raises(SelectorError, match=r"should match 1 Op\(s\) and matched 0"):
            pluck(Plain(), x, func("exp"))


class TestSites:
    def test_lists_what_could_be_selected(self, x: Array) -> None:
        listed = sites(Plain(), x)
        assert listed.labels() == ["input_1", "linear_1_1", "relu_1_2", "linear_2_3", "output_1"]

    def test_keeps_no_value_and_leaves_the_model_as_it_was(self, x: Array) -> None:
        model = Everything()
        center = model.norm.center
        before = (center.data, model.norm.steps.data, x.data)
        listed = sites(model, x)
        assert not any(op.has_saved_value for op in listed)
        assert model.norm.center is center
        assert all(a is b for a, b in zip(before, (center.data, model.norm.steps.data, x.data), strict=True))


def test_two_splits_with_one_function_are_told_apart_by_nth(x: Array) -> None:
    def model(x: Array) -> Any:
        a, b = split(x, 2)
        c, d = split(a, 2)
        return (c + d).sum() + b.sum()

    made = trace(model, x, save=func("split").nth(4))
    assert [op.label for op in made.saved_ops] == ["split_4_4:1"]
