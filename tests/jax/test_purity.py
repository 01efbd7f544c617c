"""A traced function leaves no trace: not in the user's arrays, JAX's caches, classes, generators, settings, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import torchlens as tl
from tests.jax.compilations import compilations
from torchlens_core.errors import NestedTraceError
from torchlens_jax.staging.patching import patched_classes

X = jnp.arange(1.0, 5.0)


class Block(eqx.Module):
    linear: eqx.nn.Linear

    def __init__(self) -> None:
        self.linear = eqx.nn.Linear(4, 4, key=jax.random.key(0))

    def __call__(self, x: Any) -> Any:
        return jnp.tanh(self.linear(x))


class Raising(eqx.Module):
    block: Block

    def __call__(self, x: Any) -> Any:
        self.block(x)
        raise RuntimeError("as it is staged")


class Net(nnx.Module):
    def __init__(self) -> None:
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x: Any) -> Any:
        return self.dropout(self.norm(self.linear(x)))


def names(jaxpr: Any) -> set[str]:
    """Names of all primitives and scopes in a jaxpr, and in those inside it."""
    found = set()
    for equation in jaxpr.eqns:
        found |= {equation.primitive.name, *str(equation.source_info.name_stack).split("/")}
        for value in jax.tree.leaves(equation.params, is_leaf=lambda item: hasattr(item, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= names(inner)
    return found


def of_ours(model: Callable[..., Any], *args: Any) -> list[str]:
    """What of ours is in what JAX makes of a function now."""
    found = names(jax.make_jaxpr(model)(*args).jaxpr)
    compiled = jax.jit(model).lower(*args).as_text(debug_info=True)
    return sorted(name for name in found if "torchlens" in name or name.startswith("tl@")) + [
        word for word in ("torchlens_mark", "tl@") if word in compiled
    ]


class TestCachesOfJax:
    def test_a_function_first_compiled_under_a_trace_has_nothing_of_ours(self) -> None:
        block = Block()
        inner = jax.jit(lambda x: block(x) + 1)
        tl.trace(lambda x: inner(x) * 2, X)
        assert of_ours(inner, X) == []
        assert of_ours(lambda x: inner(x) * 3, X) == []

    def test_nor_has_a_method_compiled_by_itself(self) -> None:
        class Model(eqx.Module):
            block: Block

            @eqx.filter_jit
            def __call__(self, x: Any) -> Any:
                return self.block(x) * 2

        model = Model(Block())
        tl.trace(model, X)
        assert of_ours(lambda x: model(x), X) == []

    def test_nor_has_what_is_rematerialized_or_has_a_rule_of_its_own(self) -> None:
        block = Block()
        inner = jax.checkpoint(lambda x: block(x).sum())

        @jax.custom_vjp
        def ruled(x: Any) -> Any:
            return block(x).sum()

        ruled.defvjp(lambda x: (ruled(x), x), lambda x, g: (g * x,))
        tl.trace(lambda x: inner(x) + ruled(x), X)
        assert of_ours(jax.grad(lambda x: inner(x) + ruled(x)), X) == []

    def test_a_function_that_was_compiled_stays_compiled(self) -> None:
        block = Block()
        inner = jax.jit(lambda x: block(x) + 1)
        whole = jax.jit(lambda x: inner(x) * 2)
        expected = whole(X), inner(X)
        tl.trace(whole, X)
        with compilations() as events:
            found = whole(X), inner(X)
        assert events == []
        assert all(map(np.array_equal, found, expected))

    def test_and_is_seen_through_all_the_same(self) -> None:
        block = Block()
        whole = jax.jit(lambda x: block(x) * 2)
        whole(X)
        assert [op.module for op in tl.trace(whole, X).compute_ops] == ["block.linear:1", "block:1", None]

    def test_interventions_are_not_there_afterwards(self) -> None:
        inner = jax.jit(lambda x: jnp.tanh(x))
        tl.trace(inner, X, intervene=tl.when(tl.func("tanh"), tl.zero_ablate()))
        assert np.array_equal(inner(X), jnp.tanh(X))


class TestArraysOfTheUser:
    def test_a_donated_argument_is_there_after_a_trace(self) -> None:
        """A call of the function would have used it up: a trace uses up nothing."""
        model = jax.jit(lambda x: x * 2, donate_argnums=0)
        given = X + 0
        trace = tl.trace(model, given, replay_ready=True)
        assert not given.is_deleted()
        assert np.array_equal(given, X)
        assert np.array_equal(trace.ops[0].out, X)

    def test_one_that_is_donated_inside(self) -> None:
        inner = jax.jit(lambda x: x * 2, donate_argnums=0)
        given = X + 0
        trace = tl.trace(lambda x: inner(x) + x, given)
        assert not given.is_deleted()
        assert np.array_equal(trace[trace.output_layers[0]].out, 3 * X)

    def test_state_that_is_donated(self) -> None:
        @partial(jax.jit, donate_argnums=0)
        def step(params: Any, x: Any) -> Any:
            return jax.tree.map(lambda p: p - 0.1 * x.sum(), params), (params["w"] * x).sum()

        params = {"w": X + 0}
        for _ in range(2):
            tl.trace(step, (params, X))
        assert not params["w"].is_deleted()

    def test_a_numpy_array_is_no_other(self) -> None:
        given = np.arange(4.0, dtype=np.float32)
        before = given.copy()
        tl.trace(lambda x: jnp.sin(x), given, backend="jax")
        assert isinstance(given, np.ndarray)
        assert np.array_equal(given, before)

    def test_what_is_kept_does_not_change_with_the_numpy_array_that_was_given(self) -> None:
        given = np.arange(4.0, dtype=np.float32)
        trace = tl.trace(lambda x: x + 1, given, backend="jax")
        first = np.asarray(trace.ops[0].out).copy()
        given[:] = 7
        assert np.array_equal(trace[trace.output_layers[0]].out, first + 1)


class TestClasses:
    CLASSES = (Block, eqx.nn.Linear, Raising, nnx.Linear, nnx.BatchNorm, Net)

    @pytest.fixture(autouse=True)
    def nothing_is_replaced(self) -> Any:
        before = {cls: vars(cls).get("__call__") for cls in self.CLASSES}
        yield
        assert {cls: vars(cls).get("__call__") for cls in self.CLASSES} == before
        assert patched_classes() == []

    def test_after_a_trace(self) -> None:
        tl.trace(Block(), X)
        tl.trace(Net(), X[None])

    def test_after_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="as it is staged"):
            tl.trace(Raising(Block()), X)

    def test_after_an_interrupt(self) -> None:
        class Interrupted(eqx.Module):
            block: Block

            def __call__(self, x: Any) -> Any:
                self.block(x)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tl.trace(Interrupted(Block()), X)

    def test_after_an_error_in_the_body_of_a_scan(self) -> None:
        block = Block()

        def body(carry: Any, _: Any) -> Any:
            block(carry)
            raise RuntimeError("inside")

        def model(x: Any) -> Any:
            return jax.lax.scan(body, jnp.tanh(x), None, length=3)[0]

        with pytest.raises(RuntimeError, match="inside"):
            tl.trace(model, X)
        assert of_ours(lambda x: block(x), X) == []
        assert tl.trace(lambda x: block(x), X).num_ops > 0

    def test_after_an_error_of_the_compiled_program(self) -> None:
        def fail(value: Any) -> Any:
            raise RuntimeError("as it runs")

        def model(x: Any) -> Any:
            y = jnp.tanh(x)
            return jax.pure_callback(fail, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

        with pytest.raises(Exception, match="as it runs"):
            tl.trace(model, X)

    def test_after_a_trace_inside_a_trace(self) -> None:
        inner = Block()

        class Outer(eqx.Module):
            block: Block

            def __call__(self, x: Any) -> Any:
                tl.trace(inner, X)
                return self.block(x)

        with pytest.raises(NestedTraceError):
            tl.trace(Outer(Block()), X)
        assert tl.trace(inner, X).num_ops == 2

    def test_after_many_threads(self) -> None:
        block = Block()

        def traced(number: int) -> list[str | None]:
            return [op.module for op in tl.trace(lambda x: block(x + number), X).compute_ops]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(traced, range(12)))
        assert found == [[None, "block.linear:1", "block:1"]] * 12


class TestThreads:
    def test_two_traces_at_once(self) -> None:
        """Both are being staged at the same time, each waiting for the other."""
        meeting = threading.Barrier(2, timeout=60)

        class Meeting(eqx.Module):
            block: Block
            number: float = eqx.field(static=True)

            def __call__(self, x: Any) -> Any:
                y = self.block(x)
                meeting.wait()
                return self.block(y * self.number)

        models = [Meeting(Block(), 2.0), Meeting(Block(), 3.0)]
        with ThreadPoolExecutor(2) as pool:
            traces = list(pool.map(lambda model: tl.trace(model, X), models))
        for model, trace in zip(models, traces, strict=True):
            block = model.block
            assert np.allclose(trace[trace.output_layers[0]].out, block(block(X) * model.number))
            modules = ["block.linear:1", "block:1", None, "block.linear:2", "block:2"]
            assert [op.module for op in trace.compute_ops] == modules

    def test_a_thread_that_only_calls_the_model_notices_nothing(self) -> None:
        begun, done = threading.Event(), threading.Event()
        block = Block()
        found = []

        def waiting(x: Any) -> Any:
            begun.set()
            assert done.wait(60)
            return block(x)

        def calling() -> None:
            begun.wait(60)
            found.append(block(X))
            found.append(of_ours(lambda x: block(x), X))
            done.set()

        other = threading.Thread(target=calling)
        other.start()
        trace = tl.trace(waiting, X)
        other.join()
        assert np.allclose(found[0], block(X))
        assert found[1] == []
        assert [op.type for op in trace.compute_ops] == ["linear", "tanh"]

    def test_one_program_run_by_two_threads(self) -> None:
        block = Block()
        tl.trace(block, X)
        with ThreadPoolExecutor(4) as pool:
            traces = list(pool.map(lambda n: tl.trace(block, X + n), range(16)))
        for number, trace in enumerate(traces):
            assert np.allclose(trace[trace.output_layers[0]].out, block(X + number))


class TestGeneratorsAndSettings:
    def test_generators_of_nnx_count_as_in_a_call(self) -> None:
        called, traced = Net(), Net()
        expected = called(X[None])
        trace = tl.trace(traced, X[None])
        assert np.allclose(trace[trace.output_layers[0]].out, expected)
        for left, right in zip(jax.tree.leaves(nnx.state(called)), jax.tree.leaves(nnx.state(traced)), strict=True):
            left, right = (
                jax.random.key_data(each) if jnp.issubdtype(each.dtype, jax.dtypes.prng_key) else each
                for each in (left, right)
            )
            assert np.allclose(left, right)

    def test_the_model_is_as_it_was_after_an_error(self) -> None:
        class Failing(nnx.Module):
            def __init__(self) -> None:
                self.net = Net()

            def __call__(self, x: Any) -> Any:
                self.net(x)
                raise RuntimeError("after the state was written")

        model = Failing()
        before = jax.tree.map(jnp.array, nnx.state(model, nnx.BatchStat))
        with pytest.raises(RuntimeError, match="after the state"):
            tl.trace(model, X[None])
        after = nnx.state(model, nnx.BatchStat)
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for array in jax.tree.leaves(after):
            assert isinstance(array, jax.Array)
            assert not isinstance(array, jax.core.Tracer)

    def test_metadata_of_variables_are_as_they_were(self) -> None:
        model = Net()
        before = [
            dict(variable.get_metadata()) for _, variable in nnx.iter_graph(model) if isinstance(variable, nnx.Variable)
        ]
        tl.trace(model, X[None])
        after = [
            dict(variable.get_metadata()) for _, variable in nnx.iter_graph(model) if isinstance(variable, nnx.Variable)
        ]
        assert after == before

    def test_sequences_of_haiku_go_on_as_in_a_call(self) -> None:
        def draws(x: Any) -> Any:
            return x * jax.random.uniform(hk.next_rng_key()) * jax.random.uniform(hk.next_rng_key())

        made = hk.transform(draws)
        expected = made.apply({}, jax.random.key(0), X)
        trace = tl.trace(lambda x: made.apply({}, jax.random.key(0), x), X)
        assert np.allclose(trace[trace.output_layers[0]].out, expected)
        assert np.array_equal(made.apply({}, jax.random.key(0), X), expected)

    def test_settings_of_jax(self) -> None:
        options = [name for name in jax.config.values if hasattr(jax.config, name)]
        before = {name: getattr(jax.config, name) for name in options}
        trace = tl.trace(Block(), X, replay_ready=True)
        assert trace.layers[-1].out is not None
        assert {name: getattr(jax.config, name) for name in options} == before

    def test_interceptors_of_linen_and_haiku_are_gone(self) -> None:
        seen = []
        dense = nn.Dense(4)
        params = dense.init(jax.random.key(0), X)
        tl.trace(lambda x: dense.apply(params, x), X)
        assert of_ours(lambda x: dense.apply(params, x), X) == []

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            seen.append(context.method_name)
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            tl.trace(lambda x: dense.apply(params, x) + 1, X)
        assert "__call__" in seen, "the user's own interceptor is asked too"
