"""What is known of a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from torchlens_core.backend import Loader

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def loader(stimuli: Any) -> Loader | None:
    """None for what is no ``DataLoader``."""
    if not isinstance(stimuli, DataLoader):
        return None
    sampler = getattr(stimuli.batch_sampler, "sampler", stimuli.sampler)
    return Loader(_size(stimuli), stimuli.batch_size, isinstance(sampler, _SHUFFLING))


def _size(stimuli: DataLoader[Any]) -> int | None:
    """Known where one index stands for one stimulus: not where the dataset, or another batch sampler, makes batches."""
    if stimuli.batch_size is None or not isinstance(stimuli.sampler, Sized):
        return None
    size = len(stimuli.sampler)
    return size - size % stimuli.batch_size if stimuli.drop_last else size
