"""What gradients at all Ops cost in JAX, beside the step that an optimizer takes: the gradient of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

import torchlens as tl

from .jax_models import resnet, transformer
from .report import Row
from .timing import interleaved


def loss_of(out: Any) -> Any:
    """A scalar of the outputs."""
    return jnp.mean(out * out)


def steps() -> Iterator[tuple[str, Any, tuple[Any, ...], Callable[[], Any], Callable[[], Any]]]:
    """Name, model, arguments, the jitted forward and the jitted parameter-gradient step of each model."""
    model, _ = transformer()
    args = (jnp.arange(256) % 1000,)
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    forward = jax.jit(lambda arrays, *given: eqx.combine(arrays, static)(*given))
    step = jax.jit(jax.value_and_grad(lambda arrays, *given: loss_of(eqx.combine(arrays, static)(*given))))
    yield "transformer", model, args, lambda: forward(arrays, *args), lambda: step(arrays, *args)
    net, given = resnet(training=True)
    graph, params, others = nnx.split(net, nnx.Param, ...)
    rest, tree = jax.tree.flatten(others)

    def called(params: Any, rest: Any, *given: Any) -> Any:
        merged = nnx.merge(graph, params, jax.tree.unflatten(tree, rest))
        out = merged(*given)
        return out, nnx.state(merged, nnx.BatchStat)

    def loss(params: Any, rest: Any, *given: Any) -> Any:
        out, new = called(params, rest, *given)
        return loss_of(out), new

    plain, train = jax.jit(called), jax.jit(jax.value_and_grad(loss, has_aux=True))
    yield "ResNet", net, given, lambda: plain(params, rest, *given), lambda: train(params, rest, *given)


def costs(rounds: int = 15) -> Iterator[Row]:
    """Gradients at all Ops of a trace, each waited for, beside a parameter-gradient step; after the first call."""
    for name, model, args, forward, step in steps():
        ready = tl.trace(model, args, save=False, replay_ready=True)

        def everywhere(ready: Any = ready) -> Any:
            return ready.gradients(of=loss_of)

        def with_trace(model: Any = model, args: Any = args) -> Any:
            return tl.trace(model, args, save=False, replay_ready=True).gradients(of=loss_of)

        ways: dict[str, Callable[[], Any]] = {
            "forward": lambda forward=forward: jax.block_until_ready(forward()),
            "step": lambda step=step: jax.block_until_ready(step()),
            "gradients": lambda: waited_for(everywhere()),
            "trace and gradients": lambda: waited_for(with_trace()),
            "with parameters": lambda ready=ready: waited_for(ready.gradients(of=loss_of, params=True)),
        }
        times = interleaved(ways, rounds)
        yield Row(f"JAX {name}, plain forward, jitted", f"{times['forward'] * 1e3:.1f} ms", "", None)
        shown = f"{times['step'] * 1e3:.1f} ms"
        yield Row(f"JAX {name}, parameter-gradient step, jitted", shown, "", None)
        value = times["gradients"] / times["step"]
        count = len(everywhere())
        yield Row(f"JAX {name}, gradients at {count} ops, beside that step", f"{value:.2f}x", "1.30x", value <= 1.3)
        for way in ("trace and gradients", "with parameters"):
            yield Row(f"JAX {name}, {way}, beside that step", f"{times[way] / times['step']:.2f}x", "", None)


def waited_for(found: Any) -> Any:
    """Gradients that are there."""
    jax.block_until_ready([array for array in found.values() if array is not None])
    return found


if __name__ == "__main__":
    for row in costs():
        print(f"{row.what}: {row.measured}{'' if row.kept is None else f' (at most {row.promised})'}", flush=True)
