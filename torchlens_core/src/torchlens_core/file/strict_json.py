"""JSON, read strictly: what two readers could understand differently is refused.

Python's own reader takes the last of two equal keys, NaN, integers of any size, lone surrogates and any depth up to a
crash. A trace file may hold none of these.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

import numpy as np

from ..errors import LimitExceeded, SchemaError, Truncated

# A string, closed or not: an unclosed one runs to the end, so that no text takes more than one pass.
_STRINGS = re.compile(rb'("(?:[^"\\]++|\\.)*+(?:"|\\?\Z))', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ODD_INTEGER = re.compile(rb"-0(?![.\deE])|\d{19}")  # may be outside 64 bits, or may be a part of a float
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

# A field whose value is an object with this key false may be left out by a reader that does not know it.
MUST_UNDERSTAND = "must_understand"


class _Ignorable:
    """Stands for an object that its writer marked as ignorable, until the object around it drops the field."""

    def __repr__(self) -> str:
        return "an ignorable object"


_IGNORABLE = _Ignorable()


def parse(data: bytes, where: str, *, max_depth: int, max_text: int) -> Any:
    """The value that a JSON text says, ignorable fields left out.

    Raises:
        LimitExceeded: nesting or a string over its limit.
        Truncated: the text ends too early.
        SchemaError: anything else that is not strict JSON.
    """
    outside = _outside_strings(data, where, max_text)
    _check_depth(outside, where, max_depth)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(f"byte {error.start} is not UTF-8.", where) from None
    reader = _Reader(data, where)
    try:
        value = json.loads(
            text,
            object_pairs_hook=reader.object,
            parse_int=reader.integer if _ODD_INTEGER.search(outside) else None,
            parse_float=reader.real,
            parse_constant=reader.constant,
        )
    except json.JSONDecodeError as error:
        byte = len(text[: error.pos].encode())
        ends = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        kind = Truncated if ends else SchemaError
        raise kind(f"this is not JSON: {error.msg} (byte {byte} of {len(data)}).", where) from None
    if value is _IGNORABLE:
        raise SchemaError(f"the whole document is marked {MUST_UNDERSTAND}: false.", where)
    if _ESCAPED_SURROGATE.search(data):
        _check_surrogates(value, where)
    return value


def _outside_strings(data: bytes, where: str, max_text: int) -> bytes:
    """The text with a blank for each string, none of which may be longer than the limit."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise SchemaError("it begins with a byte order mark.", where)
    pieces = _STRINGS.split(data)
    longest = max(map(len, pieces[1::2]), default=2) - 2
    if longest > max_text:
        raise LimitExceeded(f"a string of {longest} bytes, and the limit is {max_text} (max_text).", where)
    return b" ".join(pieces[::2])


def _check_depth(outside: bytes, where: str, max_depth: int) -> None:
    """Hold the nesting against its limit, without building anything."""
    brackets = np.frombuffer(outside.translate(None, delete=_NOT_BRACKETS), np.uint8)
    depths = np.cumsum(np.where(brackets & 0x02, 1, -1), dtype=np.int64)  # [ and { have this bit, ] and } have not
    if len(depths) and depths.max() > max_depth:
        raise LimitExceeded(f"nested {depths.max()} deep, and the limit is {max_depth} (max_depth).", where)


def _check_surrogates(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise SchemaError(f"a string holds half a character: {error.object[error.start]!r}.", where) from None


class _Reader:
    """What Python's reader asks about objects and numbers."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where

    def object(self, pairs: list[tuple[str, Any]]) -> Any:
        made = dict(pairs)
        if len(made) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise SchemaError(f"the key {twice!r} stands twice in one object.", self._where)
        if made.get(MUST_UNDERSTAND) is False:
            return _IGNORABLE
        if _IGNORABLE in made.values():
            made = {key: value for key, value in made.items() if value is not _IGNORABLE}
        return made

    def integer(self, text: str) -> int:
        if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
            self._refuse(text, "is outside the range of 64-bit integers")
        if text == "-0":
            self._refuse(text, "is no integer")
        return value

    def real(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self._refuse(text, "is outside the range of 64-bit floats")
        return value

    def constant(self, text: str) -> NoReturn:
        self._refuse(text, "is not JSON")

    def _refuse(self, text: str, why: str) -> NoReturn:
        shown = text if len(text) <= 40 else text[:40] + "..."
        at = self._data.find(text.encode())
        raise SchemaError(f"the number {shown} {why} (first seen at byte {at}).", self._where)
