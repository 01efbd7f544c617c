"""What a plugin says that it cannot do: told without running anything, for the table of capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...plugins import lacks
from .bench import Bench
from .conformance import checks
from .fixtures import Fixtures


@dataclass
class Declared:
    """The declarations of a plugin.

    Attributes:
        backend: its name.
        requires: the versions of its framework.
        jobs: jobs of the backend that are declared as not implemented -> why.
        cannot: what the framework has not (``Fixtures.cannot``) -> why.
        suites: of each suite of the kit, how many checks it has, and how many of them are declared.
    """

    backend: str
    requires: str
    jobs: Mapping[str, str]
    cannot: Mapping[str, str]
    suites: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, self.suites), default=0)
        rows = [f"{name:{width}}  {_told(*numbers)}" for name, numbers in self.suites.items()]
        reasons = [f"  {name}: {why}" for name, why in {**self.jobs, **self.cannot}.items()]
        return "\n".join([f"{self.backend} ({self.requires}): checks of the kit", "", *rows, "", "declared:", *reasons])


def _told(number: int, declared: int) -> str:
    return f"{number}, {declared} declared" if declared else f"{number}"


def declared(fixtures: Fixtures) -> Declared:
    """What a plugin declares."""
    backend = Bench(fixtures).backend
    made = Declared(backend.name, backend.requires, lacks(backend), dict(fixtures.cannot))
    for check in checks(fixtures):
        number, skipped = made.suites.get(check.suite, (0, 0))
        made.suites[check.suite] = (number + 1, skipped + bool(check.declared))
    return made
