"""What checks work with: one plugin, its fixtures, and the kit's own eyes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ...backend import Backend
from ...plugins import get_backend
from ...records.op import Op
from ...records.trace import Trace
from ...tracing import trace
from . import reference
from .case import Case, Setup
from .check import fail
from .fixtures import Fixtures
from .reference import Numbers, Run


class Bench:
    """One plugin under test."""

    def __init__(self, fixtures: Fixtures) -> None:
        self.fixtures = fixtures

    @cached_property
    def backend(self) -> Backend:
        """The backend that is tested, its framework loaded."""
        return get_backend(self.fixtures.backend)

    def trace(self, made: Setup, **options: Any) -> Trace:
        """Trace a model."""
        return trace(made.model, list(made.args), dict(made.kwargs), backend=self.fixtures.backend, **options)

    def plain(self, made: Setup) -> list[Numbers]:
        """What the model returns without a trace, as numpy arrays."""
        return self.numpy_of(self.fixtures.run(made.model, made.args, made.kwargs))

    def numpy_of(self, value: Any) -> list[Numbers]:
        """The arrays in containers, as numpy arrays of their own."""
        return [np.array(self.fixtures.to_numpy(array)) for array in reference.leaves(value)]

    def reference(self, case: Case) -> Run:
        """A case in numpy, in the framework's order of axes."""
        return self.in_own_axes(_reference(case))

    def changed_reference(self, case: Case, number: int, change: Callable[[Numbers], Numbers]) -> Run:
        """A case in numpy with one result changed by hand."""
        return self.in_own_axes(reference.run(case, (number, change)))

    def in_own_axes(self, run: Run) -> Run:
        """Images with their channels where the framework has them."""
        if not self.fixtures.channels_last:
            return run
        moved = ([each.transpose(0, 2, 3, 1) if each.ndim == 4 else each for each in part] for part in run)
        return Run(*moved)

    def numpy(self, op: Any) -> Numbers:
        """The kept value of an Op, as the fixtures read it."""
        return np.array(self.fixtures.to_numpy(op.out))

    def state_of(self, made: Setup) -> dict[str, Numbers]:
        """The arrays of a model and of its arguments, as they are now."""
        held = {f"model.{name}": array for name, array in self.fixtures.state(made.model).items()}
        held |= {f"arguments[{n}]": array for n, array in enumerate(reference.leaves((made.args, made.kwargs)))}
        return {name: np.array(self.fixtures.to_numpy(array)) for name, array in held.items()}

    # -- comparing -------------------------------------------------------------------------------------------------

    def is_close(self, got: Numbers, expected: Numbers) -> bool:
        """Whether two arrays hold the same numbers, as near as the fixtures say."""
        return got.shape == expected.shape and np.allclose(
            got.astype(np.float64), expected.astype(np.float64), self.fixtures.rtol, self.fixtures.atol
        )

    def must_be_close(self, got: Numbers, expected: Numbers, what: str, look_at: str = "") -> None:
        """Fail where two arrays differ."""
        if not self.is_close(got, expected):
            told = f"{what} {_difference(got, expected)}"
            fail(told, expected=_shown(expected), got=_shown(got), look_at=look_at)

    def must_all_be_close(
        self, got: Sequence[Numbers], expected: Sequence[Numbers], what: str, look_at: str = ""
    ) -> None:
        """Fail where lists of arrays differ."""
        if len(got) != len(expected):
            told = f"{what}: another number of arrays."
            fail(told, expected=len(expected), got=len(got), look_at=look_at)
        for number, (left, right) in enumerate(zip(got, expected, strict=True)):
            self.must_be_close(left, right, f"{what} (array {number}).", look_at)

    def must_be_same_state(
        self, got: Mapping[str, Numbers], expected: Mapping[str, Numbers], what: str, *, rtol: float = 0.0
    ) -> None:
        """Fail where arrays of a model are not the same: bit for bit, or as near as ``rtol``."""
        for name, array in expected.items():
            if not np.allclose(got[name], array, rtol, rtol / 10, equal_nan=True):
                fail(f"{what}: {name} differs.", expected=_shown(array), got=_shown(got[name]))

    # -- Ops ---------------------------------------------------------------------------------------------------------

    def computed(self, made: Trace) -> list[Op]:
        """All operations of a trace made with ``keep_orphans=True``, in the order in which they ran."""
        return sorted(made.compute_ops, key=lambda op: op.raw_index)


@lru_cache(maxsize=256)
def _reference(case: Case) -> Run:
    return reference.run(case)


def _shown(array: Numbers) -> str:
    more = " ..." if array.size > _MOST_SHOWN else ""
    return f"{array.dtype}{list(array.shape)} {np.array2string(array.ravel()[:_MOST_SHOWN], precision=5)}{more}"


def _difference(got: Numbers, expected: Numbers) -> str:
    if got.shape != expected.shape:
        return "The shapes differ."
    largest = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    return f"Largest difference: {largest:.3g}."


_MOST_SHOWN = 8
