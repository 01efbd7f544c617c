"""The backend of the toy framework: all that a plugin has to do, for a framework that makes it easy.

Read it beside :mod:`torchlens_core.backend`, which says what each method is for. The framework's arrays are cells that
hold a value which never changes, so to keep a value is to keep what the cell holds, and no two arrays share memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Arrays, Backend, Call, Discovery, State, not_implemented
from ..compat.row import CompatRow
from ..dtypes import numpy_dtype
from ..errors import NestedTraceError
from ..hookspecs import hookimpl
from ..plan import Plan
from ..program import HOLE, Func, Meta, ModuleInfo, Output, Row
from ..reach import reachable
from ..recording.steps import Steps
from ..records.module_facts import plain
from ..session import Halt, Session
from ..vocabulary import canonical_type
from .toy_autodiff import Tape, grad, unseen
from .toy_framework import OPERATIONS, Array, Module, generator_state, reshape, total, watcher_here, watching
from .toy_recorder import Recorder, containers, meta_of
from .toy_recording import recording

if TYPE_CHECKING:
    from .conformance.fixtures import Fixtures


class ToyArrays(Arrays):
    """What core needs of arrays."""

    def is_array(self, value: Any) -> bool:
        return isinstance(value, Array)

    def meta(self, array: Array) -> Meta:
        return meta_of(array)

    def dtype_name(self, dtype: Any) -> str:
        return str(np.dtype(dtype).name)

    def copy(self, array: Array, *, attached: bool = False) -> Array:
        return Array(array.data)

    def overwrite(self, array: Array, value: Array) -> None:
        array.data = value.data

    def memory(self, array: Array) -> None:
        return None  # what was held is what the cell held, which nobody writes

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

    def nbytes_held(self, arrays: Iterable[Array]) -> int:
        return sum({id(array.data): array.data.nbytes for array in arrays}.values())

    def perturb(self, array: Array, seed: int) -> Array:
        if array.dtype.kind != "f":
            return self.copy(array)
        noise = np.random.default_rng(seed).normal(size=array.shape)
        return Array(array.data + 0.1 * noise * (array.data.std() or 0.1), array.dtype)

    def as_like(self, value: Any, array: Array) -> Array:
        return Array(value.data if isinstance(value, Array) else value, array.dtype)

    def full_like(self, array: Array, number: float) -> Array:
        return Array(np.full_like(array.data, number))

    def expand(self, array: Array, shape: Sequence[int]) -> Array:
        return Array(np.broadcast_to(array.data, shape))

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        with unseen():
            return reshape(array, tuple(shape))  # type: ignore[no-any-return]

    def permute(self, array: Array, axes: Sequence[int]) -> Array:
        return Array(array.data.transpose(tuple(axes)))

    def clip(self, array: Array, low: Any, high: Any) -> Array:
        ends = (end.data if isinstance(end, Array) else end for end in (low, high))
        return Array(np.clip(array.data, *ends), array.dtype)

    def sum(self, array: Array, axes: Sequence[int]) -> Array:
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(array.shape))
        with unseen():
            return reshape(total(array, tuple(axes)), kept)  # type: ignore[no-any-return]

    def mean(self, array: Array, axes: Sequence[int]) -> Array:
        return Array(array.data.mean(tuple(axes), keepdims=True), array.dtype)

    def norm(self, array: Array, order: float) -> Array:
        return Array(np.linalg.norm(array.data.ravel(), order), array.dtype)

    def normal(self, array: Array, seed: int) -> Array:
        return Array(np.random.default_rng(seed).normal(size=array.shape), array.dtype)

    def get_at(self, array: Array, index: tuple[Any, ...]) -> Array:
        return Array(array.data[index])

    def set_at(self, array: Array, index: tuple[Any, ...], part: Array) -> Array:
        made = array.data.copy()
        made[index] = part.data
        return Array(made)


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

    def recording(
        self, model: Any, discovery: Discovery, plan: Plan, steps: Steps
    ) -> AbstractContextManager[Callable[[Call], Any]]:
        return recording(model, plan, steps)

    def own_state(self, model: Any) -> Mapping[str, Any]:
        state = self.discover(Call(model, (), {})).state
        return {each.address: Array(each.array.data) for each in state if each.is_buffer}

    def leaves(self, value: Any) -> Iterator[tuple[str, Any]]:
        return containers.leaves(value)

    def replaced(self, value: Any, arrays: Mapping[int, Any]) -> Any:
        return containers.replaced(value, arrays)

    def call(
        self, row: Row, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_differentiable: bool = False
    ) -> Any:
        assert row.func.func is not None
        watcher = watcher_here()
        if is_differentiable and isinstance(watcher, Tape):
            return watcher.operation(OPERATIONS[row.func.name], args, dict(kwargs))
        return row.func.func(*args, **kwargs)

    def grad(self, function: Callable[..., Any], arrays: Sequence[Any]) -> tuple[Any, list[Any]]:
        return grad(function, arrays)

    @contextmanager
    def preserve(self, call: Call, discovery: Discovery) -> Iterator[Call]:
        given = [array for _, array in containers.leaves((call.args, dict(call.kwargs)))]
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
