"""What JAX makes of functions (jit, vmap, grad, checkpoint, rules), and its operators that take functions."""

import functools
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.experimental import checkify, io_callback
from jax.experimental import pallas as pl

import torchlens as tl
from torchlens_core.errors import NotSupported
from torchlens_core.records.trace import Trace

X = jnp.arange(6.0).reshape(2, 3) / 7
W = jnp.linspace(-1, 1, 9).reshape(3, 3)


def traced(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """A trace whose outputs are those of the jitted model, and whose operations give the same when run one by one."""
    expected = jax.tree.leaves(jax.jit(lambda: model(*args, **kwargs))())
    trace = tl.trace(model, list(args), kwargs or None, replay_ready=True)
    outputs = [op for op in trace if op.type == "output"]
    for op, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(_numbers(op.out), _numbers(value), rtol=1e-5, atol=1e-6)
    replayed = trace.replay()
    for op in trace.saved_ops:
        np.testing.assert_allclose(_numbers(op.out), _numbers(replayed[op.label].out), rtol=1e-5, atol=1e-6)
    return trace


def _numbers(array: Any) -> Any:
    array = jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array
    return np.asarray(array).astype(np.complex128)


def labels(trace: Trace) -> list[str]:
    return [op.label for op in trace.compute_ops]


def places(trace: Trace) -> list[tuple[str, str | None]]:
    return [(op.type, op.module) for op in trace.compute_ops]


def mlp(size: int = 3) -> eqx.nn.MLP:
    return eqx.nn.MLP(size, 2, 4, 1, key=jax.random.key(0))


PERCEPTRON = [("linear", "layers.0:1"), ("relu", None), ("linear", "layers.1:1")]


class TestFunctions:
    def test_jit_within_jit(self) -> None:
        @jax.jit
        def inner(x: jax.Array) -> jax.Array:
            return jnp.tanh(x @ W)

        trace = traced(jax.jit(lambda x: inner(inner(x)) * 2), X)
        assert labels(trace) == ["matmul_1_1:1", "tanh_1_2:1", "matmul_1_1:2", "tanh_1_2:2", "mul_1_3:1"]

    def test_a_jitted_function_of_a_layer_called_for_each_layer(self) -> None:
        """JAX stages its body once; the arrays tell which layer each call is of."""

        class Net(eqx.Module):
            layers: list[eqx.nn.Linear]

            def __call__(self, x: jax.Array) -> jax.Array:
                step = eqx.filter_jit(lambda layer, x: jax.nn.relu(layer(x)))
                for layer in self.layers:
                    x = step(layer, x)
                return x

        net = Net([eqx.nn.Linear(3, 3, key=jax.random.key(number)) for number in range(3)])
        trace = traced(net, X[0])
        assert [op.module for op in trace.compute_ops if op.type == "linear"] == [f"layers.{n}:1" for n in range(3)]

    @pytest.mark.parametrize("wrap", [jax.vmap, eqx.filter_vmap, lambda m: jax.jit(jax.vmap(m))])
    def test_vmap_of_a_module_is_that_module(self, wrap: Any) -> None:
        trace = traced(wrap(mlp()), X)
        assert places(trace) == PERCEPTRON
        assert trace.modules["self"].cls.endswith("MLP")
        assert trace["linear_1"].shape == (2, 4)

    def test_vmap_in_a_function(self) -> None:
        net = mlp()
        trace = traced(lambda x: jax.vmap(net)(x).sum(), X)
        assert places(trace) == [
            ("linear", "net.layers.0:1"),
            ("relu", "net:1"),
            ("linear", "net.layers.1:1"),
            ("sum", None),
        ]

    def test_checkpoint_is_opened(self) -> None:
        block = jax.checkpoint(lambda x: jnp.sin(jnp.tanh(x @ W)))
        trace = traced(lambda x: block(block(x)), X)
        assert labels(trace)[:4] == ["matmul_1_1:1", "tanh_1_2:1", "sin_1_3:1", "matmul_1_1:2"]

    def test_a_rule_of_a_derivative_is_opened_on_the_way_forward(self) -> None:
        @jax.custom_vjp
        def doubled(x: jax.Array) -> jax.Array:
            return jnp.sin(x) * 2

        doubled.defvjp(lambda x: (doubled(x), x), lambda residual, g: (g * 100,))
        trace = traced(lambda x: doubled(x) + 1, X)
        assert labels(trace) == ["sin_1_1:1", "mul_1_2:1", "add_1_3:1"]
        gradients = trace.gradients(of=lambda y: y.sum())
        np.testing.assert_allclose(gradients["input_1"], np.full((2, 3), 100.0))

    def test_a_donated_argument_is_still_there(self) -> None:
        step = jax.jit(lambda x: x * 2, donate_argnums=0)
        x = X + 0
        traced_step = tl.trace(lambda x: step(x) + 1, x)
        assert not x.is_deleted()
        np.testing.assert_allclose(traced_step["output_1"].out, X * 2 + 1)


class TestBackward:
    def test_the_backward_pass_is_of_other_layers(self) -> None:
        trace = traced(jax.grad(lambda x: jnp.sum(jax.nn.softmax(x @ W) ** 2)), X)
        forward, backward = trace["matmul_1"], trace["matmul_2"]
        assert forward.func_name == "matmul" and backward.func_name == "transpose(matmul)"
        assert forward.layer_label != backward.layer_label
        assert "softmaxbackward" in {op.type for op in trace.compute_ops}

    def test_of_a_module_it_is_a_further_call(self) -> None:
        net = mlp()
        trace = traced(eqx.filter_grad(lambda net, x: jnp.sum(jax.vmap(net)(x) ** 2)), net, X)
        found = [(op.type, op.module) for op in trace.compute_ops if op.type.startswith("linear")]
        assert found[:2] == [("linear", "net.layers.0:1"), ("linear", "net.layers.1:1")]
        assert set(found[2:]) == {("linearbackward", "net.layers.1:2"), ("linearbackward", "net.layers.0:2")}

    def test_through_a_scan(self) -> None:
        def loss(x: jax.Array) -> jax.Array:
            last, sums = lax.scan(lambda x, _: (jnp.tanh(x @ W), x.sum()), x, None, length=3)
            return sums.sum() + last.sum()

        trace = traced(jax.grad(loss), X)
        assert trace.layers["matmul_1_1"].num_passes == 3
        backward = [op for op in trace.compute_ops if op.func_name == "transpose(matmul)"]
        assert len(backward) == 3 and len({op.layer_label for op in backward}) == 1

    def test_what_a_checkpoint_computes_again_is_a_further_pass(self) -> None:
        trace = traced(jax.grad(lambda x: jax.checkpoint(lambda x: jnp.tanh(x @ W))(x).sum()), X)
        assert trace.layers["tanh_1_2"].num_passes == 2


class TestLayersInALoop:
    def test_equinox(self) -> None:
        class Net(eqx.Module):
            blocks: eqx.nn.Linear

            def __call__(self, x: jax.Array) -> jax.Array:
                arrays, rest = eqx.partition(self.blocks, eqx.is_array)
                return lax.scan(lambda x, a: (jax.nn.relu(eqx.combine(a, rest)(x)), None), x, arrays)[0]

        make = eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))
        trace = traced(Net(make(jax.random.split(jax.random.key(0), 4))), X[0])
        assert [op.module for op in trace.compute_ops if op.type == "linear"] == [f"blocks:{n}" for n in range(1, 5)]

    def test_nnx(self) -> None:
        class Net(nnx.Module):
            def __init__(self, rngs: nnx.Rngs) -> None:
                make = nnx.split_rngs(splits=4)(nnx.vmap(lambda rngs: nnx.Linear(3, 3, rngs=rngs)))
                self.layers = make(rngs)

            def __call__(self, x: jax.Array) -> jax.Array:
                step = nnx.scan(lambda layer, x: nnx.relu(layer(x)), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
                return step(self.layers, x)

        net = Net(nnx.Rngs(0))
        trace = tl.trace(net, X)
        np.testing.assert_allclose(trace["output_1"].out, net(X), rtol=1e-5, atol=1e-6)
        assert [op.module for op in trace.compute_ops if op.type == "linear"] == [f"layers:{n}" for n in range(1, 5)]

    def test_linen(self) -> None:
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                return x + nn.relu(nn.Dense(3)(x)), None

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
                return nn.Dense(2)(blocks(name="blocks")(x, None)[0])

        variables = Net().init(jax.random.key(0), X)
        trace = traced(Net().apply, variables, X)
        dense = [op.modules for op in trace.compute_ops if op.type == "linear"]
        assert dense == [*([f"blocks:{n}", f"blocks.Dense_0:{n}"] for n in range(1, 4)), ["Dense_0:1"]]


class TestControlFlow:
    def test_while(self) -> None:
        trace = traced(lambda x: lax.while_loop(lambda x: jnp.linalg.norm(x) < 10, lambda x: x * 2, x), X)
        passes = {layer.label: layer.num_passes for layer in trace.layers if layer.type in ("norm", "lt", "mul")}
        assert passes == {"norm_1_1": 5, "lt_1_2": 5, "mul_1_3": 4}

    def test_a_while_that_runs_more_often_than_there_was_room_for(self) -> None:
        def step(state: Any) -> Any:
            return state[0] + 1, jnp.cos(state[1])

        def loop(n: jax.Array, x: jax.Array) -> Any:
            return lax.while_loop(lambda state: state[0] < n, step, (jnp.int32(0), x))

        assert traced(loop, jnp.int32(100), X).layers["cos_1_3"].num_passes == 100
        assert traced(loop, jnp.int32(2), X).layers["cos_1_3"].num_passes == 2

    def test_fori(self) -> None:
        trace = traced(lambda x, n: lax.fori_loop(0, n, lambda i, x: jnp.sin(x) + i, x), X, jnp.int32(3))
        assert trace.layers["sin_1_3"].num_passes == 3

    def test_loops_and_choices_in_each_other(self) -> None:
        def inner(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return lax.cond(x.sum() > 1, lambda x: x * 0.5, lambda x: x + 1, x), None

        def outer(x: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
            return lax.scan(inner, x, None, length=2)[0], x.sum()

        trace = traced(lambda x: lax.scan(outer, x, jnp.arange(2)), X)
        assert [op.type for op in trace.compute_ops if op.type in ("mul", "add")] == ["mul", "mul", "add", "mul"]

    def test_a_switch_runs_one_of_many(self) -> None:
        branches = [jnp.sin, jnp.cos, jnp.tanh, jnp.exp, lambda x: -x]
        for index, name in enumerate(("sin", "cos", "tanh", "exp", "neg")):
            assert [
                op.type for op in traced(lambda i, x: lax.switch(i, branches, x), jnp.int32(index), X).compute_ops
            ] == [name]

    def test_several_arrays_that_a_loop_runs_over_are_several_layers(self) -> None:
        trace = traced(lambda x: lax.scan(lambda c, ab: (c + ab[0], (ab[1] + 1, c)), jnp.zeros(3), (x, x * 2)), X)
        taken = [layer for layer in trace.layers if layer.type == "getitem"]
        made = [layer for layer in trace.layers if layer.type == "stack"]
        assert [layer.num_passes for layer in taken] == [2, 2]
        assert [layer.num_passes for layer in made] == [1, 1]

    def test_map_and_associative_scan(self) -> None:
        assert labels(traced(lambda x: lax.map(lambda row: jnp.tanh(row @ W), x), X))[-1] == "stack_1_4:1"
        assert labels(traced(lambda x: lax.associative_scan(jnp.add, x, axis=1), X)) == ["associativescan_1_1:1"]


class TestOpaque:
    """What is one operation whatever is in it."""

    def test_several_results(self) -> None:
        trace = traced(lambda x: (jnp.sort(x), lax.top_k(x, 2), jnp.linalg.svd(x), jnp.linalg.qr(x)), X)
        found = [(op.type, op.output_index) for op in trace.compute_ops]
        assert found == [
            ("sort", 0), ("topk", 0), ("topk", 1), ("svd", 0), ("svd", 1), ("svd", 2), ("qr", 0), ("qr", 1)
        ]  # fmt: skip

    def test_solvers(self) -> None:
        matrix = jnp.eye(3) * 4 + W
        assert labels(traced(lambda x: jnp.linalg.solve(matrix, x[0]), X)) == ["getitem_1_1:1", "solve_1_2:1"]
        root = functools.partial(
            lax.custom_root, solve=lambda f, y: lax.fori_loop(0, 20, lambda i, y: y - f(y) / (3 * y * y), y),
            tangent_solve=lambda g, y: y / g(1.0),
        )  # fmt: skip
        assert labels(traced(lambda x: root(lambda y: y**3 - x.sum(), jnp.float32(1.0)), X)) == ["customroot_1_1:1"]

    def test_windows(self) -> None:
        trace = traced(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 1), "VALID"), X)
        assert [op.type for op in trace.compute_ops] == ["reducewindow"]

    def test_a_kernel_of_pallas(self) -> None:
        def double(x: Any, out: Any) -> None:
            out[...] = x[...] * 2

        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        trace = traced(lambda x: pl.pallas_call(double, out_shape=shape, interpret=True)(x) + 1, X)
        assert labels(trace) == ["pallascall_1_1:1", "add_1_2:1"]

    def test_what_runs_on_several_devices(self) -> None:
        mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = jax.sharding.PartitionSpec("i")
        sharded = jax.shard_map(lambda x: jnp.tanh(x) + 1, mesh=mesh, in_specs=spec, out_specs=spec)
        assert labels(traced(lambda x: sharded(x) * 2, X)) == ["shardmap_1_1:1", "mul_1_2:1"]
        here = jax.sharding.NamedSharding(mesh, spec)
        trace = traced(lambda x: lax.with_sharding_constraint(x * 2, here) + 1, X)
        assert [op.type for op in trace.compute_ops] == ["mul", "withshardingconstraint", "add"]

    def test_on_four_devices(self) -> None:
        run = subprocess.run(
            [sys.executable, Path(__file__).with_name("four_devices.py")], capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == ["shardmap", "pmap-like", "sharded"]

    def test_mutable_arrays_are_refused(self) -> None:
        new_ref = jax.new_ref if hasattr(jax, "new_ref") else importlib.import_module("jax.experimental").mutable_array

        def model(x: jax.Array) -> jax.Array:
            held = new_ref(jnp.zeros(3))
            held[...] += x[0]
            return held[...]

        with pytest.raises(NotSupported, match=r"mutable array.*test_transforms\.py"):
            tl.trace(model, X)


class TestEffects:
    def test_a_callback_runs_once(self) -> None:
        seen: list[float] = []

        def model(x: jax.Array) -> jax.Array:
            jax.debug.callback(lambda total: seen.append(float(total)), x.sum())
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(np.sin, shape, x) + io_callback(np.cos, shape, x)

        trace = tl.trace(model, X)
        jax.effects_barrier()
        assert len(seen) == 1
        assert [op.type for op in trace.compute_ops] == ["sum", "purecallback", "iocallback", "add"]
        tl.trace(model, X, save=False)
        jax.effects_barrier()
        assert len(seen) == 2
        np.testing.assert_allclose(trace["output_1"].out, np.sin(X) + np.cos(X), rtol=1e-6)

    def test_a_check_that_holds_and_one_that_fails(self) -> None:
        def checked(x: jax.Array) -> jax.Array:
            return eqx.error_if(x, x.sum() > 1, "too much") * 2

        np.testing.assert_allclose(tl.trace(checked, X / 10)["output_1"].out, X / 5)
        with pytest.raises(Exception, match="too much"):
            tl.trace(checked, X)

    def test_checkify(self) -> None:
        def model(x: jax.Array) -> jax.Array:
            checkify.check(x.sum() > 0, "negative")
            return jnp.log(x + 1)

        trace = traced(lambda x: checkify.checkify(model)(x)[1], X)
        assert [op.type for op in trace.compute_ops][-2:] == ["add", "log"]
