"""The note that a run leaves, for what is done with the whole of it later: its program, and where the tape is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torchlens_core.interventions.when import When

from ..lowering.ir import Slot, While
from ..lowering.lowering import walk
from ..staging.staged import Staged
from .deciding import Decided
from .expanding import At

Place = tuple[Slot, At]  # the slot of a value, and which iteration of the loops around


@dataclass
class Places:
    """Where the arrays of a tape are in its program.

    Attributes:
        places: vid -> place of every array that was made.
        opaque: vids of what was made inside functions that have a derivative rule.
        results: of these, those that such a function returns -> place of the result.
        taken: the vids of the arrays that the program takes, in order.
        known: what was worked out of them, by key.
    """

    places: Mapping[int, Place]
    opaque: frozenset[int]
    results: Mapping[int, Place]
    taken: tuple[int, ...]
    known: dict[Any, Any] = field(default_factory=dict)

    def derivable(self, vid: int) -> Place | None:
        """Where a value is, in the program as it is differentiated; None inside functions with a rule of their own."""
        return self.results.get(vid) if vid in self.opaque else self.places.get(vid)

    @cached_property
    def moved(self) -> dict[Slot, Slot | None]:
        """Slots inside functions with a derivative rule -> the slot of what these return; None for all others."""
        return {
            self.places[vid][0]: self.results[vid][0] if vid in self.results else None
            for vid in self.opaque
            if vid in self.places
        }

    @cached_property
    def counts(self) -> Counter[Slot]:
        """How many arrays each slot had, in the program as it is differentiated."""
        found = (self.derivable(vid) for vid in self.places)
        return Counter(place[0] for place in found if place is not None)


@dataclass
class Ran:
    """One run of a staged program.

    Attributes:
        wanted: what was done with its values on the way.
        settings: those of the interventions, as arguments.
        facts: what its regions did.
        whens: the interventions of the run.
        wide: whether there were 64-bit types.
    """

    staged: Staged
    wanted: Decided
    settings: list[Any]
    facts: Mapping[Any, Any]
    places: Places
    whens: tuple[When, ...]
    wide: bool

    @property
    def trips(self) -> dict[int, Any]:
        """Number of each ``while`` -> how often it ran, in each iteration of the loops around."""
        return {item.number: self.facts["region", item.number] for item in self._loops}

    @cached_property
    def _loops(self) -> list[While]:
        found = (item for item in walk(self.staged.block) if isinstance(item, While))
        return [item for item in found if ("region", item.number) in self.facts]
