"""What running again costs: a rerun beside a fresh trace, a replay beside a plain forward, a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import torchlens as tl

from . import models
from .report import Row
from .timing import interleaved


def rerun() -> Iterator[Row]:
    """A rerun with a change, beside a fresh trace with the same change; replays of a late block, and of everything."""
    chain: tuple[nn.Module, tuple[Any, ...]] = models.Chain(1000), (torch.randn(4, 8),)
    for name, (model, args), site in (
        ("ResNet-50", models.resnet50(), tl.module("layer4.0")),
        ("GPT-2 small", models.gpt2(), tl.module("transformer.h.9")),
        ("1,000 tiny operations", chain, tl.func("tanh").nth(240)),
    ):
        with torch.no_grad():
            trace = tl.trace(model, list(args), save=tl.module("self"))
            ready = tl.trace(model, list(args), replay_ready=True)
            fork = trace.fork()
            fork.attach_hooks(site, tl.scale(0.5))
            ways: dict[str, Callable[[], Any]] = {
                "plain": lambda m=model, a=args: m(*a),
                "fresh": lambda m=model, a=args, s=site: tl.trace(
                    m, list(a), save=tl.module("self"), intervene=tl.when(s, tl.scale(0.5))
                ),
                "rerun": lambda m=model, a=args, f=fork: f.rerun(m, list(a)),
                "late": lambda r=ready, s=site: r.replay(hooks={s: tl.scale(0.5)}),
                "whole": lambda r=ready: r.replay(save=False),
            }
            times = interleaved(ways, rounds=15)
        ratio = times["rerun"] / times["fresh"]
        yield Row(f"{name}, rerun with a change, beside a fresh trace with it", f"{ratio:.2f}x", "1.10x", ratio <= 1.10)
        for what, way in (("from a late site", "late"), ("of everything, nothing kept", "whole")):
            yield Row(f"{name}, replay {what}, beside a plain forward", f"{times[way] / times['plain']:.2f}x", "", None)
