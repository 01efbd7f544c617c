"""The arrays of a trace, by value id: held live by the backend, or lazily in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from .backend import Arrays


class Values(Protocol):
    """Where the values of a trace are."""

    def __contains__(self, vid: object) -> bool: ...

    def __getitem__(self, vid: int) -> Any:
        """The value, in the framework's own type (numpy in a loaded trace)."""

    def __iter__(self) -> Iterator[int]: ...

    def __len__(self) -> int: ...

    def numpy(self, vid: int) -> Any:
        """The value as a numpy array; what a transform made of it as it is, where that is no array."""

    def clean(self, vid: int) -> Any | None:
        """The value as it was before an intervention, where that was kept; None elsewhere."""

    def clean_ids(self) -> Iterable[int]:
        """Value ids of what was kept as it was before interventions."""

    def is_transformed(self, vid: int) -> bool:
        """Whether a transform's result (or another dtype or device) was kept, and not the Op's own array."""


class LiveValues:
    """Values that a run has just left in memory."""

    def __init__(
        self,
        arrays: Arrays,
        held: Mapping[int, Any],
        results: Mapping[int, Any],
        clean: Mapping[int, Any] | None = None,
    ) -> None:
        self._arrays = arrays
        self._held = held
        self._results = results  # of transforms: kept as they are
        self._clean = clean or {}  # what was held of values that interventions have changed

    def held(self) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
        """What is held, for another trace to hold too: arrays, results of transforms, clean values; by value id."""
        return dict(self._held), dict(self._results), dict(self._clean)

    def __contains__(self, vid: object) -> bool:
        return vid in self._held or vid in self._results

    def __getitem__(self, vid: int) -> Any:
        if vid in self._results:
            return self._results[vid]
        return self._arrays.release(self._held[vid])

    def __iter__(self) -> Iterator[int]:
        yield from self._held
        yield from (vid for vid in self._results if vid not in self._held)

    def __len__(self) -> int:
        return len(self._held.keys() | self._results.keys())

    def numpy(self, vid: int) -> Any:
        """The value as a numpy array; as it is where it is no array."""
        value = self[vid]
        return self._arrays.to_numpy(value) if self._arrays.is_array(value) else value

    def clean(self, vid: int) -> Any | None:
        """The value as it was before an intervention, where that was kept; None elsewhere."""
        return self._arrays.release(self._clean[vid]) if vid in self._clean else None

    def clean_ids(self) -> Iterable[int]:
        """Value ids of what was kept as it was before interventions."""
        return self._clean.keys()

    def is_transformed(self, vid: int) -> bool:
        """Whether what is kept is a function of the value, and not the value itself."""
        return vid in self._results
