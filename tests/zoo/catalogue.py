"""The catalogue: every architecture on which tracing is proven."""

from tests.zoo import catalogue_plain, catalogue_timm, catalogue_torchvision, catalogue_transformers
from tests.zoo.catalogue_entry import Entry

ENTRIES: list[Entry] = [
    *catalogue_plain.ENTRIES,
    *catalogue_torchvision.ENTRIES,
    *catalogue_timm.ENTRIES,
    *catalogue_transformers.ENTRIES,
]


def select(words: list[str]) -> list[Entry]:
    """Return the entries whose name holds one of ``words``; all of them where there are no words."""
    return [entry for entry in ENTRIES if not words or any(word in entry.name for word in words)]
