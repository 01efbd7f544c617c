"""A tiny tracer of arithmetic on one number, for the tests of conditionals: what a backend gives them, and no more."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from types import FrameType
from typing import Any

from torchlens_core.control_flow.conditionals import (
    BoolEvent,
    Conditional,
    ControlFlow,
    OpPlace,
    ScopePlace,
    find_conditionals,
)
from torchlens_core.derived.frames import Frame, frame_of


class Value:
    """A number that records what is done with it."""

    def __init__(self, run: Run, number: float, op: int) -> None:
        self.run, self.number, self.op = run, number, op

    def __bool__(self) -> bool:
        run = self.run
        run.events.append(BoolEvent(self.op, bool(self.number), run.scope, run.site(), run.count))
        return bool(self.number)

    def item(self) -> bool:
        """The number as a Python bool, which a backend notes as it does `bool(x)`."""
        return bool(self)

    def _made(self, kind: str, number: float, *others: Any) -> Value:
        return self.run.op(kind, number, [self.op, *(other.op for other in others if isinstance(other, Value))])

    def __add__(self, other: Any) -> Value:
        return self._made("add", self.number + getattr(other, "number", other), other)

    def __mul__(self, other: Any) -> Value:
        return self._made("mul", self.number * getattr(other, "number", other), other)

    def __gt__(self, other: Any) -> Value:
        return self._made("gt", self.number > getattr(other, "number", other), other)

    def __lt__(self, other: Any) -> Value:
        return self._made("lt", self.number < getattr(other, "number", other), other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self._made("eq", self.number == getattr(other, "number", other), other)

    __hash__ = None  # type: ignore[assignment]

    def sum(self) -> Value:
        return self._made("sum", self.number)

    def relu(self) -> Value:
        return self._made("relu", max(self.number, 0))

    def neg(self) -> Value:
        return self._made("neg", -self.number)


class Module:
    """Base of the modules in traced sources: each call is a scope."""

    run: Run

    def __call__(self, *args: Any) -> Any:
        with self.run.scope_of_call():
            return self.forward(*args)  # type: ignore[attr-defined]


@dataclass
class Run:
    """One traced run."""

    columns: bool = True
    sites: dict[tuple[Frame, ...], int] = field(default_factory=dict)
    scopes: list[ScopePlace] = field(default_factory=lambda: [ScopePlace(-1, -1)])
    ops: list[OpPlace] = field(default_factory=list)
    events: list[BoolEvent] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scope: int = 0
    count: int = 0  # operations so far; inputs are none
    error: BaseException | None = None
    _boundary: FrameType | None = None
    _kinds: Counter[str] = field(default_factory=Counter)

    def trace(self, function: Callable[..., Any], inputs: tuple[float, ...]) -> ControlFlow:
        self._boundary = sys._getframe()
        values = [self.op("input", number, [], is_source=True) for number in inputs]
        try:
            function(*values)
        except AssertionError as error:
            self.error = error
        return self.found()

    def found(self) -> ControlFlow:
        return find_conditionals(list(self.sites), self.scopes, self.ops, self.events)

    def op(self, kind: str, number: float, parents: list[int], is_source: bool = False) -> Value:
        site = -1 if is_source else self.site()
        self.ops.append(OpPlace(self.scope, site, self.count, parents, is_source))
        self.count += not is_source
        self._kinds[kind] += 1
        self.labels.append(f"{kind}_{self._kinds[kind]}")
        return Value(self, number, len(self.ops) - 1)

    def site(self) -> int:
        """The frames between the current scope's call and the tracer, outermost first, as an index."""
        frames: list[Frame] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._boundary:
            if frame.f_code.co_filename != __file__:
                place = frame_of(frame.f_code, frame.f_lasti)
                frames.append(place if self.columns else place._replace(col=-1, end_col=-1, end_line=place.line))
            frame = frame.f_back
        return self.sites.setdefault(tuple(reversed(frames)), len(self.sites))

    @contextmanager
    def scope_of_call(self) -> Iterator[None]:
        scope, boundary = self.scope, self._boundary
        self.scopes.append(ScopePlace(scope, self.site()))
        self.scope, self._boundary = len(self.scopes) - 1, sys._getframe(2)
        try:
            yield
        finally:
            self.scope, self._boundary = scope, boundary


class Traced:
    """What was found in a run, with Ops by label ('sum_1', the first `sum`)."""

    def __init__(self, run: Run, flow: ControlFlow) -> None:
        self.run, self.flow = run, flow

    def __getitem__(self, kind: str) -> Conditional:
        """The only conditional of a kind."""
        (found,) = (conditional for conditional in self.flow.conditionals if conditional.kind == kind)
        return found

    @property
    def kinds(self) -> list[str]:
        return [conditional.kind for conditional in self.flow.conditionals]

    @property
    def stacks(self) -> dict[str, tuple[tuple[int, str], ...]]:
        return {self.run.labels[op]: stack for op, stack in self.flow.branch_stacks.items()}

    @property
    def branch_edges(self) -> dict[tuple[str, str], tuple[int, ...]]:
        labels = self.run.labels
        return {(labels[parent], labels[child]): ids for (parent, child), ids in self.flow.branch_edges.items()}

    @property
    def arm_entry_edges(self) -> dict[tuple[int, str], list[tuple[str, str]]]:
        labels = self.run.labels
        entries = self.flow.arm_entry_edges.items()
        return {arm: [(labels[parent], labels[child]) for parent, child in edges] for arm, edges in entries}

    def arms(self, kind: str) -> list[str | None]:
        """The arm of each execution of the only conditional of a kind."""
        return [execution.arm for execution in self[kind].executions]

    def values(self, kind: str) -> list[bool | None]:
        return [execution.value for execution in self[kind].executions]

    def asked(self, kind: str) -> list[list[bool]]:
        """The predicates of each execution of the only conditional of a kind."""
        return [[predicate.value for predicate in execution.predicates] for execution in self[kind].executions]


_folder = tempfile.TemporaryDirectory(prefix="conditionals-")  # until the process ends
_numbers = itertools.count()


def load(source: str, run: Run) -> dict[str, Any]:
    """Write a source file and run it, with `Module` defined in it."""
    path = Path(_folder.name, f"model_{next(_numbers)}.py")
    path.write_text(dedent(source), encoding="utf-8")
    names: dict[str, Any] = {"Module": type("Module", (Module,), {"run": run}), "__name__": "model"}
    exec(compile(dedent(source), str(path), "exec"), names)
    return names


def traced(source: str, *inputs: float, columns: bool = True) -> Traced:
    """Trace the function `f` of a source on `inputs`; `columns=False` is Python without debug ranges."""
    run = Run(columns=columns)
    return Traced(run, run.trace(load(source, run)["f"], inputs))
