"""The plugin's entry point: registers the backend. Imports no JAX; that happens at the first capture."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torchlens_core.backend import Abstract, Arrays, Backend, Call, Discovery, not_implemented
from torchlens_core.compat.row import CompatRow
from torchlens_core.facets import Recipe
from torchlens_core.gradients.derived import Computation
from torchlens_core.hookspecs import hookimpl
from torchlens_core.plan import Plan
from torchlens_core.program import Func, Row
from torchlens_core.recording.steps import Steps
from torchlens_core.session import Session

if TYPE_CHECKING:
    from torchlens_core.testing.conformance.fixtures import Fixtures

from .facets import RECIPES


class JaxBackend(Backend):
    """JAX, staged: the program that JAX compiles, with values kept and changed inside it."""

    name = "jax"
    package = "jax"
    requires = "jax>=0.7"

    @property
    def _impl(self) -> Any:
        return importlib.import_module("torchlens_jax.backend")

    @property
    def arrays(self) -> Arrays:  # type: ignore[override]
        self.load()
        return self._impl.arrays  # type: ignore[no-any-return]

    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        jax = sys.modules.get("jax")
        return jax is not None and hasattr(jax, "Array") and bool(self._impl.is_ours(model, args))

    def discover(self, call: Call) -> Discovery:
        return self._impl.discover(call)  # type: ignore[no-any-return]

    def capture(self, call: Call, session: Session) -> Any:
        return self._impl.capture(call, session)

    def find_modules(self, call: Call, addresses: Collection[str] | None = None) -> Discovery:
        return self._impl.find_modules(call, addresses)  # type: ignore[no-any-return]

    def recording(
        self, model: Any, discovery: Discovery, plan: Plan, steps: Steps
    ) -> AbstractContextManager[Callable[[Call], Any]]:
        return self._impl.recording(model, discovery, plan, steps)  # type: ignore[no-any-return]

    def own_state(self, model: Any) -> Mapping[str, Any]:
        return self._impl.own_state(model)  # type: ignore[no-any-return]

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return self._impl.leaves(value)  # type: ignore[no-any-return]

    def replaced(self, value: Any, arrays: Mapping[int, Any]) -> Any:
        return self._impl.replaced(value, arrays)

    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        return self._impl.call(row, args, kwargs)

    def preserve(self, call: Call, discovery: Discovery) -> AbstractContextManager[Call]:
        return self._impl.preserve(call, discovery)  # type: ignore[no-any-return]

    def with_state(self, call: Call, discovery: Discovery, arrays: Mapping[str, Any]) -> AbstractContextManager[Call]:
        return self._impl.with_state(call, discovery, arrays)  # type: ignore[no-any-return]

    def grad(self, function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        return self._impl.grad(function, arrays)  # type: ignore[no-any-return]

    def differentiate(self, run: Computation) -> Mapping[int, Any]:
        return self._impl.differentiate(run, self.arrays)  # type: ignore[no-any-return]

    def findings(self, call: Call, discovery: Discovery) -> Iterator[CompatRow]:
        from .compat import findings

        return findings(call, discovery)

    def abstract(self, call: Call, discovery: Discovery) -> AbstractContextManager[Abstract]:
        from .staging.abstract import abstract

        return abstract(call, discovery)

    def rng(self, state: Any = None) -> Any:
        return ()  # JAX has no generator beside the keys that a model is given

    def seed(self, number: int) -> None:
        """JAX has no generator beside the keys that a model is given."""

    def restart_own(self, model: Any, state: Any = None, seed: int | None = None) -> None:
        self._impl.restart(model, state, seed)

    resolve = not_implemented("operations are parts of a jaxpr, which no file holds", instead="Trace the model again.")

    def function_names(self) -> frozenset[str]:
        return self._impl.function_names()  # type: ignore[no-any-return]

    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        return self._impl.settings(row, func)  # type: ignore[no-any-return]


@hookimpl
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """What core asks of every plugin that it finds."""
    register(JaxBackend())


@hookimpl
def torchlens_register_conformance(register: Callable[[str, Callable[[], Fixtures]], None]) -> None:
    """What the conformance kit builds its models with; they are modules of Flax NNX."""

    def make() -> Fixtures:
        from .conformance import JaxFixtures

        return JaxFixtures()

    register("jax", make)


@hookimpl
def torchlens_register_facets(register: Callable[[Recipe], None]) -> None:
    """What Flax's and Equinox's modules have."""
    for recipe in RECIPES:
        register(recipe)
