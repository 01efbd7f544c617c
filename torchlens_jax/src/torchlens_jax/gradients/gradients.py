"""Gradients at the Ops of a run: its program, differentiated in one compiled pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from torchlens_core.errors import GradientError
from torchlens_core.gradients.derived import Computation
from torchlens_core.interventions.when import When
from torchlens_core.program import Change, Func, walk_outs
from torchlens_core.records.op import Op

from ..arrays import JaxArrays, Kept, wide_types
from ..calls.freezing import Freezer
from ..lowering.ir import Ruled, Slot
from ..lowering.lowering import walk
from ..running.executing import Results
from ..running.interventions import Acting, Applied, Settings
from ..running.ran import Place, Places, Ran
from .derivatives import without_derivative
from .differentiating import Differentiable, Differentiated, Loops, Steered
from .losses import Loss, Losses
from .reaching import reached_from
from .rules import RULE, LiveRun, differentiate_rows


def grad(function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The value of a scalar function of arrays, and its gradient with respect to each; None for integers."""
    value, found = jax.value_and_grad(function, tuple(range(len(arrays))), allow_int=True)(*arrays)
    return value, [None if each.dtype == jax.dtypes.float0 else each for each in found]


def differentiate(run: Computation, arrays: JaxArrays) -> Mapping[int, Any]:
    """The gradients at what is wanted: from the compiled program where there is one, else by a replay."""
    ran = run.trace.program.staged
    if isinstance(ran, LiveRun):
        return differentiate_rows(run, ran)
    if not isinstance(ran, Ran):
        return run.by_replay()
    if not run.trace.program.outputs:
        run.loss({})
    with wide_types(ran.wide):
        return _Pass(run, ran, arrays).found()


