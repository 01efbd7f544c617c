"""Gradients at places inside a computation, from the gradient of a function with respect to its arguments.

Adding a zero z to an array a changes nothing, and d/dz = d/da.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..backend import Backend


class Tape(Protocol):
    """What a computation is passed that is to be differentiated at places inside."""

    def start(self, array: Any, *, is_written: bool) -> Any:
        """An array that the computation starts from, in the form in which it is to be used.

        ``is_written``: it will be overwritten in place; the array itself then stays as it is.
        """

    def tap(self, key: Hashable, array: Any, *, is_written: bool) -> Any:
        """Ask for the gradient at an array, and use what is returned in its place.

        ``is_written``: it has just been written in place, so that others may share its memory.
        """


class _Zeros:
    """Adds zeros: at first it learns the shapes that they need, then it adds those that it is given."""

    def __init__(self, backend: Backend) -> None:
        self._arrays = backend.arrays
        self.zeros: dict[Hashable, Any] = {}
        self.is_learning = True

    def start(self, array: Any, *, is_written: bool) -> Any:
        return self._arrays.copy(array) if is_written else array

    def tap(self, key: Hashable, array: Any, *, is_written: bool) -> Any:
        if self.is_learning:
            self.zeros[key] = self._arrays.full_like(array, 0)
            return array
        tapped = array + self.zeros[key]
        if not is_written:
            return tapped
        self._arrays.overwrite(array, tapped)
        return array


def gradients_at_zeros(backend: Backend, function: Callable[[Tape], Any]) -> dict[Hashable, Any]:
    """The gradients at all places that a computation taps; it runs twice."""
    tape = _Zeros(backend)
    with backend.no_gradients():
        function(tape)
    tape.is_learning = False
    keys = list(tape.zeros)

    def of_zeros(*zeros: Any) -> Any:
        tape.zeros = dict(zip(keys, zeros, strict=True))
        return function(tape)

    _, gradients = backend.grad(of_zeros, list(tape.zeros.values()))
    return dict(zip(keys, gradients, strict=True))
