"""Suites of checks, and what a check says when it fails."""

from __future__ import annotations

import traceback
import unittest
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from ...backend import Backend, not_implemented
from ...errors import CaptureWarning, TorchLensWarning, nearest
from .case import Case
from .fixtures import FEATURES, Fixtures

if TYPE_CHECKING:
    from .bench import Bench

Body = Callable[..., None]  # (bench), or (bench, case)


class Nonconforming(AssertionError):
    """A plugin does not do what it should; the message says what was expected, what came, and where to look."""

    look_at = ""  # where it is not where the check says


_NOTHING: Any = object()
_ORIGINS = """expected: no warning. Every array that an operation takes comes from an operation that was seen and
          recorded, from the state that Backend.discover found, from the arguments, or from what code closes over"""


def fail(what: str, *, expected: Any = _NOTHING, got: Any = _NOTHING, look_at: str = "") -> NoReturn:
    """Raise :class:`Nonconforming`, in words that the author of a plugin understands."""
    parts = [what]
    parts += [f"expected: {_indented(expected)}"] if expected is not _NOTHING else []
    parts += [f"got:      {_indented(got)}"] if got is not _NOTHING else []
    error = Nonconforming("\n".join(parts))
    error.look_at = look_at
    raise error


def _place(error: BaseException) -> str:
    """The innermost lines of what was running, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return "\n".join(f"  at {frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)


def _indented(value: Any) -> str:
    return str(value).replace("\n", "\n          ")


@dataclass(frozen=True)
class Check:
    """One thing that a plugin has to do.

    Attributes:
        suite, name: what it is called; ``suite/name`` in ``Fixtures.cannot``.
        about: what has to hold, in a sentence.
        look_at: the part of the contract that is likely to be at fault.
        body: checks it.
        bench: what it works on.
        declared: why it is not run; empty where it is.
    """

    suite: str
    name: str
    about: str
    look_at: str
    body: Body
    bench: Bench
    case: Case | None = None
    declared: str = ""

    def run(self) -> None:
        """Check it: raises Nonconforming, or SkipTest where it is declared as something that cannot be."""
        if self.declared:
            raise unittest.SkipTest(f"declared: {self.declared}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", TorchLensWarning)  # arrays of unknown origin, selectors without a match
                self.body(self.bench, *([] if self.case is None else [self.case]))
        except Nonconforming as error:
            raise Nonconforming(self._said(str(error), error.look_at)) from None
        except CaptureWarning as error:
            raise Nonconforming(self._said(f"it warned: {error}\n{_ORIGINS}")) from error
        except TorchLensWarning as error:
            raise Nonconforming(
                self._said(f"expected: no warning\ngot:      {type(error).__name__}: {error}")
            ) from error
        except Exception as error:
            text = f"it raised {type(error).__name__}: {error}\n{_place(error)}"
            raise Nonconforming(self._said(text, f"where it was raised; the check is about {self.look_at}")) from error

    def _said(self, problem: str, look_at: str = "") -> str:
        shown = f"\nthe model: {self.case.name}: {self.case.shows}" if self.case is not None else ""
        return f"{self}\n{self.about}{shown}\n\n{problem}\n\nlook at: {look_at or self.look_at}"

    def __str__(self) -> str:
        return f"{self.suite}/{self.name}"

    __repr__ = __str__


@dataclass(frozen=True)
class _Entry:
    body: Body
    look_at: str
    needs: frozenset[str]
    job: str
    where: Callable[[Case], bool] | None  # for each of these cases; None: once, of no case


class Suite:
    """Checks of one subject.

    Args:
        name: of the suite.
        job: the jobs of a backend without which it makes no sense, separated by spaces; where one is declared as not
            implemented, so is the suite.
    """

    def __init__(self, name: str, job: str = "") -> None:
        self.name = name
        self._job = job
        self._entries: list[_Entry] = []

    def check(self, look_at: str, *, needs: str = "", job: str = "") -> Callable[[Body], Body]:
        """Add a check; its docstring says what has to hold, its name is its own."""
        return self._adding(look_at, needs, job, None)

    def each(
        self, look_at: str, *, where: Callable[[Case], bool] = lambda case: True, job: str = ""
    ) -> Callable[[Body], Body]:
        """Add a check of each case."""
        return self._adding(look_at, "", job, where)

    def _adding(self, look_at: str, needs: str, job: str, where: Any) -> Callable[[Body], Body]:
        def add(body: Body) -> Body:
            self._entries.append(_Entry(body, look_at, frozenset(needs.split()), job or self._job, where))
            return body

        return add

    def checks(self, bench: Bench, cases: tuple[Case, ...]) -> Iterator[Check]:
        """All of them, for one plugin."""
        for entry in self._entries:
            about = " ".join((entry.body.__doc__ or "").split())
            words = entry.body.__name__.replace("_", " ").strip()
            for case in [None] if entry.where is None else filter(entry.where, cases):
                name = words if case is None else f"{case.name}: {words}"
                needs = entry.needs if case is None else entry.needs | case.needs
                declared = _Declared(bench.fixtures, bench.backend).why(self.name, name, case, needs, entry.job)
                yield Check(self.name, name, about, entry.look_at, entry.body, bench, case, declared)


@dataclass(frozen=True)
class _Declared:
    """What a plugin says that it cannot do."""

    fixtures: Fixtures
    backend: Backend

    def why(self, suite: str, name: str, case: Case | None, needs: frozenset[str], job: str) -> str:
        """Why a check is not to be run; empty where it is."""
        for each in job.split():
            missing = getattr(type(self.backend), each, None)
            if isinstance(missing, not_implemented):
                return f"{each}: {missing.why}"
        keys = [suite, f"{suite}/{name}", *sorted(needs), *([case.name] if case is not None else [])]
        return next((f"{key}: {self.fixtures.cannot[key]}" for key in keys if key in self.fixtures.cannot), "")


@dataclass(frozen=True)
class Listing:
    """All checks of a plugin. Raises ValueError for a declaration that names nothing."""

    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        for key in self.checks[0].bench.fixtures.cannot if self.checks else ():
            if key not in self.names:
                raise ValueError(f"Fixtures.cannot names {key!r}, which is nothing.{nearest(key, self.names)}")

    @cached_property
    def names(self) -> frozenset[str]:
        """Everything that ``cannot`` can name."""
        suites = {check.suite for check in self.checks}
        cases = {check.case.name for check in self.checks if check.case is not None}
        return frozenset({*FEATURES, *suites, *cases, *map(str, self.checks)})
