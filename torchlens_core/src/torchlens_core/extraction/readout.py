"""The activations of one run: the only place where extraction runs the model.

Two ways, chosen once. Where every layer is a module, only module calls are watched, and the run stops as soon as the
last of them has returned. Labels and selectors need the graph: it is recorded for each run, so that what a label means
is found out each time, and not taken over from another run. What the first run taught is where to look: of a label only
the Ops of the same function in the same module are kept until the run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import Backend, Call, Discovery
from ..derived.frames import Frame
from ..errors import ExtractionError, LabelError, SelectorError, nearest
from ..plan import Keep, Plan
from ..program import Scope, walk_outs
from ..records.layer import Layer
from ..records.op import Op
from ..records.trace import Trace
from ..selectors import Selector, module, module_named
from ..session import Session
from ..tracing import names_of, run
from .layers import Wanted
from .training import warn_of_training


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model a layer is.

    Attributes:
        label: of the Op, or of the module call.
        what: tells the operation that a label or a selector stands for from others; '' for a module, which is itself
            whatever its last operation is.
    """

    label: str
    what: str


Finish = Callable[[Any], Any]  # an activation -> what is given back of it; it may share the activation's memory


class Readout:
    """Reads the wanted activations of one call after another.

    Args:
        backend: of the model.
        layers: what is wanted.
        finish: applied to each activation, cut from its tape.
        warns: whether to warn, at the first call, where activations depend on more than the input.

    Attributes:
        places: name in the result -> where that was in the first call.
    """

    def __init__(self, backend: Backend, layers: Sequence[Wanted], finish: Finish, *, warns: bool = False) -> None:
        self._backend = backend
        self._layers = layers
        self._finish = finish
        self._warns = warns
        self._last_call: str | None = None  # of those wanted: where the next run can stop
        self._targets: dict[str | Selector, Selector] = {}  # label asked for -> where its Op is looked for
        self.places: dict[str, Place] = {}

    def read(self, call: Call) -> dict[str, Any]:
        """Run the model once. Arrays in memory of their own, by name, in the order in which they were asked for.

        Raises:
            SelectorError, LabelError: the model has no such layer, or the layer is not one array.
            ExtractionError: a label stands for another operation than in the first call.
        """
        discovery = self._backend.discover(call)
        plan = Plan([self._targets.get(each.target, each.target) for each in self._layers])
        plan.bind(names_of(self._backend, discovery))
        by_modules = plan.only_modules() is not None and all(each.key is not None for each in self._layers)
        if by_modules:
            if self._warns and any(info.training for info, _ in discovery.modules):
                warn_of_training(self._survey(call, discovery))
            self._warns = False
            return self._of_modules(call, discovery, [keep.selector for keep in plan.keeps])
        trace, _ = run(self._backend, call, plan, {"operations", "sites"}, discovery=discovery)
        if self._warns:
            warn_of_training(trace)
        self._warns = False
        return self._of_trace(trace)

    def _survey(self, call: Call, discovery: Discovery) -> Trace:
        """The graph, which module calls alone do not tell, from a run that leaves the model as it was."""
        with self._backend.preserve(call, discovery):
            return run(self._backend, call, Plan(False), {"operations", "sites"})[0]

    # -- modules alone ---------------------------------------------------------------------------------------------

    def _of_modules(self, call: Call, discovery: Discovery, selectors: Sequence[Any]) -> dict[str, Any]:
        values = self._run_modules(call, discovery, selectors, self._last_call)
        if len(values) < len(selectors) and self._last_call is not None:
            values = self._run_modules(call, discovery, selectors, None)  # they returned in another order this time
        for each in self._layers:
            if each.key not in values:
                raise _nothing(each)
        return values

    def _run_modules(
        self, call: Call, discovery: Discovery, selectors: Sequence[Any], stop: str | None
    ) -> dict[str, Any]:
        """What the modules returned; not all of them where the call ``stop`` returned before another."""
        keeps = [Keep(selector, transform=self._finish) for selector in selectors]
        plan = Plan(keeps, None if stop is None else module(stop))
        plan.bind(names_of(self._backend, discovery))
        session = Session(plan, self._backend.arrays, discovery, needs=())
        self._backend.capture(call, session)
        values: dict[str, Any] = {}
        last: Scope | None = None
        for each, selector in zip(self._layers, selectors, strict=True):
            scopes = _calls(session, selector)
            found = [(scope, vid) for scope in scopes for vid, _ in walk_outs(scope.outs) if vid is not None]
            if len(found) > 1:
                raise _not_one(each, [scope.call_label for scope, _ in found])
            if found:
                values[str(each.key)] = session.kept_results[found[0][1]]
                self.places.setdefault(str(each.key), Place(scopes[0].call_label, ""))
                last = scopes[0] if last is None or scopes[0].end_ns > last.end_ns else last
        is_model = last is not None and last.parent is None
        self._last_call = last.call_label if last is not None and not is_model and stop is None else stop
        return values

    # -- labels and selectors --------------------------------------------------------------------------------------

    def _of_trace(self, trace: Trace) -> dict[str, Any]:
        found = [(each, key, op) for each in self._layers for key, op in _find(trace, each)]
        ops = {key: op for _, key, op in found}
        places = {key: Place(op.label, _what(trace, each, op)) for each, key, op in found}
        if not self.places:
            self.places = places
        if list(places) != list(self.places):
            raise ExtractionError(
                f"The selectors match other operations than in the first run: {_difference(ops, self.places)}. "
                "Name the layers, or select what runs for every stimulus."
            )
        for key, place in places.items():
            if place.what != self.places[key].what:
                raise ExtractionError(
                    f"{key!r} is another operation than in the first run: it was {self.places[key].what}, and is "
                    f"{place.what}. The model's path depends on its input; name modules instead of labels, or the "
                    "passes that run for every stimulus."
                )
        if not self._targets:
            self._targets = {
                each.target: _SamePlace(ops[each.key].func_name, _address(ops[each.key].modules))
                for each in self._layers
                if isinstance(each.target, str) and each.key is not None and _is_label(each.target, ops[each.key])
            }
        return {key: self._own(op.out) for key, op in ops.items()}

    def _own(self, array: Any) -> Any:
        arrays = self._backend.arrays
        detached = arrays.detach(array)
        made = self._finish(detached)
        return arrays.copy(made) if made is detached else made


