"""A call of a model as a pure function of arrays: what JAX can stage."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

import jax

from torchlens_core.backend import Call
from torchlens_core.reach import input_names

from .freezing import Freezer
from .statics import noted, statics_of
from .structure import is_dynamic, modules_of, path_part, state_of, unwrapped
from .taking import Taken, is_holder, take
from .watching import Watch


class Described(NamedTuple):
    """What one of the arrays that a program takes is."""

    kind: str  # 'input' | 'param' | 'buffer' | 'const'
    address: str
    aliases: tuple[str, ...] = ()
    module: str | None = None


@dataclass
class Prepared:
    """A call taken apart.

    Attributes:
        taken: the model, and the modules among the arguments, each with its position or name among those.
        arrays: the arguments of ``function``: state, then what else was given.
        key: all that the staged program depends on beside the arrays' shapes and types and what code reaches by itself.
        num_state: how many of the arrays are state.
    """

    call: Call
    taken: list[tuple[int | str | None, Taken]]
    arrays: list[Any]
    key: Hashable
    num_state: int
    freeze: Freezer
    _rest: tuple[list[Any], Any]
    _bounds: list[int] = field(default_factory=list)

    def function(self, *values: Any) -> tuple[Any, list[Any]]:
        """What the model returns for these arrays, and its state afterwards. To be staged."""
        others: dict[Any, Any] = {}
        afters = []
        for (place, part), start, stop in zip(self.taken, self._bounds, self._bounds[1:], strict=False):
            others[place], after = part.rebuild(values[start:stop])
            afters.append(after)
        leaves, tree = self._rest
        given = iter(values[self.num_state :])
        args, kwargs = jax.tree.unflatten(tree, [next(given) if is_dynamic(leaf) else leaf for leaf in leaves])
        args = [others.get(place, value) for place, value in enumerate(args)]
        kwargs = {name: others.get(name, value) for name, value in kwargs.items()}
        out = others[None](*args, **kwargs)
        return out, [array for after in afters for array in after()]

    def finish(self, new: Mapping[int, Any]) -> None:
        """Put what the call made of the state in its place: by position among the arrays."""
        for (_, part), start, stop in zip(self.taken, self._bounds, self._bounds[1:], strict=False):
            mine = {position - start: array for position, array in new.items() if start <= position < stop}
            if mine:
                part.finish(mine)

    def with_state(self, values: Mapping[int, Any]) -> Call:
        """The same call with other arrays, by position, in the place of some."""
        arrays = [values.get(position, array) for position, array in enumerate(self.arrays)]
        others: dict[Any, Any] = {}
        for (place, part), start, stop in zip(self.taken, self._bounds, self._bounds[1:], strict=False):
            others[place], _ = part.rebuild(arrays[start:stop])
        leaves, tree = self._rest
        given = iter(arrays[self.num_state :])
        args, kwargs = jax.tree.unflatten(tree, [next(given) if is_dynamic(leaf) else leaf for leaf in leaves])
        args = tuple(others.get(place, value) for place, value in enumerate(args))
        return Call(others[None], args, {name: others.get(name, value) for name, value in kwargs.items()})

    @property
    def roots(self) -> list[tuple[str, Any]]:
        """The modules that are known before the call, by name."""
        return [root for _, part in self.taken for root in part.roots]

    def watch(self) -> Watch:
        """What the code of this call reaches by itself."""
        modules = [module for name, root in self.roots for _, module in modules_of(root, name)]
        start = [unwrapped(self.call.model), *self.freeze.code, *map(type, modules)]
        start += [value for module in modules for value in vars(module).values() if isinstance(value, FunctionType)]
        start += [value for static in self.freeze.statics for value in static.values]
        return Watch(start, [value for _, part in self.taken for value in part.apart])

    # -- names -----------------------------------------------------------------------------------------------------

    def describe(self, builds_modules: bool) -> list[Described]:
        """What each array is.

        Args:
            builds_modules: modules were built as the call ran: their parameters are among the arguments.
        """
        found: dict[int, list[Any]] = {}
        for named in [each for _, part in self.taken for each in part.named]:
            found.setdefault(id(named.array), []).append(named)
        for name, root in self.roots:
            for named in state_of(root, name):
                found.setdefault(id(named.array), []).append(named)
        described = []
        for position, array in enumerate(self.arrays[: self.num_state]):
            names = found.get(id(array))
            if not names:
                described.append(Described("const", f"state.{position}"))
                continue
            addresses = tuple(dict.fromkeys(each.address for each in names))
            described.append(Described(names[0].kind, addresses[0], addresses[1:], names[0].module))
        return described + [self._argument(path, builds_modules) for path in self._paths()]

    def _paths(self) -> Iterator[tuple[list[str], Any]]:
        call = self.call
        names = input_names(unwrapped(call.model), len(call.args))
        places = {place for place, _ in self.taken}
        given = tuple(None if place in places else value for place, value in enumerate(call.args))
        keywords = {name: None if name in places else value for name, value in call.kwargs.items()}
        for path, leaf in jax.tree_util.tree_flatten_with_path((given, keywords))[0]:
            if is_dynamic(leaf):
                first, second, *rest = map(path_part, path)
                name = names[int(second)] if first == "0" else second
                value = call.args[int(second)] if first == "0" else call.kwargs[second]
                yield [name, *rest], value

    def _argument(self, found: tuple[list[str], Any], builds_modules: bool) -> Described:
        (name, *rest), value = found
        if type(value).__module__.startswith("equinox.nn._stateful"):
            return Described("buffer", ".".join([name, *rest]))
        if not isinstance(value, dict | list | tuple) or not rest:
            return Described("input", ".".join([name, *rest]))
        if builds_modules and isinstance(value, dict) and isinstance(value.get("params"), Mapping):
            collection, *rest = rest
            return _state(collection == "params", rest)
        if name in _PARAMS:
            return _state(True, rest if builds_modules else [name, *rest])
        if name == "state" and builds_modules:
            return _state(False, rest)
        return Described("input", ".".join([name, *rest]))


_PARAMS = frozenset({"params", "parameters", "weights", "variables"})


def _state(trainable: bool, words: Sequence[str]) -> Described:
    address = ".".join(words).replace("/~/", "/").replace("/", ".")
    return Described("param" if trainable else "buffer", address, (), address.rpartition(".")[0])


def prepare(call: Call) -> Prepared:
    """Take a call apart."""
    freeze = Freezer()
    taken: list[tuple[int | str | None, Taken]] = [(None, take(call.model, "", freeze))]
    args, kwargs = list(call.args), dict(call.kwargs)
    if any(map(is_holder, (*args, *kwargs.values()))):
        names = input_names(unwrapped(call.model), len(args))
        for place, value in [*enumerate(args), *kwargs.items()]:
            if is_holder(value):
                taken.append((place, take(value, names[place] if isinstance(place, int) else place, freeze)))
                (args if isinstance(place, int) else kwargs)[place] = None  # type: ignore[index, call-overload]
    leaves, tree = jax.tree.flatten((tuple(args), kwargs))
    state = [array for _, part in taken for array in part.arrays]
    given = [leaf for leaf in leaves if is_dynamic(leaf)]
    static = noted([*statics_of(tree), *(None if is_dynamic(leaf) else leaf for leaf in leaves)], freeze)
    bounds = [0]
    for _, part in taken:
        bounds.append(bounds[-1] + len(part.arrays))
    key = (tuple((place, part.key) for place, part in taken), static)
    return Prepared(call, taken, [*state, *given], key, len(state), freeze, (leaves, tree), bounds)
