"""The session of one run: what the backend writes down, and where it asks what to do.

The tables are plain lists that the backend appends to; the methods are the slow half of its hot loop. One session belongs
to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import Any, Final

from .backend import Arrays, Discovery
from .plan import ASK, NOTHING, SAVE, Decision, Keep, Plan
from .program import Event, Func, Meta, Output, Outs, Row, Scope, ScopeKind, Source, SourceKind, walk_outs
from .selectors import NotYetKnown

NEEDS: Final = frozenset(
    {"sites", "replay", "kernels"}
)  # call sites; what an exact replay needs; kernels below each op


class Halt(BaseException):
    """Raised by a backend inside the model to stop it, caught by the same backend. No ``except Exception`` sees it."""


class Session:
    """State of one captured run.

    Attributes:
        rows, metas, sources, scopes, sites, events, writes, deps, rng, kernels, batch_dims: the tables of
            :class:`~torchlens_core.program.Program`.
        scope: the innermost open scope.
        values: vid -> what ``arrays.hold`` gave, or a kept result (see ``kept_results``).
        needs: what the backend has to produce, of ``NEEDS``.
    """

    def __init__(self, plan: Plan, arrays: Arrays, discovery: Discovery, *, needs: Iterable[str] = ("sites",)) -> None:
        self.plan = plan
        self.arrays = arrays
        self.discovery = discovery
        self.needs = frozenset(needs)
        self.rows: list[Row] = []
        self.metas: list[Meta] = []
        self.sources: list[Source] = []
        self.scopes: list[Scope] = []
        self.sites: list[tuple[Any, ...]] = []
        self.events: list[Event] = []
        self.writes: dict[int, tuple[tuple[int, int], ...]] = {}
        self.deps: dict[int, tuple[tuple[int, int], ...]] = {}
        self.rng: dict[int, Any] = {}
        self.kernels: dict[int, tuple[str, ...]] = {}
        self.batch_dims: dict[int, tuple[int, ...]] = {}
        self.values: dict[int, Any] = {}
        self.kept_order: list[int] = []  # vids of `values` in the order in which they were kept
        self.kept_results: dict[int, Any] = {}  # results of Keep.transform, dtype, device: no longer the Op's own array
        self.candidates: dict[int, int] = {}  # vid -> number of rows when it was kept; decided after the run
        self.constants: dict[int, Any] = {}  # closed-over arrays and those of unknown origin, when a replay is wanted
        self.outputs: list[Output] = []
        self.halted_vid = -1
        self.facts: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self._memos: dict[str, dict[Any, Decision]] = {}  # by address: a static plan answers alike in all calls of a module
        self._site_ids: dict[Any, int] = {}
        self._counts: dict[Any, set[int]] = {}
        self._makers: dict[int, int] = {}  # vid -> row or ~source, only for selectors that ask for parents
        self.tracks_makers = "parents" in self.plan.reads
        if plan.selectors:
            self.default = None if plan.is_static else ASK
        else:
            self.default = SAVE if self._saves_all_plainly() else ASK if plan.saves_everything else NOTHING
        self.scope = self.enter("module", "", discovery.name, -1)

    def _saves_all_plainly(self) -> bool:
        return self.plan.saves_everything and self.plan.keeps[0].is_plain

    # -- structure -------------------------------------------------------------------------------------------------

    def enter(self, kind: ScopeKind, address: str, cls: str, site: int) -> Scope:
        """Open a scope in the current one."""
        calls = self._calls
        number = calls[address] = calls.get(address, 0) + 1
        scopes = self.scopes
        parent = self.scope if scopes else None
        scope = Scope(len(scopes), kind, address, cls, parent, site, number)
        scope.first_row = len(self.rows)
        memo = self._memos.get(address)
        if memo is None:
            memo = self._memos[address] = {}
        scope.memo = memo
        scope.start_ns = perf_counter_ns()
        scopes.append(scope)
        self.scope = scope
        return scope

    def exit(self, scope: Scope, outs: Outs) -> Decision:
        """Close a scope that returned ``outs``. With ``decision.keep`` its arrays are to be kept (``keep_output``)."""
        scope.outs = outs
        scope.last_row = len(self.rows)
        scope.end_ns = perf_counter_ns()
        self.scope = scope.parent or scope
        if not self.plan.asks_modules or scope.kind != "module":
            return NOTHING
        for vid, _ in walk_outs(outs):
            if vid is not None:
                decision = self.plan.decide(ReturnedSite(self, vid, scope))
                if decision.keep is not None or decision.stop:
                    return decision
        return NOTHING

    def abandon(self, scope: Scope) -> None:
        """Close a scope that raised."""
        self.exit(scope, None)

    def source(self, kind: SourceKind, address: str, meta: Meta, **facts: Any) -> int:
        """Note an array that no row made; returns its vid."""
        vid = len(self.metas)
        self.metas.append(meta)
        self.sources.append(Source(kind, address, vid, **facts))
        if self.tracks_makers:
            self._makers[vid] = ~(len(self.sources) - 1)
        return vid

    def index_sources(self) -> None:
        """To be called when a backend has appended to ``sources`` and ``metas`` itself, in bulk."""
        if self.tracks_makers:
            self._makers.update((source.vid, ~index) for index, source in enumerate(self.sources))

    def site(self, key: Any, calls: Callable[[], tuple[Any, ...]]) -> int:
        """The number of a call site, by a hashable key; ``calls`` gives its payload the first time."""
        number = self._site_ids.get(key)
        if number is None:
            number = self._site_ids[key] = len(self.sites)
            self.sites.append(calls())
        return number

    @property
    def site_ids(self) -> Mapping[Any, int]:
        """Known call sites by key, for a backend's own quick look-up."""
        return self._site_ids

    def note(self, kind: str, vid: int, value: Any, site: int) -> None:
        """An array was read as a Python value."""
        self.events.append(Event(kind, vid, value, self.scope, site, len(self.rows)))

    # -- decisions -------------------------------------------------------------------------------------------------

    def decide(self, func: Func, scope: Scope) -> Decision:
        """The answer for all calls of a function in a scope; ``slow`` says that each has to be asked (``decide_op``)."""
        decision = self.default
        if decision is None:
            decision = self.plan.decide(LiveSite(self, func, scope, len(self.rows)))
        scope.memo[func] = decision
        return decision

    def decide_op(self, row: Row, vid: int, output: int, is_multi: bool, array: Any) -> Decision:
        """The answer for one array that a row just returned; the row has been appended."""
        if self.tracks_makers:
            self._makers[vid] = len(self.rows) - 1
        site = LiveSite(self, row[0], row[5], len(self.rows) - 1, row=row, vid=vid, array=array)
        site.output_index = output
        site.in_multi_output = is_multi
        return self.plan.decide(site)

    def decide_source(self, vid: int, array: Any) -> Decision:
        """The answer for an input, a buffer or an array of unknown origin."""
        if self.default is not None and self.default is not ASK:
            return self.default
        kind = self.sources[~self._makers[vid]].kind if self.tracks_makers else self.sources[-1].kind
        func = Func(None, kind, "source" if kind == "unknown" else kind)
        return self.plan.decide(LiveSite(self, func, self.scopes[0], len(self.rows), vid=vid, array=array))

    # -- values ----------------------------------------------------------------------------------------------------

    def keep(self, vid: int, array: Any, decision: Decision) -> None:
        """Keep the value of one array as the decision says."""
        keep = decision.keep
        if keep is None:
            return
        if keep.is_plain:
            self.values[vid] = self.arrays.hold(array)
            self.kept_order.append(vid)
        else:
            self.kept_results[vid] = self._result(keep, array)
        if decision.is_candidate:
            self.candidates[vid] = len(self.rows)
            if self.plan.lookback is not None:
                self._forget_old_candidates(self.plan.lookback)

    def _result(self, keep: Keep, array: Any) -> Any:
        arrays = self.arrays
        result = arrays.detach(array)
        if keep.transform is not None:
            result = keep.transform(result)
        if not arrays.is_array(result):
            return result
        cast = arrays.cast(result, keep.dtype, keep.device)
        return arrays.copy(cast) if cast is result else cast

    def _forget_old_candidates(self, lookback: int) -> None:
        oldest = len(self.rows) - lookback
        for vid in [vid for vid, row in self.candidates.items() if row < oldest]:
            if not self._has_follower(vid):
                del self.candidates[vid]
                self.values.pop(vid, None)
                self.kept_results.pop(vid, None)

    def _has_follower(self, vid: int) -> bool:
        """Whether one of the recent rows took the candidate's array, so that it may be one after all."""
        return any(vid in row[3] for row in self.rows[self.candidates[vid] :])

    def count(self, selector: Any, key: int) -> int:
        """Which match of a selector this is, from 1."""
        seen = self._counts.setdefault(selector, set())
        seen.add(key)
        return len(seen)

    def maker(self, vid: int) -> LiveSite | None:
        """The site that made an array, for selectors that ask for parents or for what a module returned."""
        index = self._makers.get(vid) if self.tracks_makers else self._find_maker(vid)
        if index is None:
            return None
        if index < 0:
            kind = self.sources[~index].kind
            func = Func(None, kind, "source" if kind == "unknown" else kind)
            return LiveSite(self, func, self.scopes[0], 0, vid=vid)
        row = self.rows[index]
        return LiveSite(self, row[0], row[5], index, row=row, vid=vid)

    def _find_maker(self, vid: int) -> int | None:
        """Looked for backwards: what a module returns was mostly made just before."""
        for index in range(len(self.rows) - 1, -1, -1):
            outs = self.rows[index][4]
            if outs == vid or (isinstance(outs, tuple) and any(made == vid for made, _ in walk_outs(outs))):
                return index
        return next((~index for index, source in enumerate(self.sources) if source.vid == vid), None)


