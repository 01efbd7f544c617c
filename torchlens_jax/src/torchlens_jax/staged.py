"""Staged programs, each kept for as long as nothing changes that it depends on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from torchlens_core.program import ModuleInfo
from torchlens_core.records.module_facts import plain

from .arrays import device_of
from .ir import Block, Op, Returned, Scan, Slot, Wrote
from .ir import Call as ModuleCall
from .layers import LAYERS
from .lowering import Lowering, walk
from .prepare import Described, Prepared
from .staging import noting_calls
from .structure import is_dynamic, modules_of, training_mode
from .values_needed import ERRORS, explained
from .watching import Watch

_ARRAY = object()  # in the place of an array among what a model returns
_LIMIT = 64  # programs kept
_lock = threading.Lock()
_programs: OrderedDict[Hashable, list[Staged]] = OrderedDict()
_context = jax.make_user_context()


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
    made: dict[Any, Any] = field(default_factory=dict)

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
                yield from (slot for slot in item.outs if slot not in written)
            elif isinstance(item, Scan):
                yield from (*item.body.ins[len(item.consts) + len(item.init) :], *item.ys)
            elif isinstance(item, Wrote) or (isinstance(item, Returned) and item.is_pass_through):
                yield item.new


def _blocks(item: Any) -> tuple[Block, ...]:
    from .lowering import inside

    return tuple(inside(item))


def staged_of(prepared: Prepared) -> Staged:
    """The program of a call: the one known already, or a new one."""
    device = device_of(prepared.arrays[0]) if prepared.arrays else None
    key = _Key((prepared.key, tuple(map(_aval, prepared.arrays)), _settings(), device))
    with _lock:
        for staged in _programs.get(key, ()):
            if staged.watch.holds():
                _programs.move_to_end(key)
                return staged
    staged = _stage(prepared)
    with _lock:
        _programs.setdefault(key, []).append(staged)
        del _programs[key][:-8]
        while len(_programs) > _LIMIT:
            _programs.popitem(last=False)
    return staged


def _settings() -> Hashable:
    """The settings of JAX that a program depends on."""
    config = jax.config
    return (config.jax_enable_x64, config.jax_numpy_dtype_promotion, config.jax_default_matmul_precision,
            config.jax_default_prng_impl, config.jax_enable_custom_prng)  # fmt: skip


class _Key:
    """A key that is hashed once."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: Hashable) -> None:
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._hash == other._hash and self.parts == other.parts


def _aval(array: Any) -> Hashable:
    return (array.shape, array.dtype, getattr(array, "weak_type", False))


def _stage(prepared: Prepared) -> Staged:
    watch = prepared.watch()
    classes = {type(module) for name, root in prepared.roots for _, module in modules_of(root, name)}
    trees: list[Any] = []

    def flat(*arrays: Any) -> Any:
        out, state = prepared.function(*arrays)
        leaves, tree = jax.tree.flatten(out)
        trees.append((tree, [_ARRAY if is_dynamic(leaf) else leaf for leaf in leaves]))
        return [leaf for leaf in leaves if is_dynamic(leaf)], state

    with noting_calls(classes) as calls, _context(object()):  # no jaxpr is reused that was staged without our scopes
        try:
            closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*prepared.arrays)
        except ERRORS as error:
            raise explained(error) from error
    builds_modules = any(call.is_built for call in calls.values())
    described = prepared.describe(builds_modules)
    lowering = Lowering(calls, LAYERS)
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
    _note_writes(block, {block.outs[at]: block.ins[position] for position, at in changed.items()}, lowering.avals)
    return Staged(
        block, lowering.calls, lowering.avals, trees[-1], num_outs, described, changed,
        infos, watch, [*prepared.freeze.pinned], _const_names(prepared),
    )  # fmt: skip


def _note_writes(block: Block, new: Mapping[Slot, Slot], avals: Mapping[Slot, Any]) -> None:
    """Have library layers that make new state write it, where they make a result too."""
    for item in walk(block):
        if isinstance(item, Op) and item.is_layer:
            positions = [at for at, slot in enumerate(item.outs) if slot in new or slot in item.state]
            if positions and len(positions) < len(item.outs):
                written = [item.outs[at] for at in positions]
                item.writes = tuple((slot, new.get(slot, _like(slot, item, avals))) for slot in written)
                item.outs = (*(slot for slot in item.outs if slot not in written), *written)
                item.func.give_last(positions)  # type: ignore[attr-defined]


def _like(slot: Slot, item: Op, avals: Mapping[Slot, Any]) -> Slot:
    """What a layer took that is most likely the state it gave another value: the last of the same shape."""
    shape = avals[slot].shape
    return next((taken for taken in reversed(item.ins) if avals[taken].shape == shape), item.ins[-1])


def _modules(prepared: Prepared, calls: Mapping[int, ModuleCall]) -> list[ModuleInfo]:
    """All modules: those that the model is made of, and those that were built as it ran."""
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
    known = {alias for info in infos for alias in (info.address, *info.aliases)}
    for call in calls.values():
        address = call.address or call.cls.rpartition(".")[2]
        if address not in known:
            known.add(address)
            infos.append(ModuleInfo(address, call.cls.rpartition(".")[2], call.cls, training=call.training))
    return infos


def _attributes(module: Any) -> dict[str, Any]:
    """What a module is set to; of what it is made of, the types."""
    return {name: plain(value) for name, value in vars(module).items() if not name.startswith("_")}


def name_of(prepared: Prepared) -> str:
    """The name of a model: its class, or its function."""
    from .structure import unwrapped

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

    from .structure import unwrapped

    return {
        id(value): name
        for name, value in reachable(unwrapped(prepared.call.model))
        if isinstance(value, jax.Array | np.ndarray)
    }


def forget() -> None:
    """Drop all programs."""
    with _lock:
        _programs.clear()
