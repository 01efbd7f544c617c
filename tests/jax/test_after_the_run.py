"""What can be done with a trace of JAX, and without one: replay, rerun, sweep, bundles, facets, files, estimates ..."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import torchlens as tl
from torchlens_core.errors import CaptureError, FacetError, NonFiniteError, NotSupported, ReplayError
from torchlens_core.records.trace import Trace

X = jax.random.normal(jax.random.key(0), (3, 4))


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(4, 8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc2 = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.drop(nnx.relu(self.fc1(x))))


class MLP(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(1))
        self.first, self.second = eqx.nn.Linear(4, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(jax.nn.relu(self.first(x)))


def net() -> Net:
    return Net(nnx.Rngs(0))


def frozen() -> Net:
    model = net()
    model.eval()
    return model


def ready(model: Any = None, x: jax.Array = X, **options: Any) -> Trace:
    return tl.trace(frozen() if model is None else model, x, replay_ready=True, **options)


def tail(model: Net, hidden: jax.Array) -> jax.Array:
    """The model from what its relu gives."""
    return model.fc2(hidden)


class TestReplay:
    def test_unchanged_it_is_exact(self) -> None:
        trace = ready(net())
        assert all(jnp.array_equal(a.out, b.out) for a, b in zip(trace, trace.replay(), strict=True))

    def test_loops_and_branches_are_exact(self) -> None:
        def run(x: jax.Array) -> jax.Array:
            x = jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) * i, x)
            x = jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: x + 1, x)
            return jax.lax.cond(x.sum() > 0, jnp.tanh, jnp.cos, x)

        trace = ready(run)
        assert all(jnp.array_equal(a.out, b.out) for a, b in zip(trace, trace.replay(), strict=True))

    def test_changes(self) -> None:
        model, trace = frozen(), ready()
        fork = trace.fork("zeroed")
        fork.set("relu_1_2", jnp.zeros((3, 8)))
        np.testing.assert_allclose(fork.replay()[-1].out, tail(model, jnp.zeros((3, 8))), rtol=1e-6)
        expected = tail(model, nnx.relu(model.fc1(X)) * 0.5 + 1)
        fork = trace.fork()
        handle = fork.attach_hooks(tl.func("relu"), tl.scale(0.5), tl.add(1.0))
        np.testing.assert_allclose(fork.replay()[-1].out, expected, rtol=1e-5)
        np.testing.assert_allclose(fork.rerun(model, X)[-1].out, expected, rtol=1e-5)
        handle.detach()
        assert jnp.array_equal(fork.replay()[-1].out, trace[-1].out)
        np.testing.assert_allclose(trace.do("relu", tl.scale(0.0))[-1].out, tail(model, jnp.zeros((3, 8))), rtol=1e-6)
        np.testing.assert_allclose(trace.replay_from("relu", 0.0)[-1].out, tail(model, jnp.zeros((3, 8))), rtol=1e-6)
        assert [op.layer_label for op in trace.find_sites(tl.func("linear"))] == ["linear_1_1", "linear_2_4"]

    def test_what_does_not_fit_is_an_error(self) -> None:
        with pytest.raises(tl.TorchLensError, match=r"shape \(3, 8\)"):
            ready().fork().set("relu_1_2", jnp.zeros((3, 9)))

    def test_another_branch_is_noticed(self) -> None:
        def gate(x: jax.Array) -> jax.Array:
            y = jax.nn.relu(x)
            return jax.lax.cond(y.sum() > 0, lambda y: y * 2, lambda y: y - 1, y)

        trace = ready(gate, jnp.ones(4))
        with pytest.warns(tl.TorchLensWarning, match="which was True"):
            off = trace.replay_from("relu", 0.0)
        assert "gt" in (off.diverged_at or "") and off[-1].out.sum() == 0
        assert trace.do("relu", tl.zero_ablate(), gate, jnp.ones(4), engine="rerun")[-1].out.sum() == -4


class TestRerun:
    def test_dropout_repeats(self) -> None:
        model = net()
        trace = tl.trace(model, X)
        counts = [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
                  for a in jax.tree.leaves(nnx.state(model, nnx.RngState))]  # fmt: skip
        assert jnp.array_equal(trace.rerun(model, X)["dropout"].out, trace["dropout"].out)
        assert jnp.array_equal(trace.rerun(model, X)["dropout"].out, trace["dropout"].out)
        other = trace.rerun(model, X, seed=3)["dropout"].out
        assert not jnp.array_equal(other, trace["dropout"].out)
        assert jnp.array_equal(other, trace.rerun(model, X, seed=3)["dropout"].out)
        after = [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
                 for a in jax.tree.leaves(nnx.state(model, nnx.RngState))]  # fmt: skip
        assert all(np.array_equal(a, b) for a, b in zip(counts, after, strict=True)), "the generators are left alone"
        assert not jnp.array_equal(tl.trace(model, X)["dropout"].out, trace["dropout"].out), "a plain call goes on"


class TestSweep:
    @pytest.mark.parametrize("batched", [False, True, 2])
    def test_grid(self, batched: bool | int) -> None:
        model = frozen()
        sweep = tl.sweep(
            model, X, at=["fc1", "fc2"], values=[0, 0.5, 1], action=tl.scale, batched=batched,
            metric={"score": lambda out: float(out[0, 0])},
        )  # fmt: skip
        expected = [float(tail(model, nnx.relu(model.fc1(X) * s))[0, 0]) for s in (0, 0.5, 1)]
        expected += [float(model(X)[0, 0]) * s for s in (0, 0.5, 1)]
        assert list(sweep.table()["score"]) == pytest.approx(expected, rel=1e-5)

    def test_parts_of_values(self) -> None:
        sweep = tl.sweep(frozen(), X, at=[tl.module("fc1").at[:, i] for i in range(8)], values=[0.0])
        assert len(sweep.runs) == 8


class TestBundle:
    def test_it_names_the_change(self) -> None:
        bundle = tl.bundle({"plain": ready(), "other": ready(intervene=tl.when(tl.func("relu"), tl.scale(0.5)))})
        found = bundle.first_divergence()
        assert found is not None and "relu_1_2" in str(found)
        assert bundle.is_structurally_consistent and "relative_error at linear_2_4" in str(bundle.compare_at("fc2"))


class TestFacets:
    def test_attention_of_nnx(self) -> None:
        attention = nnx.MultiHeadAttention(num_heads=4, in_features=16, decode=False, rngs=nnx.Rngs(0))
        x = jax.random.normal(jax.random.key(3), (2, 5, 16))
        facets = tl.trace(attention, x).modules["self"].facets
        assert list(facets) == ["q", "k", "v", "z", "out"]
        np.testing.assert_allclose(facets["q"], attention.query(x).transpose(0, 2, 1, 3), rtol=1e-5, atol=1e-6)
        q, k, v = (facets[name] for name in "qkv")
        z = jax.nn.softmax(q @ k.swapaxes(-1, -2) / 2, -1) @ v
        np.testing.assert_allclose(facets["z"], z, rtol=1e-4, atol=1e-5)
        assert facets["q", 3].shape == (2, 5, 4)
        ablated = tl.trace(attention, x, intervene=tl.when(tl.module("self") & tl.head(1), tl.zero_ablate()))
        assert not ablated.modules["self"].facets["z", 1].any() and ablated.modules["self"].facets["z", 2].any()

    def test_attention_inside_a_model_of_linen(self) -> None:
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return nn.MultiHeadDotProductAttention(num_heads=2, name="attn")(nn.Dense(4)(x))

        model, x = Model(), jnp.ones((2, 3, 4))
        trace = tl.trace(model.apply, [model.init(jax.random.key(0), x), x])
        assert trace.modules["attn"].facets["k"].shape == (2, 2, 3, 2)

    def test_attention_of_equinox(self) -> None:
        attention = eqx.nn.MultiheadAttention(4, 16, key=jax.random.key(0))
        x = jax.random.normal(jax.random.key(3), (5, 16))
        facets = tl.trace(attention, [x, x, x]).modules["self"].facets
        expected = jax.vmap(attention.key_proj)(x).reshape(5, 4, 4).transpose(1, 0, 2)
        np.testing.assert_allclose(facets["k"], expected, rtol=1e-5, atol=1e-6)
        many = tl.trace(jax.vmap(attention), [x[None]] * 3).modules["self"].facets
        with pytest.raises(FacetError, match="3 axes, and here it has 4"):
            many["k"]

    def test_cells(self) -> None:
        h, c = jnp.ones((3, 8)), jnp.zeros((3, 8))
        lstm = nnx.LSTMCell(4, 8, rngs=nnx.Rngs(0))
        trace = tl.trace(lstm, [(c, h), X])
        ((next_c, next_h), _), facets = lstm((c, h), X), trace.modules["self"].facets
        np.testing.assert_allclose(facets["h_n"], next_h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(facets["c_n"], next_c, rtol=1e-5, atol=1e-6)
        cell = eqx.nn.LSTMCell(4, 8, key=jax.random.key(0))
        trace = tl.trace(cell, [X[0], (h[0], c[0])])
        for name, value in zip(("h_n", "c_n"), cell(X[0], (h[0], c[0])), strict=True):
            np.testing.assert_allclose(trace.modules["self"].facets[name], value, rtol=1e-5, atol=1e-6)
        gru = nnx.GRUCell(4, 8, rngs=nnx.Rngs(0))
        np.testing.assert_allclose(tl.trace(gru, [h, X]).modules["self"].facets["h_n"], gru(h, X)[0], rtol=1e-5)


class TestProofAndDiagnosis:
    def test_validate(self) -> None:
        linen, mlp = nn.Dense(3), MLP()
        variables = linen.init(jax.random.key(0), X)
        for model, args in ((net(), X), (mlp, X[0]), (jax.vmap(mlp), X), (linen.apply, [variables, X])):
            report = tl.validate(model, args)
            assert report, str(report)

    def test_compat_and_estimate(self) -> None:
        assert "drop.rngs" in str(tl.compat.report(net(), X))
        estimate = tl.estimate(frozen(), jnp.zeros((300, 4)))
        assert estimate.flops == 300 * (2 * (4 * 8 + 8 * 2) + 8 + 2 * 8) and estimate.num_params == 58

    def test_nan(self) -> None:
        def log_of(x: jax.Array) -> jax.Array:
            return jnp.log(x - 1) + 1

        found = tl.trace(log_of, jnp.zeros(3)).first_nonfinite()
        assert found is not None and "log_1_2" in str(found)
        with pytest.raises(NonFiniteError, match="log_1_2") as raised:
            tl.trace(log_of, jnp.zeros(3), raise_on_nan=True)
        assert raised.value.partial_trace["sub"].out.shape == (3,)  # type: ignore[attr-defined]

    def test_summary_table_and_picture(self, tmp_path: Path) -> None:
        trace = tl.trace(net(), X)
        assert "fc1 (Linear)" in str(trace.summary())
        trace.draw(str(tmp_path / "net.svg"))
        assert "linear" in (tmp_path / "net.svg").read_text()


class TestFiles:
    def test_they_open_without_jax(self, tmp_path: Path) -> None:
        trace = tl.trace(net(), X, save_grads=False)
        tl.save(trace, tmp_path / "net.safetensors")
        code = (
            "import sys\nsys.modules['jax'] = None\nimport torchlens as tl\n"
            f"log = tl.load({str(tmp_path / 'net.safetensors')!r})\n"
            "print(log['fc1'].out.sum(), log.num_ops, len(log.params))"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        total, *counts = ran.stdout.split()
        assert counts == ["4", "4"] and float(total) == pytest.approx(float(trace["fc1"].out.sum()), rel=1e-5)
        assert isinstance(tl.load(tmp_path / "net.safetensors", backend="jax")["fc1"].out, jax.Array)

    def test_a_loaded_trace_cannot_be_replayed(self, tmp_path: Path) -> None:
        tl.save(ready(), tmp_path / "net.safetensors")
        with pytest.raises((ReplayError, NotSupported), match="loaded from a file"):
            tl.load(tmp_path / "net.safetensors", backend="jax").replay_from("relu", 0.0)

    def test_on_the_way_to_the_disk(self, tmp_path: Path) -> None:
        keeps = [tl.module("fc1"), tl.keep(tl.func("relu"), transform=lambda a: a.mean())]
        trace = tl.trace(frozen(), X, save=keeps, storage=tl.to_disk(tmp_path / "net"))
        loaded = tl.load(tmp_path / "net.tlspec")
        for log in (trace, loaded):
            np.testing.assert_allclose(log["fc1"].out, frozen().fc1(X), rtol=1e-5)
            np.testing.assert_allclose(log["relu"].out, nnx.relu(frozen().fc1(X)).mean(), rtol=1e-5)


class TestExtraction:
    def test_layers(self) -> None:
        model = frozen()
        found = tl.extract(model, X, {"early": "fc1", "hidden": "relu_1_2"})
        np.testing.assert_allclose(found["early"], model.fc1(X), rtol=1e-5)
        np.testing.assert_allclose(found["hidden"], nnx.relu(model.fc1(X)), rtol=1e-5)
        for layer in ("fc1", tl.module("fc1"), "linear_1_1", tl.func("linear")):
            np.testing.assert_allclose(tl.pluck(model, X, layer), model.fc1(X), rtol=1e-5)

    def test_a_dataset(self) -> None:
        images = jax.random.normal(jax.random.key(5), (50, 4))
        for stimuli in (images, np.asarray(images), list(images)):
            features = tl.extract_dataset(frozen(), stimuli, layers=["fc1", "relu_1_2"], batch_size=16, progress=False)
            np.testing.assert_allclose(features["fc1"], frozen().fc1(images), rtol=1e-4, atol=1e-5)

    def test_an_interrupted_one_is_resumed(self, tmp_path: Path) -> None:
        images = np.asarray(jax.random.normal(jax.random.key(5), (50, 4)))
        model = jax.vmap(MLP())
        seen: list[int] = []

        def stimuli(until: int) -> Any:
            class Images:
                def __len__(self) -> int:
                    return 50

                def __getitem__(self, number: int) -> Any:
                    if number >= until:
                        raise OSError("gone")
                    seen.append(number)
                    return images[number]

            return Images()

        options: dict[str, Any] = {
            "layers": ["first"], "output_dir": tmp_path / "acts", "batch_size": 8, "shard_size": 16, "progress": False
        }  # fmt: skip
        with pytest.raises(OSError, match="gone"):
            tl.extract_dataset(model, stimuli(40), **options)
        seen.clear()
        tl.extract_dataset(model, stimuli(50), **options)
        assert min(seen) >= 16, "what is on the disk is not computed again"
        stored = tl.load_extraction(tmp_path / "acts")
        np.testing.assert_allclose(stored["first"][:], jax.vmap(MLP().first)(images), rtol=1e-4, atol=1e-5)


class TestUnderTransformations:
    def test_a_loss_on_hidden_values(self) -> None:
        mlp = MLP()

        def loss(model: MLP, take: Any) -> jax.Array:
            return (take(model) ** 2).mean()

        expected = eqx.filter_grad(loss)(mlp, lambda model: jax.nn.relu(model.first(X[0])))
        for take in (
            lambda model: tl.trace(model, X[0], save=tl.func("relu"))["relu"].out,
            lambda model: tl.record(model, X[0], save=tl.func("relu"))[0].out,
            lambda model: tl.pluck(model, X[0], tl.func("relu")),
        ):
            for grad in (eqx.filter_grad(loss), eqx.filter_jit(eqx.filter_grad(loss))):
                np.testing.assert_allclose(grad(mlp, take).first.weight, expected.first.weight, rtol=1e-5, atol=1e-7)

    def test_vmap_of_a_trace(self) -> None:
        hidden = jax.vmap(lambda x: tl.trace(MLP(), x)["relu"].out)(X)
        np.testing.assert_allclose(hidden, jax.nn.relu(jax.vmap(MLP().first)(X)), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
    def test_how_often_a_loop_runs_is_not_known_there(self, transform: Any) -> None:
        def doubled(x: jax.Array) -> jax.Array:
            return jax.lax.while_loop(lambda x: x < 10, lambda x: x * 2, x)

        with pytest.raises(CaptureError, match="traced inside a transformation"):
            transform(lambda x: tl.trace(doubled, x)[-1].out)(jnp.ones(2) if transform is jax.vmap else 1.0)

    def test_a_training_loop_compiles_once_and_does_not_grow(self, caplog: pytest.LogCaptureFixture) -> None:
        model = frozen()

        @nnx.jit
        def step(model: Net) -> None:
            gradient = nnx.grad(lambda model: (model(X) ** 2).mean())(model)
            nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(model, nnx.Param), gradient))

        def run(times: int) -> list[float]:
            norms = []
            for _ in range(times):
                step(model)
                norms.append(float(jnp.abs(ready(model, save="fc2")["fc2"].out).mean()))
            return norms

        with jax.log_compiles():
            run(2)
            gc.collect()
            held = len(jax.live_arrays())
            caplog.clear()
            norms = run(200)
        gc.collect()
        assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
        assert len(jax.live_arrays()) <= held and norms[-1] < norms[0]
