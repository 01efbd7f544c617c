"""Below the operations that an author writes: primitives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import torchlens as tl

X = jnp.arange(15.0).reshape(5, 3) / 10


def mlp() -> eqx.nn.MLP:
    return eqx.nn.MLP(3, 2, 4, 1, activation=jax.nn.gelu, key=jax.random.key(0))


def test_an_op_knows_its_primitives() -> None:
    trace = tl.trace(jax.vmap(mlp()), X, kernels=True)
    assert trace["linear_1"].kernels == ("dot_general", "transpose", "broadcast_in_dim", "add")
    assert {"tanh", "integer_pow"} <= set(trace["gelu_1"].kernels)
    assert tl.trace(jax.vmap(mlp()), X)["linear_1"].kernels == ()


def test_those_of_functions_that_it_calls() -> None:
    trace = tl.trace(lambda key: jax.random.normal(key, (3,)), jax.random.key(0), kernels=True)
    assert {"random_bits", "erf_inv"} <= set(trace["normal_1"].kernels)


def test_each_primitive_as_an_op() -> None:
    trace = tl.trace(jax.vmap(mlp()), X, granularity="kernel", replay_ready=True)
    first = [(op.func_name, op.type, op.module, op.shape) for op in trace.compute_ops][:4]
    assert first == [
        ("dot_general", "matmul", "layers.0:1", (4, 5)),
        ("transpose", "transpose", "layers.0:1", (5, 4)),
        ("broadcast_in_dim", "broadcastto", "layers.0:1", (1, 4)),
        ("add", "add", "layers.0:1", (5, 4)),
    ]
    assert trace["matmul_1"].flops == 2 * 5 * 3 * 4
    assert all(layer.num_passes == 1 for layer in trace.layers)  # of gelu, each product is another place
    np.testing.assert_allclose(trace["output_1"].out, jax.vmap(mlp())(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trace.replay()["output_1"].out, trace["output_1"].out)


def test_both_views_know_the_same_primitives() -> None:
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.LayerNorm(4, rngs=nnx.Rngs(0)), nnx.softmax)
    functions = tl.trace(net, X, kernels=True)
    primitives = tl.trace(net, X, granularity="kernel")
    below = [kernel for op in functions.compute_ops for kernel in op.kernels]
    assert sorted(below) == sorted(op.func_name for op in primitives.compute_ops)


@pytest.mark.parametrize("granularity", ["function", "kernel"])
def test_neither_is_given_the_program_of_the_other(granularity: str) -> None:
    net = mlp()
    counts = {g: tl.trace(jax.vmap(net), X, granularity=g).num_ops for g in (granularity, "function", "kernel")}
    assert counts["function"] == 3 < counts["kernel"]


def test_a_derivative_rule_is_opened() -> None:
    trace = tl.trace(jax.nn.relu, X, granularity="kernel")
    assert [op.func_name for op in trace.compute_ops] == ["max"]
