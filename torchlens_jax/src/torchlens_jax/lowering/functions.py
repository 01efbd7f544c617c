"""The functions that a staged program is made of: each can be run again, alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from torchlens_core.program import HOLE, Func

from ..of_jax import unnamed
from ..staging.marks import mark_p
from .naming import body_of, type_of
from .settings import settings_of

_RANDOM = ("random_bits", "random_split", "random_seed", "random_fold_in", "threefry2x32", "rng_uniform")


class JaxFunc(Func):
    """Equations of a jaxpr (``within``), as a function of the arrays that they take.

    Attributes:
        primitives: what they are, in order.
        settings: their parameters, by the names that the function's arguments have.
    """

    __slots__ = ("__dict__", "_holes", "_jaxpr", "_jitted", "primitives", "settings")

    def __init__(
        self,
        name: str,
        within: Any,
        equations: Sequence[Any],
        ins: Sequence[Any],
        outs: Sequence[Any],
        template: Sequence[Any],
        type_: str | None = None,
    ) -> None:
        primitives = tuple(str(each.primitive.name) for each in equations if each.primitive is not mark_p)
        effects = frozenset().union(*(equation.effects for equation in equations))
        self._jaxpr = within.replace(
            constvars=[], invars=list(ins), outvars=list(outs), eqns=list(equations), effects=effects,
            debug_info=unnamed(within.debug_info),
        )  # fmt: skip
        self._holes = tuple(position for position, item in enumerate(template) if item is HOLE)
        self._jitted: Any = None
        self.primitives = primitives
        self.settings: Mapping[str, Any] = settings_of(equations, name)
        random = any(primitive.startswith(_RANDOM) for primitive in primitives)
        super().__init__(self.run, name, type_of(name) if type_ is None else type_, random=random)

    @functools.cached_property
    def kernels(self) -> tuple[str, ...]:
        """The primitives that it comes down to: those of the functions that it calls, in order; loops as a whole."""
        return tuple(_kernels(self._jaxpr))

    def give_last(self, positions: Sequence[int]) -> None:
        """Have the results at these positions come last: they are new state, which no Op stands for."""
        outs = self._jaxpr.outvars
        order = [*(at for at in range(len(outs)) if at not in positions), *positions]
        self._jaxpr = self._jaxpr.replace(outvars=[outs[at] for at in order])
        self.gives_written = True

    def evaluate(self, arrays: Sequence[Any]) -> list[Any]:
        """The arrays that it makes of others: part of a program that is being compiled, or by itself."""
        return list(jax.core.eval_jaxpr(self._jaxpr, (), *arrays))

    def run(self, *args: Any) -> Any:
        """Run it by itself on the arguments of its template: literals and arrays."""
        if self._jitted is None:
            self._jitted = jax.jit(self.evaluate)
        outs = self._jitted([args[position] for position in self._holes])
        return outs[0] if len(outs) == 1 else tuple(outs)


def _kernels(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        body = body_of(equation)
        if body is not None:
            yield from _kernels(getattr(body, "jaxpr", body))
        elif equation.primitive is not mark_p:
            yield str(equation.primitive.name)
