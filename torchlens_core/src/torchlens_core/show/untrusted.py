"""Text of unknown origin, made harmless to look at. Names come from models and from files that strangers wrote."""

from __future__ import annotations

import re

MAX_LENGTH = 120  # characters of one line

# Control characters, zero-width and bidirectional marks, line separators, surrogates, and what XML cannot hold.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


def visible(text: str, limit: int = MAX_LENGTH) -> str:
    r"""One line of at most ``limit`` characters: the invisible written out, the middle of what is too long left out.

    >>> visible("a\nb\u202e"), visible("abcdefghij", limit=7)
    ('a\\nb\\u202e', 'abc…hij')
    """
    text = _INVISIBLE.sub(_written_out, shortened(text, limit))
    return shortened(text, limit)


def shortened(text: str, limit: int) -> str:
    """The text with its middle left out where it has more than ``limit`` characters."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[-half:] if half else ''}"


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
