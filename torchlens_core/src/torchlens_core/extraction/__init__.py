"""Extraction: the activations of chosen layers, for one input or for a whole dataset, in memory or on disk."""

from .dataset import extract_dataset as extract_dataset
from .extract import extract as extract
from .loading import Extraction as Extraction
from .loading import StoredLayer as StoredLayer
from .loading import StoredList as StoredList
from .loading import load_extraction as load_extraction
