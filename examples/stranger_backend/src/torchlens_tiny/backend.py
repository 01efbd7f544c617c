"""The backend of `tiny`, and the hooks by which TorchLens finds it."""

import functools
import inspect
from contextlib import contextmanager

import numpy as np

from torchlens_core.backend import Discovery, State, not_implemented
from torchlens_core.compat.row import CompatRow
from torchlens_core.containers import Containers
from torchlens_core.eager import EagerBackend, NumpyArrays, call_sites
from torchlens_core.hookspecs import hookimpl
from torchlens_core.program import HOLE, Func, ModuleInfo
from torchlens_core.reach import reachable
from torchlens_core.vocabulary import canonical_type

from .framework import FUNCTIONS, Module, Parameter, Tensor, generator, grad, operation, watched_by


class TinyArrays(NumpyArrays):
    def is_array(self, value):
        return isinstance(value, Tensor)

    def to_numpy(self, array):
        return array.data

    def from_numpy(self, array):
        return Tensor(np.array(array))

    def overwrite(self, array, value):
        array.data = value.data


@functools.cache
def described(run):
    """What TorchLens is told of an operation; one object for each, for the whole process."""
    path = f"tiny.{run.name}"
    return Func(run, run.name, canonical_type(run.name), path=path, random=run.random)


class Telling:
    """Watches the framework, and tells TorchLens in its words."""

    def __init__(self, watch):
        self.watch = watch

    def operation(self, run, args, kwargs):
        return self.watch.operation(described(run), args, kwargs, run)

    def module_call(self, module, args, kwargs, forward):
        return self.watch.module_call(module, args, kwargs, forward)

    def read(self, kind, tensor, value):
        self.watch.read(kind, tensor, value)

    def assigned(self, module, name, tensor):
        self.watch.assigned(module, name, tensor)


def parts_of(module):
    """What a module holds, by name; of a list its items, by position."""
    for name, value in vars(module).items():
        if isinstance(value, list):
            yield from ((f"{name}.{number}", item) for number, item in enumerate(value))
        else:
            yield name, value


def walk(address, module, discovery):
    """Note a module, its tensors and the modules in it, each once; what is found again gets one more name."""
    prefix, cls = f"{address}." if address else "", type(module)
    known = next((info for info, other in discovery.modules if other is module), None)
    if known is None:
        discovery.modules.append((ModuleInfo(address, cls.__name__, f"{cls.__module__}.{cls.__qualname__}"), module))
    else:
        known.aliases += (address,)
        if not known.address or address.startswith(known.address + "."):
            return  # it is inside itself
    for name, value in parts_of(module):
        if isinstance(value, Module):
            walk(prefix + name, value, discovery)
        elif isinstance(value, Tensor):
            note(prefix + name, value, address, discovery)


def note(address, tensor, module, discovery):
    known = next((state for state in discovery.state if state.array is tensor), None)
    if known is not None:
        known.aliases += (address,)
    else:
        is_trained = isinstance(tensor, Parameter)
        discovery.state.append(State(address, tensor, is_trained, not is_trained, module=module))


class TinyBackend(EagerBackend):
    name = "tiny"
    package = "torchlens-tiny"
    requires = "torchlens-tiny"
    arrays = TinyArrays()
    containers = Containers(Tensor)
    sites = call_sites(operation, Module, Tensor, Telling)
    identity = described(FUNCTIONS["identity"])
    grad = staticmethod(grad)
    abstract = not_implemented("a tensor has elements always", instead="Trace a smaller input")

    def claims(self, model, args):
        is_ours = any(isinstance(value, Module) for _, value in reachable(model))
        return is_ours or any(self.containers.leaves(list(args)))

    def version(self):
        return "1.0"

    def load(self):
        pass  # nothing is to be imported

    def watching(self, watch):
        return watched_by(None if watch is None else Telling(watch))

    def discover(self, call):
        found = [(name, value) for name, value in reachable(call.model) if isinstance(value, Module)]
        if found and not found[0][0]:  # the model is a module, or a method of one
            discovery, found = Discovery(type(found[0][1]).__name__, []), found[:1]
        else:  # a function, with the modules that it can reach
            name = getattr(call.model, "__name__", type(call.model).__name__)
            discovery = Discovery(name, [(ModuleInfo("", name), None)])
        for address, module in found:
            walk(address, module, discovery)
        return discovery

    def function_names(self):
        return frozenset({*FUNCTIONS, *map(canonical_type, FUNCTIONS)})

    def rng(self, state=None):
        if state is not None:
            generator.bit_generator.state = state
        return generator.bit_generator.state

    def seed(self, number):
        self.rng(np.random.default_rng(number).bit_generator.state)

    @contextmanager
    def preserve(self, call, discovery):
        held = [(module, dict(vars(module))) for _, module in discovery.modules if module is not None]
        state = self.rng()
        try:
            yield call
        finally:
            for module, attributes in held:
                vars(module).update(attributes)
            self.rng(state)

    @contextmanager
    def with_state(self, call, discovery, arrays):
        held = [(state.array, state.array.data) for state in discovery.state if state.address in arrays]
        try:
            for state in discovery.state:
                if state.address in arrays:
                    state.array.data = arrays[state.address].data
            yield call
        finally:
            for tensor, data in held:
                tensor.data = data

    def settings(self, row, func):
        signature = inspect.signature(FUNCTIONS[func.name])
        given = signature.bind(*row.args, **row.kwargs).arguments
        default = {name: parameter.default for name, parameter in signature.parameters.items()}
        return {name: value for name, value in given.items() if value is HOLE or value is not default[name]}

    def resolve(self, path):
        return FUNCTIONS.get(path.removeprefix("tiny.")) if path.startswith("tiny.") else None

    def findings(self, call, discovery):
        tied = ", ".join(state.address for state in discovery.state if state.aliases)
        yield CompatRow("tied parameters", "pass", "One parameter, under all its addresses.", evidence=tied)


@hookimpl
def torchlens_register_backends(register):
    register(TinyBackend())


@hookimpl
def torchlens_register_conformance(register):
    def make():
        from .conformance import TinyFixtures

        return TinyFixtures()

    register("tiny", make)
