"""Replaying a trace: exactly as it ran, and what follows from a change."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.random_models import RandomModel, Step, steps
from torchlens_core.errors import InterventionError, ReplayDiverged, ReplayError, ReplayWarning
from torchlens_core.file import load, save
from torchlens_core.interventions.arithmetic import add, scale
from torchlens_core.interventions.replacing import replace_with, swap_with, zero_ablate
from torchlens_core.interventions.when import when
from torchlens_core.plan import keep
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import func, in_module, module, where
from torchlens_core.testing.toy_framework import Array, Module, generator_state, relu
from torchlens_core.testing.toy_layers import Dropout, Linear, ReLU, RunningMean, Sequential
from torchlens_core.tracing import trace


def example() -> Array:
    return Array(np.linspace(-1.0, 1.0, 8).reshape(2, 4))


def different(a: Trace, b: Trace) -> list[str]:
    """Labels of the Ops whose values differ in a bit; both traces have the same ones and keep the same."""
    assert [op.label for op in a] == [op.label for op in b]
    assert [op.has_saved_value for op in a] == [op.has_saved_value for op in b]
    pairs = ((x, y) for x, y in zip(a, b, strict=True) if x.has_saved_value)
    return [x.label for x, y in pairs if not np.array_equal(x.numpy(), y.numpy(), equal_nan=True)]


def outputs(made: Trace) -> list[Any]:
    return [op.numpy() for op in made if op.is_output]


class Net(Module):
    """A bit of everything: parameters, a buffer, chance, an in-place operation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(4, 4)
        self.norm = RunningMean(4)
        self.drop = Dropout(0.5)
        self.head = Linear(4, 2, seed=1)

    def forward(self, x: Array) -> Any:
        y = relu(self.fc(x))
        y += 1
        return self.head(self.drop(self.norm(y)))


@pytest.fixture
def ready() -> Trace:
    return trace(Net(), example(), replay_ready=True)


# -- as it ran ---------------------------------------------------------------------------------------------------------


@given(steps)
def test_an_unchanged_replay_is_the_same(program: list[Step]) -> None:
    made = trace(RandomModel(program), example(), replay_ready=True, keep_orphans=True)
    replayed = made.replay()
    assert different(made, replayed) == []
    assert replayed.last_run is not None
    assert replayed.last_run.rows_run == replayed.last_run.rows == len(made.program.rows)
    for op in made.compute_ops:
        assert different(made, made.replay_from(op)) == []


def test_a_replay_leaves_all_as_it_was() -> None:
    net, x = Net(), example()
    made = trace(net, x, replay_ready=True)
    values = {op.label: op.numpy() for op in made}
    state, generator, center = {op.label for op in made}, generator_state(), net.norm.center.data
    replayed = made.replay(hooks={"relu": zero_ablate()})
    assert generator_state() == generator
    assert net.norm.center.data is center
    assert np.array_equal(x.data, example().data)
    assert {op.label for op in made} == state
    assert all(np.array_equal(op.numpy(), values[op.label]) for op in made)
    assert made.last_run is None and made.parent is None
    assert replayed.parent == "Net"


def test_the_new_trace_has_the_same_structure(ready: Trace) -> None:
    replayed = ready.replay(hooks={"relu": scale(2.0)})
    assert [op.label for op in replayed] == [op.label for op in ready]
    assert replayed["fc"].module == ready["fc"].module
    assert replayed.summary() and str(replayed)
    assert replayed["relu"].interventions == ["when(label('relu_1_2:1'), scale(factor=2.0))"]
    assert replayed["relu"].is_changed and not ready["relu"].is_changed


def test_it_holds_for_the_parameters_as_they_were() -> None:
    net = Net()
    made = trace(net, example(), replay_ready=True)
    net.fc.weight.data = net.fc.weight.data * 2
    assert different(made, made.replay()) == []


