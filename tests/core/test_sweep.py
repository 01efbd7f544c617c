"""Sweeps: every site with every value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.test_replay import Gate, Net, example, outputs
from torchlens_core.errors import InterventionError, LabelError, OptionError, SweepError, ValueNotSaved
from torchlens_core.interventions.arithmetic import clamp, scale
from torchlens_core.interventions.replacing import zero_ablate
from torchlens_core.interventions.when import when
from torchlens_core.selectors import func, module
from torchlens_core.steering.sweep import sweep
from torchlens_core.testing.toy_framework import Array, Module, generator_state, relu
from torchlens_core.testing.toy_layers import Linear, Tanh
from torchlens_core.tracing import trace


class Calm(Module):
    """A model without chance."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.act = Tanh()
        self.head = Linear(4, 2, seed=1)

    def forward(self, x: Array) -> Any:
        y = self.act(self.fc(x))
        return {"scores": self.head(y), "hidden": y}


def first(out: Any) -> float:
    return float(out["scores"].data[0, 0])


def test_a_grid_of_sites_and_values() -> None:
    net, x = Calm(), example()
    swept = sweep(net, x, at=["fc", "act"], values=[0.0, 1.0], metric=first)
    assert swept.table()["run"] == ["fc 0.0", "fc 1.0", "act 0.0", "act 1.0"]
    assert swept.table()["site"] == ["fc", "fc", "act", "act"]
    assert swept.table()["value"] == [0.0, 1.0, 0.0, 1.0]
    expected = [
        trace(net, x, intervene=when(module(site), lambda a, v=value: Array(a.data * 0 + v)))
        for site in ("fc", "act")
        for value in (0.0, 1.0)
    ]
    assert swept.table()["first"] == [outputs(each)[0][0, 0] for each in expected]
    assert swept.of_baseline == {"first": first(net(x))}
    assert list(swept) == ["baseline"]  # with a metric the runs are not kept
    frame = swept.to_pandas()
    assert list(frame.columns) == ["run", "site", "value", "first"] and len(frame) == 4
    assert "Sweep of 4 runs" in str(swept)


def test_without_a_metric_it_is_a_bundle() -> None:
    swept = sweep(Calm(), example(), at="fc", values=[scale(0.0), scale(1.0), zero_ablate(), lambda a: a * 2])
    assert list(swept)[1:] == ["scale(factor=0.0)", "scale(factor=1.0)", "zero_ablate()", "<lambda>"]
    assert swept.baseline == "baseline"
    assert np.array_equal(swept["zero_ablate()"]["fc"].numpy(), np.zeros((2, 4)))
    assert swept.is_structurally_consistent
    assert swept.compare_at("act").matrix[0, 2] == 0
    by_value = swept.table("act")
    assert len(by_value) == 5
    assert swept["<lambda>"].last_run is not None and swept["<lambda>"].last_run.engine == "replay"


def test_members_keep_what_is_asked_for() -> None:
    swept = sweep(Calm(), example(), at="fc", values=[0.0], save=func("tanh"), metric=first)
    member = swept["fc"] if "fc" in swept else swept["0.0"]
    assert [op.type for op in member.compute_ops if op.has_saved_value] == ["tanh"]
    with pytest.raises(ValueNotSaved):
        _ = member["head"].out


@pytest.mark.parametrize(("values", "param"), [([0, 0.5], None), ({"none": 0, "half": 0.5}, None), ([0.1, 0.2], "max")])
def test_settings_of_an_action(values: Any, param: str | None) -> None:
    swept = sweep(
        Calm(), example(), at=func("tanh"), values=values, action=clamp if param else scale, param=param,
        metric={"top": lambda out: out["hidden"].data.max()},
    )  # fmt: skip
    top = np.tanh(Calm().fc(example()).data).max()
    wanted = list(values.values()) if isinstance(values, dict) else values
    assert np.allclose(swept.table()["top"], wanted if param else [value * top for value in wanted])
    assert swept.table()["value"] == list(values)


def test_patching_from_another_trace() -> None:
    net, clean = Calm(), Array(example().data + 1)
    kept = trace(net, clean)
    at = {(site, row): module(site).at[row] for site in ("fc", "act") for row in (0, 1)}
    swept = sweep(net, example(), at=at, values=kept, metric=lambda out: out["scores"].data.copy())
    assert swept.table()["site"] == list(at)
    plain, patched = net(example())["scores"].data, net(clean)["scores"].data
    for (_, row), scores in zip(at, swept.table()["metric"], strict=True):
        assert np.array_equal(scores[row], patched[row])
        assert np.array_equal(scores[1 - row], plain[1 - row])


