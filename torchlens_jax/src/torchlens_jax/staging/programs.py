"""The programs that are kept, of all models: each for as long as it is used, and nothing changes that it depends on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

_LIMIT = 64  # programs kept


class Programs:
    """A cache of programs. The ones used last stay; several threads may use it.

    A key has two parts: a rough one, which hashes quickly, and a fine one, which need only compare.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._places: dict[Hashable, list[int]] = {}  # rough key -> numbers of programs
        self._programs: OrderedDict[int, tuple[Hashable, Any, Any]] = OrderedDict()  # rough key, fine key, program
        self._count = 0

    def __len__(self) -> int:
        return len(self._programs)

    def find(self, rough: Hashable, fine: Any) -> Any:
        """A program with this key, of which nothing has changed that it depends on; None where there is none."""
        with self._lock:
            candidates = [(number, *self._programs[number][1:]) for number in reversed(self._places.get(rough, ()))]
        for number, known, program in candidates:
            if _equal(known, fine) and program.watch.holds():
                with self._lock:
                    if number in self._programs:
                        self._programs.move_to_end(number)
                return program
        return None

    def add(self, rough: Hashable, fine: Any, program: Any) -> None:
        """Keep a program."""
        with self._lock:
            self._count += 1
            self._programs[self._count] = (rough, fine, program)
            self._places.setdefault(rough, []).append(self._count)
            while len(self._programs) > self._limit:
                number, (oldest, _, _) = self._programs.popitem(last=False)
                self._places[oldest].remove(number)
                if not self._places[oldest]:
                    del self._places[oldest]

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            self._programs.clear()
            self._places.clear()


def _equal(left: Any, right: Any) -> bool:
    """Whether keys are equal; those that hold what does not compare are not."""
    try:
        return bool(left == right)
    except Exception:
        return False