class Found(Mapping[int, Any]):
    """Gradients by value id: of a loop those of all iterations are one array, taken apart when they are asked for."""

    def __init__(self, places: Mapping[int, Place], stacked: Mapping[Slot, Any], arrays: JaxArrays) -> None:
        self._places = places
        self._stacked = stacked
        self._arrays = arrays

    def __getitem__(self, vid: int) -> Any:
        slot, at = self._places[vid]
        return self._arrays.release(Kept(self._stacked[slot], at))

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Pass:
    """One pass over a run."""

    def __init__(self, run: Computation, ran: Ran, arrays: JaxArrays) -> None:
        self._run = run
        self._ran = ran
        self._staged = ran.staged
        self._arrays = arrays
        self._program = run.trace.program
        self._given = self._sources()
        self._freeze = Freezer()
        changed = _changed(run, ran)
        self._more = _Actions.of([when for when in changed if not when.action.is_backward], self._freeze)
        self._steering = _Actions.of([when for when in changed if when.action.is_backward], self._freeze)
        self._capacity = {
            number: 1 << (max(int(np.max(trips, initial=0)), 1) - 1).bit_length() for number, trips in ran.trips.items()
        }

    def found(self) -> Found:
        """The gradients; behind operations without a derivative none, which is found out where JAX refuses."""
        loss = self._loss()
        try:
            return self._found(loss)
        except Exception:
            if self._cut:
                raise
            self._staged.made["cut"] = without_derivative(self._staged)
            if not self._cut:
                raise
            return self._found(loss)

    @property
    def _cut(self) -> Mapping[Func, str]:
        """The functions of operations that have no derivative, as far as that has been found."""
        return self._staged.made.get("cut", {})  # type: ignore[no-any-return]

    def _found(self, loss: Loss) -> Found:
        places, reasons, slots = self._places(loss.used)
        self._run.reasons.update(reasons)
        if not slots:
            return Found({}, {}, self._arrays)
        run, order = self._compiled(("gradients", slots, loss), lambda: self._backward(loss, slots))
        unique = run(*self._arguments(), loss.arrays)
        stacked = {slot: unique[position] for slot, position in zip(slots, order, strict=True)}
        return Found(places, stacked, self._arrays)

    def _loss(self) -> Loss:
        losses = self._staged.made.get("losses")
        if losses is None:
            avals = [self._staged.avals[slot] for slot in self._staged.block.outs[: self._staged.num_outs]]
            losses = self._staged.made["losses"] = Losses(avals)
        return losses.find(self._run, lambda: self._compiled(("outputs",), self._forward)(*self._arguments()))  # type: ignore[no-any-return]

    def _sources(self) -> list[Any]:
        sources = {source.vid: source.address for source in self._program.sources}
        return [self._run.source(vid, sources[vid]) for vid in self._ran.places.taken]

    # -- what is wanted --------------------------------------------------------------------------------------------

    def _places(self, used: frozenset[int]) -> tuple[dict[int, Place], dict[int, str], tuple[Slot, ...]]:
        """Where the gradients will be, why there are none elsewhere, and the slots to tap."""
        moves = tuple((change.row, change.old, change.new) for change in self._program.changes)
        cut = self._cut
        key = (self._run.wanted, used, moves, bool(cut))
        known = self._ran.places.known
        found = known.get(key)
        if found is None:
            reached = reached_from(self._program, {self._program.outputs[at].vid for at in used})
            places: dict[int, Place] = {}
            reasons: dict[int, str] = {}
            blocked = self._blocked(reached)
            for vid in self._run.wanted & reached:
                place = self._ran.places.derivable(vid)
                if vid in blocked:
                    reasons[vid] = blocked[vid]
                elif place is not None:
                    places[vid] = place
                elif vid in self._ran.places.opaque:
                    reasons[vid] = RULE
            slots = tuple(sorted({slot for slot, _ in places.values()}))
            found = known[key] = places, reasons, slots
        return found  # type: ignore[no-any-return]

    def _blocked(self, reached: Collection[int]) -> dict[int, str]:
        """The arrays that operations without a derivative are computed from, and the words for it."""
        found: dict[int, str] = {}
        for row in self._program.rows if self._cut else ():
            outs = [vid for vid, _ in walk_outs(row.outs)]
            if row.func in self._cut and not set(outs).isdisjoint(reached):
                why = f"{row.func.name}, on the way to what is differentiated, has no derivative: {self._cut[row.func]}"
                found.update(dict.fromkeys(reached_from(self._program, row.ins), why))
        return found

    # -- programs --------------------------------------------------------------------------------------------------

    def _arguments(self) -> tuple[Any, ...]:
        ran = self._ran
        settings = (ran.settings, self._more.values, self._steering.values)
        return settings, dict(ran.trips), self._staged.consts, self._given

    def _compiled(self, what: tuple[Hashable, ...], make: Callable[[], Any]) -> Any:
        """A program, compiled; the one known already where there is one."""
        changes = (
            bool(self._cut),
            self._ran.wanted.changes_key,
            self._more.key,
            self._steering.key,
            self._places_of_changes(),
        )
        key = (*what, changes, tuple(sorted(self._capacity.items())))
        found = self._staged.made.get(key)
        if found is None:
            found = self._staged.made[key] = make()
            self._staged.pinned.extend(self._freeze.pinned)
        return found

    def _places_of_changes(self) -> Hashable:
        made = _more_changes(self._run, self._ran)
        numbers = {when: number for number, when in enumerate((*self._more.whens, *self._steering.whens))}
        return tuple((change.new, tuple(numbers[when] for when in change.whens)) for change in made)

    def _executor(self) -> Callable[..., Differentiable]:
        """What makes one that runs the program as it ran, given the taps and the arguments."""
        changes, steered = _actions_by_slot(self._run, self._ran)
        loops = _loops(self._ran)
        asked = Differentiated(changes, steered, loops, dict(self._capacity), self._cut)
        recorded, more, backward, arrays = self._ran.wanted.settings, self._more, self._steering, self._arrays

        def make(taps: Mapping[Slot, Any], settings: Any, trips: Any, consts: Any) -> Differentiable:
            own, added, steering = settings
            acting = Acting(arrays, recorded.filled(own) | more.settings.filled(added))

            def on_gradients(values: Sequence[Any]) -> Acting:
                return Acting(arrays, backward.settings.filled(values))

            return Differentiable(asked, acting, consts, taps, trips, on_gradients, steering)

        return make

    def _forward(self) -> Callable[..., Any]:
        make, block, num_outs = self._executor(), self._staged.block, self._staged.num_outs

        def run(settings: Any, trips: Any, consts: Any, given: Any) -> Any:
            return make({}, settings, trips, consts).run(block, given, Results())[:num_outs]

        return jax.jit(run)

    def _backward(self, loss: Loss, slots: Collection[Slot]) -> tuple[Callable[..., Any], list[int]]:
        """The gradients at some slots; and which of those returned that of each is: equal ones are returned once."""
        make, block, num_outs = self._executor(), self._staged.block, self._staged.num_outs
        loops = _loops(self._ran)
        avals, capacity = self._staged.avals, dict(self._capacity)
        shapes = {slot: (*Differentiated({}, {}, loops, capacity).lengths(slot), *avals[slot].shape) for slot in slots}
        order: list[int] = []
        evaluate = loss.evaluate

        def run(settings: Any, trips: Any, consts: Any, given: Any, own: Any) -> Any:
            def value(taps: Mapping[Slot, Any]) -> Any:
                outs = make(taps, settings, trips, consts).run(block, given, Results())
                return evaluate(outs[:num_outs], own)

            zeros = {slot: jnp.zeros(shape, avals[slot].dtype) for slot, shape in shapes.items()}
            gradients = jax.grad(value)(zeros)
            unique = {id(gradients[slot]): gradients[slot] for slot in slots}
            positions = {at: position for position, at in enumerate(unique)}
            order[:] = [positions[id(gradients[slot])] for slot in slots]
            return list(unique.values())

        return jax.jit(run), order


