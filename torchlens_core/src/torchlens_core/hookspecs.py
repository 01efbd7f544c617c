"""What a plugin can register. Hooks carry registration, never data: nothing here is called for each operation.

A plugin is a module named by an entry point of the group ``torchlens``, with functions marked ``@hookimpl``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .backend import Backend
    from .costs import Rule
    from .draw.renderers import Renderer
    from .facets.registry import Recipe
    from .interventions.action import Action
    from .testing.conformance.fixtures import Fixtures

hookspec = pluggy.HookspecMarker("torchlens")
hookimpl = pluggy.HookimplMarker("torchlens")


@hookspec
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """Call ``register(backend)`` for each framework that the plugin brings."""


@hookspec
def torchlens_register_renderers(register: Callable[[Renderer], None]) -> None:
    """Call ``register(renderer)`` for each way of drawing that the plugin brings."""


@hookspec
def torchlens_register_facets(register: Callable[[Recipe], None]) -> None:
    """Call ``register(recipe)`` for each kind of module whose facets the plugin knows."""


@hookspec
def torchlens_register_op_rules(register: Callable[[str, Rule], None]) -> None:
    """Call ``register(type, rule)`` to say what operations of a type cost."""


@hookspec
def torchlens_register_actions(register: Callable[[str, Callable[..., Action]], None]) -> None:
    """Call ``register(name, make)`` for each named action: ``make(**settings)`` gives one, and checks its settings."""


@hookspec
def torchlens_register_conformance(register: Callable[[str, Callable[[], Fixtures]], None]) -> None:
    """Call ``register(name, make)`` for a backend's conformance kit: ``make()`` gives its fixtures, when it is run."""
