"""Replacing ``__call__`` on classes of modules for the time of a staging, and putting it back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_installed: dict[type, tuple[Any, int]] = {}  # class -> what its own __call__ was, and how many stagings run


@contextmanager
def patched(classes: Iterable[type], reporting: Callable[[Any], Any]) -> Iterator[None]:
    """``__call__`` of these classes goes through what ``reporting`` makes of it. Several threads may ask for one."""
    first = (next((base for base in cls.__mro__ if "__call__" in vars(base)), None) for cls in classes)
    owners = {base for base in first if base is not None}
    with _lock:
        for cls in owners:
            original, count = _installed.get(cls, (vars(cls)["__call__"], 0))
            _installed[cls] = (original, count + 1)
            if not count:
                type.__setattr__(cls, "__call__", reporting(original))
    try:
        yield
    finally:
        with _lock:
            for cls in owners:
                original, count = _installed.pop(cls)
                if count > 1:
                    _installed[cls] = (original, count - 1)
                else:
                    type.__setattr__(cls, "__call__", original)


def original_of(cls: type, name: str, value: Any) -> Any:
    """The attribute of a class as it is when nothing is being staged."""
    return _installed[cls][0] if name == "__call__" and cls in _installed else value


def patched_classes() -> list[type]:
    """The classes whose ``__call__`` is replaced now."""
    return list(_installed)
