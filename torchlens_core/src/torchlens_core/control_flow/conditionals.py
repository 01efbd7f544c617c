"""Which conditionals a run went through, which arms ran, and which Ops and edges belong to them.

A backend sees only that an array was turned into a Python bool, and where. The source of that place tells the rest: the
``if`` chain, ternary, ``while`` or ``assert`` that asked, and the arm that ran. Ops belong to an arm when the call that
they came from, or any call around it in the same activation of the function, stands in the arm's span.

Activations are told apart by the scope (module call) they are in and by the positions of the calls between the two.
Within one activation a conditional may run many times; an Op belongs to the last execution that began before it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from ..derived.frames import Frame
from .branch_edges import Stay, arm_entry_edges, branch_edges
from .branches import Branches, Kind, Statement
from .executions import Run
from .source_tree import Span

# -- what ran ----------------------------------------------------------------------------------------------------------


class ScopePlace(NamedTuple):
    """A call of a module, in which Ops ran; the first is that of the model."""

    parent: int  # index of the scope it was called in, smaller than its own; -1 of the first
    site: int  # index of the call site, -1 where unknown


class OpPlace(NamedTuple):
    """One Op: where it ran, when, and what it took."""

    scope: int
    site: int  # index of the call site, -1 where unknown
    order: int  # how many operations had run before it
    parents: Sequence[int]  # indices of Ops
    is_source: bool = False  # an input or a buffer: made by no operation


class BoolEvent(NamedTuple):
    """An array that was turned into a Python bool."""

    op: int  # index of the Op whose array it was, -1 where unknown
    value: bool
    scope: int
    site: int
    order: int  # how many operations had run before


# -- what follows from it ----------------------------------------------------------------------------------------------


class Predicate(msgspec.Struct, frozen=True):
    """One array asked for its truth value."""

    event: int  # index of the event
    op: int  # index of the Op, -1 where unknown
    value: bool  # of the array; ``not`` and ``and`` around it are not applied
    test: int  # which test of the conditional asked: 0, of the k-th ``elif`` k


class Execution(msgspec.Struct, frozen=True):
    """One time that a conditional ran."""

    scope: int
    order: int  # how many operations had run before its first predicate was asked
    value: bool | None  # what its tests came to in the end, None where that does not follow from what is known
    arm: str | None  # the arm that ran; None where none ran (``value`` False) or it is unknown (``value`` None)
    predicates: tuple[Predicate, ...]
    ops: tuple[int, ...]  # the Ops that ran in the arm, those in functions and modules called from it included


class Conditional(msgspec.Struct, frozen=True):
    """One conditional in the source that asked at least one array, with each time that it ran.

    Spans are (line, column, end line, end column), lines from 1 and columns from 0 in UTF-8 bytes.
    """

    id: int
    kind: Kind
    file: str
    function: str  # qualified name
    function_span: Span | None  # None where there is no source
    statement_span: Span | None
    test_span: Span | None  # of the first test, of a 'bool' the expression that asked; None where that is unknown too
    test_spans: dict[str, Span]  # by the arm that runs when the test is true
    branch_spans: dict[str, Span]  # 'then', 'elif_1', ..., 'else'; of a ``while`` 'body'; none of the others
    parent: int | None  # id of the conditional around it in the same function, if that asked arrays too
    parent_arm: str | None
    executions: tuple[Execution, ...]


class ControlFlow(msgspec.Struct, frozen=True):
    """Everything that is known of the conditionals of one run. Ops are given by index, conditionals by id."""

    conditionals: tuple[Conditional, ...] = ()
    branch_stacks: dict[int, tuple[tuple[int, str], ...]] = {}  # Op -> (conditional, arm), outermost first
    branch_edges: dict[tuple[int, int], tuple[int, ...]] = {}  # IF: (parent, child) -> the conditionals that it decides
    arm_entry_edges: dict[tuple[int, str], tuple[tuple[int, int], ...]] = {}  # (conditional, arm) -> (parent, child)


def find_conditionals(
    sites: Sequence[tuple[Frame, ...]],
    scopes: Sequence[ScopePlace],
    ops: Sequence[OpPlace],
    events: Sequence[BoolEvent],
) -> ControlFlow:
    """Find the conditionals that the events belong to, the arms that ran, and the edges that lead to both.

    ``sites`` are call sites: the frames from the call of the enclosing scope (outermost) to the operation, each site
    once. ``events`` stand in the order in which they happened. Without events nothing is read or computed.
    """
    if not events:
        return ControlFlow()
    return _Finder(sites, scopes, ops, events).find()


_Code = tuple[str, str, int]  # file, function and first line of a code object
_Place = tuple[list[Run], int]  # in an arm: the executions of the conditional in that activation, number of the arm
_NOWHERE = Frame("", -1, -1, -1, -1, "", -1)


class _Finder:
    """Gathers the executions of all conditionals, then the Ops in their arms."""

    def __init__(
        self,
        sites: Sequence[tuple[Frame, ...]],
        scopes: Sequence[ScopePlace],
        ops: Sequence[OpPlace],
        events: Sequence[BoolEvent],
    ) -> None:
        self._sites = sites
        self._scopes = scopes
        self._ops = ops
        self._by_order = sorted((n for n, op in enumerate(ops) if not op.is_source), key=self._order_of)
        self._events = events
        self._activations: dict[Hashable, int] = {}
        self._runs: dict[tuple[int, int, Statement], list[Run]] = {}  # by scope and activation; in order
        self._ids: dict[Statement, int] = {}
        self._asked_by: dict[int, set[int]] = defaultdict(set)  # Op -> conditionals
        self._of_code: dict[_Code, list[Statement]] = defaultdict(list)  # those that have arms, outer before inner
        self._gather()
        self._site_places: dict[int, tuple[tuple[int, Statement, int], ...]] = {-1: ()}
        self._scope_places: list[tuple[_Place, ...]] = []
        for scope in scopes:
            self._scope_places.append(self._places(scope.parent, scope.site))

    def _order_of(self, op: int) -> int:
        return self._ops[op].order

    def find(self) -> ControlFlow:
        for index, event in enumerate(self._events):  # an event in an arm shows, as an Op does, that the arm ran
            self._enter(self._places(event.scope, event.site), index)
        stays = dict(self._stays())
        parents = [op.parents for op in self._ops]
        sources = {index for index, op in enumerate(self._ops) if op.is_source}
        return ControlFlow(
            conditionals=self._conditionals(),
            branch_stacks={op: tuple(stay[:2] for stay in inside) for op, inside in stays.items()},
            branch_edges=branch_edges(parents, sources, self._asked_by),
            arm_entry_edges=arm_entry_edges(parents, stays),
        )

    def _gather(self) -> None:
        """Give each event to the execution that asked."""
        branches = Branches()
        for index, event in enumerate(self._events):
            frames = self._sites[event.site] if event.site >= 0 else ()
            frame = frames[-1] if frames else _NOWHERE
            question = branches.question(frame)
            statement = question.statement
            if statement not in self._ids:
                self._ids[statement] = len(self._ids)
                if statement.span is not None:
                    self._of_code[_code(frame)].append(statement)
            if event.op >= 0:
                self._asked_by[event.op].add(self._ids[statement])
            key = _activation(frames, len(frames) - 1)
            activation = self._activations.setdefault(key, len(self._activations))
            runs = self._runs.setdefault((event.scope, activation, statement), [])
            if not runs or self._left_tests(runs[-1], index, frames) or not runs[-1].take(question, index, event.value):
                runs.append(Run(statement, event.scope, question, index, event.value))
        for statements in self._of_code.values():
            statements.sort(key=_outer_first)

    def _left_tests(self, run: Run, event: int, frames: tuple[Frame, ...]) -> bool:
        """Whether anything ran between the last event of an execution and ``event`` that is no part of its tests."""
        since, until = self._events[run.events[-1]].order, self._events[event].order
        begin, end = (bisect_left(self._by_order, order, key=self._order_of) for order in (since, until))
        ops = (self._ops[self._by_order[number]] for number in range(begin, end))
        others = self._events[run.events[-1] + 1 : event]
        places = chain(((op.scope, op.site) for op in ops), ((other.scope, other.site) for other in others))
        return not all(self._is_in_tests(run, scope, site, frames) for scope, site in places)

    def _is_in_tests(self, run: Run, scope: int, site: int, frames: tuple[Frame, ...]) -> bool:
        """Whether what ran at a site did so within the tests of ``run``, which last asked at ``frames``."""
        while scope > run.scope:
            scope, site = self._scopes[scope].parent, self._scopes[scope].site
        if scope != run.scope or site < 0 or not frames:  # where a predicate was asked is not always known
            return False
        depth, at_site = len(frames) - 1, self._sites[site]
        if len(at_site) <= depth or at_site[:depth] != frames[:depth] or _code(at_site[depth]) != _code(frames[depth]):
            return False
        return run.statement.has_in_tests(Span(*at_site[depth][1:5]))

    def _places(self, scope: int, site: int) -> tuple[_Place, ...]:
        """The arms around a call site in a scope, outermost first, whether they ran just then or not."""
        around = self._scope_places[scope] if scope >= 0 else ()
        at_site = self._site_places.get(site)
        if at_site is None:
            at_site = self._site_places[site] = tuple(self._places_of_site(self._sites[site]))
        if not at_site:
            return around
        keys = [((scope, activation, statement), arm) for activation, statement, arm in at_site]
        return around + tuple((self._runs[key], arm) for key, arm in keys if key in self._runs)

    def _places_of_site(self, frames: tuple[Frame, ...]) -> Iterator[tuple[int, Statement, int]]:
        for depth, frame in enumerate(frames):
            for statement in self._of_code.get(_code(frame), ()):
                arm = statement.arm_at(Span(*frame[1:5]))
                activation = self._activations.get(_activation(frames, depth)) if arm is not None else None
                if arm is not None and activation is not None:
                    yield activation, statement, arm

    def _enter(self, places: tuple[_Place, ...], time: int) -> list[tuple[Run, int]]:
        """Of ``places`` those that ran when the first ``time`` events had happened: the executions, with their arms."""
        entered = []
        for runs, arm in places:
            number = bisect_left(runs, time, key=_first_event) - 1
            if number >= 0 and runs[number].is_in(arm):
                entered.append((runs[number], arm))
        return entered

    def _stays(self) -> Iterator[tuple[int, tuple[Stay, ...]]]:
        """For each Op in an arm the executions that it ran in, outermost first."""
        orders = [event.order for event in self._events]
        for index, op in enumerate(self._ops):
            places = () if op.is_source else self._places(op.scope, op.site)
            entered = self._enter(places, bisect_right(orders, op.order)) if places else []
            for run, _ in entered:
                run.ops.append(index)
            if entered:
                yield index, tuple(self._stay(run, arm) for run, arm in entered)

    def _stay(self, run: Run, arm: int) -> Stay:
        return self._ids[run.statement], run.statement.arms[arm].name, run.first_event

    def _conditionals(self) -> tuple[Conditional, ...]:
        executions: dict[Statement, list[Execution]] = {statement: [] for statement in self._ids}
        runs = [run for runs in self._runs.values() for run in runs]
        for run in sorted(runs, key=_first_event):
            executions[run.statement].append(self._execution(run))
        return tuple(self._conditional(statement, tuple(done)) for statement, done in executions.items())

    def _execution(self, run: Run) -> Execution:
        first = self._events[run.first_event]
        predicates = tuple(
            Predicate(event, self._events[event].op, self._events[event].value, test)
            for event, test in zip(run.events, run.tests, strict=True)
        )
        return Execution(first.scope, first.order, run.value, run.arm, predicates, tuple(run.ops))

    def _conditional(self, statement: Statement, executions: tuple[Execution, ...]) -> Conditional:
        inner = statement
        while inner.parent is not None and inner.parent not in self._ids:
            inner = inner.parent
        return Conditional(
            id=self._ids[statement],
            kind=statement.kind,
            file=statement.file,
            function=statement.function,
            function_span=statement.function_span,
            statement_span=statement.span,
            test_span=statement.test_spans[0] if statement.test_spans[0].line > 0 else None,
            test_spans={arm.name: span for arm, span in zip(statement.arms, statement.test_spans, strict=False)},
            branch_spans={arm.name: arm.span for arm in statement.arms},
            parent=None if inner.parent is None else self._ids[inner.parent],
            parent_arm=inner.parent_arm,
            executions=executions,
        )


def _code(frame: Frame) -> _Code:
    return frame.file, frame.function, frame.first_line


def _activation(frames: tuple[Frame, ...], depth: int) -> Hashable:
    """What tells activations of functions in one scope apart: the calls on the way, and the function."""
    return frames[:depth], _code(frames[depth]) if frames else None


def _first_event(run: Run) -> int:
    return run.first_event


def _outer_first(statement: Statement) -> tuple[int, ...]:
    assert statement.span is not None
    line, col, end_line, end_col = statement.span
    return line, col, -end_line, -end_col
