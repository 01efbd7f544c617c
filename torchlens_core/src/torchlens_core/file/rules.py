"""What types cannot say of records: that they agree with each other. A table of rules, each with its name.

``load`` stops at the first breach, ``verify`` lists them, and ``save`` holds what it is about to write against the same
table, so that no file is written that cannot be read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from ..errors import GraphError
from .gradients import gradient_breaches
from .schema import Records
from .text import is_forbidden_key, name_problem, path_problem

Breach = tuple[str, str]  # path in the records, what is there
Check = Callable[[Records], Iterable[Breach]]

_MOST: Final = 20  # breaches of one rule that are listed


class Rule(NamedTuple):
    """One rule of the format."""

    id: str
    says: str
    check: Check


def breaches(records: Records, where: str) -> Iterator[GraphError]:
    """Every breach of every rule; where references lead nowhere, those alone."""
    for rule in RULES:
        found = list(islice(rule.check(records), _MOST))
        yield from (GraphError(f"rule {rule.id}: {rule.says}; {what}.", f"{where} {path}") for path, what in found)
        if found and rule in _REFERENCES:
            return


# -- references --------------------------------------------------------------------------------------------------------


def _outs(outs: Any) -> Iterator[Any]:
    """The leaves of what a call or module returned."""
    if isinstance(outs, list):
        for item in outs:
            yield from _outs(item)
    elif outs is not None:
        yield outs


def _out_types(records: Records) -> Iterator[Breach]:
    returned = [(f"$.calls[{index}].outs", call.outs) for index, call in enumerate(records.calls)]
    returned += [(f"$.scopes[{index}].outs", scope.outs) for index, scope in enumerate(records.scopes)]
    for path, outs in returned:
        for out in _outs(outs):
            if out.__class__ is not int or out < 0:
                yield path, f"it holds {out!r}"


def _values(records: Records) -> Iterator[Breach]:
    number = len(records.values)
    referring: list[tuple[str, Iterable[int]]] = []
    for index, call in enumerate(records.calls):
        written = [value for pair in call.writes for value in pair]
        referring.append((f"$.calls[{index}]", (*call.ins, *_outs(call.outs), *written)))
    referring += [(f"$.scopes[{i}]", (*scope.ins, *_outs(scope.outs))) for i, scope in enumerate(records.scopes)]
    referring += [(f"$.sources[{i}]", (source.value, source.origin)) for i, source in enumerate(records.sources)]
    referring += [(f"$.outputs[{i}]", (output.value,)) for i, output in enumerate(records.outputs)]
    referring += [(f"$.events[{i}]", (event.of,)) for i, event in enumerate(records.events)]
    referring += [(f"$.numbers[{i}]", (item.value,)) for i, item in enumerate(records.numbers)]
    referring += [(f"$.changes[{i}]", (change.old, change.new)) for i, change in enumerate(records.changes)]
    referring += [(f"$.ops[{i}]", (op.value,)) for i, op in enumerate(records.ops)]
    for path, values in referring:
        for value in values:
            if value >= number:
                yield path, f"there are {number} values, and it names {value}"


def _positions(records: Records) -> Iterator[Breach]:
    calls, funcs, scopes, sites = map(len, (records.calls, records.funcs, records.scopes, records.sites))
    for index, call in enumerate(records.calls):
        path = f"$.calls[{index}]"
        yield from _beyond(path, ("func", call.func, funcs), ("scope", call.scope, scopes), ("site", call.site, sites))
    for index, scope in enumerate(records.scopes):
        path = f"$.scopes[{index}]"
        yield from _beyond(path, ("site", scope.site, sites))
        yield from _beyond(path, ("first_call", scope.first_call, calls + 1), ("last_call", scope.last_call, calls + 1))
    for index, module in enumerate(records.modules):
        yield from _beyond(f"$.modules[{index}]", ("facts", module.facts, len(records.module_facts)))
    for index, source in enumerate(records.sources):
        yield from _beyond(f"$.sources[{index}]", ("call", source.call, calls + 1))
    for index, event in enumerate(records.events):
        path = f"$.events[{index}]"
        yield from _beyond(
            path, ("scope", event.scope, scopes), ("site", event.site, sites), ("call", event.call, calls + 1)
        )
    for index, change in enumerate(records.changes):
        yield from _beyond(f"$.changes[{index}]", ("call", change.call, calls + 1))
    for index, frame in enumerate(records.frames):
        yield from _beyond(f"$.frames[{index}]", ("file", frame.file, len(records.files)))
    for index, site in enumerate(records.sites):
        for frame_number in site:
            yield from _beyond(f"$.sites[{index}]", ("frame", frame_number, len(records.frames)))


def _beyond(path: str, *fields: tuple[str, int, int]) -> Iterator[Breach]:
    for name, position, number in fields:
        if position >= number:
            yield f"{path}.{name}", f"it is {position}, and there are {number}"


# -- values and calls --------------------------------------------------------------------------------------------------


def _made_once(records: Records) -> Iterator[Breach]:
    made: set[int] = set()
    for index, source in enumerate(records.sources):
        if source.value in made:
            yield f"$.sources[{index}].value", f"value {source.value} is another source too"
        made.add(source.value)
    for index, call in enumerate(records.calls):
        for value in _outs(call.outs):
            if value in made:
                yield f"$.calls[{index}].outs", f"value {value} was made before"
            made.add(value)
    for index, change in enumerate(records.changes):
        if change.new != change.old:
            if change.new in made:
                yield f"$.changes[{index}].new", f"value {change.new} was made before"
            made.add(change.new)


def _made_by(records: Records) -> dict[int, int]:
    """Value -> number of calls that had run when it came to be."""
    made: dict[int, int] = {}
    for index, call in enumerate(records.calls):
        for value in (*_outs(call.outs), *(new for _, new in call.writes)):
            made.setdefault(value, index + 1)
    for source in records.sources:
        made[source.value] = 0 if source.kind in ("param", "const") else source.call
    for change in records.changes:
        made.setdefault(change.new, change.call)
    return made


def _made_before(records: Records) -> Iterator[Breach]:
    made = _made_by(records)
    for index, call in enumerate(records.calls):
        for value in call.ins:
            if made.get(value, 0) > index:
                yield f"$.calls[{index}].ins", f"value {value} comes to be after {made[value]} calls"
    for index, source in enumerate(records.sources):
        if source.origin >= 0 and made.get(source.origin, 0) > max(source.call, 0):
            yield f"$.sources[{index}].origin", f"value {source.origin} comes to be after {made[source.origin]} calls"


def _deps(records: Records) -> Iterator[Breach]:
    makes = [any(True for _ in _outs(call.outs)) for call in records.calls]
    for index, call in enumerate(records.calls):
        for argument, writer in call.deps:
            if argument >= len(call.ins):
                yield f"$.calls[{index}].deps", f"there are {len(call.ins)} arguments, and it names {argument}"
            elif writer >= index or not makes[writer]:
                yield f"$.calls[{index}].deps", f"call {writer} is no earlier call that made something"


def _changes(records: Records) -> Iterator[Breach]:
    made = _made_by(records)
    last = 0
    for index, change in enumerate(records.changes):
        path = f"$.changes[{index}]"
        if made.get(change.old, change.call + 1) > change.call:
            yield f"{path}.old", f"value {change.old} was not there after {change.call} calls"
        if change.of == "gradient" and change.new != change.old:
            yield f"{path}.new", "the gradient at an array is changed, and not the array"
        if not change.what:
            yield f"{path}.what", "it is empty"
        if change.of == "value":
            if change.call < last:
                yield f"{path}.call", f"it is {change.call}, after a change at {last}"
            last = change.call


def _outputs_made(records: Records) -> Iterator[Breach]:
    made = _made_by(records)
    for index, output in enumerate(records.outputs):
        if output.value not in made:
            yield f"$.outputs[{index}].value", f"nothing made value {output.value}"


# -- modules, state ----------------------------------------------------------------------------------------------------


def _scope_tree(records: Records) -> Iterator[Breach]:
    if not records.scopes:
        yield "$.scopes", "there is none"
    calls: Counter[str] = Counter()
    for index, scope in enumerate(records.scopes):
        if scope.parent >= index or (scope.parent < 0) != (index == 0):
            yield f"$.scopes[{index}].parent", f"it is {scope.parent}"
        calls[scope.address] += 1
        if scope.call_index != calls[scope.address]:
            yield f"$.scopes[{index}].call_index", f"it is {scope.call_index}, and {calls[scope.address]} is due"


def _modules(records: Records) -> Iterator[Breach]:
    addresses = [module.address for module in records.modules]
    if addresses[:1] != [""]:
        yield "$.modules", "the first is not the model, whose address is empty"
    for address in _twice(addresses):
        yield "$.modules", f"the address {address!r} stands twice"
    known = set(addresses)
    for index, scope in enumerate(records.scopes):
        if scope.kind == "module" and scope.address not in known:
            yield f"$.scopes[{index}].address", f"no module has the address {scope.address!r}"


def _state(records: Records) -> Iterator[Breach]:
    params = [source for source in records.sources if source.kind == "param"]
    for address in _twice([name for source in params for name in (source.address, *source.aliases)]):
        yield "$.sources", f"the parameter address {address!r} stands twice"
    versions: dict[str, int] = defaultdict(int)
    for index, source in enumerate(records.sources):
        if source.kind == "buffer":
            versions[source.address] += 1
            if source.version != versions[source.address]:
                yield f"$.sources[{index}].version", f"it is {source.version}, and {versions[source.address]} is due"


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]


# -- names, source -----------------------------------------------------------------------------------------------------


def _names(records: Records) -> Iterator[Breach]:
    named = [("$.model", records.model), ("$.backend", records.backend)]
    named += [(f"$.funcs[{i}].type", func.type) for i, func in enumerate(records.funcs)]
    named += [(f"$.funcs[{i}].name", func.name) for i, func in enumerate(records.funcs)]
    for path, name in named:
        problem = name_problem(name)
        if problem is not None or not name:
            yield path, f"{name!r}: {problem or 'it is empty'}"


def _files(records: Records) -> Iterator[Breach]:
    for index, file in enumerate(records.files):
        problem = path_problem(file.name)
        if problem is not None:
            yield f"$.files[{index}].name", f"{file.name!r}: {problem}"
    for name in _twice([file.name for file in records.files]):
        yield "$.files", f"{name!r} stands twice"
    known = {file.name for file in records.files} | {""}
    for index, conditional in enumerate(records.control_flow.conditionals):
        if conditional.file not in known:
            yield f"$.control_flow.conditionals[{index}].file", f"{conditional.file!r} is not among the files"


def _control_flow(records: Records) -> Iterator[Breach]:
    flow, ops = records.control_flow, len(records.ops)
    number = len(flow.conditionals)
    bools = sum(isinstance(event.value, bool) for event in records.events)
    for index, conditional in enumerate(flow.conditionals):
        path = f"$.control_flow.conditionals[{index}]"
        if conditional.parent is not None and not _ends(index, flow.conditionals):
            yield f"{path}.parent", "conditionals stand around each other in a circle, or there is no such one"
        for execution in conditional.executions:
            yield from _beyond(path, ("scope", execution.scope, len(records.scopes)))
            yield from _beyond(path, *(("op", op, ops) for op in execution.ops))
            for predicate in execution.predicates:
                yield from _beyond(path, ("event", predicate.event, bools), ("op", predicate.op, ops))
    for op, stack in flow.branch_stacks:
        yield from _beyond("$.control_flow.branch_stacks", ("op", op, ops), *(("id", id_, number) for id_, _ in stack))
    for parent, child, ids in flow.branch_edges:
        path = "$.control_flow.branch_edges"
        yield from _beyond(path, ("op", parent, ops), ("op", child, ops), *(("id", id_, number) for id_ in ids))
    for id_, _, edges in flow.arm_entry_edges:
        path = "$.control_flow.arm_entry_edges"
        yield from _beyond(path, ("id", id_, number), *(("op", op, ops) for edge in edges for op in edge))


def _ends(index: int, conditionals: Sequence[Any]) -> bool:
    """Whether the way from a conditional to those around it comes to an end."""
    seen: set[int] = set()
    at: int | None = index
    while at is not None:
        if at in seen or at >= len(conditionals):
            return False
        seen.add(at)
        at = conditionals[at].parent
    return True


# -- ops ---------------------------------------------------------------------------------------------------------------


def _layers(records: Records) -> Iterator[Breach]:
    first: dict[int, tuple[Any, ...]] = {}
    for index, op in enumerate(records.ops):
        if op.layer > len(first):
            yield f"$.ops[{index}].layer", f"it is {op.layer}, and {len(first)} layers came before"
            return
        what = (op.kind, op.type, op.output_index)
        if first.setdefault(op.layer, what) != what:
            yield f"$.ops[{index}].layer", f"layer {op.layer} is of {first[op.layer]}, and this op is {what}"


def _halted(records: Records) -> Iterator[Breach]:
    value = records.facts.get("halted")
    if value is not None and value not in {op.value for op in records.ops}:
        yield "$.facts.halted", f"no op has value {value!r}"


def _costs(records: Records) -> Iterator[Breach]:
    for index, call in enumerate(records.calls):
        if (call.flops is None) != (call.macs is None):
            yield f"$.calls[{index}]", "one of flops and macs is known, the other not"


def _open_tables(records: Records) -> Iterator[Breach]:
    """``__class__`` and the like are no names of arguments; a reader in another language may trip over them."""
    tables: list[tuple[str, Iterable[str]]] = [("$.facts", records.facts)]
    tables += [(f"$.module_facts[{i}]", table) for i, table in enumerate(records.module_facts)]
    for index, call in enumerate(records.calls):
        tables.append((f"$.calls[{index}]", (*call.kwargs, *call.settings, *(call.ambient or ()))))
    for path, names in tables:
        for name in names:
            if is_forbidden_key(name):
                yield path, f"{name!r} stands there"


# The other rules follow references without looking where they lead.
_REFERENCES: Final = (
    Rule("C1", "what is returned is values, null, and lists of these", _out_types),
    Rule("C2", "values are referred to by their position", _values),
    Rule("C3", "records are referred to by their position", _positions),
)

RULES: Final = (
    *_REFERENCES,
    Rule("C4", "tables of names hold no name that means something to a programming language", _open_tables),
    Rule("C5", "FLOPs and MACs of a call are known together", _costs),
    Rule("V1", "a value is made once", _made_once),
    Rule("V2", "a value is made before it is used", _made_before),
    Rule("V3", "what an argument depends on is an earlier call", _deps),
    Rule("V4", "what the model returned was made by something", _outputs_made),
    Rule("V5", "what an intervention changed was there, and changes stand in the order of the run", _changes),
    Rule("G1", "backward passes name gradient functions and values that there are", gradient_breaches),
    Rule("S1", "calls of modules are a tree with the model's call as its root, numbered by address", _scope_tree),
    Rule("S2", "modules have addresses of their own, and what is called is a module", _modules),
    Rule("S3", "parameters have addresses of their own, and versions of a buffer follow one another", _state),
    Rule("N1", "names have no control characters and do not turn the direction of text", _names),
    Rule("N2", "files have names of their own, relative and safe on every system", _files),
    Rule("X1", "conditionals name ops, events and conditionals that there are", _control_flow),
    Rule("O1", "layers are numbered as they come, and the ops of one are the same operation", _layers),
    Rule("O2", "the run was halted at an op", _halted),
)
