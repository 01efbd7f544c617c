"""Arrays whose operations are noted as the model calls them, and carried out when somebody asks for a value.

JAX lets whoever sets the current trace see every primitive. Each is staged by itself here, by ``jax.make_jaxpr``, so
that the equations are those of a program that is staged as a whole. All that is needed of JAX beyond its public
functions is in this file.
"""

from __future__ import annotations

import functools
import operator
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Protocol

import jax
import numpy as np
from jax._src import core, source_info_util
from jax.extend.core import Literal


class Owner(Protocol):
    """Who carries out what was noted."""

    def value_of(self, array: Deferred) -> Any:
        """The value of an array: carries out all that was noted so far."""

    def note_read(self, kind: str, array: Deferred, value: Any, frame: FrameType) -> None:
        """An array was read as a Python value, in a frame."""


def _reading(kind: str, convert: Callable[[Any], Any]) -> Callable[[Deferred], Any]:
    def read(self: Deferred) -> Any:
        return self.read(kind, convert, sys._getframe(1))

    return read


def _of_value(name: str) -> Callable[..., Any]:
    def method(self: Deferred, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.now(), name)(*args, **kwargs)

    return method


class Deferred(core.Tracer):  # type: ignore[misc, type-arg]
    """An array that has a shape, a type, and a value as soon as somebody asks for it.

    Attributes:
        var: the variable that it is in the equations noted.
    """

    aval: Any = None  # a property, a slot or nothing in the base class, by version

    def __init__(self, trace: Deferring, var: Any) -> None:
        self._trace = trace
        self._line_info = None
        self.aval = var.aval
        self.var = var
        self.known: Any = None  # its value, once the run is over

    def now(self) -> Any:
        """The array itself, which is now computed."""
        owner = self._trace.owner
        return self.known if owner is None else owner.value_of(self)

    def read(self, kind: str, convert: Callable[[Any], Any], frame: FrameType) -> Any:
        """The array as a Python value: a read that is noted."""
        made = convert(self.now())
        if self._trace.owner is not None:
            self._trace.owner.note_read(kind, self, made, frame)
        return made

    __bool__ = _reading("bool", bool)
    __int__ = _reading("int", int)
    __float__ = _reading("float", float)
    __complex__ = _reading("complex", complex)
    __index__ = _reading("int", operator.index)

    def item(self, *args: int) -> Any:
        """One element as a Python number."""
        return self.read("item", lambda value: value.item(*args), sys._getframe(1))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return np.asarray(self.now()).__array__(*args, **kwargs)

    tolist, tobytes, devices, addressable_data = map(_of_value, ("tolist", "tobytes", "devices", "addressable_data"))
    __dlpack__, __dlpack_device__ = map(_of_value, ("__dlpack__", "__dlpack_device__"))
    __str__, __format__ = map(_of_value, ("__str__", "__format__"))

    def __repr__(self) -> str:
        return self._short_repr() if self._trace.is_busy else repr(self.now())

    def _short_repr(self) -> str:
        return f"{type(self).__name__}<{self.aval}>"

    def block_until_ready(self) -> Deferred:
        """As of any array. There is nothing to wait for."""
        return self

    def is_deleted(self) -> bool:
        """As of any array."""
        return False

    def full_lower(self) -> Deferred:
        """Asked for by JAX up to 0.7."""
        return self

    def to_concrete_value(self) -> Any:
        """The value, for functions of JAX that cannot do without (sizes, masks), and for Python under ``jax.grad``.

        Where JAX only asks whether it could have the value there is none, as in a program that is staged.
        """
        frame = sys._getframe(1)
        while frame.f_code.co_name == "to_concrete_value" and frame.f_back is not None:
            frame = frame.f_back
        if frame.f_code.co_name != "is_concrete" or self._is_mask() or frame.f_back is None:
            return self.now()
        conversion = _CONVERSIONS.get(frame.f_back.f_code.co_name)
        if conversion is None or frame.f_back.f_back is None:
            return None
        kind, convert = conversion
        self.read(kind, convert, frame.f_back.f_back)
        return self.now()

    def _is_mask(self) -> bool:
        return bool(self.aval.ndim) and self.aval.dtype == bool


_CONVERSIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "__bool__": ("bool", bool),
    "__int__": ("int", int),
    "__index__": ("int", operator.index),
}


