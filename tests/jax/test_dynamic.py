"""The ways in which a model of JAX is run: compiled, concrete, dynamic. What a trace holds depends on none of them."""

from __future__ import annotations

import warnings
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import torchlens as tl
import torchlens_jax
from torchlens_core.errors import CaptureError, NotSupported
from torchlens_jax.staging.patching import patched_classes
from torchlens_jax.staging.staging import staging

MODES = ("compiled", "concrete", "dynamic")
X = jnp.abs(jnp.arange(8.0).reshape(2, 4)) / 8 + 0.5


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    assert staging.calls is None
    assert patched_classes() == []
    assert float(jnp.sum(jnp.ones(3))) == 3.0  # no trace of ours is the current one


# -- models that every way can run -------------------------------------------------------------------------------------


def loops(x: Any) -> Any:
    """scan, while and cond, a library function, and arrays made inside."""
    y = jax.nn.softmax(x * 2) + jnp.zeros(4)
    carry, ys = jax.lax.scan(lambda c, a: (jnp.tanh(c + a), c), jnp.ones(4), y)
    total = jax.lax.while_loop(lambda v: v.sum() < 20, lambda v: v * 2, carry)
    return jax.lax.cond(total.sum() > 0, lambda v: v * 2, lambda v: v + 1, total) + ys.sum()


def transforms(x: Any) -> Any:
    """Transformations of JAX inside a model."""

    @jax.custom_vjp
    def ruled(v: Any) -> Any:
        return jnp.sin(v) * 2

    ruled.defvjp(lambda v: (ruled(v), v), lambda saved, g: (g * jnp.cos(saved),))
    y = jax.vmap(lambda row: jnp.tanh(row) * row.sum())(x)
    y = jax.jit(lambda v: jnp.exp(v) - 1)(y)
    y = jax.checkpoint(lambda v: jnp.sin(v) * 2)(y)
    return ruled(y) + jax.grad(lambda v: (v**2).sum())(x)


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.q, self.k, self.v = (nnx.Linear(4, 4, rngs=rngs) for _ in range(3))

    def __call__(self, x: Any) -> Any:
        y = self.norm(x)
        weights = jax.nn.softmax(self.q(y) @ self.k(y).T / 2)
        return x + weights @ self.v(y)


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = getattr(nnx, "List", list)([Attention(rngs), Attention(rngs)])
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.seen = nnx.BatchStat(jnp.zeros(4))

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        x = self.drop(self.bn(x))
        self.seen[...] = self.seen[...] + x.mean(0)
        return {"out": x, "seen": self.seen[...] * 1}


class Gated(eqx.Module):
    first: eqx.nn.Linear
    shared: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return self.shared(jax.nn.gelu(self.shared(self.first(x))))


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        inner = linen.Dense(4)
        return linen.Dense(3)(linen.relu(inner(inner(x))))


def _nnx() -> tuple[Any, list[Any]]:
    return Network(nnx.Rngs(0)), [X]


def _eqx() -> tuple[Any, list[Any]]:
    first, second = jax.random.split(jax.random.key(0))
    model = Gated(eqx.nn.Linear(4, 4, key=first), eqx.nn.Linear(4, 4, key=second))
    return eqx.filter_jit(jax.vmap(model)), [X]


def _linen() -> tuple[Any, list[Any]]:
    module = Dense()
    return module.apply, [module.init(jax.random.key(0), X), X]


def _haiku() -> tuple[Any, list[Any]]:
    net = hk.transform(lambda x: hk.Linear(3)(hk.nets.MLP([4, 4])(x)))
    return net.apply, [net.init(jax.random.key(0), X), None, X]


CASES = {
    "loops": lambda: (loops, [X]),
    "transforms": lambda: (transforms, [X]),
    "nnx": _nnx,
    "equinox": _eqx,
    "linen": _linen,
    "haiku": _haiku,
}


def traced(mode: str, case: str, **options: Any) -> Any:
    model, args = CASES[case]()
    with torchlens_jax.mode(mode):
        return tl.trace(model, args, **options)


