"""What each action does to a value, against numpy; what it refuses; how interventions meet in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torchlens_core.errors import InterventionError, SelectorError, ValueNotSaved
from torchlens_core.interventions.actions import (
    add,
    bwd_hook,
    clamp,
    grad_clip,
    grad_noise,
    grad_zero,
    mean_ablate,
    noise,
    project_off,
    project_onto,
    replace_with,
    resample_ablate,
    scale,
    splice_module,
    steer,
    swap_with,
    zero_ablate,
)
from torchlens_core.interventions.when import when
from torchlens_core.selectors import followed_by, func, label, module, output
from torchlens_core.testing.toy_framework import Array, Module, generator_state, rand, relu, sin, sort, tanh
from torchlens_core.testing.toy_layers import Linear, ReLU, Sequential
from torchlens_core.tracing import trace

VALUE = np.random.default_rng(0).uniform(-0.9, 0.9, size=(3, 2, 4))
DIRECTION = np.array([1.0, -2.0, 0.5, 0.0])
SAMPLES = np.random.default_rng(1).normal(size=(5, 2, 4))


def model(x: Array) -> Any:
    return tanh(sin(x))


def acted(action: Any, value: Any = VALUE, dtype: Any = None, **options: Any) -> Any:
    """What the action makes of the value of sin, which is ``value``."""
    made = trace(model, Array(np.arcsin(value), dtype), intervene=when(func("sin"), action), **options)
    return made["sin_1"].numpy()


ALONG = (VALUE * DIRECTION).sum(-1, keepdims=True) / (DIRECTION**2).sum() * DIRECTION

ACTIONS: dict[str, tuple[Callable[[], Any], Any]] = {
    "zero_ablate": (zero_ablate, np.zeros_like(VALUE)),
    "mean_ablate": (mean_ablate, np.full_like(VALUE, VALUE.mean())),
    "mean of the batch": (lambda: mean_ablate(over="batch"), np.broadcast_to(VALUE.mean(0), VALUE.shape)),
    "mean over axes": (
        lambda: mean_ablate(over=(0, 2)),
        np.broadcast_to(VALUE.mean((0, 2), keepdims=True), VALUE.shape),
    ),
    "mean over the last axis": (
        lambda: mean_ablate(over=-1),
        np.broadcast_to(VALUE.mean(-1, keepdims=True), VALUE.shape),
    ),
    "mean of others": (lambda: mean_ablate(SAMPLES), np.full_like(VALUE, SAMPLES.mean())),
    "mean of other examples": (
        lambda: mean_ablate(Array(SAMPLES), over="batch"),
        np.broadcast_to(SAMPLES.mean(0), VALUE.shape),
    ),
    "replace_with a number": (lambda: replace_with(7), np.full_like(VALUE, 7)),
    "replace_with -inf": (lambda: replace_with(float("-inf")), np.full_like(VALUE, -np.inf)),
    "replace_with an array": (lambda: replace_with(DIRECTION), np.broadcast_to(DIRECTION, VALUE.shape)),
    "replace_with a list": (lambda: replace_with([1, 2, 3, 4]), np.broadcast_to([1, 2, 3, 4], VALUE.shape)),
    "scale": (lambda: scale(-2), VALUE * -2),
    "scale by an array": (lambda: scale(Array(DIRECTION)), VALUE * DIRECTION),
    "add": (lambda: add(np.float64(0.5)), VALUE + 0.5),
    "add an array": (lambda: add(DIRECTION), VALUE + DIRECTION),
    "clamp": (lambda: clamp(-0.1, 0.2), VALUE.clip(-0.1, 0.2)),
    "clamp below": (lambda: clamp(min=0), VALUE.clip(0, None)),
    "clamp by arrays": (lambda: clamp(DIRECTION - 1, 0.5), np.clip(VALUE, DIRECTION - 1, 0.5)),
    "steer": (lambda: steer(DIRECTION), VALUE + DIRECTION),
    "steer further": (lambda: steer(DIRECTION, 3.0), VALUE + 3 * DIRECTION),
    "steer by coef": (lambda: steer(DIRECTION, coef=-1), VALUE - DIRECTION),
    "steer along axis 1": (lambda: steer([1.0, 2.0], feature_axis=1), VALUE + np.array([1.0, 2.0])[:, None]),
    "steer along the axis that fits": (lambda: steer([1.0, 2.0]), VALUE + np.array([1.0, 2.0])[:, None]),
    "steer everywhere": (lambda: steer(VALUE[:1]), VALUE + VALUE[:1]),
    "project_onto": (lambda: project_onto(DIRECTION), ALONG),
    "project_off": (lambda: project_off(DIRECTION), VALUE - ALONG),
    "swap_with an array": (lambda: swap_with(SAMPLES[:3]), SAMPLES[:3]),
    "splice_module": (lambda: splice_module(ReLU()), VALUE.clip(0)),
    "splice_module by name": (
        lambda: splice_module(lambda *, h: {"x": h, "y": relu(h)}, input="h", output="y"),
        VALUE.clip(0),
    ),
    "splice_module by position": (lambda: splice_module(sort, output=0), np.sort(VALUE)),
    "splice_module by functions": (
        lambda: splice_module(sort, input=lambda v: v * 2, output=lambda out: out[0]),
        np.sort(VALUE * 2),
    ),
    "a function": (lambda: lambda value: value * 2, VALUE * 2),
    "a function of the site": (lambda: lambda value, op: value * len(op.func_name), VALUE * 3),
    "a hook": (lambda: lambda value, *, hook: value * len(hook.shape), VALUE * 3),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_does_what_numpy_does(name: str) -> None:
    make, expected = ACTIONS[name]
    np.testing.assert_allclose(acted(make()), expected, atol=1e-12)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_keeps_the_element_type(name: str) -> None:
    make, expected = ACTIONS[name]
    made = acted(make(), dtype=np.float32)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_what_runs_afterwards_takes_the_changed_value(x: Array) -> None:
    made = trace(model, x, intervene=when(func("sin"), scale(0.5)))
    np.testing.assert_allclose(made["tanh_1"].numpy(), np.tanh(np.sin(x.data) / 2))
    assert made["sin_1"].is_changed
    assert made["sin_1"].intervention_replaced
    assert made["sin_1"].interventions == ["when(func('sin'), scale(factor=0.5))"]
    assert not made["tanh_1"].is_changed


# -- draws -------------------------------------------------------------------------------------------------------------


def thrice(x: Array) -> Any:
    for _ in range(3):
        x = sin(x)
    return x


def draws(action: Any, selector: Any = None) -> list[Any]:
    """What was added to the value at each sin."""
    made = trace(thrice, Array(VALUE), intervene=when(selector or func("sin"), action, keep_clean=True))
    return [(op.out - op.clean_out).data for op in made.find_sites(func("sin"))]


def test_noise_has_its_standard_deviation() -> None:
    made = trace(sin, Array(np.zeros((100, 100))), intervene=when(func("sin"), noise(0.3, seed=1)))
    assert abs(made["sin_1"].numpy().std() - 0.3) < 0.01


def test_draws_repeat_with_the_action_and_differ_from_op_to_op() -> None:
    action = noise(1.0)
    first, again = draws(action), draws(action)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert len({array.tobytes() for array in first}) == 3
    assert draws(noise(1.0))[0].tobytes() != first[0].tobytes()
    assert draws(noise(1.0, seed=4))[0].tobytes() == draws(noise(1.0, seed=4))[0].tobytes()


def test_one_action_at_two_places_draws_twice() -> None:
    action = noise(1.0, seed=0)
    x = Array(np.zeros(5))
    made = trace(model, x, intervene=[when(func("sin"), action), when(func("tanh").at[:], action, keep_clean=True)])
    added = (made["tanh_1"].out - made["tanh_1"].clean_out).data
    assert added.tobytes() != made["sin_1"].numpy().tobytes()


def test_draws_leave_the_generator_of_the_framework_alone(x: Array) -> None:
    def noisy(x: Array) -> Any:
        return sin(x) + rand((2, 4))

    before = generator_state()
    plain = noisy(x)
    generator_state(before)
    made = trace(noisy, x, intervene=when(func("sin"), noise(1.0, seed=3)))
    np.testing.assert_allclose(made["rand_1"].numpy(), plain.data - np.sin(x.data))


def test_resampled_examples_are_those_of_others() -> None:
    value = np.arange(12.0).reshape(6, 2) / 20
    for seed in range(20):
        rows = acted(resample_ablate(seed=seed), value)
        taken = [int(np.flatnonzero(np.isclose(value, row).all(1))[0]) for row in rows]
        assert sorted(taken) == list(range(6))
        assert all(own != other for own, other in enumerate(taken))


@pytest.mark.parametrize("name", ["source", "from_"])
def test_resampled_examples_of_a_source(name: str) -> None:
    rows = acted(resample_ablate(seed=1, **{name: SAMPLES}))
    assert all(any(np.array_equal(row, sample) for sample in SAMPLES) for row in rows)


# -- values of other sites ---------------------------------------------------------------------------------------------


def test_swap_with_a_site_of_the_same_run(x: Array) -> None:
    made = trace(model, x, intervene=when(func("tanh"), swap_with(func("sin"))))
    np.testing.assert_array_equal(made["tanh_1"].numpy(), made["sin_1"].numpy())
    assert not made["sin_1"].is_changed
    assert not made["sin_1"].interventions


def test_what_is_swapped_in_is_the_latest_value_as_interventions_left_it(x: Array) -> None:
    earlier = func("sin").nth(1) | func("sin").nth(2)
    whens = [when(func("sin").nth(2), add(5.0)), when(func("sin").nth(3), swap_with(earlier))]
    made = trace(thrice, x, intervene=whens)
    np.testing.assert_allclose(made["sin_1:3"].numpy(), np.sin(np.sin(x.data)) + 5)


def test_swap_with_what_a_module_returned(x: Array) -> None:
    net = Sequential(Linear(4, 4, seed=1), ReLU(), Linear(4, 4, seed=2))
    made = trace(net, x, intervene=when(module("layers.2"), swap_with(module("layers.0"))))
    np.testing.assert_array_equal(made["linear_2"].numpy(), made["linear_1"].numpy())
    assert not made["linear_1"].is_changed


def test_swap_with_an_op_of_another_run(x: Array) -> None:
    other = trace(model, Array(x.data * 2))
    made = trace(model, x, intervene=when(func("sin"), swap_with(other["sin_1"])))
    np.testing.assert_array_equal(made["sin_1"].numpy(), np.sin(x.data * 2))


# -- several of them ---------------------------------------------------------------------------------------------------


def test_interventions_act_in_order(x: Array) -> None:
    made = trace(model, x, intervene=[when(func("sin"), add(1.0)), when(func("sin"), scale(2.0))])
    np.testing.assert_allclose(made["sin_1"].numpy(), (np.sin(x.data) + 1) * 2)
    assert [text.split(", ")[1] for text in made["sin_1"].interventions] == ["add(delta=1.0))", "scale(factor=2.0))"]


def test_the_clean_value_is_that_before_the_first(x: Array) -> None:
    whens = [when(func("sin"), add(1.0)), when(func("sin"), scale(2.0), keep_clean=True)]
    made = trace(model, x, intervene=whens)
    np.testing.assert_array_equal(made["sin_1"].clean_out.data, np.sin(x.data))
    with pytest.raises(ValueNotSaved, match="no intervention changed it"):
        _ = made["tanh_1"].clean_out
    with pytest.raises(ValueNotSaved, match="keep_clean=True"):
        _ = trace(model, x, intervene=whens[0])["sin_1"].clean_out


def test_a_module_and_an_op_inside_it_that_it_returns(x: Array) -> None:
    net = Sequential(Linear(4, 4), ReLU())
    whens = [when(func("relu"), add(1.0), keep_clean=True), when(module("layers.1"), scale(2.0), keep_clean=True)]
    made = trace(net, x, intervene=whens)
    clean = relu(net(x)).data
    np.testing.assert_allclose(made["relu_1"].numpy(), (clean + 1) * 2)
    np.testing.assert_allclose(made["relu_1"].clean_out.data, clean)


def test_nested_modules_that_return_one_array_change_it_once_each(x: Array) -> None:
    net = Sequential(Sequential(Linear(4, 4), ReLU()))
    made = trace(net, x, intervene=when(module("layers.0.layers.1") | module("layers.0"), add(1.0)))
    np.testing.assert_allclose(made["output_1"].numpy(), net(x).data + 1)
    whens = [
        when(module("layers.0.layers.1"), add(1.0)),
        when(module("layers.0"), scale(2.0)),
        when(module("self"), add(5.0)),
    ]
    np.testing.assert_allclose(trace(net, x, intervene=whens)["output_1"].numpy(), (net(x).data + 1) * 2 + 5)


def test_a_shared_module_is_changed_at_each_call_or_at_one(x: Array) -> None:
    fc = Linear(4, 4)
    net = Sequential(fc, ReLU(), fc)
    each = trace(net, x, intervene=when(module("layers.0"), scale(0.0)))
    assert [op.is_changed for op in each.find_sites(func("linear"))] == [True, True]
    second = trace(net, x, intervene=when(module("layers.0:2"), scale(0.0)))
    assert [op.is_changed for op in second.find_sites(func("linear"))] == [False, True]
    assert not second["output_1"].numpy().any()


def test_one_of_several_outputs(x: Array) -> None:
    made = trace(lambda x: sort(x)[0], x, intervene=when(func("sort") & output("values"), add(1.0)))
    np.testing.assert_array_equal(made["output_1"].numpy(), np.sort(x.data) + 1)
    assert [op.is_changed for op in made.find_sites(func("sort"))] == [True, False]


def test_an_array_is_returned_twice(x: Array) -> None:
    class Pair(Module):
        def forward(self, x: Array) -> Any:
            x = sin(x)
            return x, x

    class Sum(Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Array) -> Any:
            a, b = self.pair(x)
            return a + b

    made = trace(Sum(), x, intervene=when(module("pair"), add(1.0)))
    np.testing.assert_allclose(made["output_1"].numpy(), 2 * (np.sin(x.data) + 1))


# -- what is refused ---------------------------------------------------------------------------------------------------

MAKING: dict[str, tuple[Callable[[], Any], str]] = {
    "a factor in words": (lambda: scale("half"), "factor is a number or an array; got 'half'"),
    "a factor that is NaN": (lambda: scale(float("nan")), "factor is NaN"),
    "a list of texts": (lambda: add(["a"]), "delta is a number, or an array or list of numbers"),
    "a flag for a number": (lambda: noise(True), "std is a number; got True"),
    "negative noise": (lambda: noise(-0.1), "std is 0 or more; got -0.1"),
    "a seed in words": (lambda: noise(1.0, seed="a"), "seed is a whole number"),
    "a negative seed": (lambda: resample_ablate(seed=-1), "seed is a whole number from 0"),
    "an empty range": (lambda: clamp(), "A range needs an end"),
    "a range upside down": (lambda: clamp(2, 1), "min is 2, above max, which is 1"),
    "no direction": (lambda: steer([0.0, 0.0]), "zero everywhere"),
    "a number for a direction": (lambda: project_onto(3), "direction is a vector"),
    "a matrix to project on": (lambda: project_onto(np.eye(2)), "of shape (2, 2)"),
    "two magnitudes": (lambda: steer([1.0], 2.0, coef=3.0), "mean the same"),
    "an axis in words": (lambda: steer([1.0], feature_axis="last"), "feature_axis is the number of an axis"),
    "a mean over what": (lambda: mean_ablate(over="all"), "over is 'self', 'batch', an axis"),
    "a mean of a number": (lambda: mean_ablate(3), "source is an array"),
    "two sources": (lambda: resample_ablate(SAMPLES, SAMPLES), "mean the same"),
    "a label to swap with": (lambda: swap_with("relu_1_2"), "trace['relu_1_2']"),
    "a number to swap with": (lambda: swap_with(3), "an Op, an array or a selector"),
    "a label as a value": (lambda: replace_with("relu_1"), "take trace['relu_1'].out"),
    "no module": (lambda: splice_module(3), "takes a module"),
    "an input of what": (lambda: splice_module(relu, input=3), "name of an argument"),
    "clipping below zero": (lambda: grad_clip(-1.0), "max_norm is 0 or more"),
    "a norm of type 0": (lambda: grad_clip(1.0, 0), "norm_type is above 0"),
    "gradient noise": (lambda: grad_noise(-1.0), "std is 0 or more"),
    "no hook": (lambda: bwd_hook(3), "function of the value"),
    "no action": (lambda: when(func("sin"), 3), "replace_with"),
    "no target": (lambda: when(3, scale(1)), "acts on a selector"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MAKING)
def test_settings_that_make_no_sense_are_refused_when_an_action_is_made(name: str) -> None:
    make, message = MAKING[name]
    with pytest.raises((InterventionError, SelectorError)) as raised:
        make()
    assert message in str(raised.value)


ACTING: dict[str, tuple[Any, Any, str]] = {
    "another length": (VALUE, steer([1.0, 2.0, 3.0]), "the direction has 3 elements, and the last axis of the array 4"),
    "another length along an axis": (
        VALUE,
        project_off([1.0, 2.0], feature_axis=2),
        "the direction has 2 elements, and axis 2 of the array 4",
    ),
    "an axis that there is not": (VALUE, steer([1.0], feature_axis=5), "feature_axis is 5"),
    "two axes that fit": (np.zeros((2, 3, 5, 3)), steer([1.0, 2.0, 3.0]), "say feature_axis=1 or feature_axis=-1"),
    "a shape that does not broadcast": (VALUE, add(np.zeros((7, 4))), "shape (7, 4), which does not broadcast"),
    "a shape that is larger": (VALUE, add(np.zeros((9, 3, 2, 4))), "shape (9, 3, 2, 4), which does not broadcast"),
    "one example": (VALUE[:1], resample_ablate(), "no other example"),
    "other examples": (VALUE, resample_ablate(np.zeros((5, 3))), "examples of shape (3,)"),
    "another shape to swap with": (VALUE, swap_with(SAMPLES), "the other value has shape (5, 2, 4)"),
    "an axis to average that there is not": (VALUE, mean_ablate(over=7), "over=(7,)"),
    "another shape": (VALUE, lambda v: v[0], "changes shape (3, 2, 4) of float64 to shape (2, 4)"),
    "another type": (VALUE, lambda v: Array(v.data, np.float32), "to shape (3, 2, 4) of float32"),
    "nothing": (VALUE, lambda v: None, "returned None"),
    "a number": (VALUE, lambda v: 3, "returned int, not an array"),
    "a site that has not run": (VALUE, swap_with(func("tanh")), "no operation that func('tanh') selects has run yet"),
    "no gradients": (VALUE, grad_zero(), "never acted"),
}


@pytest.mark.parametrize("name", ACTING)
def test_what_does_not_fit_the_array_is_refused_with_the_trace_so_far(name: str) -> None:
    value, action, message = ACTING[name]
    with pytest.raises(InterventionError) as raised:
        trace(model, Array(value), intervene=when(func("sin"), action))
    assert message in str(raised.value)
    assert "func('sin')" in str(raised.value) or "sin" in str(raised.value)
    assert raised.value.partial_trace["sin_1"].shape == value.shape


WHOLE: dict[str, tuple[Any, str]] = {
    "noise": (noise(1.0), "acts on floating-point numbers, and this array holds int64"),
    "steer": (steer([1.0, 2.0]), "holds int64"),
    "mean_ablate": (mean_ablate(), "holds int64"),
    "scale": (scale(0.5), "0.5 does not fit an array of int64"),
    "add": (add(np.array([0.5])), "an array with fractions does not fit"),
    "replace_with": (replace_with(float("nan")), "does not fit an array of int64"),
}


def order(x: Array) -> Any:
    return sort(x)[1]


@pytest.mark.parametrize("name", WHOLE)
def test_actions_that_make_no_sense_of_whole_numbers(name: str) -> None:
    action, message = WHOLE[name]
    with pytest.raises(InterventionError) as raised:
        trace(order, Array([2.0, 1.0]), intervene=when(func("sort", output=1), action))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("action", "expected"),
    [(scale(2), [2, 0]), (scale(2.0), [2, 0]), (add(-1), [0, -1]), (zero_ablate(), [0, 0]), (clamp(max=0), [0, 0]),
     (replace_with([5, 6]), [5, 6]), (resample_ablate(seed=0), [0, 1])],
)  # fmt: skip
def test_actions_that_make_sense_of_whole_numbers(action: Any, expected: list[int]) -> None:
    made = trace(order, Array([2.0, 1.0]), intervene=when(func("sort", output=1), action))
    assert made["output_1"].numpy().tolist() == expected
    assert made["output_1"].numpy().dtype == np.int64


@pytest.mark.parametrize(
    ("target", "hint"),
    [(label("relu_1_2"), "nth"), ("relu_1_2:3", "tl.func('relu').nth(3)"), (followed_by(func("sin")), "tl.func(name)")],
)
def test_what_is_known_after_the_run_is_no_target(target: Any, hint: str) -> None:
    with pytest.raises(SelectorError) as raised:
        when(target, zero_ablate())
    assert hint in str(raised.value)
    with pytest.raises(SelectorError):
        when(func("sin"), swap_with(label("relu_1_2")))


def test_a_site_that_never_runs(x: Array) -> None:
    with pytest.raises(InterventionError, match="never acted") as raised:
        trace(model, x, intervene=when(func("relu"), zero_ablate()))
    assert raised.value.partial_trace["tanh_1"].has_saved_value


def test_what_an_action_raises_is_raised_as_it_is(x: Array) -> None:
    def fails(value: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as raised:
        trace(model, x, intervene=when(func("sin"), fails))
    assert "sin_1" in str(raised.value.partial_trace["sin_1"].label)  # type: ignore[attr-defined]
