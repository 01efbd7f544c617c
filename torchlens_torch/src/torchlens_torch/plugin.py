"""The plugin's entry point: registers the backend. Imports no torch; that happens at the first capture."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torchlens_core.backend import Abstract, Arrays, Backend, Call, Discovery, Loader
from torchlens_core.compat.row import CompatRow
from torchlens_core.facets import Recipe
from torchlens_core.hookspecs import hookimpl
from torchlens_core.plan import Plan
from torchlens_core.program import Func, Row
from torchlens_core.recording.steps import Steps
from torchlens_core.session import Session

from .facets import RECIPES

if TYPE_CHECKING:
    from torchlens_core.testing.conformance.fixtures import Fixtures


class TorchBackend(Backend):
    """PyTorch, eagerly: what really ran."""

    name = "torch"
    package = "torch"
    requires = "torch>=2.6"

    @functools.cached_property
    def _impl(self) -> Any:
        self.load()
        return importlib.import_module("torchlens_torch.backend")

    @property
    def arrays(self) -> Arrays:  # type: ignore[override]
        return self._impl.arrays  # type: ignore[no-any-return]

    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "Tensor"):
            return False
        if isinstance(model, torch.nn.Module) or any(isinstance(value, torch.Tensor) for value in args):
            return True
        return bool(self._impl.is_ours(model, args))

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

    def conditions(self) -> Callable[[], AbstractContextManager[Any]]:
        return self._impl.conditions()  # type: ignore[no-any-return]

    def own_state(self, model: Any) -> Mapping[str, Any]:
        return self._impl.own_state(model)  # type: ignore[no-any-return]

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return self._impl.argument_leaves(value)  # type: ignore[no-any-return]

    def replaced(self, value: Any, arrays: Mapping[int, Any]) -> Any:
        return self._impl.replaced(value, arrays)

    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        return self._impl.call(row, args, kwargs, is_differentiable=is_differentiable)

    def preserve(self, call: Call, discovery: Discovery) -> AbstractContextManager[Call]:
        return self._impl.preserve(call, discovery)  # type: ignore[no-any-return]

    def no_gradients(self) -> AbstractContextManager[Any]:
        return self._impl.no_gradients()  # type: ignore[no-any-return]

    def grad(self, function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        return self._impl.grad(function, arrays)  # type: ignore[no-any-return]

    def gradients_at(self, function: Callable[[Any], Any]) -> dict[Any, Any]:
        return self._impl.gradients_at(function)  # type: ignore[no-any-return]

    def backward(self, store: Any, loss: Any, made: Mapping[int, Any], **options: Any) -> Any:
        return self._impl.backward(store, loss, made, **options)

    def recording_backward(self, store: Any, made: Mapping[int, Any], **options: Any) -> Any:
        return self._impl.recording_backward(store, made, **options)

    def loader(self, stimuli: Any) -> Loader | None:
        return self._impl.loader(stimuli)  # type: ignore[no-any-return]

    def with_state(self, call: Call, discovery: Discovery, arrays: Mapping[str, Any]) -> AbstractContextManager[Call]:
        return self._impl.with_state(call, discovery, arrays)  # type: ignore[no-any-return]

    def findings(self, call: Call, discovery: Discovery) -> Iterator[CompatRow]:
        from .compat import findings

        return findings(call, discovery)

    def abstract(self, call: Call, discovery: Discovery) -> AbstractContextManager[Abstract]:
        from .abstract import abstract  # what it imports takes time, and few runs need it

        return abstract(call, discovery)

    def rng(self, state: Any = None) -> Any:
        return self._impl.rng_state() if state is None else self._impl.set_rng(state)

    def seed(self, number: int) -> None:
        self._impl.seed(number)

    def resolve(self, path: str) -> Callable[..., Any] | None:
        return self._impl.resolve(path)  # type: ignore[no-any-return]

    def function_names(self) -> frozenset[str]:
        return self._impl.function_names()  # type: ignore[no-any-return]

    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        return self._impl.settings(row, func)  # type: ignore[no-any-return]


@hookimpl
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """What core asks of every plugin that it finds."""
    register(TorchBackend())


@hookimpl
def torchlens_register_facets(register: Callable[[Recipe], None]) -> None:
    """What the modules of PyTorch models compute, by name."""
    for recipe in RECIPES:
        register(recipe)


@hookimpl
def torchlens_register_conformance(register: Callable[[str, Callable[[], Fixtures]], None]) -> None:
    """What the conformance kit builds its models with."""

    def make() -> Fixtures:
        from .conformance import TorchFixtures

        return TorchFixtures()

    register("torch", make)
