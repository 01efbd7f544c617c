"""Classes whose ``__call__`` is replaced for the time of a run, and put back.

Reference-counted, so that several threads may trace models of the same classes. What a replacement does in threads that
do not trace is its own business: it has to call the original.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Replacement = Callable[[type, Callable[..., Any]], Callable[..., Any]]  # of (class, original)

_lock = threading.Lock()
_patched: dict[type, tuple[int, Any]] = {}  # class -> (users, its own __call__ or None where it inherits one)


@contextmanager
def replaced_calls(classes: Iterable[type], replacement: Replacement) -> Iterator[None]:
    """A context in which these classes have another ``__call__``."""
    ours = list(dict.fromkeys(classes))
    with _lock:
        for cls in ours:
            _patch(cls, replacement)
    try:
        yield
    finally:
        with _lock:
            for cls in ours:
                _unpatch(cls)


def _patch(cls: type, replacement: Replacement) -> None:
    users, own = _patched.get(cls, (0, vars(cls).get("__call__")))
    if users == 0:
        cls.__call__ = replacement(cls, cls.__call__)  # type: ignore[method-assign]
    _patched[cls] = (users + 1, own)


def _unpatch(cls: type) -> None:
    users, own = _patched[cls]
    if users > 1:
        _patched[cls] = (users - 1, own)
        return
    del _patched[cls]
    if own is not None:
        cls.__call__ = own  # type: ignore[method-assign]
    else:
        del cls.__call__


def patched_classes() -> list[type]:
    """The classes that are patched at the moment, in any thread."""
    return list(_patched)