class Deferring(core.Trace):  # type: ignore[misc, type-arg]
    """Notes primitives as equations.

    Attributes:
        owner: carries them out; None once the run is over.
        is_busy: the owner is at it, so that no value can be asked for.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner: Owner | None = owner
        self.is_busy = False
        self.template: Any = None  # a jaxpr without equations
        self._equations: list[Any] = []
        self._consts: dict[Any, Any] = {}  # by variable, those not given out yet
        self._const_vars: dict[int, tuple[Any, Any]] = {}  # id of an array -> the array, and its variable
        self._made: list[tuple[Any, weakref.ref[Deferred]]] = []

    def start(self, arrays: Sequence[Any]) -> list[Deferred]:
        """The arguments of the model, in place of these arrays."""
        self.template = jax.make_jaxpr(lambda *given: given)(*arrays).jaxpr
        return [self._array(var) for var in self.template.invars]

    def current(self) -> AbstractContextManager[Any]:
        """A context in which every primitive of this thread is noted."""
        return core.set_current_trace(self)  # type: ignore[no-any-return]

    def take(self) -> tuple[list[Any], dict[Any, Any]]:
        """The equations noted since the last time, and the values of the constants in them by variable."""
        equations, self._equations = self._equations, []
        consts, self._consts = self._consts, {}
        return equations, consts

    def alive(self) -> dict[Any, None]:
        """The variables of arrays that somebody still holds."""
        self._made = [(var, array) for var, array in self._made if array() is not None]
        return dict.fromkeys(var for var, _ in self._made)

    def held(self) -> Iterator[Deferred]:
        """The arrays that somebody still holds."""
        yield from (array for _, reference in self._made if (array := reference()) is not None)

    # -- what JAX calls --------------------------------------------------------------------------------------------

    def process_primitive(self, primitive: Any, operands: Sequence[Any], params: Any) -> Any:
        """A primitive is bound to arrays, some of them ours."""
        return self._note(lambda trace, given: primitive.bind(*given, **params), operands)

    def process_custom_jvp_call(self, *args: Any, **kwargs: Any) -> Any:
        """A function with a rule for its derivative."""
        return self._pass_on("process_custom_jvp_call", args, kwargs)

    def process_custom_vjp_call(self, *args: Any, **kwargs: Any) -> Any:
        """A function with a rule for its gradient."""
        return self._pass_on("process_custom_vjp_call", args, kwargs)

    def process_call(self, *args: Any, **kwargs: Any) -> Any:
        """A function that is called as it is."""
        return self._pass_on("process_call", args, kwargs)

    def process_map(self, *args: Any, **kwargs: Any) -> Any:
        """``pmap``, up to JAX 0.7."""
        return self._pass_on("process_map", args, kwargs)

    def process_custom_transpose(self, *args: Any, **kwargs: Any) -> Any:
        """A function with a rule for its transpose."""
        return self._pass_on("process_custom_transpose", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("process_"):  # those of extensions: shard_map ...
            raise AttributeError(name)
        return lambda *args, **kwargs: self._pass_on(name, args, kwargs)

    def stage_value(self, value: Any) -> Any:
        """A value as one of the arrays of this trace."""
        return value if isinstance(value, Deferred) else self._array(self._const(value))

    # -- equations -------------------------------------------------------------------------------------------------

    def _pass_on(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Have the trace of a program that is staged do it, with its arrays in the place of ours."""
        at = next(n for n in reversed(range(len(args))) if isinstance(args[n], list | tuple))

        def call(trace: Any, given: Sequence[Any]) -> Any:
            return getattr(trace, name)(*args[:at], list(given), *args[at + 1 :], **kwargs)

        return self._note(call, args[at])

    def _note(self, call: Callable[[Any, Sequence[Any]], Any], operands: Sequence[Any]) -> Any:
        own = [n for n, value in enumerate(operands) if isinstance(value, Deferred) and value._trace is self]

        def body(first: Any, *given: Any) -> Any:
            filled = list(operands)
            for n, array in zip(own, given, strict=True):
                filled[n] = array
            return call(first._trace, filled)

        source = source_info_util.current()
        shapes = [_without_value(operands[n].aval) for n in own]
        closed, returned = jax.make_jaxpr(body, return_shape=True)(_FIRST, *shapes)
        jaxpr = closed.jaxpr
        arrays = {var: operands[n] for var, n in zip(jaxpr.invars[1:], own, strict=True)}
        renamed = {var: array.var for var, array in arrays.items()}
        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            renamed[var] = self._const(value, var)
        for equation in jaxpr.eqns:
            read = [atom if isinstance(atom, Literal) else renamed.get(atom, atom) for atom in equation.invars]
            self._equations.append(equation.replace(invars=read, source_info=source))
        outs = [arrays[var] if _key(var) in arrays else self._result(var, renamed) for var in jaxpr.outvars]
        return outs if isinstance(returned, list | tuple) else outs[0]

    def _result(self, atom: Any, renamed: dict[Any, Any]) -> Deferred:
        return self._array(self._const(atom.val) if isinstance(atom, Literal) else renamed.get(atom, atom))

    def _array(self, var: Any) -> Deferred:
        made = Deferred(self, var)
        self._made.append((var, weakref.ref(made)))
        return made

    def _const(self, value: Any, var: Any = None) -> Any:
        """The variable of an array that the model's code holds."""
        if isinstance(value, Deferred):
            return value.var
        known = self._const_vars.get(id(value))
        if known is not None:
            return known[1]
        var = jax.make_jaxpr(lambda array: array)(value).jaxpr.invars[0] if var is None else var
        self._const_vars[id(value)] = (value, var)
        self._consts[var] = value
        return var


_FIRST = jax.ShapeDtypeStruct((), np.float32)  # stands for an argument whose trace is that of the staged program


def _key(atom: Any) -> Any:
    return None if isinstance(atom, Literal) else atom


def _without_value(aval: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def computing() -> AbstractContextManager[Any]:
    """A context in which primitives run at once, whatever trace is the current one."""
    return core.eval_context()  # type: ignore[no-any-return]


@functools.cache
def missing() -> str:
    """Why arrays cannot be deferred with this version of JAX; '' where they can."""
    needed = ("Trace", "Tracer", "set_current_trace", "eval_context")
    lacking = [name for name in needed if not hasattr(core, name)]
    return f"jax {jax.__version__} has no jax._src.core.{lacking[0]}" if lacking else ""
