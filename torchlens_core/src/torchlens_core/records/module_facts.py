"""What discovery can tell of a module beyond its place: its class, its hooks, its attributes.

Discovery runs before every trace, and is asked about every module. So what belongs to the class (signatures,
docstrings, places in the source) is looked up when somebody asks, or when the trace is written to a file.
"""

from __future__ import annotations

import ast
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..control_flow.source_tree import tree_of

_PLAIN = frozenset({int, float, bool, str, type(None)})
_MAX_ITEMS = 16  # of a tuple or list
_MAX_TEXT = 200  # characters of a string
_NAMES = ("source_file", "source_lines", "docstring", "init_signature", "init_docstring", "forward_signature",
          "forward_docstring", "methods", "attributes", "hooks")  # fmt: skip


class ModuleFacts(Mapping[str, Any]):
    """Facts of one module. Holds its class, never the module.

    Args:
        cls: class of the module.
        base: the framework's own base class of modules, whose methods are not listed.
        forward: name of the method that runs when the module is called.
        attributes: of the module itself, see :func:`plain`.
        hooks: how many hooks the user registered, by kind.
    """

    __slots__ = ("_attributes", "_base", "_cls", "_forward", "_hooks")

    def __init__(
        self, cls: type, base: type, forward: str, attributes: Mapping[str, Any], hooks: Mapping[str, int]
    ) -> None:
        self._cls = cls
        self._base = base
        self._forward = forward
        self._attributes = attributes
        self._hooks = hooks

    def __getitem__(self, name: str) -> Any:
        if name == "attributes":
            return self._attributes
        if name == "hooks":
            return self._hooks
        return class_facts(self._cls, self._base, self._forward)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


def plain(value: Any) -> Any:
    """An attribute as it is kept: numbers, strings, short tuples of them; of all else the type, ``<Tokenizer>``."""
    kind = type(value)
    if kind in _PLAIN:
        return value if kind is not str or len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}..."
    if kind in (tuple, list) and len(value) <= _MAX_ITEMS and _PLAIN.issuperset(map(type, value)):
        return kind(map(plain, value))
    return f"<{kind.__name__}>"


_CLASSES: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def class_facts(cls: type, base: type, forward: str) -> Mapping[str, Any]:
    """What is true of all modules of a class. None, or nothing, where there is no source or no signature."""
    known = _CLASSES.get(cls)
    if known is None:
        run = getattr(cls, forward, None)
        file = _source_file(cls)
        known = _CLASSES[cls] = {
            "source_file": file,
            "source_lines": _source_lines(cls, file, {"init": "__init__", "forward": forward}),
            "docstring": _docstring(cls.__dict__.get("__doc__")),
            "init_signature": _signature(cls.__init__, skip_first=True),  # type: ignore[misc]
            "init_docstring": _docstring(cls.__init__.__doc__),  # type: ignore[misc]
            "forward_signature": _signature(run, skip_first=True),
            "forward_docstring": _docstring(getattr(run, "__doc__", None)),
            "methods": _methods(cls, base, forward),
        }
    return known


def function_facts(function: Callable[..., Any]) -> dict[str, Any]:
    """The same of a model that is a function."""
    code = getattr(function, "__code__", None)
    return {
        "source_file": _source_file(function),
        "source_lines": {"forward": code.co_firstlineno} if code is not None else {},
        "forward_signature": _signature(function, skip_first=False),
        "forward_docstring": _docstring(getattr(function, "__doc__", None)),
    }


def _source_file(thing: Any) -> str | None:
    try:
        return inspect.getsourcefile(thing)
    except (TypeError, OSError):  # a builtin, or something typed in
        return None


def _source_lines(cls: type, file: str | None, methods: Mapping[str, str]) -> dict[str, int]:
    lines: dict[str, int] = {}
    tree = tree_of(file) if file is not None else None
    line = _line_of_class(tree, cls.__qualname__) if tree is not None else None
    if line is not None:
        lines["class"] = line
    for key, name in methods.items():
        code = getattr(cls.__dict__.get(name), "__code__", None)
        if code is not None:
            lines[key] = code.co_firstlineno
    return lines


def _line_of_class(tree: ast.AST, qualname: str) -> int | None:
    """Where a class is defined, found by the names of the classes and functions around it."""
    node = tree
    for name in qualname.replace(".<locals>", "").split("."):
        found = (child for child in ast.walk(node) if child is not node and getattr(child, "name", None) == name)
        match = next((child for child in found if isinstance(child, ast.ClassDef | ast.FunctionDef)), None)
        if match is None:
            return None
        node = match
    return node.lineno if isinstance(node, ast.ClassDef) else None


def _signature(function: Any, *, skip_first: bool) -> str | None:
    """``(x: Tensor, scale: float = 1.0) -> Tensor``; None where there is none, or a default's ``repr`` fails."""
    try:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[skip_first:]
        return str(signature.replace(parameters=parameters))
    except Exception:  # defaults are the user's objects
        return None


def _docstring(text: Any) -> str | None:
    return inspect.cleandoc(text) if isinstance(text, str) else None


def _methods(cls: type, base: type, forward: str) -> list[str]:
    names: dict[str, None] = {}
    for owner in cls.__mro__:
        if owner is base:
            break
        for name, value in vars(owner).items():
            if callable(value) and not isinstance(value, type) and not name.startswith("__") and name != forward:
                names[name] = None
    return list(names)
