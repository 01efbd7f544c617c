"""Where the gradients of one run arrive: what is kept of them, by backward pass and value id."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from .tape import TapeCall, TapeNode

if TYPE_CHECKING:
    from ..backend import Arrays
    from ..plan import Keep

# Given what to call when the running pass is over: a weak reference to something that lives until then.
SignOfLife = Callable[[Callable[[], None]], Callable[[], Any]]


class Removable(Protocol):
    """What was left at an array."""

    def remove(self) -> None:
        """Take it away."""


_numbers = count(1)
OUTPUT = -1  # stands for an output whose gradient nobody asked for: that one arrives tells that a pass runs


@dataclass(slots=True, eq=False)
class Pass:
    """One backward pass.

    Attributes:
        index: from 1, in the order in which gradients first arrived.
        held: vid -> what ``arrays.hold`` gave for a gradient.
        results: vid -> what ``grad_transform=``, a dtype or a device made of one.
        parts: vid of a leaf -> the sum of what has arrived there, until the pass is over.
        loss: what was differentiated, in words; empty where that was not told.
        order: of differentiation: 2 where the loss depends on the gradients of an earlier pass.
        nodes: numbers of the nodes of the gradient graph that it reached, as found from the loss.
        calls: of these nodes, where they were asked for.
        was_recorded: whether its nodes are known: ``log_backward`` ran it, or it ran in ``recording_backward()``.
    """

    index: int
    held: MutableMapping[int, Any] = field(default_factory=dict)
    results: MutableMapping[int, Any] = field(default_factory=dict)
    parts: dict[int, Any] = field(default_factory=dict)
    loss: str = ""
    order: int = 1
    nodes: tuple[int, ...] = ()
    calls: list[TapeCall] = field(default_factory=list)
    was_recorded: bool = False
    start_ns: int = field(default_factory=time.perf_counter_ns)
    duration_ns: int | None = None

    def __contains__(self, vid: object) -> bool:
        return vid in self.held or vid in self.results or vid in self.parts

    def __iter__(self) -> Iterator[int]:
        for table in (self.held, self.results, self.parts):
            yield from table


class GradientStore:
    """The gradients of one run. A backend tells it what it watches, and each gradient that arrives there.

    What a backend leaves at the framework's arrays refers to the store weakly, and is taken away when the store goes.

    Attributes:
        keeps: vid of a watched array -> what to keep of its gradient.
        impossible: vid -> why the backend can watch nothing at an array that was meant.
        leaves: vids of inputs and parameters, at which several parts of a gradient may arrive.
        marks: vid -> how the backend recognises the node of the gradient graph that made the array.
        unwatch: vid -> what was left at an array, to be taken away.
        nodes: of the gradient graph, numbered as they were found from the losses.
        number: of the store, in this process.
        start: how the backend recognises nodes made before the run, which belong to no Op of it.
        late: the backend's own note of arrays that may yet come onto the tape, during the run.
        is_open: whether gradients are kept: from the end of the run on, as what a model differentiates in its own
            forward is no backward pass of its outputs.
    """

    def __init__(self, arrays: Arrays | None) -> None:
        self._arrays = arrays  # None where no more arrive: in a loaded trace
        self.number = next(_numbers)
        self.keeps: dict[int, Keep] = {}
        self.leaves: set[int] = set()
        self.impossible: dict[int, str] = {}
        self.marks: dict[int, Hashable] = {}
        self.unwatch: dict[int, Removable] = {}
        self.passes: list[Pass] = []
        self.nodes: list[TapeNode] = []
        self.start = 0
        self.late: list[Any] = []
        self.is_open = False
        self._expected: Pass | None = None  # begun by `begin`: what arrives next is its own
        self._task: Hashable = None
        self._alive: Callable[[], Any] = lambda: None  # of what lives while the last unexpected pass runs
        self._lock = Lock()
        weakref.finalize(self, _take_away, self.unwatch).atexit = False

    # -- passes ----------------------------------------------------------------------------------------------------

    def begin(self, loss: str) -> Pass:
        """A pass is about to run: the gradients that arrive until ``end`` are its own."""
        self._expected = Pass(len(self.passes) + 1, loss=loss, was_recorded=True)
        self.passes.append(self._expected)
        return self._expected

    def end(self, done: Pass) -> None:
        """The pass that ``begin`` gave has run."""
        self._expected = None
        self._finish(done)

    def _finish(self, done: Pass) -> None:
        done.duration_ns = time.perf_counter_ns() - done.start_ns
        for vid, gradient in done.parts.items():
            self._keep(vid, gradient, done)
        done.parts.clear()

    def abandon(self, failed: Pass) -> None:
        """The pass that ``begin`` gave has failed: what arrived is forgotten."""
        self._expected = None
        self.passes.remove(failed)

    def arrive(self, vid: int, gradient: Any, task: Hashable, sign_of_life: SignOfLife) -> None:
        """A gradient has arrived at a watched array.

        Args:
            vid: of the array, or ``OUTPUT``.
            gradient: with respect to it.
            task: tells the backward call that is running from all others.
            sign_of_life: asked when a pass is first seen. A call that runs within another one (a checkpoint that is
                computed again) belongs to the other one's pass.
        """
        if not self.is_open:
            return
        is_leaf = vid in self.leaves
        if is_leaf and self._expected is None and task != self._task and self._alive() is None:
            return  # of a pass through other runs, which use the same parameters
        found = self._expected or (self.passes[-1] if task == self._task else self._pass_of(task, sign_of_life))
        if vid == OUTPUT:
            return
        if is_leaf:
            found.parts[vid] = found.parts[vid] + gradient if vid in found.parts else gradient
        else:
            self._keep(vid, gradient, found)

    def _pass_of(self, task: Hashable, sign_of_life: SignOfLife) -> Pass:
        with self._lock:  # gradients of several devices arrive in several threads
            if task == self._task or self._alive() is not None:
                return self.passes[-1]
            found = Pass(len(self.passes) + 1)
            self._alive = sign_of_life(partial(self._finish, found))
            self._task = task
            self.passes.append(found)
            return found

    def _keep(self, vid: int, gradient: Any, found: Pass) -> None:
        keep, arrays = self.keeps[vid], self._arrays
        assert arrays is not None
        if keep.is_plain:
            found.held[vid] = arrays.hold(gradient)
        else:
            found.results[vid] = keep.result(gradient, arrays)

    # -- gradients -------------------------------------------------------------------------------------------------

    def get(self, vid: int, found: Pass) -> Any:
        """A gradient of a pass, or what a transform made of it. Raises ValueOverwritten for one written to since."""
        if vid in found.held:
            assert self._arrays is not None
            return self._arrays.release(found.held[vid])
        return found.results[vid] if vid in found.results else found.parts[vid]

    def drop(self, vid: int) -> None:
        """Stop watching an array: it is none of those that were meant."""
        self.keeps.pop(vid, None)
        if vid in self.unwatch:
            self.unwatch.pop(vid).remove()


def _take_away(unwatch: dict[int, Removable]) -> None:
    while unwatch:
        unwatch.popitem()[1].remove()
