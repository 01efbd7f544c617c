"""Stimuli of all kinds, as batches that a model can be called with."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Backend
from ..errors import BackendError, ExtractionError, OptionError
from ..plugins import choose_backend, get_backend

Transform = Callable[[Any], Any]
Collate = Callable[[Any], Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some stimuli, as arguments of the model.

    Attributes:
        first: number of the first of them.
        size: how many they are.
        args, kwargs: what the model is called with.
    """

    first: int
    size: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def stop(self) -> int:
        """Number of the stimulus after the last."""
        return self.first + self.size

    def __str__(self) -> str:
        return f"stimuli {self.first} to {self.stop - 1}" if self.size > 1 else f"stimulus {self.first}"


class Stimuli:
    """Stimuli, in an order that does not change.

    Args:
        given: what the user gave; see :func:`extract_dataset`.
        backend: of the model.
        batch_size: how many go into one call; None where ``given`` gives whole batches.
        transform: applied to each stimulus.
        collate: makes the model's arguments of a list of stimuli, or of a whole batch that a loader gave.

    Attributes:
        size: how many there are; None where nobody knows.
        batch_size: how many go into one call; None where batches are given and nobody knows.
    """

    def __init__(
        self,
        given: Any,
        backend: Backend,
        batch_size: int | None,
        transform: Transform | None = None,
        collate: Collate | None = None,
    ) -> None:
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise OptionError(f"batch_size= is a number from 1, or None for stimuli in batches; got {batch_size!r}.")
        if isinstance(given, str | bytes | os.PathLike):
            raise OptionError(
                f"stimuli= takes stimuli, and {given!r} is a text or a path. Read what it leads to, or pass a list."
            )
        loader = backend.loader(given)
        if loader is not None and loader.shuffles:
            raise OptionError(
                "The loader shuffles its stimuli, so that no row of the result could be told from another. "
                "Make one that does not (shuffle=False)."
            )
        self._given = given
        self._backend = backend
        self._transform = transform
        self._collate = collate
        self._per_call = None if loader is not None else batch_size  # None: batches are given
        self.batch_size = batch_size if loader is None else loader.batch_size
        if self._per_call is None and transform is not None:
            raise OptionError(
                "transform= is applied to single stimuli, and these come in batches: transform them where the batches "
                "are made, or use collate=, which gets each batch."
            )
        self.size = loader.size if loader is not None else self._count() if self._per_call is not None else None
        if self.size == 0:
            raise ExtractionError("There are no stimuli.")

    def _count(self) -> int | None:
        given = self._given
        if self._is_array(given):
            return self._length(given)
        if isinstance(given, Mapping):
            return self._length_of_parts(given)
        return len(given) if isinstance(given, Sized) else None

    @property
    def _has_numbers(self) -> bool:
        """Whether each stimulus can be had by its number."""
        given = self._given
        if self.size is None or not hasattr(given, "__getitem__"):
            return False
        if hasattr(given, "__iter__") and not isinstance(given, Sequence | Mapping) and not self._is_array(given):
            try:  # base classes of datasets have both, and one of the two for show
                given[0]
            except NotImplementedError:
                return False
        return True

    def _length_of_parts(self, given: Mapping[str, Any]) -> int:
        lengths = {key: self._length(value) if self._is_array(value) else None for key, value in given.items()}
        if None in lengths.values() or len(set(lengths.values())) != 1:
            raise ExtractionError(
                "A dict of stimuli is a dict of arrays of one length, the stimuli along axis 0; the lengths are "
                f"{lengths}."
            )
        return next(length for length in lengths.values() if length is not None)

    def _is_array(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) or self._backend.arrays.is_array(value)

    def _length(self, array: Any) -> int:
        shape = array.shape if isinstance(array, np.ndarray) else self._backend.arrays.meta(array).shape
        if not len(shape):
            raise ExtractionError("An array of stimuli has them along axis 0; this one has no axis.")
        return int(shape[0])

    # -- batches ---------------------------------------------------------------------------------------------------

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches from the one that stimulus ``start`` is in. Which stimuli share a batch never depends on it."""
        per_call = self._per_call
        if per_call is None:
            yield from self._loaded(start)
        elif not self._has_numbers or self.size is None:
            yield from self._streamed(start, per_call)
        else:
            for begin in range(start - start % per_call, self.size, per_call):
                end = min(begin + per_call, self.size)
                yield Batch(begin, end - begin, *self._arguments(begin, end))

    def _arguments(self, begin: int, end: int) -> Arguments:
        """Of stimuli that can be had by number."""
        given = self._given
        if isinstance(given, Mapping) and self._transform is None and self._collate is None:
            return (), {key: self._array(value[begin:end]) for key, value in given.items()}
        if self._is_array(given) and self._transform is None and self._collate is None:
            return (self._array(given[begin:end]),), {}
        if isinstance(given, Mapping):
            return self._collated([{key: value[i] for key, value in given.items()} for i in range(begin, end)], begin)
        return self._collated([given[number] for number in range(begin, end)], begin)

    def _streamed(self, start: int, batch_size: int) -> Iterator[Batch]:
        stream = iter(self._given)
        first = start - start % batch_size
        for _ in itertools.islice(stream, first):
            pass
        while items := list(itertools.islice(stream, batch_size)):
            yield Batch(first, len(items), *self._collated(items, first))
            first += len(items)

    def _loaded(self, start: int) -> Iterator[Batch]:
        """Batches as they come; those before ``start`` are asked for, and let go."""
        first = 0
        for given in self._given:
            args, kwargs = self._ready(given) if self._collate is None else _as_arguments(self._collate(given))
            arrays = [array for _, array in self._backend.leaves([list(args), kwargs])]
            if not arrays:
                raise ExtractionError(
                    f"The batch of stimulus {first} is {_kind(given)} and holds no array of {self._backend.name}: "
                    "its stimuli cannot be counted. collate= can make arrays of it."
                )
            batch = Batch(first, self._length(arrays[0]), args, kwargs)
            if batch.stop > start:
                yield batch
            first = batch.stop

    def _ready(self, batch: Any) -> Arguments:
        """A whole batch, as a loader gave it."""
        if isinstance(batch, tuple | list) and batch:
            batch = batch[0]  # of (inputs, targets)
        if isinstance(batch, Mapping):
            return (), {key: self._array(value) for key, value in batch.items()}
        return (self._array(batch),), {}

    def _array(self, value: Any) -> Any:
        return self._backend.arrays.from_numpy(value) if isinstance(value, np.ndarray) else value

    # -- single stimuli --------------------------------------------------------------------------------------------

    def _collated(self, items: list[Any], first: int) -> Arguments:
        if self._transform is not None or self._collate is None:
            items = [item[0] if isinstance(item, tuple) and item else item for item in items]  # of (input, target)
        if self._transform is not None:
            items = [self._transform(item) for item in items]
        if self._collate is not None:
            return _as_arguments(self._collate(items))
        if isinstance(items[0], Mapping):
            keys = list(items[0])
            for number, item in enumerate(items):
                if list(item) != keys:
                    raise ExtractionError(
                        f"Stimulus {first + number} has the keys {list(item)}, and stimulus {first} {keys}."
                    )
            return (), {key: self._stacked([item[key] for item in items], first, f" {key!r}") for key in keys}
        if isinstance(items[0], str):
            return (items,), {}
        return (self._stacked(items, first, ""),), {}

    def _stacked(self, items: Sequence[Any], first: int, name: str) -> Any:
        """Arrays or numbers, each one a row of the batch."""
        arrays = self._backend.arrays
        rows = []
        for number, item in enumerate(items):
            if not self._is_array(item) and not isinstance(item, int | float | complex | np.generic):
                raise ExtractionError(
                    f"Stimulus {first + number}{name} is {_kind(item)}, and a batch is made of arrays and numbers. "
                    "transform= can make an array of each stimulus, collate= the model's arguments of a list of them."
                )
            rows.append(arrays.to_numpy(item) if arrays.is_array(item) else np.asarray(item))
            if rows[-1].shape != rows[0].shape:
                raise ExtractionError(
                    f"Stimulus {first + number}{name} has the shape {rows[-1].shape}, and stimulus {first} "
                    f"{rows[0].shape}: they do not fit into one batch. Bring them to one shape by transform= or "
                    "collate=, or take batch_size=1."
                )
        return arrays.from_numpy(np.stack(rows))


def _as_arguments(made: Any) -> Arguments:
    """What ``collate=`` returned, as the model's arguments."""
    if isinstance(made, Mapping):
        return (), dict(made)
    return (tuple(made), {}) if isinstance(made, tuple | list) else ((made,), {})


def _kind(value: Any) -> str:
    return f"of the type {type(value).__module__}.{type(value).__qualname__}"


def backend_of(model: Any, stimuli: Any, name: str | None) -> Backend:
    """The backend of this name, or the one whose model or stimuli these are."""
    if not callable(model):
        raise BackendError(f"The model is to be called and {type(model).__name__} is not callable.")
    if name is not None:
        return get_backend(name)
    has_numbers = isinstance(stimuli, Sized) and hasattr(stimuli, "__getitem__") and not isinstance(stimuli, Mapping)
    try:
        return choose_backend(model, [stimuli])
    except BackendError:
        if not has_numbers:
            raise
    return choose_backend(model, [stimuli[0]])
