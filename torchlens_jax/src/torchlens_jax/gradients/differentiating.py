"""Running a staged program so that it can be differentiated, with taps where gradients are wanted.

A tap hands its value on as it is, and has an argument of its own that nothing reads: in the backward pass what arrives
at the value is also the gradient of that argument. In a loop the argument has an element for each iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from torchlens_core.program import Func

from ..lowering.ir import Block, Op, Ruled, Scan, Slot, While
from ..lowering.lowering import inside
from ..running.executing import Executor, Results, Wishes
from ..running.interventions import Acting, Applied

Steered = Mapping[tuple[int, ...], Applied]  # what acts on a gradient, by iteration of the loops around


@jax.custom_vjp
def _tapped(value: Any, zero: Any) -> Any:
    return value


_tapped.defvjp(lambda value, zero: (value, None), lambda _, gradient: (gradient, gradient))


@dataclass
class Loops:
    """The loops of a program, and what is inside of them.

    Attributes:
        around: slot -> the loops around it, outermost first.
        inside: number of a loop -> the slots inside it, at any depth.
    """

    around: dict[Slot, tuple[Scan | While, ...]] = field(default_factory=dict)
    inside: dict[int, set[Slot]] = field(default_factory=dict)

    @staticmethod
    def of(block: Block) -> Loops:
        """Those of a program."""
        found = Loops()
        found._add(block, ())
        return found

    def _add(self, block: Block, loops: tuple[Scan | While, ...]) -> None:
        for slot in block.ins:
            self._note(slot, loops)
        for item in block.items:
            for slot in _made(item):
                self._note(slot, loops)
            if isinstance(item, Scan | While):
                self.inside.setdefault(item.number, set())
            for inner in inside(item):
                self._add(inner, (*loops, item) if isinstance(item, Scan | While) else loops)

    def _note(self, slot: Slot, loops: tuple[Scan | While, ...]) -> None:
        self.around[slot] = loops
        for loop in loops:
            self.inside[loop.number].add(slot)


def _made(item: Any) -> Sequence[Slot]:
    """The slots that an item gives a value."""
    if isinstance(item, Scan):
        return (*item.carry_outs, *item.ys)
    return (item.new,) if hasattr(item, "new") else getattr(item, "outs", ())


@dataclass
class Differentiated:
    """What is asked of a differentiated run.

    Attributes:
        changes: what acts on the value of a slot, and in which iterations of the loops around.
        steered: what acts on the gradient at a slot.
        capacity: of each ``while`` the number of iterations that there is room for.
        cut: the functions of operations that have no derivative: nothing goes back through these.
    """

    changes: Mapping[Slot, Steered]
    steered: Mapping[Slot, Steered]
    loops: Loops
    capacity: Mapping[int, int]
    cut: Collection[Func] = ()

    def lengths(self, slot: Slot) -> tuple[int, ...]:
        """How many iterations there are of each loop around a slot."""
        around = self.loops.around[slot]
        return tuple(loop.length if isinstance(loop, Scan) else self.capacity[loop.number] for loop in around)


class Differentiable(Executor):
    """Runs blocks in a form that has a derivative in reverse: a ``while`` with a known number of iterations.

    Args:
        taps: slot -> zeros, in the shape of its values in all iterations.
        trips: number of a ``while`` -> how often it ran, in each iteration of the loops around.
        settings: of what acts on gradients, as arguments; and what makes interventions of them.
    """

    def __init__(
        self,
        asked: Differentiated,
        acting: Acting,
        consts: Mapping[Slot, Any],
        taps: Mapping[Slot, Any],
        trips: Mapping[int, Any],
        steering: Callable[[Sequence[Any]], Acting],
        settings: Sequence[Any],
    ) -> None:
        super().__init__(Wishes(changes=asked.changes), acting, consts)
        self._asked = asked
        self._taps = dict(taps)
        self._trips = trips
        self._steering = steering
        self._settings = tuple(settings)

    def _note(self, slot: Slot, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        super()._note(slot, env, results, counters)
        if slot in self._taps:
            env[slot] = _tapped(env[slot], self._taps[slot])
        if slot in self._asked.steered:
            env[slot] = self._steer(slot, env[slot], counters)

    def _steer(self, slot: Slot, value: Any, counters: tuple[Any, ...]) -> Any:
        """The value, at which other gradients go on than arrive: what these are made of are arguments of the rule."""
        applied, steering = self._asked.steered[slot], self._steering

        @jax.custom_vjp
        def steered(value: Any, counters: Any, settings: Any) -> Any:
            return value

        def backward(kept: Any, gradient: Any) -> Any:
            counters, settings = kept
            changed = steering(settings).change(slot, gradient, applied, tuple(counters), None)
            return changed.astype(gradient.dtype), None, None

        steered.defvjp(lambda value, counters, settings: (value, (counters, settings)), backward)
        return steered(value, list(counters), self._settings)

    def _evaluate(self, item: Op, arrays: list[Any]) -> list[Any]:
        if item.func in self._asked.cut:
            arrays = [jax.lax.stop_gradient(array) for array in arrays]
        return super()._evaluate(item, arrays)

    def _ruled(self, item: Ruled, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        """As a whole, by its rule."""
        made = item.func.evaluate([env[slot] for slot in item.ins])  # type: ignore[attr-defined]
        for slot, value in zip(item.outs, made, strict=True):
            env[slot] = value
            self._note(slot, env, results, counters)

    # -- loops -----------------------------------------------------------------------------------------------------

    def _elements(self, item: Scan | While) -> Any:
        """The taps inside a loop, each an element an iteration."""
        return {slot: self._taps[slot] for slot in self._asked.loops.inside[item.number] if slot in self._taps}

    @contextmanager
    def _inside(self, elements: Any = ()) -> Iterator[None]:
        before = self._taps
        self._taps = before | dict(elements)
        try:
            with super()._inside():
                yield
        finally:
            self._taps = before

    def _while(self, item: While, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        """As often as it ran: what decides about that has no derivative."""
        trips = self._trips[item.number]
        for counter in counters:
            trips = trips[counter]
        consts = [env[slot] for slot in item.body_consts]

        def step(state: Any, taps: Any) -> Any:
            counter, carry = state

            def advance(carry: Any) -> Any:
                with self._inside(taps):
                    return self.run(item.body, [*consts, *carry], Results(), (*counters, counter))

            return (counter + 1, jax.lax.cond(counter < trips, advance, list, carry)), None

        start = (jnp.int32(0), [env[slot] for slot in item.init])
        length = self._asked.capacity[item.number]
        (_, outs), _ = jax.lax.scan(step, start, self._elements(item), length=length)
        for slot, value in zip(item.outs, outs, strict=True):
            env[slot] = value
            self._note(slot, env, results, counters)
