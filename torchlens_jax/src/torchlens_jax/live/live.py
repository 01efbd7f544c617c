"""A program gone through operation by operation, on arrays: run and written down at once.

Here decisions are asked with the values at hand, actions and predicates are any Python, loops are Python's, and a run
can be stopped anywhere. It is as slow as calling JAX operation by operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import jax

from torchlens_core.live_site import row_site, unseen_site
from torchlens_core.plan import Decision
from torchlens_core.program import HOLE, Func, Row, Scope
from torchlens_core.session import Halt, Session

from ..gradients.rules import LiveRun, Rule
from ..lowering.ir import Block, Call, Op, Returned, Ruled, Scan, Slot, Switch, Taken, While, Wrote
from ..lowering.layers import LAYERS
from ..running.expanding import At, Expansion, element, empty, stack

Bound = tuple[int, Any]  # the id of a value, and the value


class Live(Expansion):
    """Runs items, and writes what ran into a session.

    Attributes:
        values: slot -> its array, of the iteration at hand.
    """

    def __init__(self, session: Session, calls: Mapping[int, Call], avals: Mapping[Slot, Any], device: Any) -> None:
        super().__init__(session, calls, avals, {}, layers=LAYERS, value_of=lambda slot, at: self.values[slot])
        self.values: dict[Slot, Any] = {}
        self.given: dict[int, Any] = {}  # by vid, the arrays that the program took
        self.device = device
        self.rules: list[Rule] = []
        self._is_ruled = False  # inside a function that has a derivative rule
        if "replay" in session.needs:
            session.staged = LiveRun(self.rules)

    @property
    def session(self) -> Session:
        """What it writes into."""
        return self._session

    def bind(self, slots: Sequence[Slot], bound: Sequence[Bound]) -> None:
        """Give slots their values."""
        for slot, (vid, value) in zip(slots, bound, strict=True):
            self.vids[slot], self.values[slot] = vid, value

    def bound(self, slots: Sequence[Slot]) -> list[Bound]:
        """The values of slots."""
        return [(self.vids[slot], self.values[slot]) for slot in slots]

    def execute(self, block: Block, at: At = ()) -> None:
        """Run the items of a block whose inputs are bound."""
        for slot, value in block.consts.items():
            self.values[slot] = value
            if slot not in self.vids:
                self.vids[slot] = self._const(value)
        last = _last_uses(block)
        for number, item in enumerate(block.items):
            if isinstance(item, Ruled):
                self._ruled(item, at)
                continue
            self._enter(self._calls[item.call].parent if self._is_model(item) else item.call)
            if isinstance(item, Op):
                self._operation(item, at)
            elif isinstance(item, Taken):
                scope = self._open[-1][1]
                scope.ins = (*scope.ins, self.vids[item.slot])
            elif isinstance(item, Returned | Wrote):
                self.values[item.new] = self.values[item.old]
                self._return(item, at) if isinstance(item, Returned) else self._write(item, at)
            elif isinstance(item, Scan):
                self._scan(item, at)
            elif isinstance(item, While):
                self._while(item, at)
            else:
                self._switch(item, at)
            for slot in last.get(number, ()):
                self.forget(slot)

    def enter(self, uid: int) -> None:
        """Close and open module calls, so that the innermost is this one."""
        self._enter(uid)

    def forget(self, slot: Slot) -> None:
        """Let a value go that nothing reads any more, unless a module call has yet to return it."""
        if all(slot != waiting for returned in self._returned.values() for _, waiting, _ in returned):
            self.values.pop(slot, None)

    def keep_only(self, slots: Sequence[Slot]) -> None:
        """Let all values go but these, and those that a module call has yet to return."""
        waiting = (slot for returned in self._returned.values() for _, slot, _ in returned)
        self.values = {slot: self.values[slot] for slot in (*slots, *waiting)}

    def abandon(self) -> None:
        """Close all module calls, after an error or a halt."""
        while self._open:
            self._session.abandon(self._open.pop()[1])

    # -- operations ------------------------------------------------------------------------------------------------

    def _operation(self, item: Op, at: At) -> None:
        session = self._session
        ins = tuple(self.vids[slot] for slot in item.ins)
        is_timed = "profile" in session.needs  # else a call returns before its work is done
        start = perf_counter_ns() if is_timed else 0
        made = item.func.evaluate([self.values[slot] for slot in item.ins])  # type: ignore[attr-defined]
        end = (jax.block_until_ready(made), perf_counter_ns())[1] if is_timed else 0
        self.values.update(zip(item.outs, made, strict=True))
        written = {slot: self.vids[old] for slot, old in item.writes}
        shown = [slot for slot in item.outs if slot not in written]
        vids = tuple(self._assign(slot, at) for slot in shown)
        if written:
            session.writes[len(session.rows)] = tuple((old, self._assign(slot, at)) for slot, old in written.items())
        number = session.site(item.site, lambda: item.site) if "sites" in session.needs and item.site else -1
        outs = vids[0] if len(vids) == 1 else vids
        session.rows.append(Row(item.func, item.args, {}, ins, outs, session.scope, number, start, end, None))
        for slot, vid in zip(shown, vids, strict=True):
            self._ask(item.func, slot, vid, at)

    def _ask(self, func: Func, slot: Slot, vid: int, at: At) -> None:
        session = self._session
        decision = session.scope.memo.get(func) or session.decide(func, session.scope)
        if decision.asks:
            decision = session.decide_op(vid, self.values[slot])
        if decision.changes:
            self._change(slot, vid, decision)
            self._tell_steered(vid, decision)
        self._note(slot, vid, at, decision)

    def _change(self, slot: Slot, vid: int, decision: Decision) -> None:
        """Put what was asked for in the place of a result that nothing has read yet."""
        session, value = self._session, self.values[slot]
        whens = session.steering.forward(vid, decision)
        if not whens:
            return
        changed = session.steering.apply(vid, value, whens, row_site(session, len(session.rows) - 1, vid, value))
        if session.steering.replaces(vid, whens):
            session.steering.changed(vid, whens)
            self.values[slot] = changed

    def _note(self, slot: Slot, vid: int, at: At, decision: Decision) -> None:
        self._session.keep(vid, self.values[slot], decision)
        if decision.stop:
            self._session.halted_vid = vid
            raise Halt

    # -- modules ---------------------------------------------------------------------------------------------------

    def _return(self, item: Returned, at: At) -> None:
        vid = self.vids[item.new] = self.vids[item.old]
        if item.is_pass_through:  # an Op of its own
            func = self._pass_through(item.call)
            vid = self._assign(item.new, at)
            self._append(func, (HOLE,), (self.vids[item.old],), vid, ())
            self._ask(func, item.new, vid, at)
        if not self._is_model(item):
            self._returned.setdefault(item.call, []).append((vid, item.new, at))

    def _close(self) -> None:
        uid, scope = self._open.pop()
        returned = self._returned.pop(uid, [])
        vids = [vid for vid, _, _ in returned]
        decisions = self._session.exit(scope, vids[0] if len(vids) == 1 else tuple(vids))
        for number, (vid, slot, at) in enumerate(returned):
            if vid in decisions:
                vids[number] = self.returned(scope, slot, vid, at, decisions[vid])
        scope.outs = vids[0] if len(vids) == 1 else tuple(vids)

    def returned(self, scope: Scope, slot: Slot, vid: int, at: At, decision: Decision) -> int:
        """Do with what a module, or the model, returned as was decided; the id of what it returns now."""
        session = self._session
        if whens := session.steering.forward(vid, decision):
            array = self.values[slot]
            site = session.maker(vid, array) or unseen_site(session, scope, vid, array)
            value = session.steering.apply(vid, array, whens, site)
            if session.steering.replaces(vid, whens):
                self.values[slot] = value
                old, vid = vid, self._assign(slot, at)
                session.replace(old, vid, value, whens)
        self._note(slot, vid, at, decision)
        return vid

    def _ruled(self, item: Ruled, at: At) -> None:
        first, row, is_outermost = len(self.session.metas), len(self.session.rows), not self._is_ruled
        taken = tuple(self.vids[slot] for slot in item.ins)
        self._is_ruled = True
        try:
            self.execute(item.body, at)
        finally:
            self._is_ruled = not is_outermost
        self.opaque.update(range(first, len(self.session.metas)))
        self.bind(item.outs, self.bound(item.body.outs))
        if is_outermost:
            given = tuple(self.vids[slot] for slot in item.outs)
            self.rules.append(Rule(item.func, taken, given, row, len(self.session.rows)))

    # -- regions ---------------------------------------------------------------------------------------------------

    def _run(self, block: Block, bound: Sequence[Bound], at: At, call: int) -> list[Bound]:
        self.bind(block.ins, bound)
        self.execute(block, at)
        self._enter(call)
        return self.bound(block.outs)

    def _scan(self, item: Scan, at: At) -> None:
        consts, carry = self.bound(item.consts), self.bound(item.init)
        arrays = self.bound(item.xs)
        slots = item.body.ins[len(consts) + len(carry) :]
        rows: list[list[Bound]] = []
        for index in range(item.length - 1, -1, -1) if item.reverse else range(item.length):
            here = (*at, index)
            for number, (slot, (vid, array)) in enumerate(zip(slots, arrays, strict=True)):
                self.values[slot] = array[index]
                taken = self._assign(slot, here)
                self._append(element(number), (HOLE, index), (vid,), taken, item.site)
                self._ask(element(number), slot, taken, here)
            outs = self._run(item.body, [*consts, *carry, *self.bound(slots)], here, item.call)
            carry = outs[: len(carry)]
            rows.append(outs[len(carry) :])
        if item.reverse:
            rows.reverse()
        self.bind(item.carry_outs, carry)
        for position, slot in enumerate(item.ys):
            pieces = [row[position] for row in rows]
            func = stack(position) if pieces else empty(self._avals[slot])
            assert func.func is not None
            self.values[slot] = func.func(*(value for _, value in pieces))
            vid = self._assign(slot, at)
            self._append(func, (HOLE,) * len(pieces), tuple(vid for vid, _ in pieces), vid, item.site)
            self._ask(func, slot, vid, at)

    def _while(self, item: While, at: At) -> None:
        condition_consts, body_consts = self.bound(item.condition_consts), self.bound(item.body_consts)
        carry = self.bound(item.init)
        index = 0
        while True:
            ((vid, holds),) = self._run(item.condition, [*condition_consts, *carry], (*at, index), item.call)
            here = self._session.rows[-1].site if item.condition.items and self._session.rows else -1
            self._session.note("bool", vid, bool(holds), here)
            if not holds:
                break
            carry = self._run(item.body, [*body_consts, *carry], (*at, index), item.call)
            index += 1
        self.bind(item.outs, carry)

    def _switch(self, item: Switch, at: At) -> None:
        index = self.values[item.index]
        taken = min(max(int(index), 0), len(item.branches) - 1)
        two = len(item.branches) == 2
        site = self._session.site(item.site, lambda: item.site) if item.site else -1
        self._session.note("bool" if two else "int", self.vids[item.index], bool(taken) if two else taken, site)
        self.bind(item.outs, self._run(item.branches[taken], self.bound(item.operands), at, item.call))


def _last_uses(block: Block) -> dict[int, list[Slot]]:
    """Number of an item -> the slots of the block that are read there for the last time."""
    last: dict[Slot, int] = {}
    own = {*block.ins}
    for number, item in enumerate(block.items):
        last.update(dict.fromkeys(_read(item), number))
        own.update(_made(item))
    made: dict[int, list[Slot]] = {}
    for slot, number in last.items():
        if slot in own and slot not in block.outs:
            made.setdefault(number, []).append(slot)
    return made


def _read(item: Any) -> Sequence[Slot]:
    if isinstance(item, Op):
        return (*item.ins, *(old for _, old in item.writes))
    if isinstance(item, Ruled):
        return item.ins
    if isinstance(item, Taken):
        return (item.slot,)
    if isinstance(item, Returned | Wrote):
        return (item.old,)
    if isinstance(item, Scan):
        return (*item.consts, *item.init, *item.xs)
    if isinstance(item, While):
        return (*item.condition_consts, *item.body_consts, *item.init)
    return (item.index, *item.operands)


def _made(item: Any) -> Sequence[Slot]:
    if isinstance(item, Scan):
        return (*item.carry_outs, *item.ys)
    if isinstance(item, Returned | Wrote):
        return (item.new,)
    return () if isinstance(item, Taken) else item.outs  # type: ignore[no-any-return]
