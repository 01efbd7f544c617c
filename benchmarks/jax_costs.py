"""Run the benchmarks of JAX and write their table: ``python -m benchmarks.jax_costs [part ...]``; without parts, all.

Only a whole run is written into docs/performance.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import torchlens as tl
from torchlens_core.records.trace import Trace
from torchlens_core.selectors import Selector
from torchlens_jax.staging.staged import forget

from . import jax_gradients
from .jax_models import resnet, transformer
from .report import Row, conditions, table, write
from .timing import interleaved

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


class Measured(NamedTuple):
    """A model, and the jitted functions that its traces are compared with.

    Attributes:
        forward: the plain forward.
        cut: the forward up to what the module ``end`` returns.
        changed: the forward in which what the module ``end`` returns is doubled.
        selected: what is saved of it where a selection is.
    """

    name: str
    model: Any
    args: tuple[Any, ...]
    forward: Callable[[], Any]
    cut: Callable[[], Any]
    changed: Callable[[], Any]
    end: str
    selected: Selector


def measured() -> Iterator[Measured]:
    """The models: a transformer of Equinox; a ResNet of Flax NNX, as it is used and as it is trained."""
    model, _ = transformer()
    tokens = jnp.arange(256) % 1000

    def doubled(model: Any, tokens: Any) -> Any:
        x = 2 * model.up_to(tokens, 1)
        for block in model.blocks[1:]:
            x = block(x)
        return jax.vmap(model.head)(jax.vmap(model.norm)(x))

    forward, cut, changed = map(
        jax.jit, (lambda model, tokens: model(tokens), lambda model, tokens: model.up_to(tokens, 1), doubled)
    )
    yield Measured(
        "transformer", model, (tokens,), lambda: forward(model, tokens), lambda: cut(model, tokens),
        lambda: changed(model, tokens), "blocks.0", tl.func("gelu"),
    )  # fmt: skip
    for name, training in (("ResNet", False), ("ResNet, training", True)):
        yield _resnet(name, training=training)


def _resnet(name: str, *, training: bool) -> Measured:
    net, given = resnet(training=training, images=32)

    def doubled(net: Any, x: Any) -> Any:
        x = 2 * net.up_to(x, 1)
        for number, block in enumerate(net.blocks):
            x = block(x) if number else x
        return net.head(jnp.mean(x, (1, 2)))

    forward, cut, changed = map(nnx.jit, (lambda net, x: net(x), lambda net, x: net.up_to(x, 1), doubled))
    return Measured(
        name, net, given, lambda: forward(net, *given), lambda: cut(net, *given), lambda: changed(net, *given),
        "blocks.0", tl.func("relu"),
    )  # fmt: skip


def costs() -> Iterator[Row]:
    """Traces after the first call, beside the jitted forward."""
    for each in measured():
        yield from _first_calls(each)
        yield from _rows(each)


def _first_calls(each: Measured) -> Iterator[Row]:
    """What the first call takes, with all that is compiled for it."""
    forget()
    plain, _ = _seconds(lambda: jax.block_until_ready(each.forward()))
    traced, trace = _seconds(lambda: _traced(each))
    forget()
    nothing, _ = _seconds(lambda: _traced(each, save=False))
    name = f"JAX {each.name}, {trace.num_ops} ops"
    yield Row(f"{name}, first call of the plain forward, jitted", f"{plain:.2f} s", "", None)
    shown = f"{traced:.2f} s, {nothing:.2f} s"
    yield Row(f"{name}, first trace with everything saved, with nothing saved", shown, "", None)


def _rows(each: Measured) -> Iterator[Row]:
    modules = _modules(each)
    doubling = tl.when(tl.module(each.end), tl.scale(2.0))
    ways: dict[str, Callable[[], Any]] = {
        "plain": each.forward,
        "nothing": lambda: _traced(each, save=False),
        "a selection": lambda: _traced(each, save=each.selected),
        "modules": lambda: _traced(each, save=modules),
        "every op": lambda: _traced(each),
        "cut": each.cut,
        "halt": lambda: _traced(each, save=tl.module(each.end), halt=tl.module(each.end)),
        "changed": each.changed,
        "when": lambda: _traced(each, save=False, intervene=doubling),
    }
    times = interleaved(ways, rounds=25)
    name = f"JAX {each.name}"
    yield Row(f"{name}, plain forward, jitted", f"{times['plain'] * 1e3:.1f} ms", "", None)
    promises = [
        ("nothing saved", "nothing", "plain", 1.05),
        (f"`{each.selected!r}` saved", "a selection", "plain", 1.05),
        ("what all modules return saved", "modules", "plain", 1.15),
        ("everything saved", "every op", "plain", 1.6),
        (f"halt at `{each.end}`, beside the forward cut there", "halt", "cut", 1.1),
        (f"one `when` at `{each.end}`, beside the forward written with it", "when", "changed", 1.05),
    ]
    for what, way, base, most in promises:
        ratio = times[way] / times[base]
        yield Row(f"{name}, {what}", f"{ratio:.2f}x", f"{most:.2f}x", ratio <= most)


def _traced(each: Measured, **options: Any) -> Trace:
    """A trace, with all that it keeps there."""
    return tl.trace(each.model, each.args, **options)


def _modules(each: Measured) -> Selector:
    """What all modules return."""
    names = [module.address for module in _traced(each, save=False).modules if module.address != "self"]
    selector = tl.module("self")
    for name in names:
        selector = selector | tl.module(name)
    return selector


def _seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def tiny() -> Iterator[Row]:
    """What Python does for a trace, on models whose arithmetic takes no time."""
    counts = (20, 200)
    x = jnp.ones(4)
    found: dict[str, list[float]] = {"nothing": [], "everything": []}
    for count in counts:
        model = _chain(count)
        times = interleaved(
            {
                "plain": lambda model=model: model(x),
                "nothing": lambda model=model: tl.trace(model, x, save=False),
                "everything": lambda model=model: tl.trace(model, x),
            },
            rounds=50,
        )
        for what, seconds in found.items():
            seconds.append(times[what] - times["plain"])
    for what, (short, long) in found.items():
        slope = (long - short) / (counts[1] - counts[0]) * 1e6
        shown = f"{short * 1e3:.2f} ms at {counts[0]} ops, {slope:.1f} µs for each further one"
        yield Row(f"JAX tiny operations, {what} saved, beyond the jitted function", shown, "", None)


def _chain(count: int) -> Callable[[Any], Any]:
    def chain(x: Any) -> Any:
        for _ in range(count // 2):
            x = jnp.tanh(x + 1)
        return x

    return jax.jit(chain)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "costs": costs,
    "tiny": tiny,
    "gradients": jax_gradients.costs,
}


def main(wanted: list[str]) -> None:
    """Run the named parts."""
    unknown = set(wanted) - set(PARTS)
    if unknown:
        sys.exit(f"No part is called {sorted(unknown)}; there are {list(PARTS)}.")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # a call is over when its arrays are there
    rows: list[Row] = []
    for name in wanted or PARTS:
        for row in PARTS[name]():
            print(f"{row.what}: {row.measured}{f'  (promised {row.promised})' if row.promised else ''}", flush=True)
            rows.append(row)
    if not wanted:
        names = ("jax", "equinox", "flax", "numpy")
        write(PAGE, f"{conditions(_threads(), names)}\n\n{table(rows)}", section="JAX")
        print(f"written to {PAGE.name}")


def _threads() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main(sys.argv[1:])
