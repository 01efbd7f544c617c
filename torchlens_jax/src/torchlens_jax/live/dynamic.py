"""A model that Python drives: the dynamic mode, for models that read values as they run.

What the model calls is noted (see :mod:`.deferring`) and lowered like any staged program, up to where a value is asked
for; that part is run and written down then, and Python goes on with the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import jax

from torchlens_core.backend import Discovery
from torchlens_core.errors import NotSupported
from torchlens_core.plan import Plan
from torchlens_core.session import Halt, Session

from ..arrays import JaxArrays
from ..calls.prepare import Prepared
from ..calls.structure import modules_of
from ..lowering.ir import Slot
from ..lowering.layers import LAYERS
from ..lowering.lowering import Lowering
from ..of_jax import fresh_context, unnamed, usual_context
from ..staging.staged import Unstaged, add_built, note_writes
from ..staging.staging import call_sites, noting_calls, staging
from .concrete import begin, close, end, note_mode
from .deferring import Deferred, Deferring, computing, missing


class DynamicRun:
    """One run of a model.

    Args:
        prepared: the call taken apart.
        unstaged: what is known of it.
        session: what the run is written into.
    """

    def __init__(self, prepared: Prepared, unstaged: Unstaged, session: Session) -> None:
        self._prepared = prepared
        self._session = session
        self._trace = Deferring(self)
        self._given = self._trace.start(prepared.arrays)
        self._lowering = Lowering({}, LAYERS)
        described = unstaged.described
        addresses = [each.address if each.kind != "input" else None for each in described]
        self._env: dict[Any, Slot] = {}
        block = self._lowering.start([array.var for array in self._given], addresses, self._env)
        self.staged = replace(unstaged, block=block, avals=self._lowering.avals, calls=self._lowering.calls)
        self._canonical = {alias: info.address for info in unstaged.infos for alias in info.aliases}
        self._live = begin(self.staged, session, prepared.arrays)
        self._broken: BaseException | None = None

    def run(self, *, keeps_state: bool = True) -> Any:
        """Run the model, and return what it returns; None where the session stopped it."""
        classes = {type(module) for name, root in self._prepared.roots for _, module in modules_of(root, name)}
        try:
            with noting_calls(classes, self._lowering.calls), fresh_context():
                try:
                    with self._trace.current():
                        out, state = self._prepared.function(*self._given)
                    result, new_state = self._finished(out, state)
                except Halt:
                    return None
                except Exception:
                    self._run_what_is_left()
                    raise
            if keeps_state:
                self._prepared.finish(new_state)
            return result
        finally:
            close(self._live)
            self._let_go()

    def _finished(self, out: Any, state: list[Any]) -> tuple[Any, dict[int, Any]]:
        leaves, tree = jax.tree.flatten(out)
        found = [self._trace.stage_value(leaf) if isinstance(leaf, jax.Array) else None for leaf in leaves]
        after = [self._trace.stage_value(value) for value in state]
        self._flush()
        slots = [self._env[each.var] for each in found if each is not None]
        ins = self.staged.block.ins
        now = {at: self._env[each.var] for at, each in enumerate(after) if self._env[each.var] != ins[at]}

        def result_of(values: list[Any]) -> Any:
            given = iter(values)
            filled = [leaf if each is None else next(given) for leaf, each in zip(leaves, found, strict=True)]
            return jax.tree.unflatten(tree, filled)

        with self._computing():
            result = end(self._live, self.staged, slots, now, result_of)
        add_built(self.staged.infos, self._lowering.calls)
        return result, {at: self._live.values[slot] for at, slot in now.items()}

    def _run_what_is_left(self) -> None:
        """The model raised: what it called before is part of the run. Its own exception is what counts."""
        if self._broken is None:
            try:
                self._flush()
            except (Exception, Halt):
                return

    def _let_go(self) -> None:
        """Arrays that the model has put somewhere have values, and can be computed with no more."""
        for array in self._trace.held():
            array.known = self._live.values.get(self._env.get(array.var, -1))
        self._trace.owner = None
        self._trace.invalidate()

    # -- what is asked as Python runs ------------------------------------------------------------------------------

    def value_of(self, array: Deferred) -> Any:
        """The value of an array, with all that was noted so far carried out."""
        self._flush()
        with self._computing():
            self._live.enter(staging.innermost)
        return self._live.values[self._env[array.var]]

    def note_read(self, kind: str, array: Deferred, value: Any, frame: FrameType) -> None:
        """An array was read as a Python value."""
        session = self._session
        key, calls = call_sites.chain(frame)
        site = session.site(key, lambda: tuple(calls)) if "sites" in session.needs and calls else -1
        session.note(kind, self._live.vids[self._env[array.var]], value, site)

    # -- carrying out ----------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Lower what was noted since the last time, and run it."""
        if self._broken is not None:
            raise self._broken
        equations, consts = self._trace.take()
        alive = self._trace.alive()
        empty = self._trace.template
        jaxpr = empty.replace(constvars=[], invars=[], outvars=[], eqns=equations, debug_info=unnamed(empty.debug_info))
        lowering = self._lowering
        block = lowering.segment(jaxpr, list(alive), consts, self._env)
        for call in lowering.calls.values():
            call.address = self._canonical.get(call.address or "", call.address)
        note_writes(block, {}, lowering.avals)
        try:
            with self._computing():
                self._live.execute(block)
        except BaseException as error:
            self._broken = error
            raise
        self._live.keep_only(block.outs)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """A context in which nobody notes what is called."""
        calls, staging.calls = staging.calls, None
        self._trace.is_busy = True
        try:
            with computing(), usual_context():
                yield
        finally:
            staging.calls = calls
            self._trace.is_busy = False


def run_dynamically(prepared: Prepared, unstaged: Unstaged, session: Session) -> Any:
    """Run a model as Python does, and return what it returns."""
    if why := missing():
        raise NotSupported(f"Models that read values as they run cannot be traced: {why}. Install another version.")
    note_mode(session, "dynamic", unstaged.reason)
    return DynamicRun(prepared, unstaged, session).run()


def rehearse(prepared: Prepared, unstaged: Unstaged, discovery: Discovery) -> None:
    """Find the modules that a model builds as it runs, which nothing else tells: run it, and keep nothing."""
    run = DynamicRun(prepared, unstaged, Session(Plan(False), JaxArrays(), discovery, needs=()))
    try:
        run.run(keeps_state=False)
    except Exception:
        return  # it will raise again when it is traced
    finally:
        unstaged.is_complete = True
