"""The backend of the toy framework: all that a plugin has to do, for a framework that makes it easy.

Read it beside :mod:`torchlens_core.backend`, which says what each method is for. The framework's arrays are cells that
hold a value which never changes, so to keep a value is to keep what the cell holds, and no two arrays share memory.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Backend, Call, Discovery, State, not_implemented
from ..compat.row import CompatRow
from ..containers import Containers
from ..eager import EagerBackend, NumpyArrays, Watch, call_sites
from ..hookspecs import hookimpl
from ..program import HOLE, Func, ModuleInfo, Row
from ..reach import reachable
from ..records.module_facts import plain
from ..vocabulary import canonical_type
from . import toy_framework
from .toy_autodiff import Tape, grad, unseen
from .toy_framework import OPERATIONS, Array, Module, Operation, generator_state, reshape, total, watcher_here, watching

if TYPE_CHECKING:
    from .conformance.fixtures import Fixtures


class ToyArrays(NumpyArrays):
    """What core needs of arrays. Values are kept without a copy; what gradients flow through is on the tape."""

    def is_array(self, value: Any) -> bool:
        return isinstance(value, Array)

    def to_numpy(self, array: Array) -> Any:
        return array.data

    def from_numpy(self, array: Any) -> Array:
        return Array(array)

    def overwrite(self, array: Array, value: Array) -> None:
        array.data = value.data

    def hold(self, array: Array) -> Any:
        return array.data

    def release(self, held: Any) -> Array:
        return Array(held)

    def nbytes_held(self, arrays: Iterable[Array]) -> int:
        return sum({id(array.data): array.data.nbytes for array in arrays}.values())

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        with unseen():
            return reshape(array, tuple(shape))  # type: ignore[no-any-return]

    def sum(self, array: Array, axes: Sequence[int]) -> Array:
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(array.shape))
        with unseen():
            return reshape(total(array, tuple(axes)), kept)  # type: ignore[no-any-return]


@functools.cache
def describe(operation: Operation) -> Func:
    """What core is told of an operation."""
    return Func(
        operation.run,
        operation.name,
        canonical_type(operation.name),
        path=f"toy.{operation.name}",
        writes=(lambda args, kwargs: args[:1]) if operation.writes else None,
        random=operation.random,
        output_names=operation.outputs,
    )


class Telling:
    """Watches the framework, and tells what it sees in the words of core."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.read = watch.read
        self.assigned = watch.assigned

    def operation(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._watch.operation(describe(operation), args, kwargs, operation.run)

    def module_call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._watch.module_call(module, args, kwargs, module.run)


class ToyBackend(EagerBackend):
    """The toy framework, eagerly."""

    name = "toy"
    package = "torchlens-core"
    requires = "torchlens-core"
    module = "torchlens_core.testing.toy_framework"
    arrays = ToyArrays()
    containers = Containers(Array)
    sites = call_sites(__file__, toy_framework.__file__)
    identity = Func(lambda array: Array(array.data), "identity", "identity", path="toy.identity")

    def claims(self, model: Any, args: Sequence[Any]) -> bool:
        found = (isinstance(value, Module) for _, value in reachable(model))
        return any(found) or any(self.containers.leaves(list(args)))

    def watching(self, watch: Watch | None) -> AbstractContextManager[Any]:
        return watching(None if watch is None else Telling(watch))

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

    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        watcher = watcher_here()
        if is_differentiable and isinstance(watcher, Tape):
            return watcher.operation(OPERATIONS[row.func.name], args, dict(kwargs))
        return super().call(row, args, kwargs)

    def grad(self, function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        return grad(function, arrays)

    @contextmanager
    def preserve(self, call: Call, discovery: Discovery) -> Iterator[Call]:
        given = [array for _, array in self.leaves((call.args, dict(call.kwargs)))]
        held = [(array, array.data) for array in [*given, *(state.array for state in discovery.state)]]
        bound = [(module, dict(module.buffers)) for _, module in discovery.modules if module is not None]
        generator = generator_state()
        try:
            yield call
        finally:
            for module, buffers in bound:
                for name, array in buffers.items():
                    setattr(module, name, array)
            for array, data in held:
                array.data = data
            generator_state(generator)

    @contextmanager
    def with_state(self, call: Call, discovery: Discovery, arrays: Mapping[str, Any]) -> Iterator[Call]:
        changed = [state for state in discovery.state if state.address in arrays]
        before = [state.array.data for state in changed]
        try:
            for state in changed:
                state.array.data = arrays[state.address].data
            yield call
        finally:
            for state, data in zip(changed, before, strict=True):
                state.array.data = data

    def findings(self, call: Call, discovery: Discovery) -> Iterable[CompatRow]:
        return _findings(discovery)

    abstract = not_implemented(
        "its arrays are numpy arrays, which have elements always", instead="Trace a smaller input"
    )

    def rng(self, state: Any = None) -> Any:
        return generator_state(state)

    def seed(self, number: int) -> None:
        generator_state(np.random.default_rng(number).bit_generator.state)

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


def _settings(module: Module) -> dict[str, Any]:
    """A module's own attributes beside its arrays and the modules in it."""
    held = {name.partition(".")[0] for name, _ in (*module.named_arrays(), *module.named_children())}
    return {name: plain(value) for name, value in vars(module).items() if name not in {"buffers", "hooks", *held}}


def _walk(address: str, module: Module, discovery: Discovery) -> None:
    """Note a module, its state and what is below it. What is found again under another name gets an alias."""
    cls = type(module)
    info = next((info for info, other in discovery.modules if other is module), None)
    if info is None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        info = ModuleInfo(
            address, cls.__name__, name, training=module.training, facts={"attributes": _settings(module)}
        )
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


def _findings(discovery: Discovery) -> Iterator[CompatRow]:
    shared = [state.address for state in discovery.state if state.aliases]
    yield CompatRow("tied parameters", "pass", "One parameter, under all its addresses.", evidence=", ".join(shared))
    special = sorted({type(state.array).__name__ for state in discovery.state} - {"Array", "Parameter"})
    details = "Operations are recorded as of any other array, and saved as plain arrays."
    yield CompatRow("subclasses of Array", "scope", details, evidence=", ".join(special))


@hookimpl
def torchlens_register_backends(register: Callable[[Backend], None]) -> None:
    """Bring the toy framework's backend."""
    register(ToyBackend())


@hookimpl
def torchlens_register_conformance(register: Callable[[str, Callable[[], Fixtures]], None]) -> None:
    """What the conformance kit builds its models with."""

    def make() -> Fixtures:
        from .toy_conformance import ToyFixtures

        return ToyFixtures()

    register("toy", make)
