"""Timing several ways of doing one thing in one run, interleaved, so that a busy machine is unfair to none."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int, seed: int = 0) -> dict[str, float]:
    """Median seconds of each way over ``rounds`` rounds; in each round every way runs once, in a random order."""
    order = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # warm
        way()
    for _ in range(rounds):
        names = list(ways)
        order.shuffle(names)
        for name in names:
            gc.collect(0)
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def slope(counts: list[int], seconds: list[float]) -> float:
    """Seconds for each further one, by least squares."""
    mean_count, mean_seconds = sum(counts) / len(counts), sum(seconds) / len(seconds)
    spread = sum((count - mean_count) ** 2 for count in counts)
    return sum((c - mean_count) * (s - mean_seconds) for c, s in zip(counts, seconds, strict=True)) / spread