def shape_of(trace: Any) -> list[Any]:
    """Labels, edges, modules, call sites and state of a trace, without its values."""
    ops = [(op.label, op.func_name, op.parents, op.modules, op.shape, str(op.dtype)) for op in trace]
    calls = [(call.call_label, call.output_ops) for module in trace.modules for call in module.calls]
    return [ops, calls, [(param.address, param.shape) for param in trace.params]]


@pytest.mark.parametrize("mode", ["concrete", "dynamic"])
@pytest.mark.parametrize("case", CASES)
def test_a_trace_is_the_same_in_every_way(case: str, mode: str) -> None:
    expected, got = traced("compiled", case), traced(mode, case)
    assert (expected.mode, got.mode, got.mode_reason) == (None, mode, "asked for")
    assert shape_of(got) == shape_of(expected)
    for op, other in zip(expected, got, strict=True):
        np.testing.assert_allclose(op.out, other.out, rtol=1e-5, atol=1e-6, err_msg=op.label)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_values_are_replaced_in_every_way(case: str, mode: str) -> None:
    """What an intervention changes flows on, and what it changed is noted."""
    model, args = CASES[case]()
    site = next(op for op in tl.trace(model, args) if op.type in ("tanh", "linear"))
    label = site.label
    made = traced(mode, case, intervene=tl.when(tl.func(site.func_name).nth(1), tl.scale(0.0)))
    assert not np.asarray(made[label].out).any()
    assert made[label].is_changed


# -- Python that reads values ------------------------------------------------------------------------------------------


def branching(x: Any) -> Any:
    y = x * 2
    if y.sum() > 0:
        z = jax.nn.relu(y)
    else:
        z = jnp.tanh(y) + 1
    while z.sum() < 50:
        z = z * 2
    return z - 1


def types(trace: Any) -> list[str]:
    return [op.type for op in trace.compute_ops]


def test_a_model_that_branches_is_run_by_python() -> None:
    made = tl.trace(branching, [X])
    assert made.mode == "dynamic"
    assert "if y.sum() > 0:" in made.mode_reason
    assert types(made)[:4] == ["mul", "sum", "gt", "relu"]
    assert types(tl.trace(branching, [-X]))[3:5] == ["tanh", "add"]
    np.testing.assert_array_equal(made["output_1"].out, branching(X))
    assert [conditional.kind for conditional in made.conditionals.conditionals] == ["if_chain", "while"]


def test_the_branch_follows_a_changed_value() -> None:
    made = tl.trace(branching, [X], intervene=tl.when(tl.func("sum").nth(1), tl.scale(-1.0)))
    assert types(made)[3:5] == ["tanh", "add"]


def test_what_a_module_returns_is_changed_before_it_is_read() -> None:
    class Gate(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.inner = nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.inner(x).sum() ** 2

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.gate = Gate(rngs)

        def __call__(self, x: Any) -> Any:
            return jnp.sin(x) if self.gate(x) > 0 else jnp.cos(x)

    model = Model(nnx.Rngs(0))
    assert types(tl.trace(model, [X]))[-1] == "sin"
    made = tl.trace(model, [X], intervene=tl.when(tl.module("gate"), tl.scale(0.0)))
    assert types(made)[-1] == "cos"
    assert made.modules["gate"].calls[0].output_ops


def test_a_run_is_stopped_before_the_branch() -> None:
    reached = []

    def model(x: Any) -> Any:
        y = jnp.tanh(x)
        if y.sum() > 0:
            reached.append("here")
        return y

    with torchlens_jax.mode("dynamic"):
        made = tl.trace(model, [X], halt=tl.func("tanh"))
    assert made.halted.label == "tanh_1_1:1"
    assert reached == []


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x[x > 0.7] * 2,
        lambda x: jnp.nonzero(x > 0.7)[0] + 1,
        lambda x: x[int(x[0, 0] + 1)],
        lambda x: x * x.sum().item(),
        lambda x: x * len(x.tolist()),
        lambda x: jnp.asarray(np.asarray(x) * 2) + x,
        lambda x: sum((x * i for i in range(int(x[0, 0] * 6))), start=x),
        lambda x: jnp.repeat(x, jnp.round(x[:, 0] * 4).astype(int), axis=0),
        lambda x: x + jax.random.normal(jax.random.key(int(x[0, 0])), x.shape),
        lambda x: jax.grad(lambda v: (v**2).sum() if v.sum() > 0 else v.sum())(x),
        lambda x: jax.vmap(jnp.tanh)(x) if x.any() else x,
        lambda x: (x if x.any() else x * 2, jnp.ones(3)),
        lambda x: f"{x.sum():.1f}" and (x * 2 if x.any() else x),
    ],
)
def test_whatever_a_plain_call_can_do(model: Any) -> None:
    made, expected = tl.trace(model, [X]), model(X)
    assert made.mode == "dynamic"
    outs = [made[f"output_{number + 1}"].out for number in range(len(jax.tree.leaves(expected)))]
    for got, leaf in zip(outs, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-6)


