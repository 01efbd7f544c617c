"""Models, each with something that changes between two calls: what a program kept from the first would be wrong about.

Each case gives the model, and what changes; or two models, or the model and two lists of arguments.
"""

from __future__ import annotations

import array
import dataclasses
import enum
import functools
import math
import os
import threading
import types
from collections import UserList, defaultdict, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.jax import changing_constants

X = np.arange(1, 5, dtype=np.float32)
NUMBER = 2.0
NUMBERS = [2.0, 3.0]
NESTED = {"a": [({"b": 2.0},)]}
ARRAY = np.ones(4, np.float32)


class Case(NamedTuple):
    first: Any
    second: Any
    change: Callable[[], Any] = lambda: None
    args: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())


CASES: dict[str, Callable[[pytest.MonkeyPatch], Case]] = {}


def case(make: Callable[[pytest.MonkeyPatch], Case]) -> Callable[[pytest.MonkeyPatch], Case]:
    CASES[make.__name__] = make
    return make


def changed(model: Any, change: Callable[[], Any]) -> Case:
    return Case(model, model, change)


def helper(x):
    return x * NUMBER


class Settings:
    scale = 2.0

    def __init__(self) -> None:
        self.number = 3.0
        self.inner: Any = None

    @property
    def of_global(self):
        return NUMBER

    def scaled(self, x):
        return x * self.scale


class Slotted:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 2.0


