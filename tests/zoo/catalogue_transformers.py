"""Architectures of transformers, with tiny configurations and random weights."""

from tests.zoo import (
    catalogue_transformers_images,
    catalogue_transformers_scenes,
    catalogue_transformers_signals,
    catalogue_transformers_text,
)
from tests.zoo.catalogue_hugging import entries

PARTS = (
    catalogue_transformers_text,
    catalogue_transformers_images,
    catalogue_transformers_scenes,
    catalogue_transformers_signals,
)
ENTRIES = [entry for part in PARTS for entry in entries(part.KINDS, part.RECURRENT)]
