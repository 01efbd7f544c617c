"""Gradients at all Ops: those of ``jax.grad`` with taps written by hand, and those of finite differences."""

from __future__ import annotations

from collections.abc import Callable
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
from torchlens_core.errors import GradientError, GradientNotSaved, NotSupported, ReplayError

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 4))
W = jax.random.normal(jax.random.key(2), (4, 4))


def ready(model: Any, *args: Any, **options: Any) -> Any:
    """A trace that gradients can be asked of."""
    return tl.trace(model, list(args), replay_ready=True, **options)


def close(found: Any, expected: Any, rtol: float = 1e-6) -> None:
    """Of one shape and type, and equal but for rounding."""
    assert found is not None and found.shape == expected.shape and found.dtype == expected.dtype
    scale = float(np.abs(np.asarray(expected, np.complex128)).max(initial=1e-30))
    difference = np.asarray(found, np.complex128) - np.asarray(expected, np.complex128)
    assert float(np.abs(difference).max(initial=0.0)) <= rtol * scale


# -- jax.grad with taps written by hand --------------------------------------------------------------------------------


def test_at_every_op_of_a_function() -> None:
    def model(w: Any, x: Any, tap: Any = None) -> Any:
        t = tap or (lambda name, value: value)
        h = t("matmul_1", t("input_2", x) @ t("input_1", w))
        h = t("relu_1", jax.nn.relu(h))
        h = t("softmax_1", jax.nn.softmax(h))
        return t("sum_1", h.sum(0)), t("max_1", h.max())

    found = ready(model, W, X).gradients(of=lambda out: (out["0"] ** 2).sum() + out["1"])

    def tapped(zeros: Any) -> Any:
        first, second = model(W, X, lambda name, value: value + zeros[name])
        return (first**2).sum() + second

    shapes = {"input_1": (4, 4), "input_2": (3, 4), "matmul_1": (3, 4), "relu_1": (3, 4), "softmax_1": (3, 4),
              "sum_1": (4,), "max_1": ()}  # fmt: skip
    expected = jax.grad(tapped)({name: jnp.zeros(shape) for name, shape in shapes.items()})
    for name, each in expected.items():
        close(found[name], each)
    assert [key for key in found if found[key] is None] == []


class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        keys = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(4)
        self.first, self.second = eqx.nn.Linear(4, 8, key=keys[0]), eqx.nn.Linear(8, 4, key=keys[1])

    def __call__(self, x: Any) -> Any:
        return x + self.second(jax.nn.gelu(self.first(self.norm(x))))


class Twice(eqx.Module):
    """A block of shared weights, called twice."""

    block: Block

    def __call__(self, x: Any) -> Any:
        return jax.vmap(self.block)(jax.vmap(self.block)(x))


def test_parameters_inputs_and_both_calls_of_a_shared_module() -> None:
    model = Twice(Block(KEY))
    found = ready(model, X).gradients(of=lambda out: jnp.sum(out**2), params=True)
    expected = eqx.filter_grad(lambda model: jnp.sum(model(X) ** 2))(model)
    places = ("first.bias", "first.weight", "norm.bias", "norm.weight", "second.bias", "second.weight")
    assert sorted(found.params) == [f"block.{place}" for place in places]
    close(found.params["block.first.weight"], expected.block.first.weight)
    close(found.params["block.norm.bias"], expected.block.norm.bias)
    close(found["input_1"], jax.grad(lambda x: jnp.sum(model(x) ** 2))(X))
    close(found["output_1"], 2 * model(X))
    second = jax.grad(lambda h: jnp.sum(jax.vmap(model.block)(h) ** 2))(jax.vmap(model.block)(X))
    close(found["add_1:1"], second)
    with pytest.raises(GradientNotSaved, match="params=True"):
        _ = ready(model, X).gradients(of=lambda out: out.sum()).params


