"""The runs of one recorder: a session for each call of the model, and a recording made of it when it has returned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from ..backend import Arrays, Backend, Call, Discovery
from ..errors import SelectorError, ValueOverwritten
from ..live_site import module_calls
from ..plan import Keep, Plan
from ..program import Meta, Scope, walk_outs
from ..session import Session
from ..values import LiveValues, Values
from .activation import Site
from .origin import Origin, Repeatable
from .recording import Recording

if TYPE_CHECKING:
    from .streaming import Stream


class Steps:
    """Asked by a backend for a session when the model is called, and told when it has returned.

    Attributes:
        count: how many calls of the model have ended.
    """

    def __init__(
        self,
        backend: Backend,
        discovery: Discovery,
        plan: Plan,
        done: Callable[[Recording], None],
        *,
        detach: bool = True,
        repeatable: Repeatable | None = None,
        stream: Stream | None = None,
    ) -> None:
        self.count = 0
        self.acted: set[Any] = set()  # the interventions that have acted in some step
        self._backend = backend
        self._discovery = discovery
        self._plan = plan
        self._done = done
        self._detach = detach
        self._repeatable = repeatable
        self._stream = stream
        self._origin: Origin | None = None
        self._started = (0.0, 0)

    @property
    def streams(self) -> bool:
        """Whether values go to the disk as they are kept, so that nothing can overwrite them."""
        return self._stream is not None

    def begin(self, call: Call) -> Session:
        """The session of a call that is about to run."""
        self._origin = self._repeatable.origin(call) if self._repeatable is not None else None
        self._started = time.time(), perf_counter_ns()
        session = Session(self._plan, self._backend.arrays, self._discovery, needs={"selected"})
        session.stream = self._stream
        if self._stream is not None:
            self._stream.step = self.count
        return session

    def end(self, session: Session, output: Any = None, error: BaseException | None = None) -> Recording:
        """The call has returned, was stopped, or has raised."""
        started, start_ns = self._started
        end_ns = perf_counter_ns()
        facts: dict[str, Any] = {
            "start_time": started,
            "end_time": started + (end_ns - start_ns) / 1e9,
            "n_ops": len(session.rows),
        }
        if session.halted_vid >= 0:
            facts["halted"] = session.halted_vid
        if error is not None:
            facts["error"] = f"{type(error).__name__}: {error}"
        else:
            _settle(session)
        for change in session.steering.changes:
            self.acted.update(change.whens)
        made = self._recording(session, facts, start_ns)
        if self._origin is not None:
            self._origin.ran(output)
        self._origin = None
        self.count += 1
        self._done(made)
        return made

    def _recording(self, session: Session, facts: Mapping[str, Any], start_ns: int) -> Recording:
        arrays, plan = self._backend.arrays, self._plan
        rows, scopes, metas = session.rows, session.scopes, session.metas
        stream = self._stream
        if stream is not None:
            for vid in (vid for vid in (*session.values, *session.kept_results) if vid not in stream):
                _write_late(stream, session, vid)
        order = dict.fromkeys(vid for vid in session.kept_order if vid in session.values or vid in session.kept_results)
        values = session.values
        if self._detach:
            values = {vid: _cut(arrays, held) for vid, held in values.items()}
        kept: Values = LiveValues(arrays, values, session.kept_results, session.steering.clean)
        if stream is not None and not stream.storage.retain_in_memory:
            from .streaming import StreamedValues

            order = dict.fromkeys(stream.kept(self.count))
            kept = StreamedValues(stream, self.count, order, kept)
        returned, made_as = session.returned, session.steering.made_as
        return Recording(
            session.discovery.name,
            self._backend.name,
            lambda: _sites(order, rows, scopes, metas, lambda vid: returned.get(made_as(vid), []), start_ns),
            kept,
            facts,
            step=self.count,
            dtype_name=arrays.dtype_name,
            selectors=", ".join(repr(selector) for selector in plan.selectors),
            origin=self._origin,
        )


def _cut(arrays: Arrays, held: Any) -> Any:
    """What is held, cut from the gradient tape. What has been overwritten says so when it is asked for."""
    try:
        return arrays.detach_held(held)
    except ValueOverwritten:
        return held


def _write_late(stream: Stream, session: Session, vid: int) -> None:
    """Write what was kept in memory until it was known whether it is wanted."""
    if vid in session.kept_results:
        stream.keep(vid, session.kept_results[vid], Keep(transform=lambda value: value))
    else:
        stream.keep(vid, session.arrays.release(session.values[vid]), Keep())


def _settle(session: Session) -> None:
    """Decide about what was kept until more is known. What not even the end of the run tells is an error."""
    for vid in list(session.candidates):
        held = session.values.get(vid)
        site = session.maker(vid, None if held is None else session.arrays.release(held))
        if site is not None and session.plan.decide(site).is_candidate and "output_of" not in session.plan.reads:
            raise SelectorError(
                f"{', '.join(map(repr, session.plan.selectors))} asks for what only the graph of a finished run knows "
                "(labels, parents, children ...), and a recording has none: tl.trace(model, x, save=...) records the "
                "graph. While the model runs there are: type, func_name, output_index, modules, module, out, shape, "
                "dtype, device."
            )
        if site is None or session.plan.decide(site).keep is None or session.plan.decide(site).is_candidate:
            session.drop(vid)


def _sites(
    order: Iterable[int],
    rows: list[Any],
    scopes: list[Scope],
    metas: list[Any],
    returned_by: Callable[[int], list[str]],
    start_ns: int,
) -> list[Site]:
    made: dict[int, tuple[Any, int]] = {}
    for row in rows:
        made.update((vid, (row, index)) for index, (vid, _) in enumerate(walk_outs(row[4])) if vid is not None)
    left: dict[int, Scope] = {}
    for scope in scopes:
        left.update((vid, scope) for vid, _ in walk_outs(scope.outs) if vid is not None)
    sites = []
    for vid in order:
        meta = Meta._make(metas[vid])
        labels = tuple(returned_by(vid))
        row, index = made.get(vid, (None, 0))
        if row is not None:
            func, scope, when = row[0], row[5], row[7]
        else:
            func, scope = None, left.get(vid, scopes[0])
            when = scope.end_ns
        sites.append(
            Site(
                vid,
                func.type if func is not None else "module",
                func.name if func is not None else "",
                index,
                tuple(module_calls(scope)),
                labels,
                tuple(meta.shape),
                meta.dtype,
                meta.device,
                when - start_ns if when else None,
            )
        )
    return sites