def test_reads_are_noted_with_their_kind() -> None:
    def model(x: Any) -> Any:
        if x.any():
            x = x * float(x.sum())
        return x + int(x[0, 0]) + x[0, 0].item()

    events = tl.trace(model, [X]).program.events
    assert [event.kind for event in events] == ["bool", "float", "int", "item"]
    assert events[0].value is True


@pytest.mark.parametrize("case", ["linen", "haiku"])
def test_modules_that_are_built_as_the_model_runs(case: str) -> None:
    """Selectors know them, though the model cannot be staged."""
    inner, args = CASES[case]()
    reads = lambda *given: y if (y := inner(*given)).sum() > -1e9 else y * 2  # noqa: E731
    address = {"linen": "Dense_1", "haiku": "linear"}[case]
    made = tl.trace(reads, args, save=tl.module(address))
    assert made.mode == "dynamic"
    assert [op.label for op in made if op.has_saved_value] == [
        op.label for op in tl.trace(inner, args, save=tl.module(address)) if op.has_saved_value
    ]


def test_state_is_as_after_one_plain_call() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.linear = nnx.Linear(4, 4, rngs=rngs)
            self.bn = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.count = nnx.Variable(jnp.zeros((), int))

        def __call__(self, x: Any) -> Any:
            x = self.linear(x)
            self.count[...] += 1
            return self.drop(self.bn(x) if (x**2).sum() > 0 else x)

    plain, model = Model(nnx.Rngs(0)), Model(nnx.Rngs(0))
    for _ in range(2):
        expected, made = plain(X), tl.trace(model, [X])
        np.testing.assert_allclose(made["output_1"].out, expected, rtol=1e-5)
        for mine, other in zip(_state(model), _state(plain), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6)
    with torchlens_jax.mode("dynamic"):
        expected, made = plain(X), tl.trace(model, [X])
    for mine, other in zip(_state(model), _state(plain), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def _state(model: nnx.Module) -> list[Any]:
    leaves = jax.tree.leaves(nnx.state(model))
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [jax.random.key_data(leaf) if key else leaf for key, leaf in zip(keys, leaves, strict=True)]


def test_python_runs_once_where_it_is_known_to_read() -> None:
    """Staging is tried the first time alone; not at all where the dynamic mode is asked for."""
    calls = []

    def model(x: Any) -> Any:
        calls.append(len(calls))
        return x * 2 if x.sum() > 0 else x

    with torchlens_jax.mode("dynamic"):
        tl.trace(model, [X])
    assert len(calls) == 1
    calls.clear()

    def other(x: Any) -> Any:
        warnings.warn("here", stacklevel=1)
        return x * 2 if x.sum() > 0 else x

    runs = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            tl.trace(other, [X])
        runs.append(len(noted))
    assert runs == [2, 1]


def test_compiled_is_refused_where_it_was_asked_for() -> None:
    with torchlens_jax.mode("compiled"), pytest.raises(CaptureError, match=r"if y.sum\(\) > 0"):
        tl.trace(branching, [X])


def test_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="Did you mean 'dynamic'"), torchlens_jax.mode("dynamc"):  # type: ignore[arg-type]
        pass


