"""Discovery: the modules of a model, its parameters and buffers, and the constants that its code can reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from torchlens_core.backend import Call, Discovery, State
from torchlens_core.program import ModuleInfo
from torchlens_core.reach import reachable
from torchlens_core.records.module_facts import ModuleFacts, function_facts, plain

from .sharding import is_sharded, reshard
from .wrappers import unwrap

_INTERNAL = frozenset(vars(nn.Module()))  # attributes that every module has
_SCALARS = frozenset({int, float, bool, type(None)})
_HOOKS = (
    ("forward_pre", "_forward_pre_hooks"),
    ("forward", "_forward_hooks"),
    ("backward_pre", "_backward_pre_hooks"),
    ("backward", "_backward_hooks"),
)


def discover(call: Call) -> Discovery:
    """Walk the model once: a module, or the modules a function can reach (``__self__``, closure, globals it names)."""
    roots = list(root_modules(call.model))
    reshard(module for _, root in roots for module in root.modules())
    if isinstance(call.model, nn.Module):
        name = type(unwrap(call.model)).__name__
        info = module_info("", unwrap(call.model))
    else:
        name = getattr(call.model, "__name__", None) or type(call.model).__name__
        qualname = getattr(call.model, "__qualname__", name)
        info = ModuleInfo("", name, qualname, facts=function_facts(call.model))
    modules: dict[int, tuple[ModuleInfo, Any]] = {}
    if not any(prefix == "" for prefix, _ in roots):
        modules[0] = (info, None)
    state: dict[int, State] = {}
    for prefix, root in roots:
        _walk(prefix, root, modules, state, module_info)
    return Discovery(name, list(modules.values()), list(state.values()))


def find_modules(call: Call, addresses: Collection[str] | None = None) -> Discovery:
    """The modules of a model alone: their addresses and classes. Given addresses, the modules on the way to these."""
    model = call.model
    is_module = isinstance(model, nn.Module)
    name = type(unwrap(model)).__name__ if is_module else getattr(model, "__name__", None) or type(model).__name__
    modules: dict[int, tuple[ModuleInfo, Any]] = {}
    roots = list(root_modules(model))
    if addresses is not None and is_module and not is_sharded(unwrap(model)):
        return Discovery(name, _on_the_way(unwrap(model), addresses))
    if not any(prefix == "" for prefix, _ in roots):
        modules[0] = (ModuleInfo("", name), None)
    for prefix, root in roots:
        _walk(prefix, root, modules, None, lambda address, module: ModuleInfo(address, _class_name(module)))
    return Discovery(name, list(modules.values()))


def _on_the_way(root: nn.Module, addresses: Collection[str]) -> list[tuple[ModuleInfo, Any]]:
    """The modules at these addresses and around them, those that there are; the root first."""
    found: dict[int, tuple[ModuleInfo, Any]] = {id(root): (ModuleInfo("", _class_name(root)), root)}
    for address in filter(None, addresses):
        module, parts = root, address.split(".")
        for number, part in enumerate(parts, 1):
            child = module._modules.get(part)
            if child is None:
                break
            module = unwrap(child)
            here = ".".join(parts[:number])
            info, _ = found.setdefault(id(module), (ModuleInfo(here, _class_name(module)), module))
            if here not in (info.address, *info.aliases):
                info.aliases = (*info.aliases, here)
    return list(found.values())


def root_modules(model: Any) -> list[tuple[str, nn.Module]]:
    """The modules that a model can be: itself, or what a function closes over, each with its address."""
    found = [(name, value) for name, value in reachable(model) if isinstance(value, nn.Module)]
    return found[:1] if found and not found[0][0] else found


def _walk(
    prefix: str,
    root: nn.Module,
    modules: dict[int, tuple[ModuleInfo, Any]],
    state: dict[int, State] | None,
    describe: Callable[[str, nn.Module], ModuleInfo],
) -> None:
    pending: list[tuple[str, nn.Module]] = [(prefix, root)]
    entered: set[tuple[int, str]] = set()
    while pending:
        address, module = pending.pop()
        module = unwrap(module)
        key = (id(module), address)
        if key in entered:
            continue
        entered.add(key)
        known = modules.get(key[0])
        if known is None:
            modules[key[0]] = (describe(address, module), module)
        elif known[0].address != address:
            known[0].aliases = (*known[0].aliases, address)
            if _is_inside_itself(address, known[0].address):
                continue
        if state is not None and module._parameters:
            _note_state(address, module._parameters, False, state)
        if state is not None and module._buffers:
            _note_state(address, module._buffers, True, state)
        children = module._modules
        if children:
            dot = address + "." if address else ""
            pending += [(dot + name, child) for name, child in reversed(children.items()) if child is not None]


def _is_inside_itself(address: str, first: str) -> bool:
    """A module that contains itself is entered once."""
    return not first or address.startswith(first + ".")


def _note_state(address: str, table: Mapping[str, Any], is_buffer: bool, state: dict[int, State]) -> None:
    dot = address + "." if address else ""
    for name, array in table.items():
        if array is None:
            continue
        known = state.get(id(array))
        if known is None:
            state[id(array)] = State(dot + name, array, array.requires_grad, is_buffer, (), address)
        elif known.address != dot + name:
            known.aliases = (*known.aliases, dot + name)


def module_info(address: str, module: nn.Module) -> ModuleInfo:
    """What is known of one module. Called for every module before every trace, so cheap."""
    cls = type(module)
    own = vars(module)
    attributes = {
        name: value if value.__class__ in _SCALARS else plain(value)
        for name, value in own.items()
        if name not in _INTERNAL
    }
    hooks = {kind: len(own[table]) for kind, table in _HOOKS if own.get(table)}
    facts = ModuleFacts(cls, nn.Module, "forward", attributes, hooks)
    qualname = f"{cls.__module__}.{cls.__qualname__}"
    return ModuleInfo(address, _class_name(module), qualname, training=module.training, facts=facts)


def _class_name(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return str(getattr(module, "original_name", type(module).__name__))
    return type(module).__name__
