"""A model taken apart into its arrays and what rebuilds it from others."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CellType, FunctionType, MethodType
from typing import Any

import jax

from torchlens_core.errors import CaptureError
from torchlens_core.reach import input_names

from ..lowering import sites
from ..of_flax import has_hook, hook, unhook, value_of
from ..staging.marks import mark_write
from ..staging.staging import staging
from .freezing import Freezer
from .statics import noted, statics_of
from .structure import (
    Named,
    is_bound_linen,
    is_dynamic,
    is_equinox,
    is_module,
    is_nnx,
    is_penzai,
    kind_of_variable,
    path_part,
    unwrapped,
    variables_of,
)


@dataclass
class Taken:
    """A model, or another value that holds state, taken apart.

    Attributes:
        arrays: its state, each array once.
        key: all else that a program staged of it depends on.
        roots: the modules that it is made of, by name; ``''`` where it is one itself.
        rebuild: of other arrays the same thing, and what gives its state after a run (arrays in the same order).
        finish: puts other arrays, by position, in the place of its own: of what can change.
    """

    arrays: list[Any]
    key: Hashable
    roots: list[tuple[str, Any]]
    rebuild: Callable[[Sequence[Any]], tuple[Any, Callable[[], Sequence[Any]]]]
    finish: Callable[[Mapping[int, Any]], None] = lambda new: None
    apart: list[Any] = field(default_factory=list)  # objects that are not part of the program
    named: list[Named] = field(default_factory=list)  # its arrays, where its modules do not hold them


def take(value: Any, name: str, freeze: Freezer) -> Taken:
    """Take a model apart, or a module that it reaches by a name."""
    if name == "":
        value = unwrapped(value)
    if is_nnx(value):
        return _take_nnx(value, name, freeze)
    if is_bound_linen(value):
        return _take_linen(value, name, freeze)
    if is_penzai(value):
        return _take_penzai(value, name, freeze)
    if is_module(value):
        return _take_pytree(value, name, freeze)
    return _take_function(value, freeze)


def _take_pytree(model: Any, name: str, freeze: Freezer) -> Taken:
    leaves, tree = jax.tree.flatten(model)
    arrays: list[Any] = []
    positions: list[int] = []  # of each leaf among the arrays; -1 for what is none
    position_of: dict[int, int] = {}
    for leaf in leaves:
        if not is_dynamic(leaf):
            positions.append(-1)
            continue
        position = position_of.setdefault(id(leaf), len(arrays))
        if position == len(arrays):
            arrays.append(leaf)
        positions.append(position)
    static = [None if position >= 0 else leaf for leaf, position in zip(leaves, positions, strict=True)]

    def rebuild(values: Sequence[Any]) -> tuple[Any, Callable[[], Sequence[Any]]]:
        filled = [values[at] if at >= 0 else leaf for at, leaf in zip(positions, static, strict=True)]
        rebuilt = jax.tree.unflatten(tree, filled)
        staging.note_modules([(name, rebuilt)])
        return rebuilt, lambda: values

    key = ("pytree", name, tuple(positions), noted([*statics_of(tree), *static], freeze))
    return Taken(arrays, key, [(name, model)], rebuild, apart=[model])


def _take_nnx(model: Any, name: str, freeze: Freezer) -> Taken:
    nnx = sys.modules["flax.nnx"]
    graph, state = nnx.split(model)
    arrays, tree = jax.tree.flatten(state)

    def rebuild(values: Sequence[Any]) -> tuple[Any, Callable[[], Sequence[Any]]]:
        merged = nnx.merge(graph, jax.tree.unflatten(tree, values))
        staging.note_modules([(name, merged)])
        watched = _watch_writes(merged, name)

        def after() -> Sequence[Any]:
            for variable in watched:
                unhook(variable)
            return _state_after(nnx, merged, tree)

        return merged, after

    def finish(new: Mapping[int, Any]) -> None:
        if new:
            flat = nnx.to_flat_state(jax.tree.unflatten(tree, range(len(arrays))))
            changed = [(path, _with_value(leaf, new)) for path, leaf in flat if _positions(leaf) & new.keys()]
            nnx.update(model, nnx.from_flat_state(changed))

    def _positions(leaf: Any) -> set[int]:
        return set(jax.tree.leaves(leaf))

    def _with_value(leaf: Any, new: Mapping[int, Any]) -> Any:
        return jax.tree.map(lambda at: new.get(at, arrays[at]), leaf)

    statics = noted((value.value for _, value in graph.attributes if hasattr(value, "value")), freeze)
    return Taken(arrays, ("nnx", name, statics, graph, tree), [(name, model)], rebuild, finish, apart=[model])


def _watch_writes(module: Any, name: str) -> list[Any]:
    """Have it noted in the staged program where buffers are given other values. Returns the variables watched."""
    if staging.calls is None:
        return []
    watched = []
    for address, variable in variables_of(module, name):
        if kind_of_variable(variable) == "buffer" and not has_hook(variable):
            hook(variable, _noting_writes(address))
            watched.append(variable)
    return watched


def _noting_writes(address: str) -> Callable[[Any, Any], Any]:
    def note(variable: Any, value: Any) -> Any:
        before = value_of(variable)
        whole = isinstance(value, jax.Array) and value.shape == before.shape and value.dtype == before.dtype
        return mark_write(value, staging.innermost, address) if whole and staging.calls is not None else value

    return note


def _state_after(nnx: Any, module: Any, tree: Any) -> Sequence[Any]:
    arrays, after = jax.tree.flatten(nnx.state(module))
    if after != tree:
        raise CaptureError(
            "The call gave the module other variables than it had (cached state, say): call it once before tl.trace, "
            "so that they are there."
        )
    return arrays


def _take_penzai(model: Any, name: str, freeze: Freezer) -> Taken:
    from penzai import pz

    layers, variables = pz.unbind_variables(model)
    frozen = [variable.freeze() for variable in variables]
    arrays, tree = jax.tree.flatten(frozen)
    inner = _take_pytree(layers, name, freeze)
    count = len(inner.arrays)

    def rebuild(values: Sequence[Any]) -> tuple[Any, Callable[[], Sequence[Any]]]:
        rebuilt, _ = inner.rebuild(values[:count])
        inside = [value.unfreeze_as_copy() for value in jax.tree.unflatten(tree, values[count:])]
        bound = pz.bind_variables(rebuilt, inside)
        staging.note_modules([(name, bound)])
        return bound, lambda: [*values[:count], *jax.tree.leaves([variable.freeze() for variable in inside])]

    def finish(new: Mapping[int, Any]) -> None:
        if new:
            after = jax.tree.unflatten(tree, [new.get(count + at, array) for at, array in enumerate(arrays)])
            for variable, value in zip(variables, after, strict=True):
                variable.update(value)

    return Taken(
        [*inner.arrays, *arrays],
        ("penzai", inner.key, noted(statics_of(tree), freeze)),
        [(name, model)],
        rebuild,
        finish,
        [model],
    )


def _take_linen(model: Any, name: str, freeze: Freezer) -> Taken:
    module, variables = model.unbind()
    found, tree = jax.tree_util.tree_flatten_with_path(variables)
    arrays = [array for _, array in found]
    named = []
    for path, array in found:
        collection, *words = map(path_part, path)
        address = ".".join([name, *words] if name else words)
        kind = "param" if collection == "params" else "buffer"
        named.append(Named(address, array, kind, address.rpartition(".")[0]))

    def rebuild(values: Sequence[Any]) -> tuple[Any, Callable[[], Sequence[Any]]]:
        return module.bind(jax.tree.unflatten(tree, values)), lambda: values

    return Taken(arrays, ("linen", name, freeze(module), tree), [], rebuild, apart=[model], named=named)


def is_holder(value: Any) -> bool:
    """Whether a value holds arrays, and can be taken apart."""
    return is_module(value) or is_bound_linen(value)


# -- functions ---------------------------------------------------------------------------------------------------------


def _take_function(model: Any, freeze: Freezer) -> Taken:
    """A function, a method or a callable object: the modules that it reaches directly are taken apart in turn."""
    places = list(holders(model))
    parts: dict[int, Taken] = {}
    for name, value in places:
        if id(value) not in parts:
            parts[id(value)] = take(value, name, freeze)
    taken = list(parts.values())
    bounds = [0]
    for part in taken:
        bounds.append(bounds[-1] + len(part.arrays))
    shells = _Shells(freeze, parts)

    def rebuild(values: Sequence[Any]) -> tuple[Any, Callable[[], Sequence[Any]]]:
        others, afters = {}, []
        for (at, part), start, stop in zip(parts.items(), bounds, bounds[1:], strict=False):
            others[at], after = part.rebuild(values[start:stop])
            afters.append(after)
        return _with_others(model, others), lambda: [array for after in afters for array in after()]

    def finish(new: Mapping[int, Any]) -> None:
        for part, start, stop in zip(taken, bounds, bounds[1:], strict=False):
            part.finish({at - start: array for at, array in new.items() if start <= at < stop})

    return Taken(
        [array for part in taken for array in part.arrays],
        ("function", shells.key(model), tuple(part.key for part in taken)),
        [root for part in taken for root in part.roots],
        rebuild,
        finish,
        [value for _, value in places],
        [named for part in taken for named in part.named],
    )


class _Shells:
    """Keys of functions, in which the modules taken apart are no more than their number."""

    def __init__(self, freeze: Freezer, parts: Mapping[int, Taken]) -> None:
        self._freeze = freeze
        self._numbers = {at: number for number, at in enumerate(parts)}

    def key(self, model: Any) -> Hashable:
        """The key of a callable."""
        freeze = self._freeze
        if isinstance(model, FunctionType):
            value = self._transformed if is_transformation(model) else self._value
            cells = tuple(map(value, (_content(cell) for cell in model.__closure__ or ())))
            rest = (freeze(model.__defaults__), freeze(model.__kwdefaults__))
            freeze.pinned.append(model.__globals__)
            return (model.__code__, id(model.__globals__), rest, cells)
        if isinstance(model, MethodType):
            return (self.key(model.__func__), self._owner(model.__self__))
        if isinstance(model, functools.partial):
            given = (*model.args, *model.keywords.values())
            return ("partial", self.key(model.func), tuple(model.keywords), tuple(map(self._value, given)))
        if is_transformation(model):
            return (type(model), tuple((name, self._transformed(value)) for name, value in vars(model).items()))
        return self._owner(model) if hasattr(model, "__dict__") and _is_plain_object(model) else freeze(model)

    def _owner(self, owner: Any) -> Hashable:
        if id(owner) in self._numbers:
            return ("part", self._numbers[id(owner)])
        if not _is_plain_object(owner):
            return self._freeze(owner)
        return (type(owner), tuple((name, self._value(value)) for name, value in vars(owner).items()))

    def _value(self, value: Any) -> Hashable:
        number = self._numbers.get(id(value))
        return self._freeze(value) if number is None else ("part", number)

    def _transformed(self, value: Any) -> Hashable:
        """The key of what a transformation holds: the function that it transforms, or a setting."""
        value = unwrapped(value)
        return self._value(value) if id(value) in self._numbers or not _is_code(value) else self.key(value)


def holders(model: Any) -> Iterator[tuple[str, Any]]:
    """The modules that a callable reaches directly, by name; what a transformation is of has the name ''."""
    if is_transformation(model):
        for value in map(unwrapped, _held(model)):
            if is_holder(value):
                yield "", value
            elif _is_code(value):
                yield from holders(value)
    elif isinstance(model, FunctionType):
        for name, cell in zip(model.__code__.co_freevars, model.__closure__ or (), strict=True):
            if is_holder(_content(cell)):
                yield name, _content(cell)
        for name in model.__code__.co_names:
            if is_holder(model.__globals__.get(name)):
                yield name, model.__globals__[name]
    elif isinstance(model, functools.partial):
        given = (*zip(input_names(model.func, len(model.args)), model.args, strict=True), *model.keywords.items())
        yield from ((name, value) for name, value in given if is_holder(value))
        yield from holders(model.func)
    elif isinstance(model, MethodType):
        yield from _owned(model.__self__)
        yield from holders(model.__func__)
    elif _is_plain_object(model):
        yield from _owned(model)


def is_transformation(model: Any) -> bool:
    """Whether a callable is what ``jax.vmap``, ``jax.grad``, ``jax.checkpoint`` and the like made of another."""
    if isinstance(model, FunctionType):
        return bool(model.__closure__) and sites.is_of_jax(model.__code__.co_filename)
    return is_equinox(model) and not is_module(model) and callable(model)


def _held(model: Any) -> list[Any]:
    """What a transformation holds, the function that it is of among it."""
    if isinstance(model, FunctionType):
        return [_content(cell) for cell in model.__closure__ or ()]
    return list(vars(model).values())


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType | functools.partial) or is_transformation(value)


def _owned(owner: Any) -> Iterable[tuple[str, Any]]:
    if is_holder(owner):
        yield "", owner
    elif _is_plain_object(owner):
        yield from ((name, value) for name, value in vars(owner).items() if is_holder(value))


def _is_plain_object(value: Any) -> bool:
    """Whether a value is an object of a class that somebody wrote, and no function, class or pytree."""
    from .watching import is_library

    if isinstance(value, FunctionType | type | MethodType | functools.partial) or not hasattr(value, "__dict__"):
        return False
    return not is_library(type(value).__module__)


def _with_others(model: Any, others: Mapping[int, Any]) -> Any:
    """A callable like another, that reaches other modules."""
    if not others:
        return model
    if isinstance(model, MethodType):
        return MethodType(_with_others(model.__func__, others), _with_others(model.__self__, others))
    if id(model) in others:
        return others[id(model)]
    if is_transformation(model):
        return _transformed_with_others(model, others)
    if isinstance(model, functools.partial):
        args = [others.get(id(value), value) for value in model.args]
        keywords = {name: others.get(id(value), value) for name, value in model.keywords.items()}
        return functools.partial(_with_others(model.func, others), *args, **keywords)
    if not isinstance(model, FunctionType):
        made = copy.copy(model)
        vars(made).update({name: others[id(value)] for name, value in vars(model).items() if id(value) in others})
        return made
    cells = tuple(
        CellType(others[id(_content(c))]) if id(_content(c)) in others else c for c in model.__closure__ or ()
    )
    named = {n: others[id(v)] for n in model.__code__.co_names if id(v := model.__globals__.get(n)) in others}
    made = FunctionType(
        model.__code__, {**model.__globals__, **named} if named else model.__globals__, model.__name__,
        model.__defaults__, cells or None,
    )  # fmt: skip
    made.__kwdefaults__ = model.__kwdefaults__
    made.__dict__.update(model.__dict__)
    return made


def _transformed_with_others(model: Any, others: Mapping[int, Any]) -> Any:
    def changed(value: Any) -> Any:
        inner = unwrapped(value)
        return _with_others(inner, others) if id(inner) in others or _is_code(inner) else value

    if not isinstance(model, FunctionType):
        made = copy.copy(model)
        vars(made).update({name: changed(value) for name, value in vars(model).items()})
        return made
    cells = tuple(CellType(changed(_content(cell))) for cell in model.__closure__ or ())
    made = FunctionType(model.__code__, model.__globals__, model.__name__, model.__defaults__, cells)
    made.__kwdefaults__ = model.__kwdefaults__
    return made


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
