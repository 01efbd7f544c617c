"""The catalogue: every architecture on which tracing is proven."""

import re
from collections.abc import Iterable

from tests.zoo import catalogue_plain, catalogue_timm, catalogue_torchvision, catalogue_transformers
from tests.zoo.catalogue_entry import Entry

ENTRIES: list[Entry] = [
    *catalogue_plain.ENTRIES,
    *catalogue_torchvision.ENTRIES,
    *catalogue_timm.ENTRIES,
    *catalogue_transformers.ENTRIES,
]


def families(entries: Iterable[Entry]) -> set[str]:
    """Return the families of ``entries``, versions and variants of one counted once (qwen2, qwen3, qwen2 moe: qwen)."""
    return {re.match(r"[^\W\d]*", entry.family)[0] for entry in entries}


def select(words: list[str]) -> list[Entry]:
    """Return the entries whose name holds one of ``words``; all of them where there are no words."""
    return [entry for entry in ENTRIES if not words or any(word in entry.name for word in words)]
