"""Memory that arrays share: random programs of views and writes, against a shadow of the memory kept cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torchlens as tl
from tests.torch.cases import graph, traced
from tests.torch.witness import Witness
from torchlens_torch.memory import Region, overlap

# -- regions -----------------------------------------------------------------------------------------------------------

dims = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 2, 3, 4, 6, 12])), max_size=3)
regions = st.builds(
    lambda offset, axes, itemsize: Region(offset, tuple(n for n, _ in axes), tuple(s for _, s in axes), itemsize),
    st.integers(0, 12),
    dims,
    st.sampled_from([1, 2, 4, 8]),
)


def covered_bytes(region: Region) -> set[int]:
    found: set[int] = set()
    for index in itertools.product(*(range(size) for size in region.sizes)):
        element = region.offset + sum(i * stride for i, stride in zip(index, region.strides, strict=True))
        found.update(range(element * region.itemsize, (element + 1) * region.itemsize))
    return found


@settings(max_examples=500, deadline=None, derandomize=True)
@given(regions, regions)
def test_overlap_is_exact(one: Region, other: Region) -> None:
    assert overlap(one, other) == bool(covered_bytes(one) & covered_bytes(other))
    assert overlap(one, other) == overlap(other, one)


def test_overlap_of_the_parts_of_a_fused_projection() -> None:
    q, k, v = (Region(offset, (8, 128, 768), (294912, 2304, 1), 4) for offset in (0, 768, 1536))
    assert not overlap(q, k) and not overlap(k, v)
    assert overlap(q, Region(767, (8, 128, 2), (294912, 2304, 1), 4))


# -- programs ----------------------------------------------------------------------------------------------------------

# name -> (what it does to a tensor, the same to its cells); both are given a number to choose by
VIEWS: dict[str, tuple[Callable[[Tensor, int], Tensor], Callable[[Any, int], Any]]] = {
    "row": (lambda t, n: t[n % t.shape[0]], lambda c, n: c[n % c.shape[0]]),
    "from": (lambda t, n: t[n % t.shape[0] :], lambda c, n: c[n % c.shape[0] :]),
    "every second": (lambda t, n: t[..., n % 2 :: 2], lambda c, n: c[..., n % 2 :: 2]),
    "transposed": (lambda t, n: t.T, lambda c, n: c.T),
    "passed through": (lambda t, n: t.to(torch.float32), lambda c, n: c),
}
WRITES: dict[str, Callable[[Tensor, int], Any]] = {
    "add_": lambda t, n: t.add_(n),
    "mul_": lambda t, n: t.mul_(2),
    "fill": lambda t, n: t.fill_(n),
    "setitem": lambda t, n: t.__setitem__(..., float(n)),
    "relu_": lambda t, n: torch.relu_(t),
}


class Step(NamedTuple):
    kind: str  # "new", "view", "write" or "read"
    name: str
    array: int  # which of the arrays so far
    number: int


steps = st.lists(
    st.one_of(
        st.builds(Step, st.just("new"), st.just(""), st.integers(0, 9), st.just(0)),
        st.builds(Step, st.just("view"), st.sampled_from(sorted(VIEWS)), st.integers(0, 9), st.integers(0, 3)),
        st.builds(Step, st.just("write"), st.sampled_from(sorted(WRITES)), st.integers(0, 9), st.integers(0, 3)),
        st.builds(Step, st.just("read"), st.just(""), st.integers(0, 9), st.just(0)),
    ),
    min_size=2,
    max_size=12,
)


def usable(program: list[Step], step: Step, dims_of: list[int]) -> bool:
    """Whether a view can be taken of an array that may have no axis left."""
    return step.kind != "view" or dims_of[step.array % len(dims_of)] > (1 if step.name == "transposed" else 0)


def forward(program: list[Step]) -> Callable[[Tensor], list[Tensor]]:
    def run(x: Tensor) -> list[Tensor]:
        arrays = [x * 2]
        for step in program:
            array = arrays[step.array % len(arrays)]
            if step.kind == "new":
                arrays.append(array + 1)
            elif step.kind == "read":
                array.sum()
            elif step.kind == "write":
                WRITES[step.name](array, step.number)
            elif array.dim() > 1:
                arrays.append(VIEWS[step.name][0](array, step.number))
        return arrays

    return run


@dataclass
class Shadow:
    """One array: the cells of memory it covers, and the operation that gave it its value, by number."""

    cells: Any
    made_by: int


def expected_parents(program: list[Step]) -> list[tuple[int, int | None]]:
    """For each operation the one that made its argument, and the last one that wrote memory of it since, through
    another array. Operations are numbered from 1; 0 is the input."""
    fresh = itertools.count(0, 16)
    arrays = [Shadow(next(fresh) + np.arange(16).reshape(4, 4), 1)]
    writes: list[tuple[int, set[int]]] = []
    parents: list[tuple[int, int | None]] = [(0, None)]

    def last_write(array: Shadow) -> int | None:
        cells = set(array.cells.flat)
        later = [number for number, written in writes if number > array.made_by and written & cells]
        return later[-1] if later else None

    def take(array: Shadow) -> int:
        parents.append((array.made_by, last_write(array)))
        return len(parents)

    for step in program:
        array = arrays[step.array % len(arrays)]
        if step.kind == "new":
            shape = array.cells.shape
            arrays.append(Shadow(next(fresh) + np.arange(int(np.prod(shape))).reshape(shape), take(array)))
        elif step.kind == "read":
            take(array)
        elif step.kind == "write":
            array.made_by = take(array)
            writes.append((array.made_by, set(array.cells.flat)))
        elif array.cells.ndim > 1:
            arrays.append(Shadow(VIEWS[step.name][1](array.cells, step.number), take(array)))
    for array in arrays:
        if last_write(array) is not None:  # what is returned is not what it was when it was made: an identity Op
            take(array)
    return parents


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps)
def test_edges_and_values_of_random_programs(program: list[Step]) -> None:
    trace = traced(lambda: (forward(program), torch.randn(4, 4)), keep_orphans=True, recurrence=False)
    number_of = {"input_1": 0} | {op.layer_label: position for position, op in enumerate(trace.compute_ops, 1)}
    found = []
    for op in trace.compute_ops:
        (value,) = op.parent_arg_positions["args"].values()
        writers = [number_of[name] for name in op.write_parents]
        assert len(writers) <= 1
        found.append((number_of[value], writers[0] if writers else None))
    assert found == expected_parents(program), graph(trace)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps)
def test_replay_of_random_programs(program: list[Step]) -> None:
    report = tl.validate(forward(program), torch.randn(4, 4))
    assert report, str(report)
    assert report.replay_difference == 0


@pytest.mark.parametrize(("saved", "copies"), [("mul", 1), ("add", 0), ("sum", 0)])
def test_only_kept_values_that_a_write_would_change_are_copied(saved: str, copies: int) -> None:
    def run(x: Tensor) -> Tensor:
        y = x * 2
        left, right = y[:2], y[2:]
        left.add_(1)
        return (left.sum() + right.sum()) * 1

    with Witness() as witness:
        trace = tl.trace(run, torch.ones(4), save=tl.func(saved))
    assert [kernel.name for kernel in witness.kernels].count("aten::clone") == copies
    assert trace[f"{saved}_1"].out.tolist() == {"mul": [2, 2, 2, 2], "add": [3, 3], "sum": 6}[saved]
