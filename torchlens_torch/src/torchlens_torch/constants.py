"""Constants: arrays, made before the run, that the model's own code can reach and that are registered nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from types import FrameType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from torchlens_core.backend import Discovery
from torchlens_core.program import ModuleInfo

_INTERNAL = frozenset(vars(nn.Module()))  # attributes that every module has, the first in its dict


class Constants:
    """Looks for constants of one model.

    What stands in an attribute of a module is noted before the run, for a module can be given arrays while it runs.
    """

    def __init__(self, discovery: Discovery) -> None:
        self._modules: list[tuple[ModuleInfo, Any]] = [item for item in discovery.modules if item[1] is not None]
        self._attributes = {
            id(value): value
            for _, module in self._modules
            for value in islice(vars(module).values(), len(_INTERNAL), None)
            if value.__class__ is Tensor
        }

    def find(self, array: Tensor, frame: FrameType | None, model: Any) -> str | None:
        """Where an array stands, or None where it was made during the run, unseen.

        An attribute of a module, a global, a variable that a function closes over, a default of its arguments, or in an
        object or container there.
        """
        for info, module in self._modules:
            for name, value in vars(module).items():
                if value is array:
                    is_constant = id(array) in self._attributes
                    return _joined(info.address, name) if is_constant else None
                if name not in _INTERNAL and _reaches(value, array):
                    return _joined(info.address, name)
        for name, value in _around(frame, model):
            if _reaches(value, array):
                return name
        return None


def _joined(address: str, name: str) -> str:
    return f"{address}.{name}" if address else name


def _around(frame: FrameType | None, model: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that the functions being called can reach, innermost first."""
    yield from _defaults(model)
    while frame is not None and frame.f_code.co_name != "capture":
        code = frame.f_code
        for name in code.co_names:
            value = frame.f_globals.get(name)
            if isinstance(value, ModuleType):
                yield from ((f"{name}.{inner}", vars(value).get(inner)) for inner in code.co_names)
            else:
                yield name, value
        yield from ((name, frame.f_locals.get(name)) for name in code.co_freevars)
        if code.co_argcount and code.co_varnames[0] in ("self", "cls"):
            yield "self", frame.f_locals.get(code.co_varnames[0])
        frame = frame.f_back


def _defaults(model: Any) -> Iterator[tuple[str, Any]]:
    function = model.forward if isinstance(model, nn.Module) else model
    function = getattr(function, "__func__", function)
    if isinstance(function, FunctionType):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()
        yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
        yield from (function.__kwdefaults__ or {}).items()


def _reaches(value: Any, array: Tensor, depth: int = 3) -> bool:
    """Whether an array is a value, or stands in it: in a container, or in an attribute of an object or class."""
    if value is array:
        return True
    if not depth or isinstance(value, Tensor | nn.Module | ModuleType | FunctionType):
        return False
    return any(_reaches(part, array, depth - 1) for part in _parts(value))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, dict):  # other mappings may compute their values, and fail at it
        return value.values()
    own = getattr(value, "__dict__", None)
    if own is None or (type(value).__module__ == "builtins" and not isinstance(value, type)):
        return ()
    shared = () if isinstance(value, type) else vars(type(value)).values()
    return (*own.values(), *(part for part in shared if isinstance(part, Tensor)))
