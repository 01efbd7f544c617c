"""What models are given and compute with: element types, keys, empty arrays, pytrees, settings that are no arrays."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import torchlens as tl

X = jnp.arange(6.0).reshape(2, 3) / 7


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8", "uint16", "int4", "complex64", "bool"],
)
def test_element_types(dtype: str) -> None:
    x = jnp.array([[1, 0, 1]], dtype)
    model = (lambda x: ~x) if dtype == "bool" else (lambda x: x + x)
    trace = tl.trace(model, x, replay_ready=True)
    (op,) = trace.compute_ops
    assert op.dtype_name == dtype and op.out.dtype == x.dtype
    assert np.array_equal(op.out, model(x))
    assert np.array_equal(trace.replay()[op.label].out, op.out)


def test_with_64_bits_and_without() -> None:
    def model(x: Any) -> Any:
        return x * jnp.arange(3)

    assert tl.trace(model, jnp.ones(3))["mul_1"].dtype_name == "float32"
    try:
        jax.config.update("jax_enable_x64", True)
        trace = tl.trace(model, jnp.ones(3))
        assert trace["mul_1"].dtype_name == "float64" and trace["arange_1"].dtype_name == "int64"
    finally:
        jax.config.update("jax_enable_x64", False)
    assert tl.trace(model, jnp.ones(3))["mul_1"].dtype_name == "float32"


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_keys(make: Any) -> None:
    def model(key: Any, x: Any) -> Any:
        first, second = jax.random.split(key)
        return x * jax.random.bernoulli(first, 0.5, x.shape), second

    trace = tl.trace(model, [make(0), X], replay_ready=True)
    out, key = model(make(0), X)
    outputs = [op.out for op in trace if op.type == "output"]
    assert np.array_equal(outputs[0], out)
    assert np.array_equal(jax.random.key_data(outputs[1]), jax.random.key_data(key))
    assert [op.type for op in trace.compute_ops].count("bernoulli") == 1
    assert np.array_equal(trace.replay()["output_1"].out, out)


def test_dropout() -> None:
    dropout = eqx.nn.Dropout(0.5)
    trace = tl.trace(lambda x, key: dropout(x, key=key) + 1, [X, jax.random.key(1)])
    assert [op.type for op in trace.compute_ops] == ["dropout", "add"]
    assert np.array_equal(trace["output_1"].out, dropout(X, key=jax.random.key(1)) + 1)


def test_empty_arrays() -> None:
    trace = tl.trace(lambda x: jnp.concatenate([x, jnp.zeros((0, 3))]).sum(0), jnp.zeros((0, 3)), replay_ready=True)
    assert trace["cat_1"].shape == (0, 3)
    assert np.array_equal(trace.replay()["output_1"].out, np.zeros(3))


def test_weak_types_stay_weak() -> None:
    x = jnp.ones(3, jnp.bfloat16)
    trace = tl.trace(lambda x, scale: x * scale, [x, jax.lax.full((), 2.0)])
    assert trace["mul_1"].dtype_name == (x * jax.lax.full((), 2.0)).dtype.name


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Batch:
    image: Any
    label: Any


def test_pytrees_in_and_out() -> None:
    def model(pair: Pair, batch: Batch) -> Any:
        return Pair(pair.first * batch.image, None), {"rest": [pair.second + batch.label]}

    trace = tl.trace(model, [Pair(X, X + 1), Batch(X, X)])
    inputs = [op.address for op in trace if op.type == "input"]
    assert inputs == ["input.pair.first", "input.pair.second", "input.batch.image", "input.batch.label"]
    outputs = [op.address for op in trace if op.type == "output"]
    assert outputs == ["output.0.first", "output.1.rest.0"]


def test_arguments_that_are_no_arrays() -> None:
    def model(x: Any, scale: float, nothing: None, *, mode: str, act: Any) -> Any:
        return act(x) * scale if mode == "on" else -x

    trace = tl.trace(model, [X, 2.0, None], {"mode": "on", "act": jnp.tanh})
    assert [op.type for op in trace.compute_ops] == ["tanh", "mul"]
    assert [op.type for op in tl.trace(model, [X, 2.0, None], {"mode": "off", "act": jnp.tanh}).compute_ops] == ["neg"]
    assert next(op.type for op in tl.trace(model, [X, 2.0, None], {"mode": "on", "act": jnp.sin}).compute_ops) == "sin"


class TestNames:
    """An operation is what its author wrote."""

    @pytest.mark.parametrize(
        ("model", "types"),
        [
            (lambda x: jax.nn.softmax(jax.nn.gelu(x)), ["gelu", "softmax"]),
            (lambda x: x @ x.T + 1, ["transpose", "matmul", "add"]),
            (lambda x: jnp.einsum("ij,kj->ik", x, x), ["einsum"]),
            (lambda x: jax.lax.dot_general(x, x, (((1,), (1,)), ((), ()))), ["matmul"]),
            (lambda x: jnp.mean(x, 1) + jnp.var(x, 1), ["mean", "var", "add"]),
            (lambda x: jax.nn.logsumexp(x) + jax.nn.standardize(x), ["logsumexp", "standardize", "add"]),
            (lambda x: jnp.linalg.norm(x), ["norm"]),
            (lambda x: jnp.where(x > 0, x, 0.0), ["gt", "where"]),
            (lambda x: x.at[0].set(1.0)[1:], ["indexput", "getitem"]),
        ],
    )
    def test_of_functions(self, model: Any, types: list[str]) -> None:
        assert [op.type for op in tl.trace(model, X).compute_ops] == types

    def test_each_call_of_a_line_is_an_operation(self) -> None:
        def heads(x: Any) -> Any:
            return x.reshape(3, 2)

        def model(x: Any) -> Any:
            a, b = x
            q, k, v = (heads(each) for each in (x, x + 1, x + 2))
            return a, b, q, k, v

        trace = tl.trace(model, X)
        assert [(op.type, len(op.parents)) for op in trace.compute_ops] == [
            ("getitem", 1), ("getitem", 1), ("add", 1), ("add", 1), ("reshape", 1), ("reshape", 1), ("reshape", 1)
        ]  # fmt: skip

    def test_where_it_was_written(self) -> None:
        def model(x: Any) -> Any:
            return jax.nn.gelu(x) * 3

        place = tl.trace(model, X)["gelu_1"].code_context[-1]
        assert place.file == __file__ and place.func_name == "model"
        assert place.call_line.strip() == "return jax.nn.gelu(x) * 3"
