"""Running the operations of a staged program: the body of what is compiled, with values kept and changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ..lowering.ir import Block, Op, Returned, Ruled, Scan, Slot, Switch, While, Wrote
from .interventions import Acting, Applied

Transform = Callable[[Any], Any]  # of a value: what is kept of it


@dataclass
class Wishes:
    """What is asked of a run of a program.

    Attributes:
        keep: slots whose values are wanted, and what of each: a function of it, or None for the value itself.
        changes: what acts on the value of a slot, and in which iterations of the loops around.
        clean: slots whose values are wanted as they were before they were changed.
        stop: the slot after which nothing more runs; None runs to the end.
        capacity: how many iterations of each ``while`` are kept.
    """

    keep: Mapping[Slot, Transform | None] = field(default_factory=dict)
    changes: Mapping[Slot, Mapping[tuple[int, ...], Applied]] = field(default_factory=dict)
    clean: frozenset[Slot] = frozenset()
    stop: Slot | None = None
    capacity: Mapping[int, int] = field(default_factory=dict)


class Stopped(Exception):
    """The slot to stop at has its value."""


@dataclass
class Results:
    """What a run gives beside its outputs: kept values by slot, and what the regions did by number."""

    kept: dict[Any, Any] = field(default_factory=dict)  # by slot; what was there before a change by ~slot
    facts: dict[Any, Any] = field(
        default_factory=dict
    )  # by ("region", number) of a while its trips, of a switch its branch


class Executor:
    """Runs blocks, as one part of a program that JAX stages.

    Args:
        acting: carries out the changes.
        consts: arrays of the program text, by slot, where they are given as arguments.
    """

    def __init__(self, wishes: Wishes, acting: Acting, consts: Mapping[Slot, Any]) -> None:
        self._wishes = wishes
        self._acting = acting
        self._consts = consts

    def run(self, block: Block, arrays: Sequence[Any], results: Results, counters: tuple[Any, ...] = ()) -> list[Any]:
        """The outputs of a block for the arrays it takes. What is wanted on the way goes into ``results``."""
        env: dict[Slot, Any] = dict(zip(block.ins, arrays, strict=True))
        env.update((slot, self._consts.get(slot, value)) for slot, value in block.consts.items())
        for slot in block.ins:
            self._note(slot, env, results, counters)
        self._items(block, env, results, counters)
        return [env[slot] for slot in block.outs]

    def _items(self, block: Block, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        for item in block.items:
            if isinstance(item, Op):
                made = self._evaluate(item, [env[slot] for slot in item.ins])
                for slot, value in zip(item.outs, made, strict=True):
                    env[slot] = value
                    self._note(slot, env, results, counters)
            elif isinstance(item, Returned | Wrote):
                env[item.new] = env[item.old]
                self._note(item.new, env, results, counters)
            elif isinstance(item, Scan):
                self._scan(item, env, results, counters)
            elif isinstance(item, While):
                self._while(item, env, results, counters)
            elif isinstance(item, Switch):
                self._switch(item, env, results, counters)
            elif isinstance(item, Ruled):
                self._ruled(item, env, results, counters)

    def _evaluate(self, item: Op, arrays: list[Any]) -> list[Any]:
        """What an operation makes."""
        return item.func.evaluate(arrays)  # type: ignore[attr-defined, no-any-return]

    def _note(self, slot: Slot, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        wishes = self._wishes
        applied = wishes.changes.get(slot)
        if slot in wishes.clean:
            results.kept[~slot] = env[slot]
        if applied is not None:
            env[slot] = self._acting.change(slot, env[slot], applied, counters, results.facts)
        if slot in wishes.keep:
            transform = wishes.keep[slot]
            results.kept[slot] = env[slot] if transform is None else transform(env[slot])
        if slot == wishes.stop:
            raise Stopped

    def _ruled(self, item: Ruled, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        env.update((slot, self._consts.get(slot, value)) for slot, value in item.body.consts.items())
        self._items(item.body, env, results, counters)
        for new, old in zip(item.outs, item.body.outs, strict=True):
            env[new] = env[old]
            self._note(new, env, results, counters)

    def _elements(self, item: Scan) -> Any:
        """What the body of a loop is given of each iteration, beside what the loop runs over: nothing."""
        return ()

    @contextmanager
    def _inside(self, elements: Any = ()) -> Iterator[None]:
        """The body of a region: what actions read inside is not there outside."""
        before = dict(self._acting.read)
        try:
            yield
        finally:
            self._acting.read = before

    # -- regions ---------------------------------------------------------------------------------------------------

    def _scan(self, item: Scan, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        consts = [env[slot] for slot in item.consts]
        body = item.body
        num_carry = len(item.init)

        def step(state: Any, elements: Any) -> Any:
            counter, carry = state
            xs, others = elements
            inner = Results()
            with self._inside(others):
                outs = self.run(body, [*consts, *carry, *xs], inner, (*counters, counter))
            return (counter + 1, outs[:num_carry]), (outs[num_carry:], inner.kept, inner.facts)

        start = (jnp.int32(item.length - 1 if item.reverse else 0), [env[slot] for slot in item.init])
        if item.reverse:
            forward_step = step

            def step(state: Any, elements: Any) -> Any:  # type: ignore[no-redef]
                (counter, carry), ys = forward_step(state, elements)
                return (counter - 2, carry), ys

        xs = ([env[slot] for slot in item.xs], self._elements(item))
        (_, carry), (ys, kept, facts) = jax.lax.scan(
            step, start, xs, length=item.length, reverse=item.reverse, unroll=item.unroll
        )
        results.kept.update(kept)
        results.facts.update(facts)
        for slot, value in zip((*item.carry_outs, *item.ys), (*carry, *ys), strict=True):
            env[slot] = value
            self._note(slot, env, results, counters)

    def _while(self, item: While, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        capacity = self._wishes.capacity.get(item.number, 0)
        condition_consts = [env[slot] for slot in item.condition_consts]
        body_consts = [env[slot] for slot in item.body_consts]

        def test(carry: Any, counter: Any) -> Any:
            inner = Results()
            with self._inside():
                (holds,) = self.run(item.condition, [*condition_consts, *carry], inner, (*counters, counter))
            return holds, inner

        def advance(carry: Any, counter: Any) -> Any:
            inner = Results()
            with self._inside():
                return self.run(item.body, [*body_consts, *carry], inner, (*counters, counter)), inner

        init = [env[slot] for slot in item.init]
        holds, first = test(init, jnp.int32(0))
        _, one = jax.eval_shape(lambda: (None, _tree(advance(init, jnp.int32(0))[1])))

        def room(leaf: Any) -> Any:
            return jnp.zeros((capacity + 1, *leaf.shape), leaf.dtype)

        tests = jax.tree.map(lambda leaf: room(leaf).at[0].set(leaf), _tree(first))
        bodies = jax.tree.map(room, one)

        def put(buffers: Any, values: Any, at: Any) -> Any:
            return jax.tree.map(lambda buffer, value: buffer.at[jnp.minimum(at, capacity)].set(value), buffers, values)

        def step(state: Any) -> Any:
            _, counter, carry, tests, bodies = state
            outs, made = advance(carry, counter)
            holds, tested = test(outs, counter + 1)
            return holds, counter + 1, outs, put(tests, _tree(tested), counter + 1), put(bodies, _tree(made), counter)

        state = (holds, jnp.int32(0), init, tests, bodies)
        _, trips, outs, tests, bodies = jax.lax.while_loop(lambda state: state[0], step, state)
        for kept, facts in (tests, bodies):
            results.kept.update(kept)
            results.facts.update(facts)
        results.facts["region", item.number] = trips
        for slot, value in zip(item.outs, outs, strict=True):
            env[slot] = value
            self._note(slot, env, results, counters)

    def _switch(self, item: Switch, env: dict[Slot, Any], results: Results, counters: tuple[Any, ...]) -> None:
        operands = [env[slot] for slot in item.operands]

        def branch(block: Block) -> Any:
            def run(operands: Any) -> Any:
                inner = Results()
                with self._inside():
                    return self.run(block, operands, inner, counters), _tree(inner)

            return run

        shapes = [jax.eval_shape(branch(block), operands)[1] for block in item.branches]

        def padded(block: Block) -> Any:
            def run(operands: Any) -> Any:
                outs, (kept, facts) = branch(block)(operands)
                zeros = [jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape) for shape in shapes]
                return (
                    outs,
                    {k: v for kept_zeros, _ in zeros for k, v in kept_zeros.items()} | kept,
                    {k: v for _, facts_zeros in zeros for k, v in facts_zeros.items()} | facts,
                )

            return run

        index = env[item.index]
        if jnp.issubdtype(index.dtype, jnp.bool_):
            index = index.astype(jnp.int32)
        index = jnp.clip(index, 0, len(item.branches) - 1)
        outs, kept, facts = jax.lax.switch(index, [padded(block) for block in item.branches], operands)
        results.kept.update(kept)
        results.facts.update(facts)
        results.facts["region", item.number] = index
        for slot, value in zip(item.outs, outs, strict=True):
            env[slot] = value
            self._note(slot, env, results, counters)


def _tree(results: Results) -> tuple[dict[Slot, Any], dict[int, Any]]:
    return results.kept, results.facts
