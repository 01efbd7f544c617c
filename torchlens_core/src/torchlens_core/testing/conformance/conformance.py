"""Running the kit: with pytest one subclass, without it a report."""

from __future__ import annotations

import unittest
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .bench import Bench
from .cases import CASES
from .check import Check, Listing, Nonconforming
from .fixtures import Fixtures
from .suites import SUITES


def checks(fixtures: Fixtures) -> list[Check]:
    """Everything that a plugin has to do, suite by suite; what it declares that it cannot among it."""
    bench = Bench(fixtures)
    return list(Listing(tuple(check for suite in SUITES for check in suite.checks(bench, CASES))).checks)


class Conformance:
    """All checks as tests of pytest, one each.

    >>> from torchlens_core.testing.toy_conformance import ToyFixtures
    >>> class TestToy(Conformance):
    ...     fixtures = ToyFixtures()

    What is declared shows as skipped, with the reason. ``suites`` names those to run, where it is not all.
    """

    fixtures: Fixtures
    suites: Sequence[str] = ()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test a check; called by pytest."""
        found = [check for check in checks(self.fixtures) if not self.suites or check.suite in self.suites]
        metafunc.parametrize("check", found, ids=str)

    def test(self, check: Check) -> None:
        """One check."""
        check.run()


@dataclass
class Tally:
    """What came of one suite."""

    passed: int = 0
    failed: int = 0
    declared: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # why -> how many

    def __str__(self) -> str:
        parts = [f"{self.passed} passed"] if self.passed else []
        parts += [f"{self.failed} FAILED"] if self.failed else []
        parts += [f"{sum(self.declared.values())} declared"] if self.declared else []
        return ", ".join(parts)


@dataclass
class Report:
    """What came of all suites. True where nothing failed."""

    backend: str
    suites: dict[str, Tally] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        width = max(map(len, self.suites), default=0)
        rows = [f"{name:{width}}  {tally}" for name, tally in self.suites.items()]
        reasons = {why: None for tally in self.suites.values() for why in tally.declared}
        notes = ["", "declared:", *(f"  {why}" for why in reasons)] if reasons else []
        total = Tally(
            sum(tally.passed for tally in self.suites.values()), sum(tally.failed for tally in self.suites.values())
        )
        for tally in self.suites.values():
            for why, number in tally.declared.items():
                total.declared[why] += number
        return "\n".join([f"conformance of {self.backend}", "", *rows, *notes, "", f"in all: {total}"])


def run(
    fixtures: Fixtures, suites: Sequence[str] = (), seen: Callable[[Check, str], None] = lambda check, outcome: None
) -> Report:
    """Run the kit without pytest.

    Args:
        fixtures: of the plugin.
        suites: names of those to run; all where it is empty.
        seen: told of each check and what came of it: ``'passed'``, ``'failed'`` or ``'declared'``.

    Raises:
        ValueError: there is no suite of this name.
    """
    found = checks(fixtures)
    known = {suite.name for suite in SUITES}
    if unknown := set(suites) - known:
        raise ValueError(f"There is no suite {sorted(unknown)}; there are {sorted(known)}.")
    report = Report(fixtures.backend)
    for check in found:
        if not suites or check.suite in suites:
            seen(check, _run(check, report))
    return report


def _run(check: Check, report: Report) -> str:
    tally = report.suites.setdefault(check.suite, Tally())
    try:
        check.run()
    except unittest.SkipTest:
        tally.declared[check.declared] += 1
        return "declared"
    except Nonconforming as error:
        tally.failed += 1
        report.failures.append(str(error))
        return "failed"
    tally.passed += 1
    return "passed"
