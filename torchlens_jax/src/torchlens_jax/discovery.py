"""What a model is, without running it: modules and state, found as it is taken apart, and by staging it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchlens_core.backend import Call, Discovery, State
from torchlens_core.program import ModuleInfo

from .prepare import Prepared, prepare
from .staged import Staged, name_of, staged_of
from .structure import modules_of


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
    def state(self) -> list[State]:  # type: ignore[override]
        if self._state is None:
            self._state = [
                State(each.address, array, each.kind == "param", each.kind == "buffer", each.aliases, each.module)
                for each, array in zip(self.staged.described, self._prepared.arrays, strict=True)
                if each.kind in ("param", "buffer")
            ]
        return self._state

    def parameters(self) -> Mapping[str, Any]:
        pairs = zip(self.staged.described, self._prepared.arrays, strict=True)
        return {each.address: array for each, array in pairs if each.kind == "param"}

    def positions(self) -> dict[str, int]:
        """Address of state -> its position among the arrays that the program takes."""
        return {each.address: at for at, each in enumerate(self.staged.described) if each.kind in ("param", "buffer")}

    def prepared_for(self, call: Call) -> tuple[Prepared, Staged]:
        """The call taken apart, and its program: as they were found, the first time that it is asked for that call."""
        if self._is_fresh and self._prepared.call is call:
            self._is_fresh = False
            return self._prepared, self.staged
        prepared = prepare(call)
        return prepared, staged_of(prepared)


def discover(call: Call) -> StagedDiscovery:
    """Take a call apart, and stage it where it is not known yet."""
    prepared = prepare(call)
    return StagedDiscovery(prepared, staged_of(prepared))
