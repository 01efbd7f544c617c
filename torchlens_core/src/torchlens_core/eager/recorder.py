"""The recorder of eager backends: what a framework shows its watcher, written down in core's words.

Value ids for arrays, a row for each operation, a scope for each module call, a source for what no operation made, and
obedience to the session.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from ..backend import Call
from ..errors import CaptureWarning
from ..live_site import row_site, unseen_site
from ..plan import Decision
from ..program import Func, Row, Scope, Source, SourceKind, walk_outs
from ..reach import attributes, find_variable, input_names
from ..session import Halt, Session

if TYPE_CHECKING:
    from .backend import EagerBackend


class Recorder:
    """Watches a framework for one run, and writes what happens into the session."""

    def __init__(self, session: Session, backend: EagerBackend) -> None:
        self.session = session
        self._backend = backend
        self._arrays = backend.arrays
        self._containers = backend.containers
        backend.sites.stop_at(Recorder.module_call.__code__)
        self.modules = {id(module): info for info, module in session.discovery.modules if module is not None}
        self._vids: dict[int, int] = {}  # id of an array -> the value id of what it holds now
        self._alive: list[Any] = []  # every array seen, so that an id means one array
        self._buffers: dict[int, Source] = {}  # id of an array -> the buffer version that it is
        self._held = {
            id(array): (array, address)
            for address, value in attributes(session.discovery)
            for _, array in self._containers.leaves(value)
        }
        self._unknown: list[str] = []
        self._model_was_called = False

    # -- what the framework tells its watcher ----------------------------------------------------------------------

    def operation(self, func: Func, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """Run an operation and record it."""
        session, site = self.session, self._site()
        ins: list[int] = []
        template, keywords = self._containers.template((args, kwargs), lambda array: ins.append(self.vid_of(array)))
        written = [(array, self.vid_of(array)) for array in func.writes(args, kwargs)] if func.writes else []
        if func.random and "replay" in session.needs:
            session.rng[len(session.rows)] = self._backend.rng()
        start = perf_counter_ns()
        out = run(*args, **kwargs)
        end = perf_counter_ns()
        if not written and id(out) in self._vids:  # handed back as it came: a fresh array tells who reads the result
            out = self._alias(out)
        outs = self._containers.mirror(out, self._assign)
        row = Row(func, template, keywords, tuple(ins), outs, session.scope, site, start, end, None)
        return self._outcome(row, out, written)

    def _outcome(self, row: Row, out: Any, written: list[tuple[Any, int]]) -> Any:
        """Append a row and do with its arrays what was decided. Returns what the operation is to return."""
        session, func, outs = self.session, row.func, row.outs
        session.rows.append(row)
        decision = row.scope.memo.get(func) or session.decide(func, row.scope)
        vids = (vid for vid, _ in walk_outs(outs) if vid is not None)
        made = dict(zip(vids, (array for _, array in self._containers.leaves(out)), strict=True))
        decisions = {vid: session.decide_op(vid, made[vid]) if decision.asks else decision for vid in made}
        changed = {
            id(made[vid]): self._change(vid, made[vid], answer, is_write=bool(written))
            for vid, answer in decisions.items()
            if answer.changes
        }
        for array, old in written:
            self._note_write(array, old)
        self._obey(decisions, {vid: changed.get(id(array), array) for vid, array in made.items()})
        return self._containers.replaced(out, changed)

    def module_call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """Run a module in a scope of its own."""
        info = self.modules.get(id(module))
        is_model = info is not None and info.address == "" and not self._model_was_called
        if info is None or is_model:  # the session has opened the scope of the model itself
            self._model_was_called = self._model_was_called or is_model
            return run(*args, **kwargs)
        scope = self.session.enter("module", info.address, info.cls, self._site())
        scope.ins = tuple(self.vid_of(array) for _, array in self._containers.leaves((args, kwargs)))
        try:
            return self.leave(run(*args, **kwargs))
        finally:
            self.session.abandon(scope)

    def read(self, kind: str, array: Any, value: Any) -> None:
        """Note that an array became a Python value."""
        self.session.note(kind, self.vid_of(array), value, self._site())

    def assigned(self, module: Any, name: str, array: Any) -> None:
        """Note that a buffer was bound to another array, and so has a new version."""
        info = self.modules.get(id(module))
        if info is not None:
            address = f"{info.address}.{name}" if info.address else name
            versions = [source for source in self.session.sources if address in (source.address, *source.aliases)]
            if versions and self._buffers.get(id(array)) is not versions[-1]:
                self._new_version(versions[-1], array)

    # -- arrays and their value ids --------------------------------------------------------------------------------

    def vid_of(self, array: Any) -> int:
        """The value id of an array that is about to be read."""
        if id(array) not in self._vids:
            return self._unexpected(array)
        buffer = self._buffers.get(id(array))
        if buffer is not None and buffer.row < 0:
            buffer.row = len(self.session.rows)
            self._keep_source(buffer.vid, array)
        return self._vids[id(array)]

    def _assign(self, array: Any) -> int:
        """A new value id, for an array that is new or was just written."""
        self.session.metas.append(self._arrays.meta(array))
        return self._pin(array, len(self.session.metas) - 1)

    def _pin(self, array: Any, vid: int) -> int:
        self._alive.append(array)
        self._vids[id(array)] = vid
        return vid

    def _source(self, kind: SourceKind, address: str, array: Any, **facts: Any) -> int:
        vid = self.session.source(kind, address, self._arrays.meta(array), **facts)
        if "replay" in self.session.needs and kind != "param":  # those a replay takes from the model
            self.session.constants[vid] = self._arrays.copy(array)
        return vid

    def _keep_source(self, vid: int, array: Any) -> None:
        self.session.keep(vid, array, self.session.decide_source(vid, array))

    def _unexpected(self, array: Any) -> int:
        """An array that no operation made: a constant that the model's code holds, or one of unknown origin."""
        _, address = self._held.get(id(array), (array, find_variable(array, sys._getframe(2))))
        if address is not None:
            return self._pin(array, self._source("const", address, array))
        vid = self._pin(array, self._source("unknown", "", array, row=len(self.session.rows)))
        self._unknown.append(
            f"shape {tuple(self._arrays.meta(array)[0])}, in {self.session.scope.address or 'the model itself'}"
        )
        self._keep_source(vid, array)
        return vid

    def _note_write(self, array: Any, old: int) -> None:
        """The row just appended wrote an array, which was the value ``old`` before."""
        pairs = [(old, self._vids[id(array)])]
        buffer = self._buffers.get(id(array))
        if buffer is not None:
            pairs.append((pairs[0][1], self._new_version(buffer, array)))
        self.session.writes[len(self.session.rows) - 1] = tuple(pairs)

    def _new_version(self, before: Source, array: Any) -> int:
        """The next version of a buffer, which ``array`` now holds."""
        session, origin = self.session, self.vid_of(array)
        before.row = len(session.rows) if before.row < 0 else before.row
        vid = session.source(
            "buffer", before.address, self._arrays.meta(array), aliases=before.aliases, version=before.version + 1,
            origin=origin, row=len(session.rows), module=before.module,
        )  # fmt: skip
        self._buffers[id(array)] = session.sources[-1]
        self._pin(array, vid)
        self._keep_source(vid, array)
        return vid

    # -- the ends of a run, and of a module call -------------------------------------------------------------------

    def add_state(self) -> None:
        """Note the parameters and buffers, unread so far."""
        for state in self.session.discovery.state:
            facts = {"aliases": state.aliases, "trainable": state.trainable, "module": state.module, "row": -1}
            vid = self._source("buffer" if state.is_buffer else "param", state.address, state.array, **facts)
            self._pin(state.array, vid)
            if state.is_buffer:
                self._buffers[id(state.array)] = self.session.sources[-1]

    def add_inputs(self, call: Call) -> None:
        """Note the arrays in the arguments. One that is given twice is two inputs, of which readers see the first."""
        names = input_names(self._backend.signature(call.model), len(call.args))
        for name, value in (*zip(names, call.args, strict=True), *call.kwargs.items()):
            for path, array in self._containers.leaves(value):
                vid = self._source("input", f"{name}.{path}" if path else name, array)
                if id(array) not in self._vids:
                    self._pin(array, vid)
                self._keep_source(vid, array)
                self.session.scopes[0].ins += (vid,)

    def leave(self, out: Any) -> Any:
        """Close the innermost scope, which returned ``out``. What it returned unchanged is an Op of its own."""
        session = self.session
        with self._backend.watching(None):
            if self._arrays.is_array(out) and self.vid_of(out) in session.scope.ins:
                out = self.operation(self._backend.identity, (out,), {}, self._alias)
            scope = session.scope
            decisions = session.exit(scope, self._containers.mirror(out, self.vid_of))
            returned = {self._vids[id(array)]: array for _, array in self._containers.leaves(out)}
            changed = {
                id(returned[vid]): self._replace(scope, vid, returned[vid], decision)
                for vid, decision in decisions.items()
                if decision.changes
            }
            out = self._containers.replaced(out, changed)
            scope.outs = self._containers.mirror(out, self.vid_of)
            answers = {
                self._vids[id(changed.get(id(returned[vid]), returned[vid]))]: decisions[vid] for vid in decisions
            }
            self._obey(answers, {self._vids[id(array)]: array for _, array in self._containers.leaves(out)})
        return out

    def _change(self, vid: int, array: Any, decision: Decision, *, is_write: bool) -> Any:
        """What takes the place of a result that nothing has read yet; where it was written, in its own memory."""
        steering = self.session.steering
        whens = steering.forward(vid, decision)
        if not whens:
            return array
        with self._backend.watching(None):
            site = row_site(self.session, len(self.session.rows) - 1, vid, array)
            value = steering.apply(vid, array, whens, site)
        if not steering.replaces(vid, whens):
            return array
        steering.changed(vid, whens)
        if is_write:
            self._arrays.overwrite(array, value)
            return array
        fresh = self._alias(value)
        self._pin(fresh, vid)
        return fresh

    def _replace(self, scope: Scope, vid: int, array: Any, decision: Decision) -> Any:
        """What a module returns in place of an array, which operations inside it may have read."""
        steering = self.session.steering
        whens = steering.forward(vid, decision)
        if not whens:
            return array
        site = self.session.maker(vid, array) or unseen_site(self.session, scope, vid, array)
        value = steering.apply(vid, array, whens, site)
        if not steering.replaces(vid, whens):
            return array
        fresh = self._alias(value)
        self.session.replace(vid, self._assign(fresh), fresh, whens)
        return fresh

    def warn_of_unknown(self) -> None:
        """Give one warning for all arrays of unknown origin."""
        if self._unknown:
            warnings.warn(
                f"{len(self._unknown)} array(s) were made by code that cannot be seen: {'; '.join(self._unknown[:3])}. "
                "They are 'source' Ops; what made them is missing from the graph.",
                CaptureWarning,
                stacklevel=2,
            )

    def _obey(self, decisions: Mapping[int, Decision], arrays: Mapping[int, Any]) -> None:
        for vid, decision in decisions.items():
            self.session.keep(vid, arrays[vid], decision)
        stops = [vid for vid, decision in decisions.items() if decision.stop]
        if stops:
            self.session.halted_vid = stops[0]
            raise Halt

    def _site(self) -> int:
        if "sites" not in self.session.needs:
            return -1
        key, calls = self._backend.sites.chain(sys._getframe(2))
        return self.session.site(key, lambda: tuple(calls))

    def _alias(self, array: Any) -> Any:
        """Another array of the same value."""
        made = self._backend.identity.func
        assert made is not None
        return made(array)
