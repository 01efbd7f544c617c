"""From a staged program and what its regions did to the tape: a row for each operation that ran, loops unrolled.

The same walk is made before a program is compiled, without facts: it asks the session about every operation, so that
the answers can be compiled in. A ``while`` is then walked once, and every branch is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from torchlens_core.plan import Decision
from torchlens_core.program import HOLE, Func, Meta, Outs, Row, Scope
from torchlens_core.session import Halt, Session

from ..calls.structure import is_array
from ..lowering.functions import JaxFunc
from ..lowering.ir import Block, Call, Op, Returned, Ruled, Scan, Site, Slot, Switch, Taken, While, Wrote
from ..staging.values_needed import NeedsValues
from .interventions import Applied, undecided


@functools.cache
def element(position: int) -> Func:
    """What a loop takes, in each iteration, of one of the arrays that it runs over (``xs``)."""
    return Func(lambda array, index: array[index], f"xs[{position}]", "getitem")


@functools.cache
def stack(position: int) -> Func:
    """What a loop makes of one of the results of its iterations (``ys``)."""
    return Func(lambda *arrays: jnp.stack(arrays), f"ys[{position}]", "stack")


_IDENTITY = Func(lambda array: array, "identity", "identity")

At = tuple[int, ...]  # which iteration of the loops around, outermost first


@dataclass
class Answers:
    """What a session wants of the values of a program.

    Attributes:
        keep: slots whose values are wanted.
        changes: what acts on the value of a slot, in which iterations.
        replaced: what modules return that is changed when they do.
        stop: the slot after which nothing more runs.
    """

    keep: dict[Slot, Decision] = field(default_factory=dict)
    changes: dict[Slot, dict[At, Applied]] = field(default_factory=dict)
    replaced: set[Slot] = field(default_factory=set)
    stop: Slot | None = None

    def add_change(self, slot: Slot, at: At, applied: Applied) -> None:
        """Note what acts on a value in one iteration; in all, where ``at`` is ()."""
        self.changes.setdefault(slot, {})[at] = applied

    def change(self, slot: Slot, at: At) -> Applied | None:
        """What acts on a value in one iteration."""
        found = self.changes.get(slot)
        return None if found is None else found.get(at, found.get(()))


@dataclass
class Kept:
    """A value that the session keeps: of which slot, in which iteration."""

    vid: int
    slot: Slot
    at: At
    decision: Decision


class Expansion:
    """Writes one run of a program into a session.

    Args:
        session: whose tables are filled.
        calls: uid -> module call.
        avals: slot -> shape and dtype.
        facts: number of a region -> what it did; None asks about all that there is.
        answers: what was asked before, where there are facts.
        value_of: of a slot in an iteration, the value; for sessions that look at values.
    """

    def __init__(
        self,
        session: Session,
        calls: Mapping[int, Call],
        avals: Mapping[Slot, Any],
        facts: Mapping[Any, Any] | None,
        answers: Answers | None = None,
        value_of: Callable[[Slot, At], Any] = lambda slot, at: None,
        layers: Mapping[str, str] = {},
    ) -> None:
        self._session = session
        self._calls = calls
        self._avals = avals
        self._facts = facts
        self._value_of = value_of
        self._layers = layers
        self.vids: dict[Slot, int] = {}  # of the iteration at hand
        self.places: dict[int, tuple[Slot, At]] = {}  # vid -> slot, and which iteration of the loops around
        self.opaque: set[int] = set()  # vids of what was made inside functions that have a derivative rule
        self.results: dict[int, tuple[Slot, At]] = {}  # of these, those that such a function returns
        self.answers = Answers() if answers is None else answers
        self._stopped = -1  # vid of what a run stops at, when the module that returns it has done so
        self.kept: list[Kept] = []
        self._once = facts is None and session.plan.is_static  # the answers are the same in each iteration
        self.device: Any = None
        self.constants: list[tuple[int, Any]] = []
        self.const_names: Mapping[int, str] = {}  # id of an array of the program text -> its name
        self.buffers: Mapping[str, str] = {}  # address of a buffer -> of the module that holds it
        self._versions: dict[str, int] = {}  # of buffers, the last
        self._open: list[tuple[int, Scope]] = [(-1, session.scope)]
        self._returned: dict[int, list[tuple[int, Slot, At]]] = {}

    def run(self, block: Block, vids: Sequence[int]) -> list[int]:
        """Write the items of the program, whose inputs have these value ids. Returns those of its outputs."""
        return self._block(block, vids, ())

    def _assign(self, slot: Slot, at: At) -> int:
        vid = self.vids[slot] = self._new(self._avals[slot])
        self.places[vid] = (slot, at)
        return vid

    def _new(self, aval: Any) -> int:
        metas = self._session.metas
        metas.append(Meta(tuple(aval.shape), aval.dtype, self.device))
        return len(metas) - 1

    def _block(self, block: Block, vids: Sequence[int], at: At) -> list[int]:
        self.vids.update(zip(block.ins, vids, strict=True))
        for slot, value in block.consts.items():
            if slot not in self.vids:
                self.vids[slot] = self._const(value)
        for item in block.items:
            if self._stopped >= 0 and not (isinstance(item, Returned) and item.old in self.vids):
                continue
            if isinstance(item, Ruled):
                self._ruled(item, at)
                continue
            self._enter(self._calls[item.call].parent if self._is_model(item) else item.call)
            if isinstance(item, Op):
                self._operation(item, at)
            elif isinstance(item, Taken):
                scope = self._open[-1][1]
                scope.ins = (*scope.ins, self.vids[item.slot])
            elif isinstance(item, Returned):
                self._return(item, at)
            elif isinstance(item, Wrote):
                self._write(item, at)
            elif isinstance(item, Scan):
                self._scan(item, at)
            elif isinstance(item, While):
                self._while(item, at)
            else:
                self._switch(item, at)
        if self._stopped >= 0:
            self.close_to()
            self._halt()
        return [self.vids[slot] for slot in block.outs]

    def _const(self, value: Any) -> int:
        meta = Meta(tuple(jnp.shape(value)), jnp.result_type(value), self.device)
        vid = self._session.source("const", self.const_names.get(id(value), ""), meta)
        self.constants.append((vid, value if is_array(value) else np.asarray(value, meta.dtype)))
        return vid

    # -- operations ------------------------------------------------------------------------------------------------

    def _operation(self, item: Op, at: At) -> None:
        ins = tuple(self.vids[slot] for slot in item.ins)
        written = {slot: self.vids[old] for slot, old in item.writes}
        shown = [slot for slot in item.outs if slot not in written]
        made = tuple(self._assign(slot, at) for slot in shown)
        news = [(old, self._assign(slot, at)) for slot, old in written.items()]
        if news:
            self._session.writes[len(self._session.rows)] = tuple(news)
        self._append(item.func, item.args, ins, made[0] if len(made) == 1 else made, item.site)
        for slot, vid in zip(shown, made, strict=True):
            self._ask(item.func, slot, vid, at)
        for slot in item.returned:  # no Op, but an output, which has the value that this Op has made
            decision = self._session.decide(item.func, self._session.scope)
            if not decision.asks:
                self._note(slot, self.vids[slot], at, decision)

    def _append(self, func: Func, args: tuple[Any, ...], ins: tuple[int, ...], outs: Outs, site: Site) -> None:
        session = self._session
        number = session.site(site, lambda: site) if "sites" in session.needs and site else -1
        if "kernels" in session.needs and isinstance(func, JaxFunc):
            session.kernels[len(session.rows)] = func.kernels
        session.rows.append(Row(func, args, {}, ins, outs, session.scope, number, 0, 0, None))

    def _ask(self, func: Func, slot: Slot, vid: int, at: At) -> None:
        session = self._session
        scope = session.scope
        decision = scope.memo.get(func) or session.decide(func, scope)
        if decision.asks:
            decision = session.decide_op(vid, None if self._facts is None else self._value_of(slot, at))
        if self._facts is None:
            whens = undecided(session, vid) if "value" in session.plan.reads else ()
            self._answer(slot, at, decision, session.steering.forward(vid, decision), whens)
        else:
            self._tell_changed(slot, vid, at)
            self._tell_steered(vid, decision)
        self._note(slot, vid, at, decision)

    def _answer(self, slot: Slot, at: At, decision: Decision, whens: Sequence[Any], maybe: Sequence[Any] = ()) -> None:
        if not whens and not maybe:
            return
        vid = self.vids[slot]
        site = self._session.maker(vid)
        self.answers.add_change(slot, () if self._once else at, Applied(tuple(whens), tuple(maybe), site))
        self._session.steering.replaces(vid, list(whens))

    def _tell_changed(self, slot: Slot, vid: int, at: At) -> None:
        applied = self.answers.change(slot, at)
        if applied is None or slot in self.answers.replaced:
            return
        whens = applied.acted(self._facts or {}, slot, at)
        if whens:
            self._session.steering.changed(vid, whens)

    def _tell_steered(self, vid: int, decision: Decision) -> None:
        """What acts on the gradient at an array, should one be asked for."""
        if not decision.changes or not jnp.issubdtype(self._session.metas[vid][1], jnp.inexact):
            return
        whens = self._session.steering.backward(vid, decision)
        if whens:
            self._session.steering.watched(vid, whens)

    def _note(self, slot: Slot, vid: int, at: At, decision: Decision) -> None:
        if self._facts is None:
            if decision.keep is not None:
                self.answers.keep.setdefault(slot, decision)
            if decision.stop and self.answers.stop is None:
                if at:
                    raise NeedsValues(
                        "A run cannot be stopped inside a loop of JAX, which runs as a whole: stop after it, or at the "
                        "module that holds it."
                    )
                self.answers.stop = slot
            return
        if decision.keep is not None:
            self.kept.append(Kept(vid, slot, at, decision))
        if slot == self.answers.stop:
            self._stopped = vid
            if decision.stop:
                self._halt()

    def _halt(self) -> None:
        self._session.halted_vid = self._stopped
        raise Halt

    def _write(self, item: Wrote, at: At) -> None:
        """A buffer has a further version, which those read who read the buffer."""
        session, old = self._session, self.vids[item.old]
        module = self.buffers.get(item.address)
        if module is None or at:
            self.vids[item.new] = old
            return
        number = self._versions[item.address] = self._versions.get(item.address, 1) + 1
        vid = self.vids[item.new] = session.source(
            "buffer", item.address, session.metas[old], version=number, origin=old, row=len(session.rows), module=module
        )
        self.places[vid] = (item.new, at)
        self._note(item.new, vid, at, session.decide_source(vid, self._value_of(item.new, at)))

    # -- modules ---------------------------------------------------------------------------------------------------

    def _enter(self, uid: int) -> None:
        """Close and open scopes, so that the innermost is that of this module call."""
        if self._open[-1][0] == uid:
            return
        chain: list[int] = []
        while uid >= 0:
            chain.append(uid)
            uid = self._calls[uid].parent
        chain.reverse()
        wanted = [-1, *chain]
        common = 0
        while common < min(len(wanted), len(self._open)) and wanted[common] == self._open[common][0]:
            common += 1
        self.close_to(common)
        for inner in wanted[common:]:
            call = self._calls[inner]
            site = self._session.site(call.site, lambda call=call: call.site) if call.site else -1
            name = call.address or call.cls.rpartition(".")[2]
            self._open.append((inner, self._session.enter("module", name, call.cls, site)))

    def close_to(self, count: int = 1) -> None:
        """Close module calls until so many are open, the model's own among them."""
        while len(self._open) > count:
            self._close()

    def _close(self) -> None:
        uid, scope = self._open.pop()
        returned = self._returned.pop(uid, [])
        vids = tuple(vid for vid, _, _ in returned)
        decisions = self._session.exit(scope, vids[0] if len(vids) == 1 else vids)
        for vid, slot, at in returned:
            decision = decisions.get(vid)
            if decision is None:
                continue
            if self._facts is None and (whens := self._session.steering.forward(vid, decision)):
                self.answers.replaced.add(slot)
                site = self._session.maker(vid)
                self.answers.add_change(slot, () if self._once else at, Applied(tuple(whens), (), site))
                self._session.steering.replaces(vid, whens)
            if self._facts is not None:
                self._tell_steered(vid, decision)
            self._note(
                slot if slot in self.answers.replaced else self.places.get(vid, (slot, at))[0], vid, at, decision
            )

    def _return(self, item: Returned, at: At) -> None:
        vid = self.vids[item.old]
        if item.is_pass_through:  # an Op of its own
            func = self._pass_through(item.call)
            made = self._assign(item.new, at)
            self._append(func, (HOLE,), (vid,), made, ())
            self._ask(func, item.new, made, at)
            vid = made
        elif item.new in self.answers.replaced and self._facts is not None:
            applied = self.answers.change(item.new, at)
            whens = applied.acted(self._facts, item.new, at) if applied is not None else []
            if whens:
                made = self._assign(item.new, at)
                self._session.steering.replaced(vid, made, whens)
                moved = [kept for kept in self.kept if kept.vid == vid]
                for kept in moved:
                    kept.vid, kept.slot, kept.at = made, item.new, at
                vid = made
            self.vids[item.new] = vid
        else:
            self.vids[item.new] = vid
        if not self._is_model(item):
            self._returned.setdefault(item.call, []).append((vid, item.new, at))

    def _is_model(self, item: Any) -> bool:
        """Whether an item tells of the model itself, which is a layer of a library."""
        return isinstance(item, Returned) and self._calls[item.call].address == ""

    def _pass_through(self, uid: int) -> Func:
        """What a module that hands on its argument is called: a library layer, such as dropout that is off, by name."""
        name = self._layers.get(self._calls[uid].cls)
        if name is None:
            return _IDENTITY
        return _PASSED.setdefault(name, Func(lambda array: array, name, name.replace("_", "")))

    # -- rules -----------------------------------------------------------------------------------------------------

    def _ruled(self, item: Ruled, at: At) -> None:
        """What runs inside; to those who differentiate, its results are those of the whole."""
        first = len(self._session.metas)
        outs = self._block(item.body, (), at)
        self.opaque.update(range(first, len(self._session.metas)))
        for slot, vid in zip(item.outs, outs, strict=True):
            self.vids[slot] = vid
            if vid >= first and outs.count(vid) == 1:
                self.results[vid] = (slot, at)

    # -- regions ---------------------------------------------------------------------------------------------------

    def _fact(self, number: int, at: At) -> int:
        assert self._facts is not None
        known = self._facts["region", number]
        return int(known[at] if at else known)

    def _scan(self, item: Scan, at: At) -> None:
        consts = [self.vids[slot] for slot in item.consts]
        carry = [self.vids[slot] for slot in item.init]
        arrays = [self.vids[slot] for slot in item.xs]
        num_carry = len(carry)
        rows: list[list[int]] = []
        order = range(item.length - 1, -1, -1) if item.reverse else range(item.length)
        for index in order[:1] if self._once else order:
            elements = []
            for number, (slot, vid) in enumerate(zip(item.body.ins[len(consts) + num_carry :], arrays, strict=True)):
                taken = self._assign(slot, (*at, index))
                self._append(element(number), (HOLE, index), (vid,), taken, item.site)
                self._ask(element(number), slot, taken, (*at, index))
                elements.append(taken)
            outs = self._block(item.body, [*consts, *carry, *elements], (*at, index))
            self._enter(item.call)
            carry, made = outs[:num_carry], outs[num_carry:]
            rows.append(made)
        if item.reverse:
            rows.reverse()
        for slot, vid in zip(item.carry_outs, carry, strict=True):
            self.vids[slot] = vid
        for position, slot in enumerate(item.ys):
            pieces = [row[position] for row in rows]
            vid = self._assign(slot, at)
            func = stack(position) if pieces else empty(self._avals[slot])
            self._append(func, (HOLE,) * len(pieces), tuple(pieces), vid, item.site)
            self._ask(func, slot, vid, at)

    def _while(self, item: While, at: At) -> None:
        condition_consts = [self.vids[slot] for slot in item.condition_consts]
        body_consts = [self.vids[slot] for slot in item.body_consts]
        carry = [self.vids[slot] for slot in item.init]
        trips = (1 if self._once else _ASKED_TRIPS) if self._facts is None else self._fact(item.number, at)
        with self._uncounted():
            for index in range(trips + 1):
                (holds,) = self._block(item.condition, [*condition_consts, *carry], (*at, index))
                self._enter(item.call)
                here = self._session.rows[-1][6] if item.condition.items and self._session.rows else -1
                self._session.note("bool", holds, index < trips, here)
                if index < trips:
                    carry = self._block(item.body, [*body_consts, *carry], (*at, index))
                    self._enter(item.call)
        for slot, vid in zip(item.outs, carry, strict=True):
            self.vids[slot] = vid

    def _switch(self, item: Switch, at: At) -> None:
        operands = [self.vids[slot] for slot in item.operands]
        outs: list[int] = []
        if self._facts is None:
            with self._uncounted() as again:
                for branch in item.branches:
                    outs = self._block(branch, operands, at)
                    self._enter(item.call)
                    again()
        else:
            taken = self._fact(item.number, at)
            two = len(item.branches) == 2
            site = self._session.site(item.site, lambda: item.site) if item.site else -1
            self._session.note("bool" if two else "int", self.vids[item.index], bool(taken) if two else taken, site)
            outs = self._block(item.branches[taken], operands, at)
            self._enter(item.call)
        for slot, vid in zip(item.outs, outs, strict=True):
            self.vids[slot] = vid

    @contextmanager
    def _uncounted(self) -> Iterator[Callable[[], None]]:
        """What runs inside runs an unknown number of times: matches after it are not numbered while asking.

        Gives a function that takes the numbering back to where it was, for the next branch.
        """
        numbers = self._session.numbers
        before = {selector: numbering.count for selector, numbering in numbers.items()}

        def again() -> None:
            for selector, count in before.items():
                if numbers[selector].count != count:
                    counted.add(selector)
                    numbers[selector].count = count

        counted: set[Any] = set()
        yield again
        if self._facts is None:
            again()
            for selector in counted:
                numbers[selector].count = None


def empty(aval: Any) -> Func:
    """What a loop without iterations stacks."""
    return Func(lambda: jnp.zeros(aval.shape, aval.dtype), "stack", "stack")


_ASKED_TRIPS = 64  # of a loop, when the session is asked and nobody knows how many there will be
_PASSED: dict[str, Func] = {}
