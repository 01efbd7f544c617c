"""The plugin's entry point: registers the backend. Imports no JAX; that happens at the first capture."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torchlens_core.backend import Abstract, Arrays, Backend, Call, Discovery, not_implemented
from torchlens_core.compat.row import CompatRow
from torchlens_core.errors import BackendMissing
from torchlens_core.hookspecs import hookimpl
from torchlens_core.program import Func, Row
from torchlens_core.session import Session

_MINIMUM = (0, 7)


class JaxBackend(Backend):
    """JAX, staged: the program that JAX compiles, with values kept and changed inside it."""

    name = "jax"
    package = "jax"
    requires = f"jax>={_MINIMUM[0]}.{_MINIMUM[1]}"

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

    def version(self) -> str | None:
        jax = sys.modules.get("jax")
        if jax is not None and hasattr(jax, "__version__"):
            return str(jax.__version__)
        try:
            return importlib.metadata.version("jax")
        except importlib.metadata.PackageNotFoundError:
            return None

    def load(self) -> None:
        version = self.version()
        if version is None:
            raise BackendMissing("The jax backend needs JAX, which is not installed: pip install 'jax>=0.7'.")
        found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if found < _MINIMUM:
            raise BackendMissing(
                f"The jax backend needs {self.requires}; jax {version} is installed: pip install -U jax."
            )
        importlib.import_module("jax")

    def discover(self, call: Call) -> Discovery:
        return self._impl.discover(call)  # type: ignore[no-any-return]

    def capture(self, call: Call, session: Session) -> Any:
        return self._impl.capture(call, session)

    recording = not_implemented(
        "calls of a compiled function are not seen", instead="Trace the call: tl.trace(model, x, save=...)."
    )

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

    def findings(self, call: Call, discovery: Discovery) -> Iterator[CompatRow]:
        from .compat import findings

        return findings(call, discovery)

    def abstract(self, call: Call, discovery: Discovery) -> AbstractContextManager[Abstract]:
        from .abstract import abstract

        return abstract(call, discovery)

    def rng(self, state: Any = None) -> Any:
        return ()  # JAX has no generator beside the keys that a model is given

    def seed(self, number: int) -> None:
        """JAX has no generator beside the keys that a model is given."""

    def resolve(self, path: str) -> Callable[..., Any] | None:
        return None  # operations are parts of a jaxpr, which no file holds

    def function_names(self) -> frozenset[str]:
        return self._impl.function_names()  # type: ignore[no-any-return]

    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        return self._impl.settings(row, func)  # type: ignore[no-any-return]


@hookimpl
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """What core asks of every plugin that it finds."""
    register(JaxBackend())
