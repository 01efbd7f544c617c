"""Settings of the process that a run changes. Of threads that trace, the first sets them and the last resets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


class Shared:
    """A context of the process. It is entered when the first thread enters, and left when the last one leaves."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._context: AbstractContextManager[Any] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be in the context."""
        with self._lock:
            if self._users == 0:
                self._context = self._make()
                self._context.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._context is not None:
                    self._context.__exit__(None, None, None)
                    self._context = None


@contextmanager
def _force_eager() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _twice_as_deep() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


eager = Shared(_force_eager)  # compiled code runs as it was written
deeper = Shared(_twice_as_deep)  # a traced call of a module takes more frames than a plain one
