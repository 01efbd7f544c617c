"""The arguments of a call by name: from Python's signature, or from the schemas of the aten operator of that name."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload, OpOverloadPacket

from torchlens_core.program import HOLE, Func, Row

_REQUIRED = inspect.Parameter.empty
_ALIASES = {"axis": "dim", "keepdims": "keepdim"}  # numpy's words, which torch takes too
_CODES = (torch.dtype, torch.layout, torch.memory_format)  # integers as far as schemas are concerned


class Argument(NamedTuple):
    """One argument of a signature."""

    name: str
    default: Any = _REQUIRED
    kind: str = ""  # the type in the words of a schema ('List[int]'); '' where anything goes
    keyword_only: bool = False


Signature = tuple[Argument, ...]
_OPERATOR: Signature = (Argument("self"), Argument("other"))


def settings(row: Row, func: Func) -> dict[str, Any]:
    """The arguments by name, those at their default left out; arrays stay holes."""
    signatures = _signatures(func.func, func.name)
    for strict in (True, False):
        for signature in signatures:
            bound = _bind(signature, row.args, row.kwargs, strict)
            if bound is not None:
                defaults = {argument.name: argument.default for argument in signature}
                return {k: v for k, v in bound.items() if not _is_default(v, defaults.get(k, _REQUIRED))}
    return {f"arg_{position}": value for position, value in enumerate(row.args)} | dict(row.kwargs)


@functools.cache
def _signatures(func: Any, name: str) -> tuple[Signature, ...]:
    """What the function can be called with. Empty where nothing is known."""
    if isinstance(func, OpOverload):
        return (_of_schema(func),)
    parameters = _parameters(func)
    if parameters and not any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters):
        named = [parameter for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
        return (tuple(Argument(p.name, p.default, keyword_only=p.kind == p.KEYWORD_ONLY) for p in named),)
    packet = getattr(torch.ops.aten, name, None)
    if isinstance(packet, OpOverloadPacket):
        return tuple(_of_schema(getattr(packet, overload)) for overload in packet.overloads())
    return (_OPERATOR,) if name.startswith("__") and name.endswith("__") else ()


def _parameters(func: Any) -> list[inspect.Parameter]:
    """From Python's signature; empty for a builtin."""
    if (
        isinstance(func, types.FunctionType) and func.__closure__
    ):  # F.max_pool2d and the like choose one of two functions
        func = inspect.getclosurevars(func).nonlocals.get("if_false", func)
    try:
        return list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        return []


def _of_schema(func: OpOverload) -> Signature:
    return tuple(
        Argument(a.name, a.default_value if a.has_default_value() else _REQUIRED, str(a.type), a.kwarg_only)
        for a in func._schema.arguments
    )


def _bind(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], strict: bool) -> dict[str, Any] | None:
    """The arguments by name, None where they do not fit. Types and keywords count only when ``strict``."""
    positional = [argument for argument in signature if not argument.keyword_only]
    by_name = {argument.name: argument for argument in signature}
    args = _gathered(positional, args)
    if len(args) > len(positional):
        return None
    bound = {argument.name: value for argument, value in zip(positional, args, strict=False)}
    bound |= {key if key in by_name else _ALIASES.get(key, key): value for key, value in kwargs.items()}
    if strict:
        if any(argument.default is _REQUIRED and argument.name not in bound for argument in signature):
            return None
        if any(name not in by_name or not _accepts(by_name[name].kind, value) for name, value in bound.items()):
            return None
    return bound


def _gathered(positional: Sequence[Argument], args: Sequence[Any]) -> Sequence[Any]:
    """``x.view(2, -1)``: the last list may be given item by item."""
    last = len(positional) - 1
    if last < 0 or len(args) <= last or isinstance(args[last], tuple | list):
        return args
    items = tuple(args[last:])
    is_list = "List[" in positional[last].kind and _accepts(positional[last].kind, items)
    return (*args[:last], items) if is_list and (len(items) > 1 or items[0] is HOLE) else args


def _accepts(kind: str, value: Any) -> bool:
    """Whether an argument of this type can be given this value."""
    if not kind:
        return True
    if value is None:
        return kind.startswith("Optional")
    inner = re.fullmatch(r"(?:Optional\[)?List\[(.*?)\]+", kind)
    if isinstance(value, tuple | list):
        return inner is not None and all(_accepts(inner[1], item) for item in value)
    if value is HOLE:
        return "Tensor" in kind and inner is None
    if isinstance(value, bool):
        words = ("bool", "number")
    elif isinstance(value, int):
        words = ("int", "number", "float")  # one number for a list of them too
    elif isinstance(value, float):
        words = ("float", "number")
    elif isinstance(value, str):
        words = ("str", "Device")
    elif isinstance(value, _CODES):
        words = ("int",) if inner is None else ()
    else:
        words = ("Device",) if isinstance(value, torch.device) else ("number",)
    return any(word in kind for word in words)


def _is_default(value: Any, default: Any) -> bool:
    if default is _REQUIRED or value is HOLE:
        return False
    if value is default or (value is None and default == []):
        return True
    return type(_one(value)) is type(_one(default)) and bool(_one(value) == _one(default))


def _one(value: Any) -> Any:
    """The one number that a list holds, however often: where a list is wanted, a number stands for it."""
    if isinstance(value, tuple | list) and value and all(item == value[0] for item in value):
        return value[0]
    return list(value) if isinstance(value, tuple) else value
