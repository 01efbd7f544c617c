"""Finding plugins and choosing a backend. Plugins are found by entry point, loaded once, and a broken one harms no other."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from . import hookspecs
from .backend import Backend, not_implemented
from .costs import register_cost_rule
from .errors import BackendError, BackendMissing, PluginWarning, nearest

ENTRY_POINTS = "torchlens"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One line of ``tl.backends()``."""

    name: str
    plugin: str  # distribution or module that brought it
    plugin_version: str | None
    framework_version: str | None  # None: not installed
    requires: str
    lacks: tuple[str, ...]  # jobs declared as not implemented
    error: str | None = None  # why the plugin could not be loaded

    def __str__(self) -> str:
        if self.error:
            return f"{self.name}: plugin could not be loaded: {self.error}"
        framework = self.framework_version or f"not installed (needs {self.requires})"
        return f"{self.name}: {self.plugin} {self.plugin_version or ''}, framework {framework}"


class Registry:
    """The plugins of this process."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("torchlens")
        self.manager.add_hookspecs(hookspecs)
        self.backends: dict[str, Backend] = {}
        self._origins: dict[str, tuple[str, str | None]] = {}
        self._errors: dict[str, str] = {}

    def load(self) -> None:
        """Load every installed plugin."""
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            distribution = entry.dist.name if entry.dist else entry.value
            version = entry.dist.version if entry.dist else None
            try:
                self.add(entry.load(), distribution, version)
            except Exception as error:  # whatever a stranger's plugin raises must not stop the others
                self._errors[entry.name] = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"The TorchLens plugin {entry.name!r} ({distribution}) could not be loaded: "
                    f"{type(error).__name__}: {error}. The other backends work.",
                    PluginWarning,
                    stacklevel=2,
                )

    def add(self, plugin: Any, distribution: str = "", version: str | None = None) -> None:
        """Register one plugin: a module or object with hook implementations."""
        self.manager.register(plugin)
        caller = self.manager.subset_hook_caller(
            "torchlens_register_backends", [p for p in self.manager.get_plugins() if p is not plugin]
        )

        def register(backend: Backend) -> None:
            if backend.name in self.backends:
                warnings.warn(
                    f"Two plugins bring a backend {backend.name!r}; the first one stays.", PluginWarning, stacklevel=2
                )
                return
            self.backends[backend.name] = backend
            self._origins[backend.name] = (distribution or getattr(plugin, "__name__", repr(plugin)), version)

        caller(register=register)
        self.manager.subset_hook_caller(
            "torchlens_register_op_rules", [p for p in self.manager.get_plugins() if p is not plugin]
        )(register=register_cost_rule)

    def list(self) -> list[BackendInfo]:
        infos = []
        for name, backend in self.backends.items():
            plugin, version = self._origins[name]
            infos.append(BackendInfo(name, plugin, version, backend.version(), backend.requires, lacks(backend)))
        infos += [BackendInfo(name, name, None, None, "", (), error) for name, error in self._errors.items()]
        return infos


def lacks(backend: Backend) -> tuple[str, ...]:
    """The jobs that a backend declares it cannot do."""
    return tuple(
        sorted(name for name in dir(type(backend)) if isinstance(getattr(type(backend), name), not_implemented))
    )


@functools.cache
def registry() -> Registry:
    """The registry of this process, its plugins loaded at the first call."""
    made = Registry()
    made.load()
    return made


def backends() -> list[BackendInfo]:
    """The installed backends: name, plugin, framework version, and what each declares that it cannot do."""
    return registry().list()


def get_backend(name: str) -> Backend:
    """A backend by name, its framework loaded."""
    known = registry().backends
    if name not in known:
        raise BackendMissing(
            f"No backend {name!r} is installed; there are {sorted(known) or 'none'}.{nearest(name, known)} "
            f"For a framework of ours: pip install 'torchlens[{name}]'."
        )
    backend = known[name]
    backend.load()
    return backend


def choose_backend(model: Any, args: Sequence[Any]) -> Backend:
    """The backend whose model or arrays these are. Imports no framework."""
    known = registry().backends
    claiming = [backend for backend in known.values() if backend.claims(model, args)]
    if len(claiming) == 1:
        claiming[0].load()
        return claiming[0]
    if len(claiming) > 1:
        names = sorted(backend.name for backend in claiming)
        raise BackendError(
            f"The model and its arguments belong to several frameworks: {names}. Say which: backend={names[0]!r}."
        )
    if len(known) == 1 and not _framework_arrays(args):
        only = next(iter(known.values()))
        if only.version() is None:
            only.load()
    raise BackendError(
        f"No backend recognises {_named(model)} with arguments {[_named(value) for value in args]}. "
        f"Installed backends: {sorted(known) or 'none'}. Pass backend=..., or install the framework's plugin: "
        "pip install 'torchlens[NAME]'."
    )


def _framework_arrays(args: Sequence[Any]) -> bool:
    return any(hasattr(value, "shape") and hasattr(value, "dtype") for value in args)


def _named(value: Any) -> str:
    cls = value if isinstance(value, type) else type(value)
    return f"{cls.__module__}.{cls.__qualname__}" if cls.__module__ != "builtins" else cls.__qualname__


__all__ = ["BackendInfo", "backends", "choose_backend", "get_backend", "registry"]
