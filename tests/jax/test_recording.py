"""``tl.record`` and ``tl.Recorder`` on JAX: what a step is, for each kind of model, and what is none."""

import warnings
from pathlib import Path
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
from torchlens_core.errors import CaptureWarning, NestedTraceError, RecordingError
from torchlens_jax.staging.patching import patched_classes
from torchlens_jax.staging.staging import staging

X = jax.random.normal(jax.random.key(0), (3, 4))


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc2 = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.drop(nnx.relu(self.norm(self.fc1(x)))))


class MLP(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(1))
        self.layers = [eqx.nn.Linear(4, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2, name="second")(nn.relu(nn.Dense(8, name="first")(x)))


def net() -> Net:
    return Net(nnx.Rngs(0))


def state_of(model: nnx.Module) -> list[Any]:
    return [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
            for a in jax.tree.leaves(nnx.state(model))]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


class TestRecord:
    @pytest.mark.parametrize(
        "save", [tl.module("fc1"), tl.func("relu"), True, tl.in_module("norm"), tl.func("linear").nth(2),
                 tl.where(lambda op: op.out.max() > 1e-3), tl.keep(tl.func("relu"), transform=lambda a: a.mean(0))]
    )  # fmt: skip
    def test_it_holds_what_a_trace_holds(self, save: Any) -> None:
        recording, trace = tl.record(net(), X, save=save), tl.trace(net(), X, save=save)
        expected = [op.numpy() for op in trace if op.has_saved_value and op.is_compute]
        assert len(recording) and same([record.numpy() for record in recording], expected)
        assert [record.type for record in recording] == [op.type for op in trace.compute_ops if op.has_saved_value]

    def test_the_model_is_as_after_one_call(self) -> None:
        recorded, plain = net(), net()
        recording = tl.record(recorded, X, save="fc2", return_output=True)
        assert np.allclose(recording.output, plain(X), atol=1e-6)
        for a, b in zip(state_of(recorded), state_of(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        assert not patched_classes() and not staging.recorded

    def test_durations_of_parts_are_not_known(self) -> None:
        record = tl.record(net(), X, save="fc1")[0]
        assert record.start_ns is None and record.shape == (3, 8) and record.module == "fc1:1"

    def test_halt_and_interventions(self) -> None:
        halted = tl.record(net(), X, save=True, halt=tl.module("fc1"))
        assert halted.halted.module == "fc1:1" and len(halted) == 1
        model = net()
        model.eval()
        zeroed = tl.record(model, X, save="fc2", intervene=tl.when(tl.func("relu"), tl.zero_ablate()))
        np.testing.assert_allclose(zeroed["fc2"].out, jnp.broadcast_to(model.fc2.bias[...], (3, 2)))

    def test_loops(self) -> None:
        cell = eqx.nn.GRUCell(4, 4, key=jax.random.key(2))

        def run(xs: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda h, x: (cell(x, h), None), jnp.zeros(4), xs)[0]

        recording = tl.record(run, X, save="cell")
        h = jnp.zeros(4)
        for number, x in enumerate(X):
            h = cell(x, h)
            np.testing.assert_allclose(recording[f"cell:{number + 1}"].out, h, rtol=1e-5)
        assert len(recording) == 3

    def test_what_the_model_raises(self) -> None:
        def wrong(x: jax.Array) -> jax.Array:
            return jnp.ones(5) @ jnp.tanh(x)

        with pytest.raises(TypeError):
            tl.record(wrong, X, save=True)
        assert not patched_classes() and staging.calls is None


class TestToTrace:
    def test_it_has_the_recorded_values(self) -> None:
        model = net()
        recording = tl.record(model, X, save=[tl.func("relu"), "fc2"])
        after = state_of(model)
        trace = recording.to_trace()
        assert same(state_of(model), after), "the model is left as it is"
        assert trace["relu"].out is recording["relu"].out and trace.num_ops == 5

    def test_dropout_and_statistics_repeat(self) -> None:
        """Both are state of the model, which has gone on since."""
        model = net()
        with tl.Recorder(model, save=tl.func("dropout"), replay_ready=True) as rec:
            for _ in range(3):
                model(X)
        for step in rec.steps:
            assert jnp.array_equal(step.to_trace()["dropout"].out, step[0].out)
        assert not jnp.array_equal(rec.steps[0][0].out, rec.steps[1][0].out)

    def test_a_changed_model_is_noticed(self) -> None:
        model = net()
        recording = tl.record(model, X, save="fc2")
        model.fc2.bias[...] = model.fc2.bias[...] + 1
        with pytest.raises(RecordingError, match="did not repeat"):
            recording.to_trace()


class TestRecorder:
    @pytest.mark.parametrize("make", [net, MLP], ids=["nnx", "equinox"])
    def test_calls_of_a_module_are_steps(self, make: Any) -> None:
        model = make()
        x = X if isinstance(model, nnx.Module) else X[0]
        expected = make()(x)
        with tl.Recorder(model, save=tl.func("relu").nth(1)) as rec:
            outs = [model(x * number) for number in (1, 2, 3)]
        np.testing.assert_allclose(outs[0], expected, rtol=1e-5, atol=1e-6)
        assert rec.num_steps == 3 and [step[0].type for step in rec.steps] == ["relu"] * 3
        assert not patched_classes() and not staging.recorded

    def test_functions_are_called_through_it(self) -> None:
        linen, plain = Dense(), hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 2], name="mlp")(x)))
        mlp, model = MLP(), net()
        variables, weights = linen.init(jax.random.key(0), X), plain.init(jax.random.key(0), X)
        cases: list[tuple[Any, tuple[Any, ...], str]] = [
            (linen.apply, (variables, X), "first"),
            (plain.apply, (weights, X), "mlp.linear_0"),
            (linen.bind(variables), (X,), "first"),
            (jax.jit(linen.apply), (variables, X), "first"),
            (jax.vmap(mlp), (X,), "layers.0"),
            (eqx.filter_vmap(mlp), (X,), "layers.0"),
            (eqx.filter_jit(mlp), (X[0],), "layers.0"),
            (jax.jit(jax.vmap(mlp)), (X,), "layers.0"),
            (eqx.filter_checkpoint(mlp), (X[0],), "layers.0"),
            (nnx.jit(model), (X,), "fc1"),
            (lambda x: model(x).sum(), (X,), "model.fc1"),
        ]
        for function, args, address in cases:
            with tl.Recorder(function, save=address, backend="jax") as rec:
                out = rec(*args)
                rec(*args)
            assert rec.num_steps == 2 and rec.steps[1][address].shape[-1] in (8, 3), address
            if function is not cases[-1][0] and not isinstance(model, type(getattr(function, "__wrapped__", None))):
                np.testing.assert_allclose(out, function(*args), rtol=1e-5, atol=1e-6)

    def test_a_function_that_is_called_by_itself_is_an_error(self) -> None:
        linen = Dense()
        variables = linen.init(jax.random.key(0), X)
        with pytest.raises(RecordingError, match="Call the recorder"), tl.Recorder(linen.apply, save="first"):
            linen.apply(variables, X)

    def test_calls_under_a_transformation_are_none(self) -> None:
        mlp = MLP()
        compiled = eqx.filter_jit(lambda model, x: model(x))
        compiled(mlp, X[0])
        for call in (
            lambda: jax.vmap(mlp)(X),
            lambda: jax.jit(lambda x: mlp(x))(X[0]),
            lambda: jax.jit(lambda: mlp(X[0]))(),
            lambda: jax.grad(lambda x: mlp(x).sum())(X[0]),
        ):
            with pytest.warns(CaptureWarning, match="transformation of JAX"), tl.Recorder(mlp, save="layers.0") as rec:
                mlp(X[0])
                expected = call()
            assert rec.num_steps == 1 and not any(
                isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(expected)
            )
        with pytest.warns(CaptureWarning, match="was not called"), tl.Recorder(mlp, save="layers.0") as rec:
            compiled(mlp, X[0])
        assert rec.num_steps == 0 and not patched_classes()

    def test_it_compiles_once(self) -> None:
        model = net()
        model.eval()
        with tl.Recorder(model, save="fc1") as rec, jax.log_compiles(), warnings.catch_warnings():
            model(X)
            before = rec.num_steps
            with jax.check_tracer_leaks(False):
                for number in range(20):
                    model.fc1.kernel[...] = jnp.full((4, 8), float(number))
                    model(X)
        assert rec.num_steps == before + 20
        assert float(rec.steps[-1]["fc1"].out[0, 0]) == pytest.approx(19 * float(X[0].sum()), rel=1e-5)

    def test_one_recorder_a_model(self) -> None:
        model = net()
        with (
            pytest.warns(CaptureWarning, match="was not called"),
            tl.Recorder(model, save="fc1"),
            pytest.raises(NestedTraceError, match="recorded by a Recorder already"),
            tl.Recorder(model, save="fc2"),
        ):
            pass
        other = net()
        with tl.Recorder(model, save="fc1") as one, tl.Recorder(other, save="fc2") as two:
            model(X)
            other(X)
            tl.trace(model, X)
        assert one.num_steps == two.num_steps == 1
        assert not patched_classes()

    def test_facets_and_names_are_checked_before_the_first_call(self) -> None:
        attention = nnx.MultiHeadAttention(num_heads=2, in_features=4, decode=False, rngs=nnx.Rngs(0))
        with tl.Recorder(attention, save=tl.facet("q")) as rec:
            attention(X[None])
        assert rec.steps[0][0].shape == (1, 3, 2, 2)
        with pytest.raises(tl.TorchLensError, match="fc1"):
            tl.Recorder(net(), save="fc9")

    def test_to_disk(self, tmp_path: Path) -> None:
        model = net()
        model.eval()
        keeps = [tl.module("fc1"), tl.keep(tl.func("relu"), transform=lambda a: a.mean(0), dtype="float16")]
        with tl.Recorder(model, save=keeps, storage=tl.to_disk(tmp_path / "acts", max_shard_bytes=100)) as rec:
            for number in range(3):
                model(X * number)
        steps = tl.load(tmp_path / "acts.tlspec")
        assert len(steps) == 3 and len(list((tmp_path / "acts.tlspec").glob("*.safetensors"))) > 1
        for number, step in enumerate(steps):
            assert step.backend == "jax" and isinstance(step["fc1"].out, np.ndarray) and step["fc1"].start_ns is None
            np.testing.assert_allclose(step["fc1"].out, model.fc1(X * number), rtol=1e-5)
            relu = nnx.relu(model.norm(model.fc1(X * number))).mean(0)
            np.testing.assert_allclose(step["relu"].out, relu, rtol=1e-2)
            assert step["relu"].out.dtype == np.float16 and rec.steps[number]["relu"].numpy().dtype == np.float16
