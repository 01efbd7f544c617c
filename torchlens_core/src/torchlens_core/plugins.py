"""Plugins and the choice of a backend. Plugins are found by entry point, loaded once; a broken one harms no other."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from . import hookspecs
from .backend import Backend, not_implemented
from .costs import Rule, register_cost_rule
from .errors import BackendError, BackendMissing, InterventionError, PluginWarning, nearest
from .facets.registry import Recipe, bring, checked
from .interventions.action import Action
from .interventions.actions import register_action

ENTRY_POINTS = "torchlens"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One line of ``tl.backends()``."""

    name: str
    plugin: str  # distribution or module that brought it
    plugin_version: str | None
    framework_version: str | None  # None: not installed
    requires: str
    lacks: Mapping[str, str]  # jobs declared as not implemented -> why
    error: str | None = None  # why the plugin could not be loaded

    def __str__(self) -> str:
        if self.error:
            return f"{self.name}: plugin could not be loaded: {self.error}"
        framework = self.framework_version or f"not installed (needs {self.requires})"
        cannot = f"; not implemented: {', '.join(self.lacks)}" if self.lacks else ""
        return f"{self.name}: {self.plugin} {self.plugin_version or ''}, framework {framework}{cannot}"


class Registry:
    """The plugins of this process."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("torchlens")
        self.manager.add_hookspecs(hookspecs)
        self.backends: dict[str, Backend] = {}
        self.conformance: dict[str, Callable[[], Any]] = {}  # backend -> what gives its fixtures
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
        """Register one plugin: a module or object with hook implementations. One that fails leaves nothing behind."""
        if self.manager.is_registered(plugin):
            return
        origin = (distribution or getattr(plugin, "__name__", repr(plugin)), version)
        brought: list[Backend] = []
        rules: list[tuple[str, Rule]] = []
        recipes: list[Recipe] = []
        actions: list[tuple[str, Callable[..., Action]]] = []
        fixtures: dict[str, Callable[[], Any]] = {}
        self.manager.register(plugin)
        try:
            self._hook("torchlens_register_backends", plugin)(register=brought.append)
            self._hook("torchlens_register_op_rules", plugin)(register=lambda type, rule: rules.append((type, rule)))
            self._hook("torchlens_register_actions", plugin)(register=lambda name, make: actions.append((name, make)))
            self._hook("torchlens_register_facets", plugin)(register=lambda recipe: recipes.append(checked(recipe)))
            self._hook("torchlens_register_conformance", plugin)(register=fixtures.__setitem__)
            for backend in brought:
                if not isinstance(backend, Backend):
                    raise BackendError(f"{origin[0]} registers {backend!r} as a backend, which is no Backend object.")
        except BaseException:
            self.manager.unregister(plugin)
            raise
        for type_, rule in rules:
            register_cost_rule(type_, rule)
        for name, make in actions:
            try:
                register_action(name, make)
            except InterventionError as error:
                warnings.warn(f"{origin[0]}: {error} It stays.", PluginWarning, stacklevel=2)
        for recipe in recipes:
            bring(recipe)
        self.conformance = fixtures | self.conformance
        for backend in brought:
            if backend.name in self.backends:
                warnings.warn(
                    f"Two plugins bring a backend {backend.name!r}: {self._origins[backend.name][0]}, which stays, and "
                    f"{origin[0]}.",
                    PluginWarning,
                    stacklevel=2,
                )
                continue
            self.backends[backend.name] = backend
            self._origins[backend.name] = origin

    def _hook(self, name: str, plugin: Any) -> pluggy.HookCaller:
        """A hook of one plugin alone."""
        return self.manager.subset_hook_caller(name, [p for p in self.manager.get_plugins() if p is not plugin])

    @property
    def errors(self) -> dict[str, str]:
        """Why plugins could not be loaded, by name."""
        return self._errors

    def list(self) -> list[BackendInfo]:
        """What is installed, with what could not be loaded at the end."""
        infos = [self._info(name, backend) for name, backend in self.backends.items()]
        return infos + [BackendInfo(name, name, None, None, "", {}, error) for name, error in self._errors.items()]

    def _info(self, name: str, backend: Backend) -> BackendInfo:
        plugin, version = self._origins[name]
        try:
            found, error = backend.version(), None
        except Exception as problem:  # a broken framework must not hide the others
            found, error = None, f"{type(problem).__name__}: {problem}"
        return BackendInfo(name, plugin, version, found, backend.requires, lacks(backend), error)


def lacks(backend: Backend) -> dict[str, str]:
    """The jobs that a backend declares it cannot do, and why."""
    declared = {name: getattr(type(backend), name) for name in dir(type(backend))}
    return {name: job.why for name, job in sorted(declared.items()) if isinstance(job, not_implemented)}


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
    if not isinstance(name, str):
        raise BackendError(f"backend= takes a name, one of {sorted(known)}; got {name!r}.")
    if name not in known:
        raise BackendMissing(
            f"No backend {name!r} is installed; there are {sorted(known) or 'none'}.{nearest(name, known)} "
            f"For a framework of ours: pip install 'torchlens[{name}]'.{_not_loaded()}"
        )
    backend = known[name]
    backend.load()
    return backend


def choose_backend(model: Any, args: Sequence[Any]) -> Backend:
    """The backend whose model or arrays these are. Imports no framework."""
    known = registry().backends
    claiming = [backend for backend in known.values() if _claims(backend, model, args)]
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
        f"pip install 'torchlens[NAME]'.{_not_loaded()}"
    )


def _claims(backend: Backend, model: Any, args: Sequence[Any]) -> bool:
    try:
        return backend.claims(model, args)
    except Exception as error:  # of a stranger's plugin
        warnings.warn(
            f"The backend {backend.name!r} failed to tell whether the model is its own: "
            f"{type(error).__name__}: {error}. The others are asked.",
            PluginWarning,
            stacklevel=2,
        )
        return False


def _not_loaded() -> str:
    errors = registry().errors
    return f" Plugins that could not be loaded: {errors}." if errors else ""


def _framework_arrays(args: Sequence[Any]) -> bool:
    return any(hasattr(value, "shape") and hasattr(value, "dtype") for value in args)


def _named(value: Any) -> str:
    cls = value if isinstance(value, type) else type(value)
    return f"{cls.__module__}.{cls.__qualname__}" if cls.__module__ != "builtins" else cls.__qualname__


__all__ = ["BackendInfo", "backends", "choose_backend", "get_backend", "registry"]
