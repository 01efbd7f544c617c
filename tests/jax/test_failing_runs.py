"""Runs that end before the model returns, and runs at the same time: in every way in which a model is run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import torchlens as tl
import torchlens_jax
from torchlens_jax.staging.patching import patched_classes
from torchlens_jax.staging.staging import staging

MODES = ("compiled", "concrete", "dynamic")
X = jnp.abs(jnp.arange(8.0).reshape(2, 4)) / 8 + 0.5


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert staging.calls is None
    assert patched_classes() == []
    assert float(jnp.sum(jnp.ones(3))) == 3.0  # no trace of ours is the current one


def types(trace: Any) -> list[str]:
    return [op.type for op in trace.compute_ops]


def _partial(model: Any, error: type[BaseException], *args: Any) -> Any:
    with pytest.raises(error) as caught:
        tl.trace(model, list(args) or [X])
    return getattr(caught.value, "partial_trace", None)


def test_what_ran_until_the_model_raised() -> None:
    def model(x: Any) -> Any:
        jnp.tanh(jax.nn.relu(x))
        raise RuntimeError("mine")

    partial = _partial(model, RuntimeError)
    assert types(partial) == ["relu", "tanh"]
    assert partial.error == "RuntimeError: mine"
    np.testing.assert_allclose(partial["tanh_1_2"].out, jnp.tanh(X))


def test_inside_a_module_call() -> None:
    class Inner(nnx.Module):
        def __call__(self, x: Any) -> Any:
            jnp.sin(x)
            raise KeyError("inner")

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.inner = Inner()

        def __call__(self, x: Any) -> Any:
            return self.inner(jnp.tanh(x))

    partial = _partial(Model(), KeyError)
    assert [(op.type, op.modules) for op in partial.compute_ops] == [("tanh", []), ("sin", ["inner:1"])]


def test_inside_the_body_of_a_scan() -> None:
    def model(x: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            raise ZeroDivisionError

        return jax.lax.scan(body, jnp.tanh(x), x)

    assert types(_partial(model, ZeroDivisionError)) == ["tanh"]


def test_an_operation_that_fails() -> None:
    assert types(_partial(lambda x: jnp.tanh(x) @ x, TypeError)) == ["tanh"]


@pytest.mark.parametrize("branch", [False, True])
def test_an_error_of_the_program_as_it_runs(branch: bool) -> None:
    """``eqx.error_if`` raises where values are bad, which is known only in the run."""

    def model(x: Any) -> Any:
        y = jnp.tanh(x)
        if branch and y.sum() > 1e9:
            y = y + 1
        y = eqx.error_if(y, y.sum() > 0, "too large")
        return y * 2

    with pytest.raises(Exception, match="too large") as caught:
        tl.trace(model, [X])
    assert types(caught.value.partial_trace)[:1] == ["tanh"]


def test_interrupted() -> None:
    def model(x: Any) -> Any:
        y = jnp.tanh(x)
        if y.sum() > 0:
            raise KeyboardInterrupt
        return y

    _partial(model, KeyboardInterrupt)
    with torchlens_jax.mode("compiled"):
        assert types(tl.trace(jnp.tanh, [X])) == ["tanh"]


def test_an_error_that_the_model_catches() -> None:
    def model(x: Any) -> Any:
        y = jnp.tanh(x)
        try:
            y = y @ x
        except TypeError:
            y = y + 1
        return y * 2 if y.sum() > 0 else y

    assert types(tl.trace(model, [X])) == ["tanh", "add", "sum", "gt", "mul"]


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_two_threads(mode: str) -> None:
    """Both run at once; a plain call in a third is in neither."""
    barrier = threading.Barrier(2, timeout=20)
    models = {"tanh": jnp.tanh, "sin": jnp.sin}
    got: dict[str, Any] = {}

    def work(name: str) -> None:
        def model(x: Any) -> Any:
            y = models[name](x)
            barrier.wait()
            plain = threading.Thread(target=lambda: got.setdefault(f"plain {name}", jnp.exp(X).sum()))
            plain.start()
            plain.join()
            barrier.wait()
            return models[name](y)

        with torchlens_jax.mode(mode):
            got[name] = types(tl.trace(model, [X]))

    threads = [threading.Thread(target=work, args=(name,)) for name in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got["tanh"], got["sin"]) == (["tanh"] * 2, ["sin"] * 2)
    assert float(got["plain tanh"]) == float(jnp.exp(X).sum())
