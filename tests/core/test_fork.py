"""Forks: changes prepared on a copy of a trace, carried out by replay or by rerun."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.test_replay import Gate, Net, different, example, outputs
from torchlens_core.errors import InterventionError, LabelError, SelectorError, SelectorWarning
from torchlens_core.file import load, save
from torchlens_core.interventions.arithmetic import add, scale
from torchlens_core.interventions.gradients import grad_zero
from torchlens_core.interventions.replacing import zero_ablate
from torchlens_core.interventions.when import when
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, label, module
from torchlens_core.testing.toy_framework import Array, Module, generator_state, relu
from torchlens_core.testing.toy_layers import Linear
from torchlens_core.tracing import trace


class Loop(Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)

    def forward(self, x: Array) -> Any:
        for _ in range(3):
            x = relu(self.fc(x))
        return x


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def ready(net: Net) -> Trace:
    return trace(net, example(), replay_ready=True)


# -- preparing ---------------------------------------------------------------------------------------------------------


def test_a_fork_shares_everything_and_changes_nothing(ready: Trace) -> None:
    fork = ready.fork("zeroed")
    assert (fork.name, fork.parent) == ("zeroed", "Net")
    assert fork.values is ready.values and fork.structure is ready.structure
    fork.set("relu", 0.0)
    assert list(map(str, fork.interventions)) == ["when(label('relu_1_2:1'), replace_with(value=0.0))"]
    assert ready.interventions == []
    assert different(ready, fork) == []
    assert "fork of 'Net'" in str(fork.last_run)
    assert ready.fork().name == "fork of Net"
    assert [str(each) for each in fork.fork("again").interventions] == [str(each) for each in fork.interventions]


def test_its_print_tells_what_was_done(ready: Trace) -> None:
    fork = ready.fork("half")
    fork.set("relu", scale(0.5))
    assert "prepared: when(label('relu_1_2:1'), scale(factor=0.5))" in str(fork)
    assert "replayed from 'half'" in str(fork.replay())
    assert "prepared" not in str(ready) and "replayed" not in str(ready)


@pytest.mark.parametrize(
    "site",
    [
        lambda made: "relu_1_2",
        lambda made: "relu_1",
        lambda made: "relu_1_2:1",
        lambda made: made["relu_1"],
        lambda made: func("relu"),
        lambda made: label("relu_1"),
        lambda made: func("relu").at[:],
        lambda made: made.find_sites(func("relu")),
        lambda made: [made["relu_1"]],
        lambda made: made.fork()["relu_1"],
    ],
)
def test_sites_have_many_names(ready: Trace, site: Any) -> None:
    fork = ready.fork()
    fork.set(site(ready), scale(2.0))
    assert np.array_equal(fork.replay()["relu"].numpy(), ready["relu"].numpy() * 2)


def test_a_part_of_a_value(ready: Trace) -> None:
    replayed = ready.fork().set(module("fc").at[1, 2:], 5.0).replay()
    expected = ready["fc"].numpy().copy()
    expected[1, 2:] = 5
    assert np.array_equal(replayed["fc"].numpy(), expected)


def test_all_passes_of_a_layer_or_one_of_them() -> None:
    made = trace(Loop(), example(), replay_ready=True)
    every = made.fork().set("relu_1", 1.0).replay()
    assert [op.numpy().min() for op in every.find_sites(func("relu"))] == [1, 1, 1]
    second = made.fork().set("relu_1:2", 1.0).replay()
    assert second["relu_1:2"].numpy().min() == 1 != second["relu_1:1"].numpy().min()
    called = made.fork().set("fc:3", 1.0).replay()
    assert np.array_equal(called["linear_1:3"].numpy(), np.ones((2, 4)))
    assert np.array_equal(called["linear_1:2"].numpy(), made["linear_1:2"].numpy())


def test_hooks_act_in_order_and_come_off(ready: Trace) -> None:
    fork = ready.fork()
    value = ready["relu"].numpy()
    first = fork.attach_hooks("relu", scale(2.0))
    fork.attach_hooks("relu", add(1.0), lambda array: array * 3)
    assert np.allclose(fork.replay()["relu"].numpy(), (value * 2 + 1) * 3)
    fork.attach_hooks("relu", add(10.0), prepend=True)
    assert np.allclose(fork.replay()["relu"].numpy(), ((value + 10) * 2 + 1) * 3)
    first.detach()
    assert np.allclose(fork.replay()["relu"].numpy(), (value + 10 + 1) * 3)
    fork.attach_hooks("fc", zero_ablate())
    fork.detach_hooks("relu")
    assert list(map(str, fork.interventions)) == ["when(module('fc'), zero_ablate())"]
    fork.clear_hooks()
    assert different(fork, fork.replay()) == []
    with pytest.raises(InterventionError, match="Nothing is attached at 'relu'"):
        fork.detach_hooks("relu")
    with pytest.raises(InterventionError, match="Nothing is attached at <Attached: when"):
        first.detach()
    with pytest.raises(InterventionError, match="takes a site or a handle"):
        fork.detach_hooks()


# -- do ----------------------------------------------------------------------------------------------------------------


def test_do_replays_where_it_can(net: Net, ready: Trace) -> None:
    done = ready.do("relu", zero_ablate())
    assert done.last_run is not None and done.last_run.engine == "replay"
    assert ready.interventions == []
    plain = trace(net, example())
    done = plain.do("relu", zero_ablate(), net, example())
    assert done.last_run is not None and done.last_run.engine == "rerun"
    assert done["relu"].numpy().max() == 0
    assert ready.do("relu", zero_ablate(), net, engine="rerun").last_run.engine == "rerun"  # type: ignore[union-attr]
    with pytest.raises(InterventionError, match="A rerun takes the model"):
        plain.do("relu", zero_ablate(), engine="rerun")
    with pytest.raises(InterventionError, match="engine is 'auto', 'replay' or 'rerun'"):
        plain.do("relu", zero_ablate(), engine="fast")  # type: ignore[arg-type]


# -- rerun -------------------------------------------------------------------------------------------------------------


def test_a_rerun_repeats_chance_and_leaves_all_as_it_was(net: Net, ready: Trace) -> None:
    center, generator = net.norm.center.data, generator_state()
    again = ready.rerun(net)
    assert np.array_equal(again["dropout"].numpy() == 0, ready["dropout"].numpy() == 0)
    assert net.norm.center.data is center and generator_state() == generator
    other = ready.rerun(net, seed=5)
    assert not np.array_equal(other["dropout"].numpy() == 0, ready["dropout"].numpy() == 0)
    assert generator_state() == generator
    plain = trace(net, example())
    assert np.array_equal(plain.rerun(net, example())["dropout"].numpy() == 0, plain["dropout"].numpy() == 0)


def test_a_rerun_has_the_options_of_the_run() -> None:
    net = Net()
    made = trace(net, example(), save=func("relu"), keep_orphans=True, replay_ready=True)
    again = made.rerun(net)
    assert again.options == made.options | {"intervene": "[]"}
    assert [op.label for op in again if op.has_saved_value] == [op.label for op in made if op.has_saved_value]
    assert again.replay().last_run is not None


def test_prepared_changes_replayed_or_run_again_are_the_same() -> None:
    net = Net()
    net.norm.training = net.drop.training = False
    made = trace(net, example(), replay_ready=True)
    for site in ("relu_1_2", "fc", "add_1_3", func("linear"), module("norm").at[0]):
        fork = made.fork().set(site, scale(0.5)) if not isinstance(site, str) else made.fork().set(site, 0.25)
        assert different(fork.replay(), fork.rerun(net)) == []


def test_what_a_replay_changed_is_changed_by_its_rerun() -> None:
    net = Net()
    net.drop.training = net.norm.training = False
    made = trace(net, example(), replay_ready=True, intervene=when(func("relu"), add(1.0)))
    replayed = made.fork().set("fc", scale(0.5)).replay()
    again = replayed.rerun(net)
    assert different(replayed, again) == []
    assert different(again, again.rerun(net)) == []


def test_other_inputs(net: Net, ready: Trace) -> None:
    other = Array(example().data + 1)
    again = ready.fork().set("relu", 0.0).rerun(net, other)
    assert np.array_equal(again["input_1"].numpy(), other.data)
    assert again["relu"].numpy().max() == 0


def test_a_label_that_means_another_op_in_another_path() -> None:
    class Either(Module):
        def forward(self, x: Array) -> Any:
            y = relu(x) if x.sum() > 0 else x * 2
            return relu(y + 1)

    model = Either()
    made = trace(model, Array(np.ones((2, 4))), replay_ready=True)
    fork = made.fork()
    fork.set("relu_1", 3.0)
    with pytest.warns(
        SelectorWarning, match=r"label\('relu_1_3:1'\).* was to change relu_1_3:1, and changed relu_1_5:1"
    ):
        fork.rerun(model, Array(-np.ones((2, 4))))


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_value_that_does_not_fit(ready: Trace) -> None:
    with pytest.raises(
        InterventionError, match=r"relu_1_2:1 is an array of shape \(2, 4\), float64, on cpu; .*\(4, 2\)"
    ):
        ready.fork().set("relu", Array(np.zeros((4, 2))))
    with pytest.raises(InterventionError, match=r"float64, on cpu; .* is an array of shape \(2, 4\), float32, on cpu"):
        ready.fork().set("relu", Array(np.zeros((2, 4), "float32")))
    with pytest.raises(InterventionError, match="A value is an array of toy or a number; got list"):
        ready.fork().set("relu", [1, 2])


def test_sites_that_are_none(ready: Trace) -> None:
    fork = ready.fork()
    with pytest.raises(LabelError, match="Did you mean"):
        fork.set("relu_1_3", 0.0)
    with pytest.raises(LabelError, match="no operation makes"):
        fork.set("fc.weight", 0.0)
    with pytest.raises(InterventionError, match="never ran"):
        fork.attach_hooks(func("tanh"), scale(2.0))
    with pytest.raises(InterventionError, match="A site is an Op, a label"):
        fork.attach_hooks(3.5, scale(2.0))
    with pytest.raises(InterventionError, match="is empty"):
        fork.attach_hooks([], scale(2.0))
    with pytest.raises(InterventionError, match="an Op of another run"):
        fork.set(trace(Gate(), example())["relu"], 0.0)
    with pytest.raises(InterventionError, match="nothing to attach"):
        fork.attach_hooks("relu")
    with pytest.raises(InterventionError, match="An intervention is an action"):
        fork.attach_hooks("relu", 0.5)
    assert fork.interventions == []


def test_gradients_are_for_reruns(ready: Trace) -> None:
    with pytest.raises(InterventionError, match="acts on gradients, which a replay has not"):
        ready.replay(hooks={"relu": grad_zero()})


def test_a_rerun_without_inputs(net: Net, tmp_path: Any) -> None:
    made = trace(net, example())
    with pytest.raises(InterventionError, match=r"holds no inputs: give them, trace.rerun\(model, x\)"):
        made.rerun(net)
    save(made, tmp_path / "trace")
    loaded = load(tmp_path / "trace")
    with pytest.raises(InterventionError, match="holds no inputs"):
        loaded.rerun(net)
    assert outputs(loaded.fork().set("relu", 0.0).rerun(net, example()))


def test_an_input_is_given_to_a_rerun_and_not_set(net: Net, ready: Trace) -> None:
    fork = ready.fork()
    fork.set("input_1", 0.0)
    with pytest.raises(SelectorError, match="not computed by an operation"):
        fork.rerun(net)