def setting(holder: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(holder, name, value)


def putting(holder: Any, at: Any, value: Any) -> Callable[[], None]:
    return lambda: holder.__setitem__(at, value)


def patching(patch: pytest.MonkeyPatch, holder: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: patch.setattr(holder, name, value)


def own_global(patch: pytest.MonkeyPatch, name: str, value: Any) -> Callable[[], None]:
    return lambda: patch.setitem(globals(), name, value)


# -- globals, closures, arguments --------------------------------------------------------------------------------------


@case
def a_global(patch):
    return changed(lambda x: x * NUMBER, own_global(patch, "NUMBER", 5.0))


@case
def a_global_of_a_helper(patch):
    return changed(lambda x: helper(x), own_global(patch, "NUMBER", 5.0))


@case
def a_global_asked_for_by_name(patch):
    return changed(lambda x: x * globals()["NUMBER"], own_global(patch, "NUMBER", 5.0))


@case
def a_global_that_was_not_there(patch):
    def model(x):
        try:
            return x * UNKNOWN
        except NameError:
            return x * 1.0

    return changed(model, lambda: patch.setitem(globals(), "UNKNOWN", 5.0))


@case
def a_name_of_python_that_is_given_anew(patch):
    return changed(lambda x: x * len([1]), lambda: patch.setitem(globals(), "len", lambda items: 5))


@case
def a_helper_replaced(patch):
    return changed(lambda x: helper(x), own_global(patch, "helper", lambda x: x * 7))


@case
def the_code_of_a_helper(patch):
    def inner(x):
        return x + 1

    return changed(lambda x: inner(x), setting(inner, "__code__", (lambda x: x + 2).__code__))


@case
def a_list(patch):
    numbers = [2.0]
    return changed(lambda x: x * numbers[0], putting(numbers, 0, 3.0))


@case
def the_length_of_a_list(patch):
    numbers = [2.0, 3.0]
    return changed(lambda x: x * len(numbers), lambda: numbers.append(1.0))


@case
def a_nested_container(patch):
    nested = {"a": [({"b": 2.0},)]}
    return changed(lambda x: x * nested["a"][0][0]["b"], putting(nested["a"][0][0], "b", 3.0))


@case
def a_set(patch):
    numbers = {1.0}
    return changed(lambda x: x * sum(numbers), lambda: numbers.add(2.0))


@case
def a_deque(patch):
    numbers = deque([2.0])
    return changed(lambda x: x * numbers[0], putting(numbers, 0, 3.0))


@case
def a_defaultdict(patch):
    numbers = defaultdict(float, a=2.0)
    return changed(lambda x: x * numbers["a"], putting(numbers, "a", 3.0))


@case
def a_view_of_a_dict(patch):
    numbers = {"a": 2.0}
    view = types.MappingProxyType(numbers)
    return changed(lambda x: x * view["a"], putting(numbers, "a", 3.0))


@case
def a_container_written_in_python(patch):
    numbers = UserList([2.0])
    return changed(lambda x: x * numbers[0], putting(numbers, 0, 3.0))


@case
def bytes_that_change(patch):
    numbers = bytearray(b"\x02")
    return changed(lambda x: x * numbers[0], putting(numbers, 0, 3))


@case
def an_array_of_python(patch):
    numbers = array.array("d", [2.0])
    return changed(lambda x: x * numbers[0], putting(numbers, 0, 3.0))


@case
def a_numpy_array_overwritten(patch):
    numbers = np.ones(4, np.float32)
    return changed(lambda x: x * numbers, putting(numbers, 0, 5.0))


@case
def a_numpy_array_that_another_is_a_view_of(patch):
    numbers = np.ones((4, 4), np.float32)
    row = numbers[0]
    return changed(lambda x: x * row, putting(numbers, (0, 0), 5.0))


@case
def a_numpy_array_of_an_object(patch):
    held = types.SimpleNamespace(numbers=np.ones(4, np.float32))
    return changed(lambda x: x * held.numbers, putting(held.numbers, 0, 5.0))


@case
def a_variable_closed_over(patch):
    number = 2.0

    def change():
        nonlocal number
        number = 3.0

    return changed(lambda x: x * number, change)


@case
def a_variable_in_a_closure_of_a_closure(patch):
    number = 2.0

    def change():
        nonlocal number
        number = 3.0

    def making():
        return lambda x: x * number

    inner = making()
    return changed(lambda x: inner(x) + 1, change)


@case
def a_number_of_another_type(patch):
    number: Any = 1

    def change():
        nonlocal number
        number = 1.0

    return changed(lambda x: jnp.asarray(x, int) * number, change)


@case
def minus_zero(patch):
    number = [0.0]
    return changed(lambda x: x / number[0], putting(number, 0, -0.0))


@case
def a_default_argument(patch):
    def model(x, number=2.0):
        return x * number

    return changed(model, setting(model, "__defaults__", (3.0,)))


@case
def a_default_argument_of_a_helper(patch):
    def inner(x, *, number=2.0):
        return x * number

    return changed(lambda x: inner(x), setting(inner, "__kwdefaults__", {"number": 3.0}))


@case
def a_default_argument_that_is_a_list(patch):
    def model(x, numbers=[2.0]):  # noqa: B006
        return x * numbers[0]

    return changed(model, lambda: putting(model.__defaults__[0], 0, 3.0)())


@case
def an_attribute_of_a_function(patch):
    def model(x):
        return x * model.number

    model.number = 2.0
    return changed(model, setting(model, "number", 3.0))


@case
def a_partial(patch):
    numbers = [2.0]
    return changed(functools.partial(lambda numbers, x: x * numbers[0], numbers), putting(numbers, 0, 3.0))


@case
def a_global_below_a_partial(patch):
    model = functools.partial(helper)
    return changed(lambda x: model(x), own_global(patch, "NUMBER", 5.0))


@case
def what_a_decorator_closes_over(patch):
    numbers = [2.0]

    def decorated(function):
        @functools.wraps(function)
        def wrapper(x):
            return function(x) * numbers[0]

        return wrapper

    return changed(decorated(lambda x: x), putting(numbers, 0, 3.0))


@case
def the_registry_of_a_generic_function(patch):
    @functools.singledispatch
    def generic(value):
        return 2.0

    return changed(lambda x: x * generic([]), lambda: generic.register(list, lambda value: 3.0))


@case
def what_the_body_of_a_scan_closes_over(patch):
    numbers = [2.0]

    def model(x):
        return jax.lax.scan(lambda carry, _: (carry * numbers[0], None), x, None, length=3)[0]

    return changed(model, putting(numbers, 0, 3.0))


@case
def what_a_function_with_its_own_rule_closes_over(patch):
    numbers = [2.0]

    @jax.custom_jvp
    def inner(x):
        return x * numbers[0]

    inner.defjvp(lambda primals, tangents: (inner(*primals), tangents[0]))
    return changed(lambda x: inner(x), putting(numbers, 0, 3.0))


@case
def a_function_handed_to_a_method_of_a_list(patch):
    numbers = [2.0]
    get = numbers.__getitem__
    return changed(lambda x: x * get(0), putting(numbers, 0, 3.0))


# -- arguments ---------------------------------------------------------------------------------------------------------


def given(model: Any, first: Any, second: Any) -> Case:
    return Case(model, model, args=((first,), (second,)))


@case
def an_argument(patch):
    return given(lambda x, number: x * number, 2, 3)


@case
def an_argument_of_another_type(patch):
    return given(lambda x, number: jnp.asarray(x, int) * number, 1, 1.0)


@case
def an_argument_that_is_a_list(patch):
    return given(lambda x, items: x * len(items), [1], [1, 2])


@case
def a_list_of_another_class(patch):
    class Items(list):
        pass

    return given(lambda x, items: x * (2.0 if type(items) is list else 3.0), ["a"], Items(["a"]))


@case
def an_argument_that_is_a_function(patch):
    return given(lambda x, function: function(x), lambda x: x * 2, lambda x: x * 3)


@case
def an_argument_that_is_a_function_of_a_library(patch):
    return given(lambda x, function: function(x), jnp.sin, jnp.cos)


@case
def an_argument_that_is_an_object(patch):
    first, second = Settings(), Settings()
    second.number = 5.0
    return given(lambda x, settings: x * settings.number, first, second)


@case
def an_enum(patch):
    class Kind(enum.Enum):
        TWO = 2.0
        THREE = 3.0

    return given(lambda x, kind: x * kind.value, Kind.TWO, Kind.THREE)


# -- objects, classes, modules of Python -------------------------------------------------------------------------------


@case
def an_attribute(patch):
    settings = Settings()
    return changed(lambda x: x * settings.number, setting(settings, "number", 5.0))


@case
def an_attribute_reached_through_others(patch):
    settings, inner = Settings(), Settings()
    settings.inner = [{"a": inner}]
    return changed(lambda x: x * settings.inner[0]["a"].number, setting(inner, "number", 5.0))


@case
def an_attribute_that_hides_that_of_the_class(patch):
    settings = Settings()
    return changed(lambda x: x * settings.scale, setting(settings, "scale", 5.0))


@case
def an_attribute_that_was_not_there(patch):
    settings = Settings()
    return changed(lambda x: x * getattr(settings, "new", 1.0), setting(settings, "new", 5.0))


@case
def a_slot(patch):
    settings = Slotted()
    return changed(lambda x: x * settings.number, setting(settings, "number", 5.0))


@case
def a_dataclass(patch):
    @dataclasses.dataclass
    class Data:
        number: float = 2.0

    data = Data()
    return changed(lambda x: x * data.number, setting(data, "number", 5.0))


@case
def a_namespace(patch):
    space = types.SimpleNamespace(number=2.0)
    return changed(lambda x: x * space.number, setting(space, "number", 5.0))


@case
def an_attribute_of_a_thread(patch):
    local = threading.local()
    local.number = 2.0
    return changed(lambda x: x * local.number, setting(local, "number", 5.0))


@case
def a_context_variable(patch):
    variable = ContextVar("variable", default=2.0)
    return changed(lambda x: x * variable.get(), lambda: variable.set(3.0))


@case
def an_attribute_of_a_class(patch):
    settings = Settings()
    return changed(lambda x: x * settings.scale, patching(patch, Settings, "scale", 5.0))


@case
def an_attribute_of_a_class_that_was_not_there(patch):
    class Empty:
        pass

    return changed(lambda x: x * getattr(Empty, "number", 1.0), setting(Empty, "number", 5.0))


@case
def an_attribute_of_a_base_class(patch):
    class Base:
        number = 2.0

    class Derived(Base):
        pass

    derived = Derived()
    return changed(lambda x: x * derived.number, setting(Base, "number", 5.0))


@case
def a_method(patch):
    settings = Settings()
    return changed(lambda x: settings.scaled(x), patching(patch, Settings, "scaled", lambda self, x: x * 5.0))


@case
def the_object_of_a_bound_method(patch):
    settings = Settings()
    return changed(settings.scaled, setting(settings, "scale", 5.0))


@case
def a_method_of_a_base_class(patch):
    class Base:
        def scaled(self, x):
            return x * 2

    class Derived(Base):
        def scaled(self, x):
            return super().scaled(x)

    derived = Derived()
    return changed(lambda x: derived.scaled(x), setting(Base, "scaled", lambda self, x: x * 3))


@case
def a_property_of_a_global(patch):
    settings = Settings()
    return changed(lambda x: x * settings.of_global, own_global(patch, "NUMBER", 5.0))


@case
def a_descriptor(patch):
    class Descriptor:
        number = 2.0

        def __get__(self, owner, cls):
            return self.number

    class Holder:
        number = Descriptor()

    holder = Holder()
    return changed(lambda x: x * holder.number, setting(vars(Holder)["number"], "number", 5.0))


@case
def what_getattr_gives(patch):
    numbers = [2.0]

    class Anything:
        def __getattr__(self, name):
            return numbers[0]

    anything = Anything()
    return changed(lambda x: x * anything.number, putting(numbers, 0, 3.0))


@case
def what_a_metaclass_gives(patch):
    numbers = [2.0]

    class Meta(type):
        def __getattr__(cls, name):
            return numbers[0]

    class Anything(metaclass=Meta):
        pass

    return changed(lambda x: x * Anything.number, putting(numbers, 0, 3.0))


@case
def a_class_method_and_a_static_one(patch):
    class Holder:
        @classmethod
        def one(cls):
            return NUMBER

        @staticmethod
        def other():
            return NUMBER

    return changed(lambda x: x * Holder.one() * Holder.other(), own_global(patch, "NUMBER", 5.0))


@case
def an_object_that_is_called(patch):
    class Model:
        def __init__(self) -> None:
            self.number = 2.0

        def __call__(self, x):
            return x * self.number

    model = Model()
    return changed(model, setting(model, "number", 5.0))


@case
def an_object_that_is_called_from_a_list(patch):
    class Model:
        def __init__(self) -> None:
            self.number = 2.0

        def __call__(self, x):
            return x * self.number

    models = [Model()]
    return changed(lambda x: models[0](x), setting(models[0], "number", 5.0))


@case
def a_constant_of_a_module(patch):
    return changed(lambda x: x * changing_constants.FACTOR, patching(patch, changing_constants, "FACTOR", 5.0))


@case
def a_constant_that_a_function_of_a_module_takes(patch):
    return changed(lambda x: changing_constants.scaled(x), patching(patch, changing_constants, "FACTOR", 5.0))


@case
def a_function_of_a_module(patch):
    return changed(
        lambda x: changing_constants.scaled(x), patching(patch, changing_constants, "scaled", lambda x: x * 5.0)
    )


@case
def a_constant_asked_for_by_name(patch):
    return changed(
        lambda x: x * changing_constants.FACTOR,
        patching(patch, changing_constants, "FACTOR", 5.0),
    )


@case
def a_constant_of_a_module_in_a_container(patch):
    modules = {"a": changing_constants}
    return changed(lambda x: x * modules["a"].FACTOR, patching(patch, changing_constants, "FACTOR", 5.0))


@case
def a_module_imported_inside(patch):
    def model(x):
        from tests.jax import changing_constants as constants

        return x * constants.FACTOR

    return changed(model, patching(patch, changing_constants, "FACTOR", 5.0))


@case
def a_name_imported_inside(patch):
    def model(x):
        from tests.jax.changing_constants import FACTOR

        return x * FACTOR

    return changed(model, patching(patch, changing_constants, "FACTOR", 5.0))


@case
def a_constant_of_a_library(patch):
    return changed(lambda x: x * math.pi, patching(patch, math, "pi", 3.0))


@case
def a_function_of_jax(patch):
    return changed(lambda x: jax.nn.relu(x - 2), patching(patch, jax.nn, "relu", jnp.tanh))


@case
def the_environment(patch):
    patch.setenv("TORCHLENS_TEST", "2")
    return changed(lambda x: x * float(os.environ["TORCHLENS_TEST"]), lambda: patch.setenv("TORCHLENS_TEST", "3"))


@case
def the_environment_by_getenv(patch):
    patch.setenv("TORCHLENS_TEST", "2")
    return changed(lambda x: x * float(os.getenv("TORCHLENS_TEST", "")), lambda: patch.setenv("TORCHLENS_TEST", "3"))


@case
def a_file(patch):
    from pathlib import Path
    from tempfile import gettempdir

    path = Path(gettempdir()) / f"torchlens_{os.getpid()}"
    path.write_text("2")

    def model(x):
        with open(path) as file:
            return x * float(file.read())

    return changed(model, lambda: path.write_text("3"))


# -- modules of libraries ----------------------------------------------------------------------------------------------


class Scaled(eqx.Module):
    number: Any = eqx.field(static=True)

    def __call__(self, x):
        return x * self.number


class Held(eqx.Module):
    number: Any

    def __call__(self, x):
        return x * self.number


class Applied(eqx.Module):
    function: Any

    def __call__(self, x):
        return self.function(x)


class Compares:
    """Says that it equals all others."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __rmul__(self, x):
        return x * self.number


@case
def a_static_field(patch):
    return Case(Scaled(2.0), Scaled(3.0))


@case
def a_static_field_of_another_type(patch):
    class Whole(eqx.Module):
        number: Any = eqx.field(static=True)

        def __call__(self, x):
            return jnp.asarray(x, int) * self.number

    return Case(Whole(1), Whole(1.0))


@case
def a_static_field_that_is_a_list(patch):
    class Listed(eqx.Module):
        numbers: Any = eqx.field(static=True)

        def __call__(self, x):
            return x * self.numbers[0]

    model = Listed([2.0])
    return changed(model, lambda: model.numbers.__setitem__(0, 3.0))


@case
def a_static_field_that_is_an_object(patch):
    class Set(eqx.Module):
        settings: Any = eqx.field(static=True)

        def __call__(self, x):
            return x * self.settings.number

    settings = Settings()
    return changed(Set(settings), setting(settings, "number", 5.0))


@case
def a_static_field_that_says_it_is_equal(patch):
    return Case(Scaled(Compares(2.0)), Scaled(Compares(3.0)))


@case
def a_field_that_is_a_number(patch):
    return Case(Held(2.0), Held(3.0))


@case
def a_field_that_is_a_function(patch):
    return Case(Applied(jnp.tanh), Applied(jnp.sin))


@case
def what_a_field_that_is_a_function_closes_over(patch):
    numbers = [2.0]
    return changed(Applied(lambda x: x * numbers[0]), putting(numbers, 0, 3.0))


@case
def what_the_activation_of_a_library_layer_closes_over(patch):
    numbers = [2.0]
    mlp = eqx.nn.MLP(4, 4, 4, 1, activation=lambda x: x * numbers[0], key=jax.random.key(0))
    return changed(mlp, putting(numbers, 0, 3.0))


@case
def a_method_of_a_module(patch):
    class Model(eqx.Module):
        number: float

        def __call__(self, x):
            return self.inner(x)

        def inner(self, x):
            return x * self.number

    return changed(Model(2.0), setting(Model, "inner", lambda self, x: x * 5.0))


@case
def new_weights(patch):
    return Case(Held(jnp.ones(4)), Held(2 * jnp.ones(4)))


@case
def a_method_compiled_by_itself(patch):
    class Model(eqx.Module):
        number: float

        @eqx.filter_jit
        def __call__(self, x):
            return x * self.number

    return Case(Model(2.0), Model(3.0))


@case
def the_rate_of_dropout(patch):
    class Model(eqx.Module):
        dropout: eqx.nn.Dropout

        def __call__(self, x):
            return self.dropout(x, key=jax.random.key(0))

    return Case(Model(eqx.nn.Dropout(0.2)), Model(eqx.nn.Dropout(0.9)))


@case
def inference_mode(patch):
    class Model(eqx.Module):
        dropout: eqx.nn.Dropout

        def __call__(self, x):
            return self.dropout(x, key=jax.random.key(0))

    model = Model(eqx.nn.Dropout(0.5))
    return Case(model, eqx.nn.inference_mode(model))


@case
def a_node_that_somebody_registered(patch):
    @jax.tree_util.register_pytree_node_class
    class Node:
        def __init__(self, array, number):
            self.array, self.number = array, number

        def tree_flatten(self):
            return (self.array,), self.number

        @classmethod
        def tree_unflatten(cls, number, arrays):
            return cls(arrays[0], number)

        def __call__(self, x):
            return x * self.array * self.number

    return Case(Node(jnp.ones(4), 2.0), Node(jnp.ones(4), 3.0))


class Net(nnx.Module):
    def __init__(self) -> None:
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
        self.number: Any = 2.0
        self.settings = Settings()
        self.numbers = (2.0,)

    def __call__(self, x):
        x = self.norm(self.linear(x)[None])[0] * self.number * self.settings.number
        for number in self.numbers:
            x = x * number
        return self.dropout(x)


def net() -> Net:
    made = Net()
    made.eval()
    return made


@case
def an_attribute_of_a_module_of_nnx(patch):
    model = net()
    return changed(model, setting(model, "number", 5.0))


@case
def an_attribute_of_another_type(patch):
    class Whole(nnx.Module):
        def __init__(self) -> None:
            self.number: Any = 1

        def __call__(self, x):
            return jnp.asarray(x, int) * self.number

    model = Whole()
    return changed(model, setting(model, "number", 1.0))


@case
def an_attribute_of_what_a_module_holds(patch):
    model = net()
    return changed(model, setting(model.settings, "number", 5.0))


@case
def the_length_of_what_a_module_holds(patch):
    model = net()
    return changed(model, setting(model, "numbers", (2.0, 3.0)))


@case
def training(patch):
    model = net()
    return changed(model, lambda: (model.norm.train(), setattr(model.norm, "use_running_average", False)))


@case
def the_rate_of_dropout_of_nnx(patch):
    model = net()
    model.dropout.deterministic = False
    model.dropout.rate = 0.0
    return changed(model, setting(model.dropout, "rate", 1.0))


@case
def new_weights_of_nnx(patch):
    model = net()
    return changed(model, lambda: nnx.update(model, jax.tree.map(lambda a: a * 2, nnx.state(model, nnx.Param))))


@case
def a_module_in_the_place_of_another(patch):
    model = net()
    return changed(model, setting(model, "linear", nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(9))))


@case
def what_a_function_that_a_module_holds_closes_over(patch):
    numbers = [2.0]

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.function = lambda x: x * numbers[0]

        def __call__(self, x):
            return self.function(x)

    return changed(Model(), putting(numbers, 0, 3.0))


class Dense(nn.Module):
    number: float = 2.0

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x) * self.number


@case
def a_field_of_linen(patch):
    params = Dense().init(jax.random.key(0), X)
    return Case(functools.partial(Dense(2.0).apply, params), functools.partial(Dense(3.0).apply, params))


@case
def a_field_of_linen_bound(patch):
    params = Dense().init(jax.random.key(0), X)
    return Case(Dense(2.0).bind(params), Dense(3.0).bind(params))


@case
def what_a_function_of_haiku_closes_over(patch):
    numbers = [2.0]
    made = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(4)(x) * numbers[0]))
    params = made.init(jax.random.key(0), X)
    return changed(lambda x: made.apply(params, x), putting(numbers, 0, 3.0))


# -- what is another each time -----------------------------------------------------------------------------------------

ROLLING: dict[str, Callable[[], Any]] = {}


def rolling(make: Callable[[], Any]) -> Callable[[], Any]:
    ROLLING[make.__name__] = make
    return make


@rolling
def a_draw_of_python():
    import random

    return lambda x: x * random.random()


@rolling
def a_draw_of_numpy():
    return lambda x: x * np.random.rand()


@rolling
def a_draw_of_a_generator():
    generator = np.random.default_rng(0)
    return lambda x: x * generator.random()


@rolling
def a_clock():
    import time

    return lambda x: x * (time.perf_counter_ns() % 1_000_003)


@rolling
def an_iterator():
    numbers: Iterator[float] = iter([1.0, 2.0, 3.0])
    return lambda x: x * next(numbers)


@rolling
def a_count_of_calls():
    count = [0]

    def model(x):
        count[0] += 1
        return x * count[0]

    return model


@rolling
def a_count_of_calls_that_is_closed_over():
    count = 0

    def model(x):
        nonlocal count
        count += 1
        return x * count

    return model


@rolling
def a_count_of_calls_of_an_object():
    class Model:
        count = 0

        def __call__(self, x):
            self.count += 1
            return x * self.count

    return Model()
