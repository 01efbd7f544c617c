"""Hypothesis strategies: random programs, and random selectors. Needs hypothesis."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import strategies as st

from ..program import Program, Scope
from ..selectors import (
    Selector,
    contains,
    followed_by,
    func,
    in_module,
    module,
    output,
    preceded_by,
    regex,
    where,
)  # fmt: skip
from .tape import Tape

FUNCTIONS = ("relu", "tanh", "add", "mul", "linear", "concat", "zeros")
MODULES = ("a", "a.b", "a.b.c", "d")
_STEPS = ["_operation"] * 4 + ["_split", "_write_in_place", "_module", "_loop", "_loop", "_assign", "_foreign", "_read"]
_SITES = 6  # few places, so that many operations share one


@st.composite
def programs(draw: st.DrawFn, max_rows: int = 24) -> Program:
    """Random programs.

    Of inputs, parameters, buffers, constants and unknown arrays; nested module calls; operations with one or several
    results; in-place writes and writes through other arrays; loops, reads and outputs.
    """
    return _Writer(draw).write(max_rows)


class _Writer:
    """Draws one program. ``live`` are the arrays that a step can take."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.tape = Tape()
        self.live: list[int] = []
        self.buffers: list[int] = []
        self.last_write: int | None = None

    def write(self, max_rows: int) -> Program:
        draw, tape = self.draw, self.tape
        self.live += [tape.input(f"x{number}") for number in range(draw(st.integers(0, 3)))]
        self.live += [tape.param(f"{address}.weight") for address in draw(st.sets(st.sampled_from(MODULES)))]
        self.buffers = [tape.buffer(f"buffer{number}") for number in range(draw(st.integers(0, 2)))]
        self.live += self.buffers
        while len(tape.program.rows) < max_rows and draw(st.integers(0, 19)):
            getattr(self, draw(st.sampled_from(_STEPS)))()
        if self.live:
            tape.output(*draw(st.lists(st.sampled_from(self.live), max_size=3)))
        tape.program.scopes[0].last_row = len(tape.program.rows)
        return tape.program

    def _taken(self, most: int = 3) -> list[int]:
        return self.draw(st.lists(st.sampled_from(self.live), max_size=most)) if self.live else []

    def _site(self) -> int:
        return self.draw(st.integers(0, _SITES))

    def _operation(self) -> None:
        ins = self._taken()
        after = {0: self.last_write} if ins and self.last_write is not None and self.draw(st.booleans()) else None
        name = self.draw(st.sampled_from(FUNCTIONS))
        self.live.append(self.tape.op(name, *ins, at=self._site(), after=after))

    def _split(self) -> None:
        self.live += self.tape.ops("split", *self._taken(1), outs=self.draw(st.integers(1, 3)), at=self._site())

    def _write_in_place(self) -> None:
        written = [vid for vid in self.live if vid not in self.buffers]
        if written:
            target = self.draw(st.sampled_from(written))
            self.last_write = len(self.tape.program.rows)
            new = self.tape.op("add_", target, *self._taken(1), at=self._site(), writes=target)
            self.live[self.live.index(target)] = new

    def _module(self) -> None:
        with ExitStack() as stack:
            scopes: list[Scope] = []
            for address in self.draw(st.lists(st.sampled_from(MODULES), min_size=1, max_size=3)):
                scopes.append(stack.enter_context(self.tape.module(address, at=("call", self._site()))))
            for _ in range(self.draw(st.integers(0, 3))):
                self._operation()
            if self.live:
                returned = self.draw(st.sampled_from(self.live))
                for scope in scopes:
                    scope.outs = returned

    def _loop(self) -> None:
        body = self.draw(
            st.lists(st.tuples(st.sampled_from(FUNCTIONS), st.integers(0, _SITES)), min_size=1, max_size=2)
        )
        ins = self._taken(1)
        for _ in range(self.draw(st.integers(1, 3))):
            for name, at in body:
                ins = [self.tape.op(name, *ins, at=at)]
        self.live += ins

    def _assign(self) -> None:
        if self.buffers:
            number = self.draw(st.integers(0, len(self.buffers) - 1))
            old, origin = self.buffers[number], self.draw(st.sampled_from(self.live))
            self.buffers[number] = self.tape.assign(old, origin)
            self.live[self.live.index(old)] = self.buffers[number]

    def _foreign(self) -> None:
        self.live.append(self.tape.unknown() if self.draw(st.booleans()) else self.tape.const("table"))

    def _read(self) -> None:
        if self.live:
            self.tape.read(self.draw(st.sampled_from(self.live)))


def selectors(
    functions: tuple[str, ...] = FUNCTIONS, modules: tuple[str, ...] = MODULES, shapes: tuple[tuple[int, ...], ...] = ()
) -> st.SearchStrategy[Selector]:
    """Selectors of all kinds, combined at random, for a model with these functions, modules and shapes."""
    names = st.sampled_from(functions)
    early = st.one_of(
        st.builds(func, names),
        st.builds(in_module, st.sampled_from(modules)),
        st.builds(output, st.integers(0, 2)),
        st.sampled_from([_of_shape(shape) for shape in shapes] or [func(functions[0])]),
    )
    late = st.one_of(
        st.builds(module, st.sampled_from(modules)),
        st.builds(contains, names),
        st.builds(regex, names.map(lambda name: f"^{name}_[12]")),
        st.builds(followed_by, early),
        st.builds(preceded_by, early),
    )
    return st.recursive(
        st.one_of(early, late, st.builds(lambda inner, number: inner.nth(number), early, st.integers(1, 4))),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            inner.map(lambda a: ~a),
            inner.map(preceded_by),
            inner.map(followed_by),
        ),
        max_leaves=5,
    )


def _of_shape(shape: tuple[int, ...]) -> Selector:
    return where(lambda op: op.shape == shape, f"shape {shape}")