def test_replay_of_what_ran() -> None:
    made = tl.trace(branching, [X], replay_ready=True)
    again = made.replay()
    np.testing.assert_array_equal(again["output_1"].out, made["output_1"].out)


# -- what has no place in a compiled program ---------------------------------------------------------------------------


def _recurrent(x: Any) -> Any:
    return jax.lax.scan(lambda c, a: (jnp.tanh(c + a), c), jnp.zeros(4), x)[0] * 2


def test_an_action_that_needs_values_is_called_with_them() -> None:
    seen = []

    def clip(array: Any, moment: Any) -> Any:
        seen.append(float(array.max()))
        return jnp.asarray(np.clip(np.asarray(array), 0, 0.5))

    made = tl.trace(_recurrent, [X], intervene=tl.when(tl.func("tanh"), clip))
    assert made.mode == "concrete"
    assert "seen.append(float(array.max()))" in made.mode_reason
    assert len(seen) == 2
    assert all(np.max(made[f"tanh_1_4:{n}"].out) <= 0.5 for n in (1, 2))


def test_a_run_is_stopped_inside_a_loop() -> None:
    made = tl.trace(_recurrent, [jnp.ones((5, 4))], halt=tl.func("tanh").nth(2))
    assert made.mode == "concrete"
    assert made.halted.label == "tanh_1_4:2"
    with torchlens_jax.mode("compiled"), pytest.raises(NotSupported, match="inside a loop"):
        tl.trace(_recurrent, [jnp.ones((5, 4))], halt=tl.func("tanh").nth(2))


def test_a_predicate_in_python() -> None:
    made = tl.trace(_recurrent, [X], save=tl.func("tanh") & tl.where(lambda op: float(op.out.max()) > 0.8))
    kept = [op.label for op in made if op.has_saved_value]
    with torchlens_jax.mode("compiled"):
        every = tl.trace(_recurrent, [X])
    assert kept == [op.label for op in every if op.type == "tanh" and float(op.out.max()) > 0.8]


# -- what a model keeps, and what it costs -----------------------------------------------------------------------------


def test_an_array_that_the_model_put_away_can_be_read() -> None:
    history: list[Any] = []

    def model(x: Any) -> Any:
        history.append(jnp.tanh(x).sum())
        return x * 2 if x.any() else x

    with torchlens_jax.mode("dynamic"):
        tl.trace(model, [X])
    assert float(history[0]) == pytest.approx(float(jnp.tanh(X).sum()))
    assert f"{history[0]:.1f}" == f"{float(history[0]):.1f}"
    with pytest.raises(jax.errors.UnexpectedTracerError):
        history[0] + 1


def test_times_are_those_of_the_work_where_they_are_asked_for() -> None:
    with torchlens_jax.mode("concrete"):
        timed, plain = tl.trace(loops, [X], profile=True), tl.trace(loops, [X])
    assert all(op.duration_ns > 0 for op in timed.compute_ops if op.type in ("softmax", "tanh"))
    assert all(op.duration_ns is None for op in plain.compute_ops)


def test_gradients_of_what_ran() -> None:
    made = tl.trace(branching, [X], replay_ready=True)
    got = made.gradients(of=lambda out: (out**2).sum())
    np.testing.assert_allclose(got["input_1"], jax.grad(lambda x: (branching(x) ** 2).sum())(X), rtol=1e-5)


def test_a_file_keeps_how_it_was_run(tmp_path: Any) -> None:
    tl.save(tl.trace(branching, [X]), tmp_path / "run.tl")
    read = tl.load(tmp_path / "run.tl")
    assert read.mode == "dynamic"
    assert [conditional.kind for conditional in read.conditionals.conditionals] == ["if_chain", "while"]
