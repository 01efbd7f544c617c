"""The activations of a batch as rows, one a stimulus: checked, and brought to numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..backend import Arrays
from ..errors import ExtractionError
from ..file.storage import STORAGE, Array
from .readout import Place
from .schema import LayerRecord
from .stimuli import Batch

Ragged = Literal["error", "list"]


class RowMaker:
    """Makes rows of activations, and remembers what rows look like from the first batch on.

    Attributes:
        layers: what each layer gives for one stimulus; empty before the first batch.
    """

    def __init__(self, arrays: Arrays, ragged: Ragged, layers: Sequence[LayerRecord] = ()) -> None:
        self._arrays = arrays
        self._ragged = ragged
        self.layers = list(layers)

    def rows(self, values: Mapping[str, Any], places: Mapping[str, Place], batch: Batch) -> dict[str, Array]:
        """The rows of one batch, by layer; they may share the memory of ``values``.

        Raises:
            ExtractionError: a layer has no row for each stimulus, or rows of another shape or type than before.
        """
        made = {key: self._arrays.to_numpy(value) for key, value in values.items()}
        for key, array in made.items():
            if not array.ndim or len(array) != batch.size:
                raise ExtractionError(
                    f"{key!r} has the shape {tuple(array.shape)} for {batch.size} stimuli: its axis 0 is not that of "
                    "the stimuli. pool= can bring it there: it gets each activation, and returns an array with one row "
                    "for each stimulus."
                )
        found = [self._record(key, array, places[key]) for key, array in made.items()]
        if not self.layers:
            self.layers = found
        for before, now in zip(self.layers, found, strict=True):
            _check_same(before, now, batch)
        return made

    def _record(self, key: str, array: Array, place: Place) -> LayerRecord:
        dtype = array.dtype.name
        if dtype not in STORAGE:
            raise ExtractionError(f"{key!r} has elements of the type {dtype}, which cannot be stored. Give a dtype=.")
        shape = None if self._ragged == "list" else tuple(array.shape[1:])
        return LayerRecord(key=key, place=place.label, what=place.what, dtype=dtype, shape=shape)


def _check_same(before: LayerRecord, now: LayerRecord, batch: Batch) -> None:
    if (before.key, before.dtype) != (now.key, now.dtype):
        raise ExtractionError(
            f"At {batch} {now.key!r} gave {now.dtype}, and before {before.key!r} gave {before.dtype}. dtype= can bring "
            "all to one type."
        )
    if before.shape != now.shape:
        raise ExtractionError(
            f"At {batch} {now.key!r} gave rows of the shape {now.shape}, and before {before.shape}. pool= can bring "
            "them to one shape (a mean over positions, say); ragged='list' keeps one array for each stimulus, with "
            "batch_size=1 each without padding."
        )