def test_each_iteration_of_a_scan() -> None:
    def model(x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            carry = jnp.tanh(carry * 0.5 + row)
            return carry, carry * 2

        return jax.lax.scan(step, x[0], x, reverse=True)

    found = ready(model, X).gradients(of=lambda out: out["0"].sum() + (out["1"] ** 3).sum())

    def unrolled(zeros: Any) -> Any:
        carry, rows = X[0], []
        for number, at in enumerate((2, 1, 0)):
            carry = jnp.tanh(carry * 0.5 + X[at]) + zeros[number]
            rows.append(carry * 2)
        return carry.sum() + sum((row**3).sum() for row in rows)

    expected = jax.grad(unrolled)(jnp.zeros((3, 4)))
    for number in range(3):
        close(found[f"tanh_1:{number + 1}"], expected[number])


def test_only_what_ran_of_a_cond_has_a_gradient() -> None:
    def model(x: Any) -> Any:
        h = jax.lax.cond(x.sum() > 0, lambda x: jnp.sin(x), lambda x: jnp.exp(x) * 2, x)
        return jax.lax.switch(2, [jnp.tanh, jnp.cos, lambda h: h * h], h)

    for x in (jnp.abs(X), -jnp.abs(X)):
        trace = ready(model, x)
        found = trace.gradients(of=lambda out: out.sum())
        close(found["input_1"], jax.grad(lambda x: model(x).sum())(x))
        taken = "sin_1" if x.sum() > 0 else "exp_1"
        assert found[taken] is not None and not {"sin_1", "exp_1"} - {taken} & {op.layer_label for op in trace}


def test_a_branch_taken_in_some_iterations() -> None:
    def model(x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            carry = jax.lax.cond(row.sum() > 0, lambda c: jnp.sin(c) * row, lambda c: c + row, carry)
            return carry, carry

        return jax.lax.scan(step, jnp.ones(4), x)[0].sum()

    x = jnp.stack([jnp.ones(4), -jnp.ones(4), 2 * jnp.ones(4)])
    found = ready(model, x).gradients()
    close(found["input_1"], jax.grad(model)(x))
    sines = [key for key in found if key.startswith("sin_1")]
    assert len(sines) == 2 and all(found[key] is not None for key in sines)


def test_a_while_loop_is_differentiated_as_often_as_it_ran() -> None:
    """Which JAX itself refuses: here the number of iterations is known."""

    def model(x: Any) -> Any:
        def outer(carry: Any, row: Any) -> Any:
            inner = jax.lax.while_loop(lambda h: jnp.linalg.norm(h) < 5, lambda h: h * 1.5 + row, carry + row)
            return jnp.tanh(inner), inner

        return jax.lax.scan(outer, x[0] * 0.1, x)[1]

    def by_hand(x: Any) -> Any:
        carry, rows = x[0] * 0.1, []
        for row in x:
            h = carry + row
            while jnp.linalg.norm(h) < 5:
                h = h * 1.5 + row
            rows.append(h)
            carry = jnp.tanh(h)
        return jnp.stack(rows)

    trace = ready(model, X)
    found = trace.gradients(of=lambda out: (out * jnp.arange(4.0)).sum())
    close(found["input_1"], jax.grad(lambda x: (by_hand(x) * jnp.arange(4.0)).sum())(X), rtol=1e-5)
    norms = [key for key in found if key.startswith("norm_")]
    assert norms and all(found[key] is None and "does not depend" in found.why_none(key) for key in norms)
    with pytest.raises(ValueError, match="while_loop"):
        jax.grad(lambda x: model(x).sum())(X)


def test_a_rule_of_its_own_stays_the_rule() -> None:
    @jax.custom_vjp
    def clipped(x: Any) -> Any:
        y = jnp.sin(x) * 2
        return jnp.round(y) + x * 0

    clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (g * 100 * x,))

    @jax.custom_jvp
    def steep(x: Any) -> Any:
        return jnp.cos(x)

    steep.defjvp(lambda primals, tangents: (steep(primals[0]), tangents[0] * 7))

    @jax.custom_vjp
    def reversing(x: Any) -> Any:
        return x

    reversing.defvjp(lambda x: (x, None), lambda _, g: (-g,))

    def model(x: Any) -> Any:
        return steep(clipped(reversing(x * 2)))

    trace = ready(model, X)
    found = trace.gradients(of=lambda out: (out * W[:3]).sum())
    close(found["input_1"], jax.grad(lambda x: (model(x) * W[:3]).sum())(X))
    close(found["cos_1"], W[:3])
    close(found["add_1"], W[:3] * 7)  # what `clipped` returns
    close(found["mul_1"], -W[:3] * 7 * 100 * (X * 2))
    assert found["sin_1"] is None and "derivative rule of its own" in found.why_none("sin_1")


def test_models_that_python_drives() -> None:
    """Their operations run again, one by one; functions with a rule as a whole."""

    @jax.custom_vjp
    def ruled(x: Any) -> Any:
        return jnp.cos(jnp.sin(x))

    ruled.defvjp(lambda x: (ruled(x), x), lambda x, g: (g * x * 5,))

    def model(x: Any) -> Any:
        h = jnp.tanh(x)
        if h.sum() > 0:
            h = h * 2
        return ruled(h) * 3

    for x in (X, -X):
        found = ready(model, x).gradients(of=lambda out: out.sum())
        close(found["input_1"], jax.grad(lambda x: model(x).sum())(x))
        close(found["cos_1"], jnp.full_like(X, 3.0))
        assert "derivative rule of its own" in found.why_none("sin_1")
        assert "does not depend" in found.why_none("sum_1")


def test_operations_without_a_derivative() -> None:
    def on_host(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")

    def model(x: Any) -> Any:
        h = jnp.tanh(x)
        return jnp.exp(on_host(h)) * jnp.cos(x)

    trace = ready(model, X)
    for _ in range(2):
        found = trace.gradients(of=lambda out: out.sum())
        close(found["exp_1"], jnp.cos(X))
        close(found["cos_1"], jnp.exp(jnp.sin(jnp.tanh(X))))
        for label in ("tanh_1", "input_1"):  # of the input there would be a part only
            assert found[label] is None and "callbacks do not support" in found.why_none(label)
    with pytest.raises(GradientError, match="has no derivative"):
        trace.gradients(of=lambda out: out.sum(), at=tl.func("tanh"))


def test_vmap_remat_jit_and_a_gradient_inside() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.tanh(x @ W)

    def model(x: Any) -> Any:
        h = jax.vmap(jax.checkpoint(lambda row: jnp.sin(row) * row))(inner(x))
        return h * jax.grad(lambda h: jnp.sum(h**3))(h)

    found = ready(model, X).gradients(of=lambda out: out.mean())
    close(found["input_1"], jax.grad(lambda x: model(x).mean())(X))
    close(found["tanh_1"], _behind(model, inner)(jnp.tanh(X @ W)))


def _behind(model: Any, inner: Any) -> Any:
    def rest(h: Any) -> Any:
        h = jnp.sin(h) * h
        return (h * 3 * h**2).mean()

    return jax.grad(rest)


def test_element_types() -> None:
    def model(x: Any) -> Any:
        z = x.astype(jnp.bfloat16) * 2
        index = jnp.argmax(x, -1)
        c = jax.lax.complex(x, z.astype(jnp.float32)) ** 2
        return jnp.abs(c).sum() + index.sum()

    trace = ready(model, X)
    found = trace.gradients()
    close(found["input_1"], jax.grad(model)(X))
    assert found["mul_1"].dtype == jnp.bfloat16 and found["complex_1"].dtype == jnp.complex64
    expected = jax.grad(lambda c: jnp.abs(c**2).sum())(
        jax.lax.complex(X, (X.astype(jnp.bfloat16) * 2).astype(jnp.float32))
    )
    close(found["complex_1"], expected)
    assert "argmax_1" not in found and found["argmax_1"] is None and "int32" in found.why_none("argmax_1")
    assert trace["argmax_1"].grad is None and "int32" in trace["argmax_1"].grad_reason


# -- finite differences ------------------------------------------------------------------------------------------------


class Recurrent(nnx.Module):
    def __init__(self) -> None:
        self.cell = nnx.Linear(4, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)

    def __call__(self, x: Any) -> Any:
        h = self.norm(self.cell(x))
        for _ in range(2):
            h = jnp.tanh(self.cell(h) + x)
        return h


class Gated(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        gate = nn.sigmoid(nn.Dense(4, param_dtype=jnp.float64, dtype=jnp.float64)(x))
        return gate * x + (1 - gate) * nn.softplus(nn.Dense(4, param_dtype=jnp.float64, dtype=jnp.float64)(x))


def _scanned(x: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        return jnp.sin(carry) * row + carry, jnp.exp(-(carry**2))

    return jax.lax.scan(step, x[0], x)


def _haiku(x: Any) -> Any:
    return hk.nets.MLP([5, 3], activation=jnp.tanh)(x)


def small_models() -> dict[str, Callable[[Any], Any]]:
    """Each a call of a small model in 64 bits; to be built where these are on."""
    gated = Gated()
    mlp = hk.without_apply_rng(hk.transform(_haiku))
    cast = jax.tree_util.Partial
    twice = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, Twice(Block(KEY))
    )
    x = X.astype(jnp.float64)
    variables = gated.init(KEY, x)
    params = mlp.init(KEY, x)
    return {
        "scan": _scanned,
        "equinox": twice,
        "nnx": Recurrent(),
        "linen": cast(gated.apply, variables),
        "haiku": cast(mlp.apply, params),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["scan", "equinox", "nnx", "linen", "haiku"])
def test_finite_differences_in_64_bits(name: str) -> None:
    with _wide():
        report = tl.validate(small_models()[name], X.astype(jnp.float64), scope="backward")
    assert report, str(report)
    assert report.num_finite_differences >= 3 and report.finite_difference < 1e-6


def _wide() -> Any:
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def test_64_bits_afterwards() -> None:
    """A trace made with 64-bit types has such gradients, wherever they are asked for."""
    with _wide():
        trace = ready(lambda x: jnp.sin(x), X.astype(jnp.float64))
    found = trace.gradients(of=lambda out: out.sum())
    assert found["input_1"].dtype == jnp.float64
    np.testing.assert_allclose(np.asarray(found["input_1"]), np.cos(np.asarray(X, np.float64)), rtol=1e-12)


# -- what is differentiated --------------------------------------------------------------------------------------------


def test_another_function_is_never_served_by_an_old_program() -> None:
    trace = ready(lambda x: x * 2, X)

    def at_input(of: Any) -> Any:
        return np.asarray(trace.gradients(of=of)["input_1"])

    for factor in (1.0, 3.0):
        np.testing.assert_array_equal(at_input(lambda out: (out * factor).sum()), 2 * factor)  # noqa: B023
    for labels in (jnp.ones(4), jnp.arange(4.0)):
        expected = np.broadcast_to(2 * labels, X.shape)
        np.testing.assert_array_equal(at_input(lambda out: (out * labels).sum()), expected)  # noqa: B023
        np.testing.assert_array_equal(at_input(lambda out: _in_jit(out, labels)), expected)  # noqa: B023
        host = np.asarray(labels)
        np.testing.assert_array_equal(at_input(lambda out: (out * host).sum()), expected)  # noqa: B023
    held = {"factor": jnp.float32(1)}
    function = lambda out: (out * held["factor"]).sum()  # noqa: E731
    assert (at_input(function) == 2).all()
    held["factor"] = jnp.float32(5)
    assert (at_input(function) == 10).all()
    global _FACTOR
    try:
        assert (at_input(_by_global) == 4).all()
        _FACTOR = 7.0
        assert (at_input(_by_global) == 14).all()
    finally:
        _FACTOR = 2.0
    a, b = jnp.ones(4), jnp.full(4, 3.0)
    for left, right in ((a, a), (a, b), (b, a)):  # one array twice, then two
        got = at_input(lambda out: (out * left - out * 2 * right).sum())  # noqa: B023
        np.testing.assert_array_equal(got, np.broadcast_to(2 * (left - 2 * right), X.shape))


_FACTOR = 2.0


def _by_global(out: Any) -> Any:
    return (out * _FACTOR).sum()


def _in_jit(out: Any, labels: Any) -> Any:
    return jax.jit(lambda out: (out * labels).sum())(out)


def _programs(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What JAX says of the programs that it compiled or staged, small ones of single functions left out."""
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if "Compiling jit(run)" in line or "tracing flat" in line]


def test_a_second_call_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = Twice(Block(KEY))

    def gradients(labels: Any, scale: Any) -> Any:
        act = tl.when(tl.func("gelu"), tl.scale(scale))
        return ready(model, X, save=False, intervene=act).gradients(of=lambda out: ((out - labels) ** 2).sum())

    with jax.log_compiles():
        first = gradients(jnp.ones(4), 0.5)
        assert _programs(caplog)
        caplog.clear()
        second = gradients(jnp.zeros(4), 0.25)
    assert not _programs(caplog)
    assert not jnp.allclose(first["input_1"], second["input_1"])


def test_a_function_that_looks_at_values() -> None:
    def predicted(out: Any) -> Any:
        return out[0, int(out[0].argmax())] * (2 if out.sum() > 0 else 3)

    model = lambda x: jnp.tanh(x @ W)  # noqa: E731
    for x in (X, -X):
        found = ready(model, x).gradients(of=predicted)
        close(found["input_1"], jax.grad(lambda x: predicted(model(x)))(x))


def test_what_has_no_gradient() -> None:
    def model(x: Any) -> Any:
        return {"a": jnp.tanh(x), "b": jnp.sin(x).sum(), "c": jnp.argmax(x)}

    trace = ready(model, X)
    found = trace.gradients(of="output.b")
    assert found["tanh_1"] is None and found.why_none("tanh_1") == "what was differentiated does not depend on it"
    assert found["sin_1"] is not None and found.why_none("sin_1") is None
    some = trace.gradients(of="b", at=tl.func("sin"))
    assert list(some) == ["sin_1_2"] and "at= means other Ops" in some.why_none("input_1")
    with pytest.raises(GradientError, match=r"shape \(3, 4\).*Reduce it"):
        trace.gradients(of="a")
    with pytest.raises(GradientError, match="int32; only real"):
        trace.gradients(of="c")
    with pytest.raises(GradientError, match="Did you mean 'a'"):
        trace.gradients(of="output.aa")
    with pytest.raises(GradientError, match="depends on none"):
        trace.gradients(of=lambda out: jnp.float32(1))
    with pytest.raises(ReplayError, match="replay_ready=True"):
        tl.trace(model, X).gradients(of="b")
    with pytest.raises(GradientError, match="stopped before"):
        ready(model, X, halt=tl.func("tanh")).gradients(of="b")


def test_there_is_no_tape() -> None:
    with pytest.raises(NotSupported, match=r"trace\.gradients\(of=\.\.\.\)"):
        tl.trace(lambda x: jnp.tanh(x), X, save_grads=True)
    trace = ready(lambda x: jnp.tanh(x), X)
    with pytest.raises(NotSupported, match=r"trace\.gradients\(of=\.\.\.\)"):
        trace.log_backward(trace["tanh_1"].out.sum())
    with pytest.raises(GradientNotSaved, match=r"trace\.gradients\(of=\.\.\.\)\['tanh_1_1:1'\]"):
        _ = trace["tanh_1"].grad


# -- interventions -----------------------------------------------------------------------------------------------------


def test_interventions_of_the_run_are_differentiated() -> None:
    def model(x: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            return jnp.tanh(carry + row), None

        return jax.lax.scan(step, jnp.zeros(4), jnp.sin(x))[0]

    patch = jnp.full((3, 4), 0.3)
    second = tl.func("tanh").nth(2)
    trace = ready(model, X, intervene=[tl.when(tl.func("sin"), tl.add(patch)), tl.when(second, tl.scale(3.0))])

    def by_hand(x: Any) -> Any:
        carry = jnp.zeros(4)
        for number, row in enumerate(jnp.sin(x) + patch):
            carry = jnp.tanh(carry + row) * (3.0 if number == 1 else 1.0)
        return carry

    close(trace.gradients(of=lambda out: out.sum())["input_1"], jax.grad(lambda x: by_hand(x).sum())(X))
    replayed = trace.replay(hooks={"tanh_1:3": tl.scale(0.5)})
    close(replayed.gradients(of=lambda out: out.sum())["input_1"], jax.grad(lambda x: by_hand(x).sum() * 0.5)(X))


def _steering(action: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @jax.custom_vjp
    def identity(x: Any) -> Any:
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (action(g),))
    return identity


ACTIONS = {
    "zero": (lambda: tl.grad_zero(), lambda g: g * 0),
    "scale": (lambda: tl.grad_scale(2.5), lambda g: g * 2.5),
    "scale by an array": (lambda: tl.grad_scale(jnp.arange(4.0)), lambda g: g * jnp.arange(4.0)),
    "clip": (lambda: tl.grad_clip(0.1), lambda g: g * jnp.minimum(1.0, 0.1 / (jnp.linalg.norm(g) + 1e-6))),
    "function": (lambda: tl.bwd_hook(lambda g: jnp.sign(g)), jnp.sign),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_on_gradients_act_in_the_backward_pass(name: str) -> None:
    action, by_hand = ACTIONS[name]

    def model(x: Any, at: Any = lambda h: h) -> Any:
        return jnp.sin(at(jnp.tanh(x @ W)) * 2).sum()

    trace = ready(model, X, intervene=tl.when(tl.func("tanh"), action()))
    assert trace["tanh_1"].out is not None and "tanh" in repr(trace["tanh_1"].interventions)
    close(trace["output_1"].out, model(X))
    found = trace.gradients()
    close(found["input_1"], jax.grad(lambda x: model(x, _steering(by_hand)))(X))
    close(found["tanh_1"], by_hand(jax.grad(lambda h: jnp.sin(h * 2).sum())(jnp.tanh(X @ W))))


def test_actions_on_gradients_in_one_iteration() -> None:
    def model(x: Any) -> Any:
        return jax.lax.scan(lambda c, row: (jnp.tanh(c + row), c), jnp.zeros(4), x)[0].sum()

    def by_hand(x: Any) -> Any:
        carry = jnp.zeros(4)
        for number, row in enumerate(x):
            carry = jnp.tanh(carry + row)
            carry = _steering(lambda g: g * 10)(carry) if number == 1 else carry
        return carry.sum()

    trace = ready(model, X, intervene=tl.when(tl.func("tanh").nth(2), tl.grad_scale(10.0)))
    close(trace.gradients()["input_1"], jax.grad(by_hand)(X))
    everywhere = ready(model, X, intervene=tl.when(tl.func("tanh"), tl.grad_zero()))
    assert not jnp.any(everywhere.gradients()["input_1"])


def test_noise_on_gradients() -> None:
    def model(x: Any) -> Any:
        return jnp.tanh(x).sum()

    first, again, other = (
        ready(model, X, intervene=tl.when(tl.func("tanh"), tl.grad_noise(0.5, seed=seed))).gradients()["tanh_1"]
        for seed in (1, 1, 2)
    )
    assert jnp.array_equal(first, again) and not jnp.array_equal(first, other)
    assert 0.1 < float(jnp.std(first - 1)) < 1.0


def test_another_setting_of_an_action_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = lambda x: jnp.tanh(x).sum()  # noqa: E731

    def scaled(factor: float) -> Any:
        trace = ready(model, X, intervene=tl.when(tl.func("tanh"), tl.grad_scale(factor)))
        return trace.gradients()["tanh_1"]

    with jax.log_compiles():
        first = scaled(2.0)
        assert _programs(caplog)
        caplog.clear()
        second = scaled(3.0)
    assert not _programs(caplog)
    assert (first == 2).all() and (second == 3).all()


def test_what_cannot_be_steered() -> None:
    @jax.custom_vjp
    def ruled(x: Any) -> Any:
        return jnp.sin(x) * 2

    ruled.defvjp(lambda x: (ruled(x), None), lambda _, g: (g,))
    for action in (tl.scale(2.0), tl.grad_scale(2.0)):
        trace = ready(lambda x: ruled(x), X, intervene=tl.when(tl.func("sin"), action))
        with pytest.raises(GradientError, match=r"derivative rule of its own.*Act on what the function returns"):
            trace.gradients(of=lambda out: out.sum())
    after = ready(lambda x: ruled(x), X, intervene=tl.when(tl.func("multiply"), tl.scale(3.0)))
    close(after.gradients(of=lambda out: out.sum())["input_1"], jnp.full_like(X, 3.0))
    by_value = tl.where(lambda op: bool(op.out.mean() > 0))
    with pytest.raises(NotSupported, match="compiled before there are values"):
        ready(lambda x: jnp.tanh(x), X, intervene=tl.when(by_value, tl.grad_zero()))
