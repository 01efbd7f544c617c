"""The kit's own eyes: a case run in numpy, in 64 bits, every result written down. No tracing takes part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..toy_conformance import ToyFixtures
from ..toy_framework import Array, Module, Operation, watching
from .case import Case

Numbers = np.ndarray[Any, Any]
Change = tuple[int, Callable[[Numbers], Numbers]]  # of which result, in the order of the run; what takes its place


class Numpy(ToyFixtures):
    """The framework of the reference: the toy framework in 64 bits."""

    def array(self, data: Numbers) -> Array:
        """Floating-point elements as 64-bit ones."""
        return Array(data.astype(np.float64) if data.dtype.kind == "f" else data)


class Run(NamedTuple):
    """One run of a case."""

    values: list[Numbers]  # of every operation, in order; of each output, where it has several
    outputs: list[Numbers]  # what the model returned


def run(case: Case, change: Change | None = None) -> Run:
    """Run a case, with one result changed by hand."""
    made = case.build(Numpy())
    log = _Log(change)
    with watching(log):
        out = made.model(*made.args, **made.kwargs)
    return Run(log.values, [array.data for array in leaves(out)])


def leaves(value: Any) -> Iterator[Any]:
    """What stands in dicts, lists and tuples, in order."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


class _Log:
    """Watches the toy framework: writes down every result, and changes one."""

    def __init__(self, change: Change | None) -> None:
        self.values: list[Numbers] = []
        self._change = change

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation is called."""
        out = operation.run(*args, **kwargs)
        if isinstance(out, tuple):
            return tuple(self._seen(each, operation.writes) for each in out)
        return self._seen(out, operation.writes)

    def _seen(self, array: Array, is_write: bool) -> Array:
        number = len(self.values)
        if self._change is not None and self._change[0] == number:
            changed = Array(self._change[1](array.data))
            if is_write:
                array.data = changed.data
            else:
                array = changed
        self.values.append(array.data)
        return array

    def module_call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module is called; handing back what it was given counts as an operation."""
        out = module.run(*args, **kwargs)
        return self._seen(Array(out.data), False) if any(out is given for given in args) else out

    def read(self, kind: str, array: Array, value: Any) -> None:
        """Python reads an array: no result."""

    def assigned(self, module: Module, name: str, array: Array) -> None:
        """A buffer is bound: no result."""
