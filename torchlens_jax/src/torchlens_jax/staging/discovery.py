"""What a model is, without running it: modules and state, found as it is taken apart, and by staging it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from torchlens_core.backend import Call, Discovery, State
from torchlens_core.program import ModuleInfo

from ..calls.prepare import Prepared, prepare
from ..calls.structure import is_module, modules_of
from ..live.dynamic import rehearse
from .staged import Staged, Unstaged, modules_before, name_of, staged_of


class StagedDiscovery(Discovery):
    """The modules and the state of a call, as its staged program knows them. Objects are looked for when asked for."""

    __slots__ = ("_is_fresh", "_modules", "_prepared", "_state", "staged")

    def __init__(self, prepared: Prepared, staged: Staged) -> None:
        self.name = name_of(prepared)
        self.staged = staged
        self._prepared = prepared
        self._is_fresh = True
        self._modules: list[tuple[ModuleInfo, Any]] | None = None
        self._state: list[State] | None = None

    @property
    def infos(self) -> list[ModuleInfo]:
        return self.staged.infos

    @property
    def modules(self) -> list[tuple[ModuleInfo, Any]]:  # type: ignore[override]
        if self._modules is None:
            found: dict[str, Any] = {}
            for prefix, root in self._prepared.roots:
                for address, module in modules_of(root, prefix):
                    found.setdefault(address, module)
            self._modules = [(info, found.get(info.address)) for info in self.infos]
        return self._modules

    @property
    def root(self) -> Any:
        model = self._prepared.call.model
        return model if is_module(model) else None

    @property
    def state(self) -> list[State]:  # type: ignore[override]
        if self._state is None:
            self._state = [
                State(each.address, array, each.kind == "param", each.kind == "buffer", each.aliases, each.module)
                for each, array in zip(self.staged.described, self._prepared.arrays, strict=True)
                if each.kind in ("param", "buffer")
            ]
        return self._state

    def addresses(self) -> frozenset[str]:
        found = self.staged.made.get("addresses")
        if found is None:
            found = self.staged.made["addresses"] = super().addresses()
        return found  # type: ignore[no-any-return]

    def parameters(self) -> Mapping[str, Any]:
        pairs = zip(self.staged.described, self._prepared.arrays, strict=True)
        return {each.address: array for each, array in pairs if each.kind == "param"}

    def positions(self) -> dict[str, int]:
        """Address of state -> its position among the arrays that the program takes."""
        return {each.address: at for at, each in enumerate(self.staged.described) if each.kind != "input"}

    def prepared_for(self, call: Call) -> tuple[Prepared, Staged]:
        """The call taken apart, and its program: as they were found, the first time that it is asked for that call."""
        if self._is_fresh and self._prepared.call is call:
            self._is_fresh = False
            return self._prepared, self.staged
        prepared = prepare(call)
        return prepared, staged_of(prepared)


def staged_discovery(call: Call) -> StagedDiscovery:
    """Take a call apart, and stage it where it is not known yet."""
    prepared = prepare(call)
    staged = staged_of(prepared)
    found = StagedDiscovery(prepared, staged)
    if isinstance(staged, Unstaged) and not staged.is_complete:
        rehearse(prepared, staged, found)
    return found


def discover(call: Call) -> Discovery:
    """What a model is; of one that is given without the arguments that it takes, its modules."""
    return find_modules(call) if _lacks_arguments(call) else staged_discovery(call)


def find_modules(call: Call, addresses: Collection[str] | None = None) -> Discovery:
    """The modules alone. Those of a model without arguments are found without a run; the root alone with no address.

    Modules that are built as the model runs (Linen, Haiku) are known only where it was staged, for its arguments.
    """
    if not _lacks_arguments(call) and (addresses is None or addresses):
        return staged_discovery(call)
    prepared = prepare(Call(call.model, (), {}))
    objects = {address: module for name, root in prepared.roots for address, module in modules_of(root, name)}
    if objects.get("") is not call.model:  # a method of it, or what jax.jit made of it
        objects[""] = None
    return Discovery(name_of(prepared), [(info, objects.get(info.address)) for info in modules_before(prepared)])


def _lacks_arguments(call: Call) -> bool:
    """Whether a call of a module has not the arguments that it takes."""
    if call.args or call.kwargs or not is_module(call.model):
        return False
    try:
        inspect.signature(call.model).bind()
    except (TypeError, ValueError):
        return True
    return False
