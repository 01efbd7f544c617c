"""The function of a model's outputs that is differentiated, as a part of what is compiled.

It is staged once. Arrays that it closes over are arguments of the compiled program, so that another batch of labels
compiles nothing. All else that it reaches by itself is watched: once any of it is another object, it is staged again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from torchlens_core.gradients.derived import Computation

from ..calls.freezing import Freezer
from ..calls.watching import Watch
from ..staging.values_needed import ERRORS

_LIMIT = 32  # functions kept for one program


@dataclass(eq=False)
class Loss:
    """A scalar function of the outputs.

    Attributes:
        evaluate: of the outputs, and of its own arrays, the scalar.
        used: positions of the outputs that it depends on.
        arrays: its own, to be arguments.
    """

    evaluate: Callable[[Sequence[Any], Sequence[Any]], Any]
    used: frozenset[int]
    arrays: Sequence[Any]

    def of_arrays(self, arrays: Sequence[Any]) -> Loss:
        """The same function with other arrays of its own."""
        return _Same(self, arrays)


class _Same(Loss):
    """A function that was staged before: it is known by the one that it is like."""

    def __init__(self, like: Loss, arrays: Sequence[Any]) -> None:
        super().__init__(like.evaluate, like.used, arrays)
        self._like = like

    def __hash__(self) -> int:
        return hash(self._like)

    def __eq__(self, other: object) -> bool:
        return self._like is (other._like if isinstance(other, _Same) else other)


class Losses:
    """Those that were differentiated of one program.

    Args:
        avals: shape and type of each output.
    """

    def __init__(self, avals: Sequence[Any]) -> None:
        self._avals = tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)
        self._known: dict[Hashable, list[_Known]] = {}
        self._linear = Loss(self._weighted, frozenset(self._floating), ())

    def find(self, run: Computation, outputs: Callable[[], Sequence[Any]]) -> Loss:
        """The function that a computation means.

        Args:
            outputs: gives the outputs of the run, for a function that looks at values as it is called.

        Raises GradientError where it gives no real number, and whatever it raises itself.
        """
        freeze = _Hoisting()
        paths = tuple(output.path for output in run.trace.program.outputs)
        key = (paths, freeze(run.of))
        entries = self._known.setdefault(key, [])
        known = next((each for each in entries if each.holds(freeze)), None)
        if known is None:
            while len(self._known) > _LIMIT:
                self._known.pop(next(iter(self._known)))
            known = _Known.of(run, freeze, self._avals)
            entries[:] = [known, *entries[:3]]
        if known.loss is None:
            return self._at(run, outputs())
        return known.loss.of_arrays([freeze.arrays[position] for position in known.positions])

    @property
    def _floating(self) -> list[int]:
        return [at for at, aval in enumerate(self._avals) if jnp.issubdtype(aval.dtype, jnp.inexact)]

    def _weighted(self, outs: Sequence[Any], weights: Sequence[Any]) -> Any:
        pairs = zip(self._floating, weights, strict=True)
        parts = [jnp.real(jnp.sum(outs[at] * weight)) for at, weight in pairs]
        return sum(part.astype(jnp.promote_types(part.dtype, jnp.float32)) for part in parts)

    def _at(self, run: Computation, outs: Sequence[Any]) -> Loss:
        """For a function that asks for values: the linear function that has its gradient at the outputs of this run."""
        positions = self._floating

        def loss(*arrays: Any) -> Any:
            filled = list(outs)
            for at, array in zip(positions, arrays, strict=True):
                filled[at] = array
            return _called(run, filled)

        weights = jax.grad(loss, tuple(range(len(positions))))(*(outs[at] for at in positions))
        return self._linear.of_arrays(weights)


@dataclass
class _Known:
    """A function as it was staged, and what has to be as it was then.

    Attributes:
        loss: None for one that asks for values, which cannot be staged.
        positions: of its arrays that are arguments, among those that it closes over.
        fixed: of the others, which are part of what was staged.
    """

    loss: Loss | None
    positions: list[int]
    fixed: dict[int, Any]
    watch: Watch
    pinned: list[Any]

    @staticmethod
    def of(run: Computation, freeze: _Hoisting, avals: Sequence[Any]) -> _Known:
        start = [run.of, *freeze.code] if callable(run.of) else []
        watch = Watch(start, [*freeze.arrays, *freeze.apart])
        try:
            closed = jax.make_jaxpr(lambda *outs: _called(run, outs))(*avals)
        except ERRORS:
            return _Known(None, [], {}, watch, freeze.pinned)
        numbers = {id(array): number for number, array in enumerate(freeze.arrays)}
        given = [numbers.get(id(const)) for const in closed.consts]
        positions = [number for number in given if number is not None]
        fixed = {number: array for number, array in enumerate(freeze.arrays) if number not in positions}
        loss = Loss(_evaluating(closed, given), _used(closed.jaxpr), ())
        return _Known(loss, positions, fixed, watch, freeze.pinned)

    def holds(self, freeze: _Hoisting) -> bool:
        """Whether the function is the one that was staged, but for the arrays that are arguments."""
        return all(freeze.arrays[number] is array for number, array in self.fixed.items()) and self.watch.holds()


def _called(run: Computation, outs: Sequence[Any]) -> Any:
    paths = [output.path for output in run.trace.program.outputs]
    return run.loss(dict(zip(paths, outs, strict=False)))


def _evaluating(closed: Any, given: Sequence[int | None]) -> Callable[[Sequence[Any], Sequence[Any]], Any]:
    def evaluate(outs: Sequence[Any], arrays: Sequence[Any]) -> Any:
        rest = iter(arrays)
        consts = [
            const if number is None else next(rest) for const, number in zip(closed.consts, given, strict=True)
        ]  # fmt: skip
        (loss,) = jax.core.eval_jaxpr(closed.jaxpr, consts, *outs)
        return loss

    return evaluate


def _used(jaxpr: Any) -> frozenset[int]:
    """Positions of the arguments that what is returned depends on."""
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, jex.Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(var in needed for var in equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, jex.Literal))
    return frozenset(at for at, var in enumerate(jaxpr.invars) if var in needed)


class _Hoisting(Freezer):
    """Keys in which arrays are no more than their shape and type, and which of them are the same.

    Attributes:
        arrays: those that were met, each once.
        apart: objects of a trace, which do not change.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[Any] = []
        self.apart: list[Any] = []
        self._numbers: dict[int, int] = {}

    def __call__(self, value: Any) -> Hashable:
        if isinstance(value, jax.Array):
            number = self._numbers.setdefault(id(value), len(self.arrays))
            if number == len(self.arrays):
                self.arrays.append(value)
            return ("array", number, value.shape, value.dtype, bool(getattr(value, "weak_type", False)))
        if type(value).__module__.startswith("torchlens_core."):
            self.apart.append(value)
            self.pinned.append(value)
            return (type(value), id(value))
        return super().__call__(value)