def _loops(ran: Ran) -> Loops:
    found = ran.staged.made.get("loops")
    if found is None:
        found = ran.staged.made["loops"] = Loops.of(ran.staged.block)
    return found  # type: ignore[no-any-return]


# -- interventions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Actions:
    """Interventions that the recorded program does not have.

    Attributes:
        key: all that a program with them depends on, but their arguments.
        values: the arguments.
    """

    whens: tuple[When, ...]
    settings: Settings
    key: Hashable
    values: list[Any]

    @staticmethod
    def of(whens: Sequence[When], freeze: Freezer) -> _Actions:
        settings = Settings.of(whens, freeze)
        return _Actions(tuple(whens), settings, settings.key, settings.values(whens))


def _more_changes(run: Computation, ran: Ran) -> list[Change]:
    """The changes of a replay since, and those of gradients."""
    program = run.trace.program
    recorded = set(ran.whens)
    added = [change for change in program.changes if not recorded.issuperset(change.whens)]
    return [*added, *program.gradient_changes]


def _changed(run: Computation, ran: Ran) -> list[When]:
    """The interventions of these, each once."""
    whens = list(dict.fromkeys(when for change in _more_changes(run, ran) for when in change.whens))
    for when in whens:
        if when.action.reads:
            raise GradientError(
                f"{when!r} puts values of other Ops in the place of some, which a replay does not repeat."
            )
    return whens


def _actions_by_slot(run: Computation, ran: Ran) -> tuple[dict[Slot, Steered], dict[Slot, Steered]]:
    """What acts on values and on gradients, where it does in the program as it is differentiated."""
    places, read = ran.places, _read_inside(ran)
    changes: dict[Slot, dict[tuple[int, ...], Applied]] = {}
    for slot, applied in ran.wanted.answers.changes.items():
        moved = places.moved.get(slot, slot)
        if moved is None or (moved != slot and slot in read):
            raise _inside_a_rule(next(iter(applied.values())))
        changes[moved] = dict(applied)
    steered: dict[Slot, dict[tuple[int, ...], Applied]] = {}
    for change in _more_changes(run, ran):
        is_backward = any(when.action.is_backward for when in change.whens)
        place = places.derivable(change.new)
        site = Op(run.trace, run.trace.graph.node_of[change.new])
        applied = Applied(tuple(change.whens), (), site)
        if place is None or (not is_backward and change.new in places.opaque and places.places[change.new][0] in read):
            raise _inside_a_rule(applied)
        slot, at = place
        table = (steered if is_backward else changes).setdefault(slot, {})
        before = table.get(at, table.get(()))
        if before is not None:
            applied = Applied((*before.whens, *applied.whens), before.maybe, site)
        table[at] = applied
    return changes, {slot: _in_all(table, places, slot) for slot, table in steered.items()}


def _in_all(table: dict[tuple[int, ...], Applied], places: Places, slot: Slot) -> Steered:
    """The same table, with one entry where the same acts in all iterations."""
    first, *others = table.values()
    if len(table) == places.counts[slot] and all(each.whens == first.whens for each in others):
        return {(): first}
    return table


def _read_inside(ran: Ran) -> set[Slot]:
    """The slots that are read inside functions with a derivative rule."""
    found: set[Slot] = set()
    for item in walk(ran.staged.block):
        if isinstance(item, Ruled):
            for inner in walk(item.body):
                for name in ("ins", "consts", "init", "xs", "condition_consts", "body_consts", "operands"):
                    found.update(getattr(inner, name, ()))
    return found


def _inside_a_rule(applied: Applied) -> GradientError:
    whens = ", ".join(map(repr, (*applied.whens, *applied.maybe)))
    return GradientError(
        f"{whens} acts inside a function with a derivative rule of its own (custom_vjp, custom_jvp), at "
        f"{applied.place.func_name or applied.place.type}: what the gradient would be then the rule does not say. Act "
        "on what the function returns."
    )
