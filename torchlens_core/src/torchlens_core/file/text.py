"""Text in trace files: what can be written at all, and what is safe as a name."""

from __future__ import annotations

import re
from typing import Final

# Control characters, line and paragraph separators, and what changes the direction of the text around it.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_RESERVED: Final = frozenset(("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$")) | {
    f"{device}{number}" for device in ("COM", "LPT") for number in "123456789¹²³"
}
_FORBIDDEN_KEYS: Final = frozenset({"__proto__", "__class__", "__dict__", "constructor", "prototype"})


def is_forbidden_key(name: str) -> bool:
    """Whether a key means something to a programming language, or is a tag."""
    return name in _FORBIDDEN_KEYS or name.startswith("$")


def clean(text: str) -> str:
    """The text as UTF-8 can hold it: half characters, which file names can have, are written as escapes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def plain(text: str) -> str:
    """The text with a replacement character for each that a name must not have."""
    return _UNSAFE.sub("\ufffd", clean(text))


def name_problem(name: str) -> str | None:
    """Why a text is no name (of a model, an op, a function); None where it is one."""
    found = _UNSAFE.search(name)
    return f"it has the character U+{ord(found[0]):04X}" if found else None


def path_problem(path: str) -> str | None:
    """Why a text is no relative path that is safe on every system; None where it is one."""
    if name_problem(path) is not None:
        return name_problem(path)
    if "\\" in path:
        return "it has a backslash"
    if path.startswith("/"):
        return "it is absolute"
    if re.match("[A-Za-z]:", path):
        return "it has a drive letter"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"it has the part {part!r}"
        if part.split(".")[0].rstrip(" ").upper() in _RESERVED:
            return f"{part!r} is a device on Windows"
    return None
