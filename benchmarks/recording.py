"""What recording and steering cost, beside forward hooks written by hand that do the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import torchlens as tl
from torchlens_core.errors import SelectorWarning

from . import models
from .report import Row
from .timing import interleaved, slope

LOOP = 3  # steps in a Recorder that are timed together


def recording() -> Iterator[Row]:
    """The relus of ResNet-50, the modules of a block of GPT-2, one intervention on a block: once, and in a loop."""
    model, args = models.resnet50()
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    yield from _beside_hooks("ResNet-50", model, args, "its relus", relus, tl.func("relu"), "layer3")
    model, args = models.gpt2()
    inside = {f"transformer.h.3.{name}".rstrip("."): part for name, part in model.transformer.h[3].named_modules()}
    save = [tl.module(address) for address in inside]
    yield from _beside_hooks(
        "GPT-2 small", model, args, "all modules of a block", list(inside.values()), save, "transformer.h.6"
    )


def unasked() -> Iterator[Row]:
    """Microseconds for each operation that nobody asked about, over models of growing size."""
    counts, x = [200, 400, 800, 1600], torch.randn(4, 8)
    for name, build in {"tiny operations": models.Chain, "modules": models.Stack}.items():
        plain, recorded = [], []
        for count in counts:
            model = build(count)
            recorder = tl.Recorder(model, save=tl.func("softmax"), max_records=1)
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", SelectorWarning)  # there is none, which is the point
                times = interleaved(
                    {"plain": lambda m=model: m(x), "recorded": _loop(recorder, model, (x,))}, rounds=25
                )
            plain.append(times["plain"])
            recorded.append(times["recorded"] / LOOP)
        extra = (slope(counts, recorded) - slope(counts, plain)) * 1e6
        yield Row(f"record, an operation that is not kept, {name}", f"{extra:.1f} µs", "3 µs", extra <= 3)


def _beside_hooks(
    name: str, model: nn.Module, args: Any, what: str, modules: list[nn.Module], save: Any, block: str
) -> Iterator[Row]:
    halve = tl.when(tl.module(block), lambda value: value * 0.5)
    ways: dict[str, Callable[[], Any]] = {
        "hooks": lambda: _keeping(model, args, modules),
        "record": lambda: tl.record(model, args, save=save),
        "step": _loop(tl.Recorder(model, save=save, max_records=1), model, args),
        "hook": lambda: _halving(model, args, block),
        "when": lambda: tl.record(model, args, save=False, intervene=halve),
        "steered": _loop(tl.Recorder(model, save=False, intervene=halve), model, args),
    }
    with torch.no_grad():
        times = interleaved(ways, rounds=25)
    times |= {way: times[way] / LOOP for way in ("step", "steered")}
    rows = {
        "record": (f"record of {what}", "hooks"),
        "step": ("the same in a Recorder, a step", "hooks"),
        "when": (f"one `when` on `{block}`, by record", "hook"),
        "steered": ("the same in a Recorder, a step", "hook"),
    }
    for way, (text, base) in rows.items():
        ratio = times[way] / times[base]
        shown = f"{ratio:.3f}x ({(times[way] - times[base]) * 1e3:+.1f} ms)"
        yield Row(f"{name}, {text}, beside forward {base}", shown, "1.02x", ratio <= 1.02)


def _loop(recorder: tl.Recorder, model: nn.Module, args: Any) -> Callable[[], Any]:
    """``LOOP`` steps in a Recorder, which is entered once."""

    def run() -> None:
        with recorder:
            for _ in range(LOOP):
                model(*args)

    return run


def _keeping(model: nn.Module, args: Any, modules: list[nn.Module]) -> list[Any]:
    kept: list[Any] = []
    handles = [module.register_forward_hook(lambda module, inputs, output: kept.append(output)) for module in modules]
    try:
        model(*args)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _halving(model: nn.Module, args: Any, address: str) -> None:
    def halve(module: nn.Module, inputs: Any, output: Any) -> Any:
        return (output[0] * 0.5, *output[1:]) if isinstance(output, tuple) else output * 0.5

    handle = model.get_submodule(address).register_forward_hook(halve)
    try:
        model(*args)
    finally:
        handle.remove()
