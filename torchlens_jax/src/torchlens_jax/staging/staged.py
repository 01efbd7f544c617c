"""Staged programs, each kept for as long as nothing changes that it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from torchlens_core.errors import NestedTraceError, NotSupported, TorchLensError
from torchlens_core.program import ModuleInfo
from torchlens_core.records.module_facts import plain

from ..arrays import device_of, is_abstract
from ..calls.building import may_build_modules
from ..calls.keys import settings
from ..calls.prepare import Described, Prepared
from ..calls.recent import Recent
from ..calls.structure import is_dynamic, modules_of, training_mode
from ..calls.watching import Watch
from ..lowering.ir import Block, Op, Returned, Scan, Slot, Wrote
from ..lowering.ir import Call as ModuleCall
from ..lowering.layers import LAYERS
from ..lowering.lowering import Lowering, walk
from ..modes import asked
from ..of_jax import fresh_context
from .programs import Programs
from .staging import NESTED, noting_calls, staging
from .values_needed import ERRORS, explained, read_at

_ARRAY = object()  # in the place of an array among what a model returns
_MADE = 64  # kept of what was made of one program, for so many plans
_programs = Programs()


@dataclass(eq=False)
class Staged:
    """A staged program, and what was made of it.

    Attributes:
        described: what each array is that it takes.
        changed: of the arrays of state, by position, those that it gives another value: position among its outputs.
        infos: the modules, root first.
        pinned: objects whose ids stand in its key.
        made: whatever is worked out of it, by key: compiled programs, decisions, tapes.
    """

    block: Block
    calls: Mapping[int, ModuleCall]
    avals: Mapping[Slot, Any]
    out_tree: Any
    num_outs: int
    described: list[Described]
    changed: dict[int, int]
    infos: list[ModuleInfo]
    watch: Watch
    pinned: list[Any]
    const_names: dict[int, str]
    made: dict[Any, Any] = field(default_factory=lambda: Recent(_MADE))

    @property
    def consts(self) -> dict[Slot, Any]:
        """Arrays of the program text, by slot: given to the compiled program as arguments."""
        if "consts" not in self.made:
            found = dict(self.block.consts)
            for item in walk(self.block):
                for inner in _blocks(item):
                    found.update(inner.consts)
            self.made["consts"] = {slot: value for slot, value in found.items() if isinstance(value, jax.Array)}
        return self.made["consts"]  # type: ignore[no-any-return]

    def outputs(self, arrays: Sequence[Any]) -> Any:
        """What the model returns, with these arrays in it."""
        tree, static = self.out_tree
        given = iter(arrays)
        return jax.tree.unflatten(tree, [next(given) if leaf is _ARRAY else leaf for leaf in static])

    def operations(self) -> Iterator[Slot]:
        """The slots of all values that are Ops."""
        for item in walk(self.block):
            if isinstance(item, Op):
                written = {slot for slot, _ in item.writes}
                yield from (slot for slot in item.outs if slot not in written or slot in item.returned)
            elif isinstance(item, Scan):
                yield from (*item.body.ins[len(item.consts) + len(item.init) :], *item.ys)
            elif isinstance(item, Wrote) or (isinstance(item, Returned) and item.is_pass_through):
                yield item.new


@dataclass(eq=False)
class Unstaged(Staged):
    """What is known of a program that cannot be staged, before it runs.

    Attributes:
        reason: why not.
        is_complete: whether all its modules are known; else some are built as it runs.
    """

    reason: str = ""
    is_complete: bool = True


def _blocks(item: Any) -> tuple[Block, ...]:
    from ..lowering.lowering import inside

    return tuple(inside(item))


def staged_of(prepared: Prepared) -> Staged:
    """The program of a call: the one known already, or a new one."""
    if staging.calls is not None:
        raise NestedTraceError(NESTED)
    way = asked()
    device = device_of(prepared.arrays[0]) if prepared.arrays else None
    rough = (settings(prepared.arrays), device, way == "dynamic")
    found = _programs.find(rough, prepared.key)
    if found is not None and not (isinstance(found, Unstaged) and way in ("compiled", "concrete")):
        return found  # type: ignore[no-any-return]
    for each in prepared.freeze.statics:
        each.settle()
    if way == "dynamic":
        staged: Staged = _unstaged(prepared, {}, "asked for")
    else:
        staged, is_known = _tried(prepared)
        if not is_known:
            return staged
    _programs.add(rough, prepared.key, staged)
    return staged


def _tried(prepared: Prepared) -> tuple[Staged, bool]:
    """A program staged, or what is known of it where it cannot be; and whether that is so each time."""
    calls: dict[int, ModuleCall] = {}
    try:
        return _stage(prepared, calls), True
    except TorchLensError:
        raise
    except Exception as error:
        is_read = isinstance(error, ERRORS)
        if asked() is not None or is_abstract(prepared.arrays):
            raise explained(error) if is_read else error from error
        reason = read_at(error) if is_read else f"it raised {type(error).__name__} as it was staged"
        return _unstaged(prepared, calls, reason), is_read


def _unstaged(prepared: Prepared, calls: Mapping[int, ModuleCall], reason: str) -> Unstaged:
    builds = any(call.is_built for call in calls.values())
    may_build = not prepared.roots and may_build_modules(prepared.call.model)
    infos = _modules(prepared, calls)
    avals = {number: jax.ShapeDtypeStruct(array.shape, array.dtype) for number, array in enumerate(prepared.arrays)}
    return Unstaged(
        Block(tuple(avals)), {}, avals, None, 0, prepared.describe(builds or may_build), {}, infos, prepared.watch(),
        [*prepared.freeze.pinned], _const_names(prepared), reason=reason, is_complete=not (builds or may_build),
    )  # fmt: skip


def in_primitives(prepared: Prepared, staged: Staged) -> Staged:
    """The same program with an operation for each primitive."""
    if isinstance(staged, Unstaged):
        raise NotSupported(
            f"granularity='kernel' needs the program that JAX stages, and this one cannot be staged: {staged.reason}."
        )
    if "primitives" not in staged.made:
        staged.made["primitives"] = _stage(prepared, {}, by_primitive=True)
    return staged.made["primitives"]  # type: ignore[no-any-return]


def _stage(prepared: Prepared, calls: dict[int, ModuleCall], *, by_primitive: bool = False) -> Staged:
    watch = prepared.watch()
    classes = {type(module) for name, root in prepared.roots for _, module in modules_of(root, name)}
    trees: list[Any] = []

    def flat(*arrays: Any) -> Any:
        out, state = prepared.function(*arrays)
        leaves, tree = jax.tree.flatten(out)
        trees.append((tree, [_ARRAY if is_dynamic(leaf) else leaf for leaf in leaves]))
        return [leaf for leaf in leaves if is_dynamic(leaf)], state

    with noting_calls(classes, calls), fresh_context():  # no jaxpr is reused that was staged without our scopes
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*prepared.arrays)
    builds_modules = any(call.is_built for call in calls.values())
    described = prepared.describe(builds_modules)
    lowering = Lowering(calls, LAYERS, by_primitive=by_primitive)
    num_outs = len(shapes[0])
    block = lowering.program(closed, [each.address if each.kind != "input" else None for each in described])
    changed = {
        position: num_outs + position
        for position, (before, after) in enumerate(zip(block.ins, block.outs[num_outs:], strict=False))
        if before != after
    }
    infos = _modules(prepared, lowering.calls)
    canonical = {alias: info.address for info in infos for alias in info.aliases}
    for call in lowering.calls.values():
        call.address = canonical.get(call.address or "", call.address)
    note_writes(block, {block.outs[at]: block.ins[position] for position, at in changed.items()}, lowering.avals)
    return Staged(
        block, lowering.calls, lowering.avals, trees[-1], num_outs, described, changed,
        infos, watch, [*prepared.freeze.pinned], _const_names(prepared),
    )  # fmt: skip


def note_writes(block: Block, new: Mapping[Slot, Slot], avals: Mapping[Slot, Any]) -> None:
    """Have library layers that make new state write it, where they make a result too."""
    for item in walk(block):
        if isinstance(item, Op) and item.is_layer:
            positions = [at for at, slot in enumerate(item.outs) if slot in new or slot in item.state]
            if positions and len(positions) < len(item.outs):
                written = [item.outs[at] for at in positions]
                item.writes = tuple((slot, new.get(slot, _like(slot, item, avals))) for slot in written)
                item.outs = (*(slot for slot in item.outs if slot not in written), *written)
                item.returned = tuple(slot for slot in written if slot in block.outs and slot not in new)
                item.func.give_last(positions)  # type: ignore[attr-defined]


def _like(slot: Slot, item: Op, avals: Mapping[Slot, Any]) -> Slot:
    """What a layer took that is most likely the state it gave another value: the last of the same shape."""
    shape = avals[slot].shape
    return next((taken for taken in reversed(item.ins) if avals[taken].shape == shape), item.ins[-1])


def modules_before(prepared: Prepared) -> list[ModuleInfo]:
    """The modules that a model is made of, root first."""
    found: dict[int, ModuleInfo] = {}
    for prefix, root in prepared.roots:
        for address, module in modules_of(root, prefix):
            info = found.get(id(module))
            if info is None:
                cls = type(module)
                name = f"{cls.__module__}.{cls.__qualname__}"
                facts = {"attributes": _attributes(module)}
                found[id(module)] = ModuleInfo(address, cls.__name__, name, training=training_mode(module), facts=facts)
            elif info.address != address:
                info.aliases = (*info.aliases, address)
    infos = list(found.values())
    if not infos or infos[0].address:
        infos.insert(0, ModuleInfo("", name_of(prepared)))
    return infos


def _modules(prepared: Prepared, calls: Mapping[int, ModuleCall]) -> list[ModuleInfo]:
    """All modules: those that the model is made of, and those that were built as it ran."""
    infos = modules_before(prepared)
    add_built(infos, calls)
    return infos


def add_built(infos: list[ModuleInfo], calls: Mapping[int, ModuleCall]) -> None:
    """Add the modules that are known by their calls alone."""
    known = {alias for info in infos for alias in (info.address, *info.aliases)}
    for call in calls.values():
        address = call.address or call.cls.rpartition(".")[2]
        if address not in known:
            known.add(address)
            infos.append(ModuleInfo(address, call.cls.rpartition(".")[2], call.cls, training=call.training))


def _attributes(module: Any) -> dict[str, Any]:
    """What a module is set to; of what it is made of, the types."""
    return {name: plain(value) for name, value in vars(module).items() if not str(name).startswith("_")}


def name_of(prepared: Prepared) -> str:
    """The name of a model: its class, or its function."""
    from ..calls.structure import unwrapped

    roots = prepared.taken[0][1].roots
    if roots and not roots[0][0]:
        return type(roots[0][1]).__name__
    model = unwrapped(prepared.call.model)
    owner = getattr(model, "__self__", None)
    if owner is not None and not isinstance(owner, type):
        return type(owner).__name__
    return str(getattr(model, "__name__", type(model).__name__))


def _const_names(prepared: Prepared) -> dict[int, str]:
    """Names of arrays that the model's code reaches by itself."""
    from torchlens_core.reach import reachable

    from ..calls.structure import unwrapped

    return {
        id(value): name
        for name, value in reachable(unwrapped(prepared.call.model))
        if isinstance(value, jax.Array | np.ndarray)
    }


def forget() -> None:
    """Drop all programs."""
    _programs.clear()
