"""What is kept of a run, and where it stops: ``save=``, ``tl.keep``, ``lookback=``, ``halt=``, ``pluck``, ``sites``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tests.core.example_models import Everything, Plain
from torchlens_core import session as session_module
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
    where,
)  # fmt: skip
from torchlens_core.testing.toy_framework import Array, Module, relu, sort, split, tanh, watcher_here
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential
from torchlens_core.tracing import sites, trace


class TestSave:
    def test_everything_or_nothing(self, x: Array) -> None:
        made = trace(Plain(), x)
        assert all(op.has_saved_value for op in made)
        for nothing in (False, None, [], ()):
            assert len(trace(Plain(), x, save=nothing).values) == 0

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


class TestNoMatch:
    def test_is_a_warning_and_a_trace_without_values(self, x: Array) -> None:
        with pytest.warns(SelectorWarning, match=r"\[func\('exp'\)\] matched nothing.*tl.sites"):
            made = trace(Plain(), x, save=func("exp"))
        assert len(made.values) == 0
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
