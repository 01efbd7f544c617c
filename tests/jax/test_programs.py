"""Programs are compiled once, and kept for no longer than they are right."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import torchlens as tl
from tests.jax.changes import CASES, ROLLING, Net, X, net
from tests.jax.compilations import compilations
from torchlens_jax.calls.recent import Recent
from torchlens_jax.staging.programs import Programs
from torchlens_jax.staging.staged import forget


@pytest.fixture(autouse=True)
def no_programs() -> Iterator[None]:
    """No program is known from another test."""
    forget()
    yield
    forget()


def output(model: Any, *args: Any, **options: Any) -> Any:
    trace = tl.trace(model, args, **options)
    return trace[trace.output_layers[0]].out


def same(left: Any, right: Any) -> bool:
    """Whether arrays are equal, types and signs of zeros with them."""
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return np.allclose(left, right, equal_nan=True, rtol=1e-5) and np.array_equal(np.signbit(left), np.signbit(right))


x = jnp.asarray(X)


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name](monkeypatch)
    first, second = case.args
    expected = case.first(x, *first)
    assert same(output(case.first, x, *first), expected)
    assert same(output(case.first, x, *first), expected)
    case.change()
    changed = case.second(x, *second)
    assert not same(changed, expected), "the case changes nothing"
    assert same(output(case.second, x, *second), changed)


@pytest.mark.parametrize("name", ROLLING)
def test_what_is_another_each_time_is_asked_each_time(name: str) -> None:
    model = ROLLING[name]()
    found = [output(model, x) for _ in range(3)]
    assert not same(found[0], found[1])
    assert not same(found[1], found[2])


def _wide() -> AbstractContextManager[Any]:
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


class TestSettingsOfJax:
    @pytest.mark.parametrize(
        ("model", "setting"),
        [
            (lambda x: jnp.arange(3) * 1.0, lambda: _wide()),
            (lambda x: jax.random.uniform(jax.random.key(0), (64,)), lambda: jax.default_prng_impl("rbg")),
            (
                lambda x: jax.random.uniform(jax.random.key(0), (64,)),
                lambda: jax.threefry_partitionable(not jax.config.jax_threefry_partitionable),
            ),
        ],
    )
    def test_they_change_what_comes_out(
        self, model: Callable[..., Any], setting: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        before = output(model, x)
        with setting():
            expected = model(x)
            assert same(output(model, x), expected)
        assert not same(before, expected)
        assert same(output(model, x), before)

    @pytest.mark.parametrize(
        ("model", "setting", "error"),
        [
            (lambda x: x + jnp.ones((2, 4)), lambda: jax.numpy_rank_promotion("raise"), ValueError),
            (lambda x: x + jnp.arange(4), lambda: jax.numpy_dtype_promotion("strict"), Exception),
            (lambda x: jnp.log(-x), lambda: jax.debug_nans(True), FloatingPointError),
        ],
    )
    def test_they_make_it_raise(
        self,
        model: Callable[..., Any],
        setting: Callable[[], AbstractContextManager[Any]],
        error: type[Exception],
    ) -> None:
        tl.trace(model, x)
        with setting(), pytest.raises(error):
            model(x)
        with setting(), pytest.raises(error):
            tl.trace(model, x)

    def test_the_precision_of_products_is_part_of_the_program(self) -> None:
        model = lambda x: x @ x  # noqa: E731
        tl.trace(model, x)
        with jax.default_matmul_precision("highest"), compilations() as events:
            tl.trace(model, x)
        assert "compiled" in events


MODELS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "function": lambda: (lambda x: jnp.tanh(x) * 2, (x,)),
    "jitted function": lambda: (jax.jit(lambda x: jnp.tanh(x) * 2), (x,)),
    "equinox": lambda: (eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(0)), (x,)),
    "nnx": lambda: (net(), (x,)),
    "nnx that writes state": lambda: (Net(), (x,)),
    "method": lambda: (eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(0)).__call__, (x,)),
    "static argument": lambda: (lambda x, n, f: f(x) * n, (x, 2, jnp.tanh)),
    "closure": lambda: ((lambda mlp: lambda x: mlp(x))(eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(0))), (x,)),
    "loops": lambda: (
        lambda x: jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: c * 2, x) + jax.lax.fori_loop(0, 3, jnp.add, x),
        (x,),
    ),
}
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "everything": dict,
    "nothing": lambda: {"save": False},
    "a selection": lambda: {"save": tl.func("tanh") | tl.func("relu") | tl.func("mul")},
    "what a function gives": lambda: {"save": tl.keep(tl.func("tanh") | tl.func("mul"), transform=_mean)},
    "intervention": lambda: {"intervene": tl.when(tl.func("mul") | tl.func("linear"), tl.scale(2.0))},
}


def _mean(array: Any) -> Any:
    return array.mean()


class TestTheSecondTime:
    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.filterwarnings("ignore::torchlens_core.errors.SelectorWarning")
    def test_nothing_is_compiled(self, name: str, options: str) -> None:
        model, args = MODELS[name]()
        first = tl.trace(model, args, **OPTIONS[options]())
        with compilations() as events:
            second = tl.trace(model, args, **OPTIONS[options]())
        assert events == []
        assert [op.label for op in first] == [op.label for op in second]

    def test_nor_for_other_weights(self) -> None:
        first, second = (eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(seed)) for seed in range(2))
        output(first, x)
        with compilations() as events:
            found = output(second, x)
        assert events == []
        assert same(found, second(x))

    def test_nor_for_other_values_of_an_action(self) -> None:
        model = lambda x: jnp.tanh(x) + 1  # noqa: E731
        one = tl.trace(model, x, intervene=tl.when(tl.func("tanh"), tl.replace_with(jnp.zeros(4))))
        two = jnp.ones(4)
        with compilations() as events:
            other = tl.trace(model, x, intervene=tl.when(tl.func("tanh"), tl.replace_with(two)))
        assert events == []
        assert same(one[one.output_layers[0]].out, jnp.ones(4))
        assert same(other[other.output_layers[0]].out, 2 * jnp.ones(4))

    def test_nor_for_the_same_lambda_made_anew(self) -> None:
        def traced(number: float) -> Any:
            return output(lambda x: x * number, x)

        traced(2.0)
        with compilations() as events:
            traced(2.0)
        assert events == []
        assert same(traced(3.0), x * 3)

    def test_other_shapes_are_other_programs(self) -> None:
        model = lambda x: jnp.tanh(x)  # noqa: E731
        output(model, x)
        with compilations() as events:
            assert output(model, jnp.ones(5)).shape == (5,)
        assert "compiled" in events
        with compilations() as events:
            output(model, x)
        assert events == []

    def test_what_comes_back_is_known(self) -> None:
        model = net()
        output(model, x)
        model.number = 5.0
        output(model, x)
        model.number = 2.0
        with compilations() as events:
            output(model, x)
        assert events == []

    def test_other_inputs_of_a_loop_that_runs_as_often(self) -> None:
        model = lambda x: jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: c * 2, x)  # noqa: E731
        more = x + 0.01
        expected = model(more)
        output(model, x)
        with compilations() as events:
            found = output(model, more)
        assert events == []
        assert same(found, expected)


class TestMemory:
    def test_no_model_is_kept(self) -> None:
        model = eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(0))
        alive = [weakref.ref(leaf) for leaf in jax.tree.leaves(model) if eqx.is_array(leaf)]
        tl.trace(model, x)
        del model
        gc.collect()
        assert not any(reference() is not None for reference in alive)

    def test_no_model_of_nnx_is_kept(self) -> None:
        model = net()
        alive = [weakref.ref(model), *map(weakref.ref, jax.tree.leaves(nnx.state(model)))]
        tl.trace(model, x)
        del model
        gc.collect()
        assert not any(reference() is not None for reference in alive)

    def test_no_model_that_a_function_closes_over_is_kept(self) -> None:
        def closing_over(model: Any) -> Any:
            return lambda x: model(x)

        model = net()
        alive = weakref.ref(model)
        tl.trace(closing_over(model), x)
        del model
        gc.collect()
        assert alive() is None

    def test_no_input_and_no_value_is_kept(self) -> None:
        given = x + 1
        trace = tl.trace(lambda x: jnp.tanh(x), given, replay_ready=True)
        alive = [weakref.ref(given), weakref.ref(trace), *(weakref.ref(op.out) for op in trace)]
        del given, trace
        gc.collect()
        assert not any(reference() is not None for reference in alive)

    def test_programs_are_forgotten_in_the_order_of_their_use(self) -> None:
        class Program:
            class watch:
                holds = staticmethod(lambda: True)

        programs = Programs(limit=2)
        first, second, third = Program(), Program(), Program()
        programs.add("rough", 1, first)
        programs.add("rough", 2, second)
        assert programs.find("rough", 1) is first
        programs.add("other", 3, third)
        assert programs.find("rough", 2) is None
        assert programs.find("rough", 1) is first
        assert len(programs) == 2

    def test_what_was_made_of_one_program_is_forgotten_too(self) -> None:
        recent = Recent(2)
        recent["a"], recent["b"] = 1, 2
        assert recent.get("a") == 1
        recent["c"] = 3
        assert list(recent) == ["a", "c"]