class LiveSite:
    """An Op while the model runs: what a selector can ask of it. Attributes have the names that an Op's have."""

    is_live: Final = True
    label: Final = None
    layer_label: Final = None

    def __init__(
        self,
        session: Session,
        func: Func,
        scope: Scope,
        index: int,
        *,
        row: Row | None = None,
        vid: int = -1,
        array: Any = None,
    ) -> None:
        self._session = session
        self._row = row
        self._vid = vid
        self._array = array
        self._index = index
        self._scope = scope
        self.func_name = func.name
        self.type = func.type
        self.output_index = 0
        self.in_multi_output = False
        self.output_name: str | None = None
        self.output_of_module_calls: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Labels of the module calls around it, outermost first."""
        return module_calls(self._scope)

    @property
    def module(self) -> str | None:
        modules = self.modules
        return modules[-1] if modules else None

    @property
    def out(self) -> Any:
        """The value, in the framework's own type."""
        if self._array is None:
            raise NotYetKnown("out")
        return self._array

    @property
    def _meta(self) -> Meta:
        if self._vid < 0:
            raise NotYetKnown("shape")
        return self._session.metas[self._vid]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._meta[0])

    @property
    def dtype(self) -> Any:
        return self._meta[1]

    @property
    def device(self) -> Any:
        return self._meta[2]

    def parent_sites(self) -> Iterable[LiveSite]:
        makers = (self._session.maker(vid) for vid in (self._row[3] if self._row is not None else ()))
        return (site for site in makers if site is not None)

    def count(self, selector: Any, matched: bool) -> int:
        """Which match of a counting selector this is."""
        return self._session.count(selector, self._vid)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotYetKnown(name)


class ReturnedSite(LiveSite):
    """An Op whose array a module just returned."""

    def __init__(self, session: Session, vid: int, scope: Scope) -> None:
        made_by = session.maker(vid)
        func = Func(None, made_by.func_name if made_by else "unknown", made_by.type if made_by else "unknown")
        super().__init__(session, func, made_by._scope if made_by else scope, made_by._index if made_by else 0,
                         row=made_by._row if made_by else None, vid=vid)  # fmt: skip
        self.output_of_module_calls = (scope.call_label,)


def module_calls(scope: Scope | None) -> tuple[str, ...]:
    """Labels of the module calls from the model (left out) down to a scope."""
    labels: list[str] = []
    while scope is not None and scope.parent is not None:
        if scope.kind == "module":
            labels.append(scope.call_label)
        scope = scope.parent
    return tuple(reversed(labels))