@dataclass(frozen=True)
class _SamePlace(Selector):
    """The Ops among which the one of a label is: those of its function in its module."""

    func_name: str
    address: str  # of the innermost module, '' for the model

    reads = frozenset({"func", "scope"})

    def matches(self, site: Any) -> bool | None:
        return (site.func_name, _address(site.modules)) == (self.func_name, self.address)


def _is_label(name: str, op: Op) -> bool:
    """Whether a name is a label of an Op that a function made, and not the address of a module."""
    return op.func_call_id is not None and name in (op.label, op.layer_label, op.label_short, op.layer_label_short)


def _address(modules: Sequence[str]) -> str:
    return modules[-1].rpartition(":")[0] if modules else ""


def _calls(session: Session, selector: Any) -> list[Scope]:
    """The calls of the module that a selector names, all of them or the one of its number."""
    name = module_named(selector)
    assert name is not None
    address, number = session.addresses.get(name, name), selector.address.partition(":")[2]
    return [
        scope
        for scope in session.scopes
        if scope.kind == "module" and scope.address == address and number in ("", str(scope.call_index))
    ]


def _find(trace: Trace, each: Wanted) -> list[tuple[str, Op]]:
    """The Ops that are meant, with their names in the result."""
    if not isinstance(each.target, str):
        found = trace.find_sites(each.target).assert_some()
        if each.key is None:
            return list(zip(found.labels(), found, strict=True))
        if len(found) > 1:
            raise _not_one(each, found.labels())
        return [(each.key, found[0])]
    assert each.key is not None
    found_by_name = trace.lookup.by_name(each.target)
    if isinstance(found_by_name, Op):
        if each.target in trace.lookup.keys_of(found_by_name):
            return [(each.key, found_by_name)]
        raise LabelError(
            f"Nothing here is called {each.target!r}.{nearest(each.target, trace.lookup.names())} "
            "tl.sites(model, x) lists what could be asked for."
        )
    labels = trace.find_sites(each.target).labels()
    if isinstance(found_by_name, Layer) or labels:
        raise _not_one(each, labels)
    raise _nothing(each)


def _nothing(each: Wanted) -> SelectorError:
    return SelectorError(
        f"{each.target!r} returned no array in this run: the module was not called, or it returns something else. "
        "tl.sites(model, x) lists what could be asked for."
    )


def _not_one(each: Wanted, labels: Sequence[str]) -> SelectorError:
    shown = ", ".join(map(repr, labels[:8])) + (", ..." if len(labels) > 8 else "")
    return SelectorError(
        f"{each.target!r} stands for {len(labels)} arrays: {shown}. Ask for those you want, one by one, or for all by "
        "a selector (tl.module(...), tl.func(...)) in a list of layers."
    )


def _what(trace: Trace, each: Wanted, op: Op) -> str:
    """What tells an operation from others: its type, the module calls around it, the place in the code it came from."""
    if op.func_call_id is None:
        return op.type
    target = each.target
    if not _is_label(target, op) if isinstance(target, str) else module_named(target) is not None:
        return ""
    site = trace.program.rows[op.func_call_id].site
    calls = trace.program.sites[site] if site >= 0 else ()
    code = " < ".join(f"{call[0].co_qualname}+{call[1]}" for call in calls if not isinstance(call, Frame))
    return f"{op.type} in {' > '.join(op.modules) or 'the model'} from {code}"


def _difference(now: dict[str, Op], before: dict[str, Any]) -> str:
    missing, new = [key for key in before if key not in now], [key for key in now if key not in before]
    parts = [f"{what} {', '.join(map(repr, keys[:4]))}" for what, keys in (("without", missing), ("with", new)) if keys]
    return " and ".join(parts) or "in another order"