def test_metrics_of_the_trace() -> None:
    swept = sweep(
        Calm(), example(), at="fc", values=[0.0, 1.0], names=["off", "on"],
        metric={"act": lambda trace: trace["act"].numpy().max(), "score": first},
    )  # fmt: skip
    assert swept.table()["run"] == ["off", "on"]
    assert np.allclose(swept.table()["act"], [0, np.tanh(1)])
    assert swept.table().columns == ("run", "site", "value", "act", "score")


def test_all_is_left_as_it_was_and_chance_repeats() -> None:
    net, x = Net(), example()
    center, generator = net.norm.center.data, generator_state()
    swept = sweep(net, x, at="relu", values=[scale(1.0), scale(0.0)])
    assert net.norm.center.data is center and generator_state() == generator
    assert np.array_equal(x.data, example().data)
    assert np.array_equal(swept["scale(factor=1.0)"][-1].numpy(), swept["baseline"][-1].numpy())


def test_where_a_replay_cannot_tell_the_model_runs() -> None:
    swept = sweep(Gate(), example(), at="relu", values=[0.0, 1.0])
    assert swept["0.0"].last_run is None and swept["1.0"].last_run is not None
    assert np.array_equal(outputs(swept["0.0"])[0], -np.ones((2, 4)))  # by the other arm


# -- batched -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, 1, 4])
def test_batched_runs_give_the_same(at_once: bool | int) -> None:
    arguments = {
        "at": ["fc", module("act").at[:, 2]],
        "values": [0.0, 1.0, 2.0],
        "metric": lambda out: out["scores"].data,
    }
    one_by_one = sweep(Calm(), example(), **arguments)
    batched = sweep(Calm(), example(), **arguments, batched=at_once)
    for a, b in zip(one_by_one.table()["metric"], batched.table()["metric"], strict=True):
        assert a.shape == (2, 2) and np.allclose(a, b)


class Mixes(Module):
    def forward(self, x: Array) -> Any:
        y = relu(x)
        return y - y.mean(axis=0)


class Sums(Module):
    def forward(self, x: Array) -> Any:
        return relu(x).sum()


def test_batches_that_mix_are_noticed() -> None:
    with pytest.raises(SweepError, match=r"gives another output by itself .*Modules in training mode: Mixes"):
        sweep(Mixes(), example(), at="relu", values=[0.0, 1.0], metric=lambda out: out.data, batched=True)
    with pytest.raises(SweepError, match=r"an array of shape \(\) for a batch of 4"):
        sweep(Sums(), example(), at="relu", values=[0.0, 1.0], metric=lambda out: out.data, batched=True)
    with pytest.raises(OptionError, match="batched=True keeps no traces"):
        sweep(Mixes(), example(), at="relu", values=[0.0], batched=True)
    with pytest.raises(OptionError, match="how many runs go together"):
        sweep(Calm(), example(), at="fc", values=[0.0], metric=first, batched=-1)


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"at": "fcc", "values": [0.0]}, LabelError, "Did you mean"),
        ({"at": func("relu"), "values": [0.0]}, InterventionError, "never ran"),
        ({"at": "fc", "values": []}, OptionError, "at least one"),
        ({"at": [], "values": [1.0]}, OptionError, "at least one"),
        ({"at": "fc", "values": example()}, OptionError, "is a list of values"),
        ({"at": "fc", "values": "relu"}, OptionError, "is a list of values"),
        ({"at": "fc", "values": [1], "action": scale(2.0)}, OptionError, r"tl.scale, not tl.scale\(...\)"),
        ({"at": "fc", "values": [1], "param": "factor"}, OptionError, "which was not given"),
        ({"at": "fc", "values": [1, 2], "names": ["one"]}, OptionError, "each of the 2 runs"),
        ({"at": "fc", "values": [1, 2], "names": ["one", "one"]}, OptionError, "each of the 2 runs"),
        ({"at": "fc", "values": [1], "metric": 3}, OptionError, "metric= takes a function"),
        ({"at": "fc", "values": [1], "metric": {"site": first}}, OptionError, "cannot be called 'site'"),
        ({"at": "fc", "values": [Array(np.zeros(3))]}, InterventionError, r"the value to put there is .* \(3,\)"),
    ],
)
def test_refusals(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    net, generator = Calm(), generator_state()
    with pytest.raises(error, match=message):
        sweep(net, example(), **arguments)
    assert generator_state() == generator


def test_patching_from_a_trace_of_another_graph() -> None:
    with pytest.raises(LabelError):
        sweep(Calm(), example(), at="fc", values=trace(Gate(), example()))
    with pytest.raises(InterventionError, match="cannot be given what 'Calm' has there"):
        sweep(Calm(), example(), at="fc", values=trace(Calm(), Array(np.zeros((3, 4)))))
