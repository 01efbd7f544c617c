"""Python values as JSON, by tags: arguments of calls, settings, facts. Data in, data out: no tag names a class.

============================  =============================================================================
null, true, 3, 0.5, "same"    None, bools, integers of 64 bits, finite floats, text
[1, 2]                        a tuple (of any subclass)
{"$a": 0}                     an array: the n-th of the call's ``ins``
{"$list": [...]}              a list
{"$dict": [[key, value]]}     a dict
{"$slice": [0, null, 2]}      a slice
{"$ellipsis": true}           ...
{"$float": "-inf"}            nan, inf, -inf
{"$int": "99999999999999999999"}  an integer beyond 64 bits
{"$complex": [1.0, 2.0]}      a complex number
{"$numpy": ["int64", 3]}      a numpy scalar
{"$dtype": "float32"}         an element type of the framework, by its common name
{"$device": "cpu"}            a device of the framework
{"$constant": ["layout", "strided"]}  another constant of the framework
{"$opaque": "mine.Generator"}  anything else: what it was, not its value
{"$text": 3}                  a long text of a table of facts: its number in the table of texts
============================  =============================================================================
"""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..dtypes import numpy_dtype
from ..errors import SaveError
from ..program import HOLE
from .text import clean, is_forbidden_key

MAX_NESTING: Final = 24
MAX_ITEMS: Final = 10_000
MAX_TEXT: Final = 100_000  # characters, of arguments and docstrings alike
MAX_DIGITS: Final = 1000
SHORT: Final = 80
_NON_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_SCALARS: Final = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "bfloat16", "complex64", "complex128",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Constant:
    """A framework's constant in a trace loaded without the framework."""

    kind: str
    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Opaque:
    """Stands for an argument that a file does not hold."""

    text: str

    def __repr__(self) -> str:
        return f"<{self.text}>"


ConstantName = Callable[[Any], tuple[str, str] | None]
MakeConstant = Callable[[str, str], Any]


# -- to JSON -----------------------------------------------------------------------------------------------------------


class Texts:
    """The long texts of facts, each once: hundreds of modules share one docstring. Home directories are taken out."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        home = os.path.expanduser("~")
        self._home = home if len(home) > 1 else None

    def add(self, text: str) -> Any:
        """The text itself, or its number where it is long."""
        text = clean(text)
        if self._home is not None and self._home in text:
            text = text.replace(self._home, "~")
        return text if len(text) <= SHORT else {"$text": self._numbers.setdefault(text, len(self._numbers))}

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


class Encoder:
    """Encodes the values of one call (or of one table of facts).

    Attributes:
        holes: arrays seen.
        opaque: what could not be stored, in words.
    """

    def __init__(self, constant_name: ConstantName, texts: Texts | None = None) -> None:
        self._constant_name = constant_name
        self._texts = texts
        self.holes = 0
        self.opaque: list[str] = []

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The value with tags."""
        cls = value.__class__
        if value is None or cls is bool:
            return value
        if cls is int:
            return _integer(value, self)
        if cls is str:
            return self._text(value)
        if cls is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if value is HOLE:
            self.holes += 1
            return {"$a": self.holes - 1}
        if depth > MAX_NESTING:
            raise SaveError(f"Arguments are nested more than {MAX_NESTING} deep, which a trace file does not hold.")
        return self._container(value, depth + 1)

    def encode_table(self, table: Any) -> dict[str, Any]:
        """A mapping from names to values."""
        return dict(self._entry(clean(str(name)), value) for name, value in table.items())

    def _entry(self, name: str, value: Any) -> tuple[str, Any]:
        if not is_forbidden_key(name):
            return name, self.encode(value)
        return f"_{name}", self._give_up(_describe(value))

    def _text(self, value: str) -> Any:
        if len(value) > MAX_TEXT:
            return self._give_up(f"text of {len(value)} characters")
        return clean(value) if self._texts is None else self._texts.add(value)

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Constant):
            return _constant(value.kind, value.name)
        if isinstance(value, Opaque):
            return self._give_up(value.text)
        if isinstance(value, tuple | list | dict) and len(value) > MAX_ITEMS and not _holds_array(value):
            return self._give_up(f"{type(value).__name__} of {len(value)} items")
        if isinstance(value, tuple):
            return [self.encode(item, depth) for item in value]
        if isinstance(value, list):
            return {"$list": [self.encode(item, depth) for item in value]}
        if isinstance(value, dict):
            return {"$dict": [[self.encode(key, depth), self.encode(item, depth)] for key, item in value.items()]}
        if isinstance(value, slice):
            return {"$slice": [self.encode(part, depth) for part in (value.start, value.stop, value.step)]}
        return self._leaf(value, depth)

    def _leaf(self, value: Any, depth: int) -> Any:
        if value is Ellipsis:
            return {"$ellipsis": True}
        named = self._constant_name(value)
        if named is not None:
            return _constant(*named)
        if isinstance(value, complex):
            return {"$complex": [self.encode(value.real, depth), self.encode(value.imag, depth)]}
        if isinstance(value, np.generic) and value.dtype.name in _SCALARS:
            return {"$numpy": [value.dtype.name, self.encode(value.item(), depth)]}
        if isinstance(value, int | float):  # of a subclass
            return self.encode(int(value) if isinstance(value, int) else float(value), depth)
        if isinstance(value, str):
            return self.encode(str.__str__(value), depth)
        return self._give_up(_describe(value))

    def _give_up(self, text: str) -> dict[str, str]:
        self.opaque.append(text)
        return {"$opaque": clean(text)}


