"""Call sites: the Python frames from an operation out to the enclosing module call, as (code, offset) pairs.

Walking frames is most of what a captured operation costs, so what to do with a frame is remembered by code object.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FrameType
from typing import Final

# What to do with the frames of a code object. Plain integers: comparing enum members costs a third of the walk.
KEEP: Final = 0  # a place in the user's program, or in a library layer
SKIP: Final = 1  # interception, or a generic wrapper
STOP: Final = 2  # encloses a module call: the chain ends here
DISPATCH: Final = 3  # a wrapper that the library function itself called: its caller's frame is skipped too


class CallSites:
    """Walks frames for one framework.

    Args:
        classify: KEEP, SKIP, STOP or DISPATCH for a code object; asked once for each.
    """

    def __init__(self, classify: Callable[[CodeType], int]) -> None:
        self._classify = classify
        self._known: dict[
            int, tuple[CodeType, int]
        ] = {}  # by id of the code, which is kept so that the id stays its own

    def stop_at(self, code: CodeType) -> None:
        """Chains end at frames of this function: it encloses a module call."""
        self._known[id(code)] = (code, STOP)

    def chain(self, frame: FrameType | None) -> tuple[tuple[int, ...], list[tuple[CodeType, int]]]:
        """The call site that ``frame`` is the innermost frame of: a hashable key, and the calls, innermost first."""
        known = self._known
        key: list[int] = []
        calls: list[tuple[CodeType, int]] = []
        dispatched = False
        while frame is not None:
            code = frame.f_code
            entry = known.get(id(code))
            kind = entry[1] if entry is not None else self._learn(code)
            if kind == KEEP:
                if not dispatched:
                    offset = frame.f_lasti
                    key.append(id(code))
                    key.append(offset)
                    calls.append((code, offset))
                dispatched = False
            elif kind == STOP:
                break
            else:
                dispatched = kind == DISPATCH
            frame = frame.f_back
        return tuple(key), calls

    def _learn(self, code: CodeType) -> int:
        kind = self._classify(code)
        self._known[id(code)] = (code, kind)
        return kind
