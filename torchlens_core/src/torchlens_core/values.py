"""The arrays of a trace, by value id: held live by the backend, or lazily in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    def is_transformed(self, vid: int) -> bool:
        """Whether a transform's result (or another dtype or device) was kept, and not the Op's own array."""


class LiveValues:
    """Values that a run has just left in memory."""

    def __init__(self, arrays: Arrays, held: Mapping[int, Any], results: Mapping[int, Any]) -> None:
        self._arrays = arrays
        self._held = held
        self._results = results  # of transforms: kept as they are

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

    def is_transformed(self, vid: int) -> bool:
        """Whether what is kept is a function of the value, and not the value itself."""
        return vid in self._results