def _integer(value: int, encoder: Encoder) -> Any:
    if -(2**63) <= value < 2**63:
        return value
    if value.bit_length() > 3 * MAX_DIGITS:
        return encoder._give_up(f"integer of {value.bit_length()} bits")
    return {"$int": str(value)}


def _constant(kind: str, name: str) -> dict[str, Any]:
    return {f"${kind}": name} if kind in ("dtype", "device") else {"$constant": [kind, name]}


def _holds_array(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_array, value.values()))
    return value is HOLE or (isinstance(value, tuple | list) and any(map(_holds_array, value)))


def _describe(value: Any) -> str:
    """What a value is. Its own ``__repr__`` is not asked: it may print contents, or do anything."""
    named = value if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")) else type(value)
    text = f"{getattr(named, '__module__', None) or 'builtins'}.{getattr(named, '__qualname__', type(value).__name__)}"
    return f"{text}.{value.name}" if isinstance(value, enum.Enum) else text


# -- from JSON ---------------------------------------------------------------------------------------------------------


class Decoder:
    """Decodes the values of one call (or of one table of facts). Raises ValueError for what has no meaning.

    Attributes:
        holes: arrays seen.
        opaque: whether something was not stored.
        missing: whether the framework that is installed lacks a constant.
    """

    def __init__(self, constant: MakeConstant = Constant, texts: Sequence[str] = ()) -> None:
        self._make_constant = constant
        self._texts = texts
        self.holes = 0
        self.opaque = False
        self.missing = False

    def decode(self, value: Any) -> Any:
        """The value without tags."""
        if isinstance(value, list):
            return tuple([self.decode(item) for item in value])
        if isinstance(value, dict):
            if len(value) != 1:
                raise ValueError(f"an object in a value has one key, its tag; this one has {sorted(value)}")
            ((tag, content),) = value.items()
            read = _TAGS.get(tag)
            if read is None:
                raise ValueError(f"no value is tagged {tag!r}")
            return read(self, content)
        return value

    def _array(self, number: Any) -> Any:
        if number.__class__ is not int or number != self.holes:
            raise ValueError(
                f"arrays are numbered from 0 as they come; {self.holes} is due and {number!r} stands there"
            )
        self.holes += 1
        return HOLE

    def _list(self, items: Any) -> Any:
        return [self.decode(item) for item in _items("$list", items)]

    def _dict(self, pairs: Any) -> Any:
        made: dict[Any, Any] = {}
        for pair in _items("$dict", pairs):
            key, value = (self.decode(part) for part in _items("an item of $dict", pair, 2))
            try:
                known = key in made
            except TypeError:
                raise ValueError("a key of $dict is no number, text or tuple of these") from None
            if known:
                raise ValueError(f"the key {key!r} stands twice in a $dict")
            made[key] = value
        return made

    def _slice(self, parts: Any) -> Any:
        return slice(*(self.decode(part) for part in _items("$slice", parts, 3)))

    def _ellipsis(self, content: Any) -> Any:
        if content is not True:
            raise ValueError("$ellipsis is true")
        return ...

    def _real(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in _NON_FINITE:
            raise ValueError(f"$float is one of {sorted(_NON_FINITE)}")
        return _NON_FINITE[name]

    def _integer(self, digits: Any) -> Any:
        if not isinstance(digits, str) or not re.fullmatch(rf"-?[1-9][0-9]{{0,{MAX_DIGITS}}}", digits):
            raise ValueError(f"$int is text of at most {MAX_DIGITS} digits")
        return int(digits)

    def _complex(self, parts: Any) -> Any:
        real, imaginary = (self.decode(part) for part in _items("$complex", parts, 2))
        if not isinstance(real, float | int) or not isinstance(imaginary, float | int):
            raise ValueError("$complex has two numbers")
        return complex(real, imaginary)

    def _numpy(self, parts: Any) -> Any:
        name, content = _items("$numpy", parts, 2)
        dtype = numpy_dtype(name) if isinstance(name, str) and name in _SCALARS else None
        number = self.decode(content)
        if dtype is None or not isinstance(number, bool | int | float | complex):
            raise ValueError(f"$numpy has one of {sorted(_SCALARS)} and a number")
        try:
            return dtype.type(number)
        except OverflowError:
            raise ValueError(f"{number} is outside the range of {name}") from None

    def _dtype(self, name: Any) -> Any:
        return self._constant("dtype", name)

    def _device(self, name: Any) -> Any:
        return self._constant("device", name)

    def _any_constant(self, parts: Any) -> Any:
        return self._constant(*_items("$constant", parts, 2))

    def _constant(self, kind: Any, name: Any) -> Any:
        if not isinstance(kind, str) or not isinstance(name, str):
            raise ValueError("constants have their kind and their name")
        try:
            return self._make_constant(kind, name)
        except ValueError:
            self.missing = True
            return Constant(kind, name)

    def _unknown(self, text: Any) -> Any:
        if not isinstance(text, str):
            raise ValueError("$opaque is text")
        self.opaque = True
        return Opaque(text)

    def _text(self, number: Any) -> Any:
        if number.__class__ is not int or not 0 <= number < len(self._texts):
            raise ValueError(f"there are {len(self._texts)} texts, and no number {number!r}")
        return self._texts[number]


def _items(what: str, value: Any, number: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (number is not None and len(value) != number):
        raise ValueError(f"{what} has {'a list' if number is None else f'{number} items'}")
    return value


_TAGS: Final[dict[str, Callable[[Decoder, Any], Any]]] = {
    "$a": Decoder._array,
    "$list": Decoder._list,
    "$dict": Decoder._dict,
    "$slice": Decoder._slice,
    "$ellipsis": Decoder._ellipsis,
    "$float": Decoder._real,
    "$int": Decoder._integer,
    "$complex": Decoder._complex,
    "$numpy": Decoder._numpy,
    "$dtype": Decoder._dtype,
    "$device": Decoder._device,
    "$constant": Decoder._any_constant,
    "$opaque": Decoder._unknown,
    "$text": Decoder._text,
}
