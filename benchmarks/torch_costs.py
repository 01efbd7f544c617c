"""What tracing a PyTorch model costs, beside the plain forward and beside hooks written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import torchlens as tl

from . import models
from .report import Row
from .timing import interleaved, slope


def slopes() -> Iterator[Row]:
    """Microseconds for each further operation, over models of growing size."""
    counts = [200, 400, 800, 1600]
    x = torch.randn(4, 8)
    chains = {"tiny operations": models.Chain, "modules": models.Stack, "half in place": models.InPlace}
    for name, build in chains.items():
        for what, save in (("everything saved", True), ("nothing saved", False)):
            plain, traced = [], []
            for count in counts:
                model = build(count)
                with torch.no_grad():
                    times = interleaved(_ways(model, x, save), rounds=15)
                plain.append(times["plain"])
                traced.append(times["traced"])
            extra = (slope(counts, traced) - slope(counts, plain)) * 1e6
            yield Row(f"an operation, {name}, {what}", f"{extra:.1f} µs", "25 µs (10 the target)", extra <= 25)


def _ways(model: nn.Module, x: torch.Tensor, save: Any) -> dict[str, Callable[[], Any]]:
    return {"plain": lambda: model(x), "traced": lambda: tl.trace(model, x, save=save)}


def real_models() -> Iterator[Row]:
    """ResNet-50 and GPT-2 small: everything saved beside hooks that keep the same arrays, and the cheaper questions."""
    for name, build, block in (
        ("ResNet-50", models.resnet50, "layer3"),
        ("GPT-2 small", models.gpt2, "transformer.h.6"),
    ):
        model, args = build()
        quarter = _quarter(model, args)
        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda m=model, a=args: m(*a),
            "hooks, all": lambda m=model, a=args: _with_hooks(m, a),
            "same arrays": lambda m=model, a=args: _keeping_all(m, a),
            "trace, all": lambda m=model, a=args: tl.trace(m, a),
            "trace, nothing": lambda m=model, a=args: tl.trace(m, a, save=False),
            "hook, one": lambda m=model, a=args, b=block: _with_hook(m, a, b),
            "trace, one": lambda m=model, a=args, b=block: tl.trace(m, a, save=tl.module(b)),
            "pluck, one": lambda m=model, a=args, b=block: tl.pluck(m, a, b),
            "cut": lambda m=model, a=args, q=quarter: _cut(m, a, q),
            "halt": lambda m=model, a=args, q=quarter: tl.trace(m, a, save=False, halt=tl.module(q)),
        }
        with torch.no_grad():
            times = interleaved(ways, rounds=15)
            num_ops = tl.trace(model, args, save=False).num_ops
        yield from _rows(name, times, num_ops, block, quarter)


def _rows(name: str, times: dict[str, float], num_ops: int, block: str, quarter: str) -> Iterator[Row]:
    def ratio(way: str, base: str) -> float:
        return times[way] / times[base]

    plain = f"{name}, {num_ops} ops, plain forward"
    yield Row(plain, f"{times['plain'] * 1e3:.1f} ms", "", None)
    value = ratio("trace, all", "same arrays")
    extra = (times["trace, all"] - times["plain"]) / num_ops * 1e6
    shown = f"{value:.2f}x ({ratio('trace, all', 'plain'):.2f}x plain, +{extra:.0f} µs an op)"
    yield Row(f"{name}, everything saved, beside code that keeps the same arrays", shown, "1.10x", value <= 1.10)
    shown = f"{ratio('trace, all', 'hooks, all'):.2f}x"
    yield Row(f"{name}, the same, beside hooks that keep the fewer outputs of modules", shown, "", None)
    value = ratio("trace, nothing", "plain")
    extra = (times["trace, nothing"] - times["plain"]) / num_ops * 1e6
    yield Row(f"{name}, nothing saved, beside plain", f"{value:.2f}x (+{extra:.0f} µs an op)", "", None)
    for way in ("trace, one", "pluck, one"):
        value = ratio(way, "hook, one")
        what = f"{name}, {way.split(',')[0]} `{block}`, beside a hook on it"
        yield Row(what, f"{value:.2f}x", "1.02x", value <= 1.02)
    value = ratio("halt", "cut")
    yield Row(f"{name}, halt at `{quarter}`, beside the forward cut there", f"{value:.2f}x", "1.05x", value <= 1.05)


def _with_hooks(model: nn.Module, args: tuple[Any, ...]) -> list[torch.Tensor]:
    """What a user writes to keep every module's output: a copy where the next operation overwrites it."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            kept.append(output.clone() if isinstance(module, nn.BatchNorm2d) else output)

    handles = [module.register_forward_hook(keep) for module in models.leaves(model)]
    try:
        model(*args)
    finally:
        for handle in handles:
            handle.remove()
    return kept


class _KeepAll(TorchFunctionMode):
    """The least code that keeps every operation's output as it was: copied where the next operation overwrites it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("inplace") or func.__name__ in ("add_", "mul_", "relu_"):
            self.kept.append(args[0].clone())
        out = func(*args, **kwargs)
        self.kept.append(out)
        return out


def _keeping_all(model: nn.Module, args: tuple[Any, ...]) -> list[Any]:
    with _KeepAll() as mode:
        model(*args)
    return mode.kept


def _with_hook(model: nn.Module, args: tuple[Any, ...], address: str) -> list[Any]:
    kept: list[Any] = []
    handle = model.get_submodule(address).register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        model(*args)
    finally:
        handle.remove()
    return kept


class _Cut(Exception):
    pass


def _cut(model: nn.Module, args: tuple[Any, ...], address: str) -> None:
    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _Cut

    handle = model.get_submodule(address).register_forward_hook(stop)
    try:
        model(*args)
    except _Cut:
        pass
    finally:
        handle.remove()


def _quarter(model: nn.Module, args: tuple[Any, ...]) -> str:
    """Address of the module that returns the array a quarter of the way through the operations."""
    with torch.no_grad():
        trace = tl.trace(model, args, save=False)
    start = trace.num_ops // 4
    found = next(op for op in trace.compute_ops[start:] if op.is_module_output)
    return found.output_of_module_calls[0].rpartition(":")[0]


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread, for costs in microseconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
