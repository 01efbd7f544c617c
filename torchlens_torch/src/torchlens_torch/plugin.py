"""The plugin's entry point: registers the backend. Imports no torch; that happens at the first capture."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torchlens_core.backend import Arrays, Backend, Call, Discovery
from torchlens_core.errors import BackendMissing
from torchlens_core.hookspecs import hookimpl
from torchlens_core.program import Func, Row
from torchlens_core.session import Session

_MINIMUM = (2, 6)


class TorchBackend(Backend):
    """PyTorch, eagerly: what really ran."""

    name = "torch"
    package = "torch"
    requires = f"torch>={_MINIMUM[0]}.{_MINIMUM[1]}"

    @property
    def _impl(self) -> Any:
        return importlib.import_module("torchlens_torch.backend")

    @property
    def arrays(self) -> Arrays:  # type: ignore[override]
        self.load()
        return self._impl.arrays  # type: ignore[no-any-return]

    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "Tensor"):
            return False
        if isinstance(model, torch.nn.Module) or any(isinstance(value, torch.Tensor) for value in args):
            return True
        return bool(self._impl.is_ours(model, args))

    def version(self) -> str | None:
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "__version__"):
            return str(torch.__version__)
        try:
            return importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return None

    def load(self) -> None:
        version = self.version()
        if version is None:
            raise BackendMissing("The torch backend needs PyTorch, which is not installed: pip install 'torch>=2.6'.")
        found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if found < _MINIMUM:
            raise BackendMissing(
                f"The torch backend needs {self.requires}; torch {version} is installed: pip install -U torch."
            )
        importlib.import_module("torch")

    def discover(self, call: Call) -> Discovery:
        return self._impl.discover(call)  # type: ignore[no-any-return]

    def capture(self, call: Call, session: Session) -> Any:
        return self._impl.capture(call, session)

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return self._impl.argument_leaves(value)  # type: ignore[no-any-return]

    def call(self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._impl.call(row, args, kwargs)

    def preserve(self, call: Call, discovery: Discovery) -> AbstractContextManager[None]:
        return self._impl.preserve(call, discovery)  # type: ignore[no-any-return]

    def with_state(self, discovery: Discovery, arrays: Mapping[str, Any]) -> AbstractContextManager[None]:
        return self._impl.with_state(discovery, arrays)  # type: ignore[no-any-return]

    def rng(self, state: Any = None) -> Any:
        return self._impl.rng_state() if state is None else self._impl.set_rng(state)

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