def test_a_trace_file_of_a_replay_says_where_it_comes_from(ready: Trace, tmp_path: Any) -> None:
    replayed = ready.fork("half").set("relu", scale(0.5)).replay()
    save(replayed, tmp_path / "half")
    loaded = load(tmp_path / "half")
    assert loaded.name == "half"
    assert loaded.last_run == replayed.last_run


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_it_keeps_what_the_trace_kept() -> None:
    made = trace(Net(), example(), save=[func("relu"), keep("head", transform=lambda a: a.mean())], replay_ready=True)
    replayed = made.replay(hooks={"relu": scale(2.0)})
    assert [op.label for op in replayed if op.has_saved_value] == [op.label for op in made if op.has_saved_value]
    assert np.array_equal(replayed["relu"].numpy(), made["relu"].numpy() * 2)
    assert replayed["head"].out.shape == ()
    whole = made.replay(hooks={"relu": scale(2.0)}, save=True)
    assert np.allclose(replayed["head"].numpy(), whole["head"].numpy().mean())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (func("linear"), ["linear_1_1", "linear_2_11"]),
        ("relu_1_2", ["relu_1_2"]),
        (False, []),
        (where(lambda op: op.shape == (2, 2)), ["linear_2_11"]),
        (where(lambda op: op.out.data.min() == 12), ["add_1_3", "mean_1_5"]),
        (keep(func("relu"), transform=lambda a: a.sum()), ["relu_1_2"]),
    ],
)
def test_save_says_otherwise(asked: Any, expected: list[str]) -> None:
    made = trace(Net(), example(), replay_ready=True, save=func("relu"))
    replayed = made.replay(hooks={"relu": replace_with(11.0)}, save=asked)
    assert [op.layer_label for op in replayed.compute_ops if op.has_saved_value] == expected
    if "relu_1_2" in expected:
        assert replayed["relu"].numpy().max() == (11 if isinstance(asked, str) else 88)


# -- changes -----------------------------------------------------------------------------------------------------------


@given(steps, st.integers(0, 30))
def test_a_change_does_what_it_does_by_hand(program: list[Step], chosen: int) -> None:
    def change(array: Array) -> Array:
        return Array(array.data * 3 + 1)

    model = RandomModel(program)
    made = trace(model, example(), replay_ready=True, keep_orphans=True)
    assert model.count == len(made.compute_ops)
    number = chosen % model.count
    by_hand = RandomModel(program)
    by_hand.change = number + 1, change
    now = generator_state()
    generator_state(made.program.rng[-1])
    expected = [array.data for array in by_hand(example())]
    generator_state(now)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReplayWarning)  # of what is read
        part = made.replay(hooks={made.compute_ops[number]: change})
        whole = made.replay(hooks={made.compute_ops[number]: change}, only_downstream=False)
    assert different(part, whole) == []
    assert all(np.array_equal(a, b) for a, b in zip(outputs(part), expected, strict=True))


def test_only_what_is_downstream_is_run(ready: Trace) -> None:
    replayed = ready.replay_from("head", 0.0)
    assert replayed.last_run is not None and replayed.last_run.rows_run == 0
    assert np.array_equal(outputs(replayed)[0], np.zeros((2, 2)))
    replayed = ready.replay_from("relu", 0.0)
    assert replayed.last_run is not None
    assert 0 < replayed.last_run.rows_run < len(ready.program.rows)
    assert np.array_equal(replayed["fc"].numpy(), ready["fc"].numpy())


def test_without_kept_values_it_is_run_from_the_start() -> None:
    made = trace(Net(), example(), save=False, replay_ready=True)
    replayed = made.replay(hooks={"head": scale(2.0)}, save=func("output"))
    assert replayed.last_run is not None and replayed.last_run.rows_run == len(made.program.rows) - 1  # it counts steps
    assert np.array_equal(outputs(replayed)[0], outputs(made.replay(save=True))[0] * 2)


def test_an_input_and_a_buffer_can_be_changed(ready: Trace) -> None:
    other = Array(example().data[::-1].copy())
    net = Net()
    generator_state(ready.program.rng[-1])
    expected = trace(net, other)
    assert np.array_equal(outputs(ready.replay_from("input_1", other))[0], outputs(expected)[0])
    lifted = ready.replay(hooks={func("buffer"): add(1.0)})
    assert not np.array_equal(outputs(lifted)[0], outputs(ready)[0])


