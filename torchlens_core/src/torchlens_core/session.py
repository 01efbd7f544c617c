"""The session of one run: what the backend writes down, and where it asks what to do.

The tables are plain lists that the backend appends to; the methods are the slow half of its hot loop. One session
belongs to one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from .backend import Arrays, Discovery
from .diagnosis.watch import Watch
from .gradients.store import GradientStore
from .interventions.steering import Steering
from .interventions.when import When
from .live_site import LiveSite, output_site, row_site, source_site, unseen_site
from .plan import ASK, NOTHING, SAVE, Decision, Plan
from .program import Event, Func, Meta, Output, Outs, Program, Row, Scope, ScopeKind, Source, SourceKind, walk_outs
from .selectors import Selector

if TYPE_CHECKING:
    from .derived.structure import Structure
    from .recording.streaming import Stream

# What ran, beside what modules returned; call sites; what an exact replay needs; names of the kernels below each Op; a
# row for each kernel; durations even where the framework runs behind the program's back; gradients at Ops; the calls
# that a selector may mean (with what modules returned), and nothing else: no arguments, no sources, no graph.
NEEDS: Final = frozenset(
    {"operations", "sites", "replay", "kernels", "kernel rows", "profile", "gradients", "selected"}
)


class Halt(BaseException):
    """Raised by a backend inside the model to stop it, caught by the same backend. No ``except Exception`` sees it."""


class Session:
    """State of one captured run.

    Attributes:
        rows, metas, sources, scopes, sites, events, writes, deps, rng, kernels, batch_dims: the tables of
            :class:`~torchlens_core.program.Program`.
        scope: the innermost open scope.
        values: vid -> what ``arrays.hold`` gave, or a kept result (see ``kept_results``).
        steering: the interventions, and what they have changed.
        gradients: where gradients arrive, where some were asked for.
        watch: looks for NaNs and infinities, where that was asked for.
        needs: what the backend has to produce, of ``NEEDS``.
        repeats: of a backend whose runs are often the same: what was made of the tables of the first one.
        staged: of a backend that stages programs, its own note of the run, for what it does with the whole of it later
            (``Program.staged``). Nobody else looks into it.
    """

    def __init__(
        self, plan: Plan, arrays: Arrays, discovery: Discovery, *, needs: Iterable[str] = ("operations", "sites")
    ) -> None:
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
        self.kept_order: list[int] = []  # vids of what was kept, in that order
        self.kept_results: dict[int, Any] = {}  # results of Keep.transform, dtype, device: no longer the Op's own array
        self.stream: Stream | None = None  # takes what is kept to the disk
        self.candidates: set[int] = set()  # vids that were kept and are decided about after the run
        self.grad_candidates: set[int] = set()  # vids whose gradients are decided about after the run
        self.constants: dict[int, Any] = {}  # closed-over arrays and those of unknown origin, when a replay is wanted
        self.outputs: list[Output] = []
        self.halted_vid = -1
        self.facts: dict[str, Any] = {}
        self.repeats: Repeats | None = None
        self.staged: Any = None
        self._calls: dict[str, int] = {}
        self.addresses = {alias: info.address for info in discovery.infos for alias in info.aliases}  # of aliases
        self.numbers: dict[Selector, Numbering] = {}  # of selectors that are counted
        self._memos: dict[tuple[int, str], dict[Any, Decision]] = {}  # by the addresses of the modules around
        self._no_memo: dict[Any, Decision] = {}  # where every answer is the same
        self._asked_about = {self.addresses.get(name, name) for name in plan.module_names}  # answered when they return
        self.site_ids: dict[Any, int] = {}  # known call sites by key, for a backend's own quick look-up
        self._source_of: dict[int, Source] = {}  # by vid; filled when asked for
        self._num_sources_known = 0
        self._makers: dict[int, int] = {}  # vid -> row, only for selectors that ask for parents
        self.returned: dict[Hashable, list[str]] = {}  # vid -> labels of module calls, for selectors that ask for them
        self._kept_as: dict[int, Decision] = {}  # by vid, where interventions may put another array in its place
        self._waiting: deque[tuple[int, int]] = deque()  # (rows that had run, vid) of candidates for `followed_by`
        self.steering = Steering(arrays, self.rows)
        self.gradients = GradientStore(arrays) if plan.grads else None
        self.default: Decision | None
        if plan.is_simple:
            self.default = SAVE if self._saves_all_plainly() else ASK if plan.saves_everything else NOTHING
        else:
            self.default = None if plan.is_static else ASK
        self.watch = Watch(self, plan.raise_on) if plan.raise_on is not None else None
        if self.watch is not None:
            self.default = ASK
        self.scope = self.enter("module", "", discovery.name, -1)

    def _saves_all_plainly(self) -> bool:
        return self.plan.saves_everything and self.plan.keeps[0].is_plain

    @property
    def _same_for_all(self) -> Decision | None:
        """The answer for everything, where there is one."""
        return None if self.default is ASK else self.default

    # -- structure -------------------------------------------------------------------------------------------------

    def enter(self, kind: ScopeKind, address: str, cls: str, site: int) -> Scope:
        """Open a scope in the current one."""
        calls = self._calls
        number = calls[address] = calls.get(address, 0) + 1
        scopes = self.scopes
        parent = self.scope if scopes else None
        scope = Scope(len(scopes), kind, address, cls, parent, site, number)
        scope.first_row = len(self.rows)
        scope.memo = self._memo_of(parent, address) if self.default is None else self._no_memo
        scope.start_ns = perf_counter_ns()
        scopes.append(scope)
        self.scope = scope
        return scope

    def _memo_of(self, parent: Scope | None, address: str) -> dict[Any, Decision]:
        """A static plan answers alike wherever the addresses around are the same, so that calls share what is known."""
        place = (id(parent.memo) if parent is not None else 0, address)
        memo = self._memos.get(place)
        if memo is None:
            memo = self._memos[place] = {}
        return memo

    def exit(self, scope: Scope, outs: Outs) -> dict[int, Decision]:
        """Close a scope that returned ``outs``. What is still to be done with its arrays, by vid: mostly nothing."""
        scope.outs = outs
        scope.last_row = len(self.rows)
        scope.end_ns = perf_counter_ns()
        self.scope = scope.parent or scope
        is_root = scope.parent is None
        is_asked_about = scope.address in self._asked_about
        if scope.kind != "module" or not (is_root or is_asked_about):
            return {}
        decisions: dict[int, list[Decision]] = {}
        for position, vid in enumerate(vid for vid, _ in walk_outs(outs) if vid is not None):
            asked = decisions.setdefault(vid, [])
            if is_asked_about:
                self.returned.setdefault(self.steering.made_as(vid), []).append(scope.call_label)
                asked.append(self.plan.decide(self.maker(vid) or unseen_site(self, scope, vid)))
            if is_root:
                known = self._same_for_all
                asked.append(known if known is not None else self.plan.decide(output_site(self, position, vid)))
        joined = {vid: self._joined(vid, asked) for vid, asked in decisions.items()}
        return {vid: decision for vid, decision in joined.items() if not decision.is_idle}

    def _joined(self, vid: int, decisions: Iterable[Decision]) -> Decision:
        """One decision for an array that was asked about in several roles; one that is kept already stays."""
        kept = vid in self.values or vid in self.kept_results or (self.stream is not None and vid in self.stream)
        keeping = next((each for each in decisions if each.keep is not None and not kept), NOTHING)
        watching = next((each for each in decisions if each.grad is not None), NOTHING)
        acting = {when for decision in decisions for when in decision.changes}
        return Decision(
            keeping.keep,
            is_candidate=keeping.is_candidate,
            stop=any(decision.stop for decision in decisions),
            changes=tuple(when for when in self.plan.whens if when in acting),
            grad=watching.grad,
            is_grad_candidate=watching.is_grad_candidate,
        )

    def abandon(self, scope: Scope) -> None:
        """Close a scope that raised; one that is closed stays as it is."""
        if not scope.end_ns:
            self.exit(scope, None)

    def source(self, kind: SourceKind, address: str, meta: Meta, **facts: Any) -> int:
        """Note an array that no row made; returns its vid."""
        vid = len(self.metas)
        self.metas.append(meta)
        self.sources.append(Source(kind, address, vid, **facts))
        return vid

    def site(self, key: Any, calls: Callable[[], tuple[Any, ...]]) -> int:
        """The number of a call site, by a hashable key; ``calls`` gives its payload the first time."""
        number = self.site_ids.get(key)
        if number is None:
            number = self.site_ids[key] = len(self.sites)
            self.sites.append(calls())
        return number

    def note(self, kind: str, vid: int, value: Any, site: int) -> None:
        """An array was read as a Python value."""
        self.events.append(Event(kind, vid, value, self.scope, site, len(self.rows)))

    # -- decisions -------------------------------------------------------------------------------------------------

    def decide(self, func: Func, scope: Scope) -> Decision:
        """The answer for all calls of a function in a scope; ``slow``: each has to be asked about (``decide_op``)."""
        decision = self.default
        if decision is None:
            decision = self.plan.decide(LiveSite(self, func, scope))
        scope.memo[func] = decision
        return decision

    def decide_op(self, vid: int, array: Any) -> Decision:
        """The answer for one array that a row just returned; the row has been appended."""
        if self.watch is not None:
            self.watch.look(vid, array)
        if "parents" in self.plan.reads:
            self._makers[vid] = len(self.rows) - 1
        return self.plan.decide(row_site(self, len(self.rows) - 1, vid, array))

    def decide_source(self, vid: int, array: Any) -> Decision:
        """The answer for an input, a buffer or an array of unknown origin. Interventions do not act on these."""
        if self.watch is not None:
            self.watch.look(vid, array, is_buffer=self._sources_by_vid[vid].kind == "buffer")
        if "selected" in self.needs:  # only what operations and modules give is meant
            return NOTHING
        known = self._same_for_all
        if known is not None:
            return known
        return self.plan.decide(source_site(self, self._sources_by_vid[vid], array))

    @property
    def _sources_by_vid(self) -> dict[int, Source]:
        new = self.sources[self._num_sources_known :]
        self._source_of.update((source.vid, source) for source in new)
        self._num_sources_known = len(self.sources)
        return self._source_of

    def number(self, selector: Selector, site: LiveSite) -> int | None:
        """Which match of a selector a site is, from 1; 0 where it is none, None where that is not known yet."""
        numbering = self.numbers.setdefault(selector, Numbering())
        if site.key not in numbering.of:
            numbering.add(site.key, selector.matches(site))
        return numbering.of[site.key]

    def maker(self, vid: int, array: Any = None) -> LiveSite | None:
        """The site that made an array, for selectors that ask for parents or for what a module returned.

        ``array`` is its value, where it is at hand. None for parameters and constants, which are no Ops.
        """
        vid = self.steering.made_as(vid)
        source = self._sources_by_vid.get(vid)
        if source is not None:
            return source_site(self, source, array) if source.kind in ("input", "buffer", "unknown") else None
        index = self._makers[vid] if vid in self._makers else self._find_maker(vid)
        return None if index is None else row_site(self, index, vid, array)

    def returned_by(self, key: Hashable) -> list[str]:
        """Labels of the module calls that have returned the array of a site so far, inner before outer."""
        return self.returned.get(key, [])

    def replace(self, old: int, new: int, array: Any, whens: list[When]) -> None:
        """A module returned the array ``new`` in place of ``old``; its value is kept where that of the old one was."""
        self.steering.replaced(old, new, whens)
        kept = self._kept_as.pop(old, SAVE if old in self.values else None)
        if kept is not None:
            self.drop(old)
            self.keep(new, array, kept)

    def _find_maker(self, vid: int) -> int | None:
        """Looked for backwards: what a module returns was mostly made just before."""
        for index in range(len(self.rows) - 1, -1, -1):
            outs = self.rows[index][4]
            if outs == vid or (isinstance(outs, tuple) and any(made == vid for made, _ in walk_outs(outs))):
                return index
        return None

    def first_output(self, row: int) -> int:
        """The vid of the first array that a row returned."""
        return next(vid for vid, _ in walk_outs(self.rows[row][4]) if vid is not None)

    # -- values ----------------------------------------------------------------------------------------------------

    def keep(self, vid: int, array: Any, decision: Decision) -> None:
        """Keep the value of one array as the decision says."""
        keep = decision.keep
        if keep is None:
            return
        if self.plan.whens:
            self._kept_as[vid] = decision
        if self.stream is not None and not decision.is_candidate:
            self.stream.keep(vid, array, keep)
            if not self.stream.storage.retain_in_memory:
                return
        if keep.is_own:
            self.values[vid] = self.arrays.hold(array if self.stream is None else self.arrays.copy(array))
        else:
            self.kept_results[vid] = keep.result(array, self.arrays)
        self.kept_order.append(vid)
        if decision.is_candidate:
            self.candidates.add(vid)
            if self.plan.lookback is not None and keep.waits_for_children:
                self._waiting.append((len(self.rows), vid))
                self._forget_unfollowed(self.plan.lookback)

    def _forget_unfollowed(self, lookback: int) -> None:
        """Drop the candidates that none of the ``lookback`` calls after them took."""
        while self._waiting and self._waiting[0][0] + lookback <= len(self.rows):
            start, vid = self._waiting.popleft()
            if not any(vid in row[3] for row in self.rows[start : start + lookback]):
                self.drop(vid)

    def drop(self, vid: int) -> None:
        """Let a candidate go."""
        self.candidates.discard(vid)
        if self.stream is not None:
            self.stream.drop(vid)
        self.values.pop(vid, None)
        self.kept_results.pop(vid, None)


@dataclass(slots=True)
class Repeats:
    """Program and structures of a run whose tables those of later runs are: a backend keeps it beside them."""

    program: Program | None = None
    structures: dict[tuple[bool, bool], Structure] = field(default_factory=dict)


class Numbering:
    """Numbers the matches of one selector in the order in which they are asked about.

    Attributes:
        of: key of a site -> its number, 0 where it does not match, None where that is not known yet.
        count: how many have matched; None where that is not known.
    """

    def __init__(self) -> None:
        self.of: dict[Hashable, int | None] = {}
        self.count: int | None = 0

    @property
    def is_complete(self) -> bool:
        """Whether all sites so far could be told."""
        return self.count is not None

    def add(self, key: Hashable, matched: bool | None) -> None:
        """Note whether the next site matches. After one that cannot tell yet no number is known."""
        if matched is None:
            self.count = None
        elif matched and self.count is not None:
            self.count += 1
        self.of[key] = 0 if matched is False else self.count
