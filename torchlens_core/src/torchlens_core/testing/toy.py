"""The backend of the toy framework: all that a plugin has to do, for a framework that makes it easy.

Read it beside :mod:`torchlens_core.backend`, which says what each method is for. The framework's arrays are cells that
hold a value which never changes, so to keep a value is to keep what the cell holds, and no two arrays share memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import Arrays, Backend, Call, Discovery, State
from ..dtypes import numpy_dtype
from ..errors import NestedTraceError
from ..hookspecs import hookimpl
from ..program import HOLE, Func, Meta, ModuleInfo, Output, Row
from ..reach import reachable
from ..session import Halt, Session
from ..vocabulary import canonical_type
from .toy_framework import OPERATIONS, Array, Module, generator_state, watcher_here, watching
from .toy_recorder import Recorder, containers, meta_of


class ToyArrays(Arrays):
    """What core needs of arrays."""

    def is_array(self, value: Any) -> bool:
        return isinstance(value, Array)

    def meta(self, array: Array) -> Meta:
        return meta_of(array)

    def dtype_name(self, dtype: Any) -> str:
        return str(np.dtype(dtype).name)

    def copy(self, array: Array) -> Array:
        return Array(array.data)

    def hold(self, array: Array) -> Any:
        return array.data

    def release(self, held: Any) -> Array:
        return Array(held)

    def detach(self, array: Array) -> Array:
        return Array(array.data)

    def cast(self, array: Array, dtype: Any, device: Any) -> Array:
        return array if dtype is None else Array(array.data, numpy_dtype(str(dtype)))

    def to_numpy(self, array: Array) -> Any:
        return array.data

    def from_numpy(self, array: Any) -> Array:
        return Array(array)

    def equal(self, left: Array, right: Array, *, rtol: float, atol: float) -> bool:
        a, b = left.data, right.data
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.allclose(a, b, rtol, atol, equal_nan=True))

    def max_difference(self, left: Array, right: Array) -> float:
        a, b = left.data.astype(float), right.data.astype(float)
        differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        return float(np.nan_to_num(np.abs(a[differ] - b[differ]), nan=np.inf).max(initial=0.0))

    def perturb(self, array: Array, seed: int) -> Array:
        if array.dtype.kind != "f":
            return self.copy(array)
        noise = np.random.default_rng(seed).normal(size=array.shape)
        return Array(array.data + 0.1 * noise * (array.data.std() or 0.1), array.dtype)


class ToyBackend(Backend):
    """The toy framework, eagerly."""

    name = "toy"
    package = "torchlens-core"
    requires = "torchlens-core"
    arrays = ToyArrays()

    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        return any(isinstance(value, Module) for _, value in reachable(model)) or any(containers.leaves(list(args)))

    def version(self) -> str | None:
        return "1.0"

    def load(self) -> None:
        """Nothing is to be imported."""

    def discover(self, call: Call) -> Discovery:
        reached = [(name, value) for name, value in reachable(call.model) if isinstance(value, Module)]
        if reached and not reached[0][0]:  # the model is a module, or a method of one
            discovery = Discovery(type(reached[0][1]).__name__, [])
            reached = reached[:1]
        else:
            name = getattr(call.model, "__name__", type(call.model).__name__)
            discovery = Discovery(name, [(ModuleInfo("", name), None)])
        for address, module in reached:
            _walk(address, module, discovery)
        return discovery

    def capture(self, call: Call, session: Session) -> Any:
        if isinstance(watcher_here(), Recorder):
            raise NestedTraceError("A trace is already running in this thread: the traced model called tl.trace.")
        recorder = Recorder(session)
        if "replay" in session.needs:
            session.rng[-1] = generator_state()
        recorder.add_state()
        recorder.add_inputs(call)
        try:
            with watching(recorder):
                out = recorder.leave(call.run())
        except Halt:
            out = None
        finally:
            session.abandon(session.scopes[0])
        session.outputs += [Output(path, recorder.vid_of(array)) for path, array in containers.leaves(out)]
        recorder.warn_of_unknown()
        return out

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return containers.leaves(value)

    def call(self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        assert row.func.func is not None
        return row.func.func(*args, **kwargs)

    @contextmanager
    def preserve(self, call: Call, discovery: Discovery) -> Iterator[None]:
        given = [array for _, array in containers.leaves((call.args, dict(call.kwargs)))]
        held = [(array, array.data) for array in [*given, *(state.array for state in discovery.state)]]
        bound = [(module, dict(module.buffers)) for _, module in discovery.modules if module is not None]
        generator = generator_state()
        try:
            yield
        finally:
            for module, buffers in bound:
                for name, array in buffers.items():
                    setattr(module, name, array)
            for array, data in held:
                array.data = data
            generator_state(generator)

    @contextmanager
    def with_state(self, discovery: Discovery, arrays: Mapping[str, Any]) -> Iterator[None]:
        changed = [state for state in discovery.state if state.address in arrays]
        before = [state.array.data for state in changed]
        try:
            for state in changed:
                state.array.data = arrays[state.address].data
            yield
        finally:
            for state, data in zip(changed, before, strict=True):
                state.array.data = data

    def rng(self, state: Any = None) -> Any:
        return generator_state(state)

    def resolve(self, path: str) -> Callable[..., Any] | None:
        operation = OPERATIONS.get(path.removeprefix("toy."))
        return operation.run if operation is not None and path.startswith("toy.") else None

    def function_names(self) -> frozenset[str]:
        return frozenset({*OPERATIONS, *map(canonical_type, OPERATIONS)})

    def settings(self, row: Row, func: Func) -> Mapping[str, Any]:
        signature = inspect.signature(OPERATIONS[func.name].compute)
        named = signature.bind(*row.args, **row.kwargs).arguments
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        return {name: value for name, value in named.items() if value is HOLE or value is not defaults[name]}


def _walk(address: str, module: Module, discovery: Discovery) -> None:
    """Note a module, its state and what is below it. What is found again under another name gets an alias."""
    cls = type(module)
    info = next((info for info, other in discovery.modules if other is module), None)
    if info is None:
        info = ModuleInfo(address, cls.__name__, f"{cls.__module__}.{cls.__qualname__}", training=module.training)
        discovery.modules.append((info, module))
    else:
        info.aliases = (*info.aliases, address)
        if not info.address or address.startswith(info.address + "."):
            return  # it is inside itself
    prefix = f"{address}." if address else ""
    for name, array in module.named_arrays():
        known = next((state for state in discovery.state if state.array is array), None)
        if known is not None:
            known.aliases = (*known.aliases, prefix + name)
        else:
            is_buffer = name in module.buffers
            discovery.state.append(State(prefix + name, array, not is_buffer, is_buffer, module=address))
    for name, child in module.named_children():
        _walk(prefix + name, child, discovery)


@hookimpl
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """Bring the toy framework's backend."""
    register(ToyBackend())