class Peeking(Module):
    """Reads inside a module what the module then returns."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _Inner()

    def forward(self, x: Array) -> Any:
        y, peeked = self.inner(x)
        return y + peeked


class _Inner(Module):
    def forward(self, x: Array) -> Any:
        y = relu(x)
        return y, y * 2


def test_what_a_module_returns_is_changed_when_it_returns_it() -> None:
    made = trace(Peeking(), example(), replay_ready=True)
    x = np.maximum(example().data, 0)
    for site, times in ((module("inner") & func("relu"), 12), (func("relu"), 30)):
        ran = trace(Peeking(), example(), intervene=when(site, scale(10.0)))
        assert np.allclose(outputs(ran)[0], x * times)
        assert np.array_equal(outputs(ran)[0], outputs(made.replay(hooks={site: scale(10.0)}))[0])


@pytest.mark.parametrize(
    "selector", [func("relu"), module("fc"), func("add_").nth(1), module("norm"), in_module("head")]
)
def test_recorded_interventions_are_repeated(selector: Any) -> None:
    made = trace(Net(), example(), replay_ready=True, intervene=when(selector, scale(0.5)))
    assert different(made, made.replay()) == []
    net = Net()
    generator_state(made.program.rng[-1])
    both = trace(net, example(), intervene=[when(selector, scale(0.5)), when(func("relu"), add(1.0))])
    assert np.array_equal(outputs(made.replay(hooks={func("relu"): add(1.0)}))[0], outputs(both)[0])


def test_an_action_reads_another_site() -> None:
    plain = trace(Net(), example(), replay_ready=True)
    swapped = plain.replay(hooks={func("relu"): swap_with(module("fc"))})
    assert np.array_equal(swapped["relu"].numpy(), plain["fc"].numpy())
    changed = plain.replay(hooks=[("fc", scale(3.0)), (func("relu"), swap_with(module("fc")))])
    assert np.array_equal(changed["relu"].numpy(), plain["fc"].numpy() * 3)
    recorded = trace(Net(), example(), replay_ready=True, intervene=when(func("relu"), swap_with(module("fc"))))
    assert different(recorded, recorded.replay()) == []
    assert np.array_equal(recorded.replay_from("fc", 2.0)["relu"].numpy(), np.full((2, 4), 2.0))


def test_a_part_of_a_site_is_a_key(ready: Trace) -> None:
    replayed = ready.replay(hooks={module("fc").at[:, 1]: scale(2.0), func("relu").at[0, 1:]: zero_ablate()})
    assert np.array_equal(replayed["fc"].numpy()[:, 1], ready["fc"].numpy()[:, 1] * 2)
    assert replayed["relu"].numpy()[0, 1:].max() == 0


def test_the_clean_value_can_be_kept(ready: Trace) -> None:
    replayed = ready.replay(hooks=when(func("relu"), scale(0.0), keep_clean=True))
    assert np.array_equal(replayed["relu"].clean_out.data, ready["relu"].numpy())


# -- where the path is left --------------------------------------------------------------------------------------------


class Gate(Module):
    def forward(self, x: Array) -> Any:
        y = relu(x)
        if y.sum() > 0:
            return y * 2
        return y - 1


def test_a_replay_says_where_it_left_the_path() -> None:
    made = trace(Gate(), example(), replay_ready=True)
    with pytest.warns(ReplayWarning, match=r"bool\(\) of gt_1_3:1 at .*test_replay.py:\d+, which was True"):
        replayed = made.replay_from("relu", 0.0)
    assert replayed.diverged_at is not None and "gt_1_3" in replayed.diverged_at
    with pytest.raises(ReplayDiverged, match="gt_1_3"):
        made.fork().set("relu", 0.0).replay(strict=True)
    assert made.replay_from("relu", 1.0, strict=True).diverged_at is None


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_trace_that_was_not_made_for_it() -> None:
    with pytest.raises(ReplayError, match=r"replay_ready=True"):
        trace(Net(), example()).replay()


def test_a_loaded_trace(ready: Trace, tmp_path: Any) -> None:
    save(ready, tmp_path / "trace")
    with pytest.raises(ReplayError, match="loaded from a file, which does not hold the 4 parameters"):
        load(tmp_path / "trace").replay()


def test_values_that_an_operation_does_not_take(ready: Trace) -> None:
    def wrong(array: Array) -> Array:
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        ready.replay(hooks={"relu": wrong})
    with pytest.raises(InterventionError, match=r"changes shape \(2, 4\)"):
        ready.replay(hooks={"relu": lambda array: Array(array.data[:1])})


def test_sites_that_never_run(ready: Trace) -> None:
    for hooks in ({func("tanh"): scale(2.0)}, when(func("tanh"), scale(2.0))):
        with pytest.raises(InterventionError, match=r"never ran: nothing in this trace matches. What ran are add, "):
            ready.replay(hooks=hooks)
    lazy = Sequential(Linear(4, 4), ReLU())
    lazy.spare = ReLU()
    with pytest.raises(InterventionError, match="The module 'spare' never ran"):
        trace(lazy, example(), replay_ready=True).replay(hooks={"spare": scale(2.0)})


@pytest.mark.parametrize("hooks", [3, "relu", [("relu",)], [func("relu")]])
def test_hooks_are_pairs(ready: Trace, hooks: Any) -> None:
    with pytest.raises(InterventionError, match="hooks= takes"):
        ready.replay(hooks=hooks)
