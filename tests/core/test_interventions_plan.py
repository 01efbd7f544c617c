"""Plans of interventions: how they print and add up, and JSON that is written and read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from torchlens_core.errors import InterventionError, PlanError
from torchlens_core.facets.targets import facet, head
from torchlens_core.interventions import actions
from torchlens_core.interventions.action import Action
from torchlens_core.interventions.actions import (
    add,
    bwd_hook,
    clamp,
    grad_clamp,
    grad_clip,
    grad_noise,
    grad_scale,
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
from torchlens_core.interventions.encoding import MAX_ARRAY_BYTES
from torchlens_core.interventions.plan import InterventionPlan, load_plan
from torchlens_core.interventions.when import When, when
from torchlens_core.selectors import func, in_module, module, output, preceded_by, where
from torchlens_core.testing.toy_framework import Array, sin, tanh
from torchlens_core.testing.toy_layers import ReLU
from torchlens_core.tracing import trace

RELU = func("relu")
SELECTORS = [
    RELU,
    func("topk", output=1),
    module("layer1.0:2"),
    in_module("self"),
    RELU.nth(3),
    func("topk") & output("values"),
    output(0) | module("a") | RELU,
    ~in_module("layer1") & RELU & ~module("b"),
    facet("q"),
    head(3) & module("a"),
    (module("a") | module("b")) & facet("q") & head(0),
    preceded_by(func("conv2d") | func("linear")).nth(1),
]
TARGETS = [*SELECTORS, RELU.at[:, 3], RELU.at[..., 0, 1:-1], RELU.at[[0, 2]].at[::2], RELU.at[()]]
ACTIONS = [
    zero_ablate(), mean_ablate(), mean_ablate(np.eye(3), over=(0, 2)), mean_ablate(over=-1), resample_ablate(),
    resample_ablate(np.eye(3, dtype=np.float32)), steer([1.0, 2.0], 3.0, feature_axis=1), scale(0.5), scale(2),
    clamp(min=0), clamp(max=np.ones(3)), noise(0.1), noise(0.1, seed=2**62), project_onto([1.0, 0.0]),
    project_off(np.array([1, 2], dtype=ml_dtypes.bfloat16)), swap_with(RELU.nth(2)), swap_with(np.zeros((2, 0))),
    add(float("-inf")), add(np.array(3.5)), replace_with(True), replace_with(float("nan")), grad_zero(),
    grad_scale(-1.5), grad_clip(1.0, float("inf")), grad_noise(1.0, seed=3), grad_clamp(-1, 1),
]  # fmt: skip


def some_plan() -> InterventionPlan:
    return InterventionPlan([when(RELU.at[:, 3], scale(0.5)), when(module("a"), noise(1.0, seed=1), keep_clean=True)])


# -- a sequence --------------------------------------------------------------------------------------------------------


def test_it_is_a_sequence_that_adds_up() -> None:
    plan, one = some_plan(), when(RELU, zero_ablate())
    assert len(plan) == 2
    assert isinstance(plan[0], When)
    assert list(plan + one) == [*plan, one]
    assert list([one] + plan) == [one, *plan]  # noqa: RUF005
    assert list(InterventionPlan(one) + plan) == [one, *plan]
    assert isinstance(plan[:1], InterventionPlan)
    assert list(plan[::-1]) == list(reversed(plan))
    assert list(InterventionPlan()) == []


def test_it_prints_as_a_table() -> None:
    assert str(some_plan()).splitlines() == [
        "InterventionPlan of 2 interventions",
        "+---+-----------------------+-------------------------------------------+",
        "| # | Where                 | What                                      |",
        "+---+-----------------------+-------------------------------------------+",
        "| 0 | func('relu').at[:, 3] | scale(factor=0.5)                         |",
        "| 1 | module('a')           | noise(std=1.0, seed=1), clean values kept |",
        "+---+-----------------------+-------------------------------------------+",
    ]
    assert "<table" in some_plan()._repr_html_()
    assert str(InterventionPlan()) == "InterventionPlan of 0 interventions"


def test_what_is_no_intervention_is_refused() -> None:
    with pytest.raises(InterventionError, match="intervene= takes"):
        InterventionPlan([RELU])  # type: ignore[list-item]


def test_a_run_takes_a_plan(x: Array) -> None:
    plan = InterventionPlan([when(func("sin"), scale(2.0)), when(func("sin"), add(1.0))])
    made = trace(lambda x: tanh(sin(x)), x, intervene=InterventionPlan.from_json(plan.to_json()))
    np.testing.assert_allclose(made["sin_1"].numpy(), np.sin(x.data) * 2 + 1)


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_targets_come_back_as_they_were(target: Any) -> None:
    (back,) = InterventionPlan.from_json(InterventionPlan(when(target, zero_ablate())).to_json())
    assert repr(back.target) == repr(when(target, zero_ablate()).target)


@pytest.mark.parametrize("action", ACTIONS, ids=repr)
@pytest.mark.parametrize("keep_clean", [False, True])
def test_actions_come_back_with_their_settings(action: Action, keep_clean: bool) -> None:
    (back,) = InterventionPlan.from_json(InterventionPlan(when(RELU, action, keep_clean=keep_clean)).to_json())
    assert back.keep_clean == keep_clean
    assert back.action.name == action.name
    assert back.action.is_backward == action.is_backward
    assert back.action.reads == action.reads
    assert back.action.settings.keys() == action.settings.keys()
    for name, value in action.settings.items():
        assert type(back.action.settings[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert back.action.settings[name].dtype == value.dtype
            np.testing.assert_array_equal(back.action.settings[name], value)
        else:
            assert repr(back.action.settings[name]) == repr(value)


def test_every_named_action_is_written_and_read() -> None:
    assert {action.name for action in ACTIONS} | {"splice_module"} == set(actions._MAKERS)


def test_noise_read_from_a_file_draws_the_same(x: Array, tmp_path: Path) -> None:
    plan = InterventionPlan(when(func("sin"), noise(1.0)))
    again = load_plan(plan.save(tmp_path / "plan.json"))
    one, other = (trace(sin, x, intervene=each)["sin_1"].numpy() for each in (plan, again))
    np.testing.assert_array_equal(one, other)


def test_arrays_of_a_framework_are_written() -> None:
    (back,) = InterventionPlan.from_json(InterventionPlan(when(RELU, steer(Array([1.0, 2.0])))).to_json())
    np.testing.assert_array_equal(back.action.settings["direction"], [1.0, 2.0])


def test_a_selector_of_many_parts_is_no_deeper_for_it() -> None:
    many = RELU
    for number in range(150):
        many = many | module(f"layer{number}")
    assert repr(InterventionPlan.from_json(InterventionPlan(when(many, zero_ablate())).to_json())[0].target) == repr(
        many
    )


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (lambda: when(RELU, lambda value: value), "<lambda> is a Python function"),
        (lambda: when(RELU, bwd_hook(lambda value: value)), "<lambda> is a Python function"),
        (lambda: when(where(lambda op: True), zero_ablate()), "where('<lambda>') cannot be written"),
        (lambda: when(RELU & ~where(lambda op: True), zero_ablate()), "cannot be written"),
        (lambda: when(RELU, swap_with(where(lambda op: True))), "cannot be written"),
        (lambda: when(RELU, splice_module(ReLU())), "its module is ReLU"),
        (lambda: when(RELU, add(np.zeros(MAX_ARRAY_BYTES // 8 + 1))), "an array in a plan"),
        (lambda: when(RELU, add(np.array(["a"], dtype=object))), "array that no file can hold"),
        (lambda: when(RELU, add(10**30)), "64-bit"),
    ],
)
def test_what_is_no_data_is_refused_with_the_intervention(intervention: Callable[[], When], message: str) -> None:
    with pytest.raises(PlanError) as raised:
        InterventionPlan([when(RELU, zero_ablate()), intervention()]).to_json()
    assert message in str(raised.value)


def test_save_replaces_nothing_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert some_plan().save(path) == path
    assert repr(load_plan(path)) == repr(some_plan())
    with pytest.raises(PlanError, match="overwrite=True"):
        some_plan().save(path)
    InterventionPlan().save(path, overwrite=True)
    assert len(load_plan(path)) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    with pytest.raises(PlanError, match=r"there\.json cannot be read: No such file"):
        load_plan(tmp_path / "not there.json")


# -- JSON from elsewhere -----------------------------------------------------------------------------------------------


def changed(**fields: Any) -> dict[str, Any]:
    """A plan whose one intervention has other fields."""
    one = {"where": {"func": "relu"}, "action": "scale", "settings": {"factor": 2.0}}
    return document(one | fields)


def document(*interventions: Any, **fields: Any) -> dict[str, Any]:
    return {"format": "torchlens interventions", "version": 1, "interventions": list(interventions), **fields}


def array(**fields: Any) -> dict[str, Any]:
    one = {"dtype": "float32", "shape": [2], "data": "AAAAAAAAAAA="}
    return changed(settings={"factor": {"$array": one | fields}})


def nested(depth: int) -> Any:
    selector: Any = {"func": "relu"}
    for _ in range(depth):
        selector = {"not": selector}
    return changed(where=selector)


BAD: dict[str, tuple[Any, str]] = {
    "no plan": ({}, "this is no plan of interventions"),
    "a list": ([1], "this is no plan"),
    "another format": (document(format="torchlens trace"), "this is no plan"),
    "a later version": (document(version=2), "has version 2, and this TorchLens reads up to 1. Update TorchLens"),
    "version 0": (document(version=0), "$.version: it is a number from 1"),
    "version true": (document(version=True), "$.version"),
    "no interventions": ({"format": "torchlens interventions", "version": 1}, "interventions"),
    "an unknown field": (document(author="me"), "unknown field `author`"),
    "an unknown field of one": (changed(keep_cleam=True), "$.interventions[0]: Object contains unknown field"),
    "a number for an intervention": (document(3), "$.interventions[0]"),
    "keep_clean in words": (changed(keep_clean="yes"), "$.interventions[0].keep_clean"),
    "an unknown action": (changed(action="scal"), "No action is called 'scal'. Did you mean 'scale'"),
    "an action of a name in Python": (changed(action="__import__"), "No action is called '__import__'"),
    "a hook": (changed(action="bwd_hook"), "No action is called 'bwd_hook'"),
    "an action that is no text": (changed(action=3), "$.interventions[0].action"),
    "an unknown setting": (changed(settings={"facto": 1.0}), "scale takes factor"),
    "no settings": (changed(settings={}), "missing a required argument: 'factor'"),
    "settings of another kind": (changed(settings={"factor": "2"}), "factor is a number or an array; got '2'"),
    "a setting that is refused": (changed(action="noise", settings={"std": -1.0}), "$.interventions[0].settings: std"),
    "a module to splice in": (changed(action="splice_module", settings={"module": "os"}), "takes a module"),
    "an object": (changed(settings={"factor": {"a": 1}}), "one of $array, $selector and $float"),
    "two tags": (changed(settings={"factor": {"$float": "inf", "$array": 1}}), "one of $array, $selector and $float"),
    "an unknown tag": (changed(settings={"factor": {"$eval": "1"}}), "one of $array, $selector and $float"),
    "a float in words": (changed(settings={"factor": {"$float": "1e5"}}), "one of $array"),
    "a selector of nothing": (changed(where={}), "$.interventions[0].where: no selector has the fields []"),
    "an unknown selector": (changed(where={"funk": "relu"}), "Did you mean 'func'"),
    "a selector with too much": (changed(where={"func": "relu", "nth": 2}), "no selector has the fields"),
    "a selector in words": (changed(where="relu"), "a selector is an object"),
    "a function by number": (changed(where={"func": 3}), "where.func: this is a text; it is 3"),
    "an output before the first": (changed(where={"output": -1}), "where.output: this is a number from 0"),
    "an output 1.5": (changed(where={"func": "topk", "output": 1.5}), "this is a number from 0"),
    "the 0th": (changed(where={"nth": 0, "of": {"func": "relu"}}), "nth() counts from 1"),
    "a head in words": (changed(where={"head": "first"}), "where.head: this is the number of a head"),
    "a facet by number": (changed(where={"facet": 3}), "where.facet: this is a text"),
    "the nth of nothing": (changed(where={"nth": 2}), "'nth' needs 'of' beside it"),
    "all of one": (changed(where={"all": [{"func": "relu"}]}), "two selectors or more"),
    "a part of a selector": (changed(where={"any": [{"func": "relu"}, {"x": 1}]}), "where.any[1]"),
    "a predicate": (changed(where={"where": "lambda op: True"}), "no selector has the fields ['where']"),
    "an index of text": (changed(at=[["a"]]), "an index is a number"),
    "an index of true": (changed(at=[[True]]), "Positions are whole numbers"),
    "an index of null": (changed(at=[[None]]), "new axis"),
    "a range of two": (changed(at=[[{"slice": [0, 1]}]]), "a range is {'slice': [start, stop, step]}"),
    "a range of halves": (changed(at=[[{"slice": [0.5, None, None]}]]), "whole numbers"),
    "positions of true": (changed(at=[[[True, False]]]), "positions are whole numbers"),
    "no index": (changed(at=[3]), "$.interventions[0].at[0]"),
    "an array of objects": (array(dtype="object"), "'object' is no element type"),
    "an array of a number": (array(dtype=4), "4 is no element type"),
    "an array too short": (array(shape=[3]), "shape [3] of float32 takes 12 bytes, and there are 8"),
    "an array too large": (array(shape=[2**40]), f"{MAX_ARRAY_BYTES} bytes at most"),
    "an array of many axes": (array(shape=[1] * 40), "32 axes"),
    "a shape below zero": (array(shape=[-2]), "the shape is a list of numbers from 0"),
    "a shape of true": (array(shape=[True]), "the shape is a list of numbers from 0"),
    "no base64": (array(data="!"), "the data are no base64"),
    "data of numbers": (array(data=[0, 0]), "the data are no base64"),
    "an array with more": (array(order="F"), "an array has dtype, shape and data"),
    "bool elements of 2": (array(dtype="bool", shape=[1], data="Ag=="), "neither 0 nor 1"),
    "nested too deeply": (nested(100), "nested"),
    "of many parts": (changed(where={"any": [{"func": "relu"}] * 300}), "made of 301 others, and the limit is 200"),
}
BAD_TEXTS = {
    "not JSON": (b"{", "this is not JSON"),
    "a key twice": (b'{"format": "a", "format": "b"}', "stands twice"),
    "NaN": (b'{"version": NaN}', "NaN"),
    "a huge number": (b'{"version": 1e999}', "outside the range"),
    "a huge integer": (b'{"version": 99999999999999999999999}', "outside the range"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8"),
    "brackets": (b"[" * 100_000, "nested"),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_TEXTS])
def test_what_is_no_sound_plan_is_refused(name: str) -> None:
    content, message = BAD[name] if name in BAD else BAD_TEXTS[name]
    text = content if isinstance(content, bytes) else json.dumps(content)
    with pytest.raises(PlanError) as raised:
        InterventionPlan.from_json(text)
    assert message in str(raised.value)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(changed(action="scal")))
    with pytest.raises(PlanError, match=r"plan\.json \$\.interventions\[0\]\.action: No action is called 'scal'"):
        load_plan(path)


def test_the_sound_plan_that_the_bad_ones_are_made_of() -> None:
    assert repr(InterventionPlan.from_json(json.dumps(changed()))[0]) == "when(func('relu'), scale(factor=2.0))"
    assert len(InterventionPlan.from_json(json.dumps(array()))) == 1
