"""``tl.load_extraction``: the activations of a dataset, read from their folder as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..dtypes import numpy_dtype
from ..errors import LabelError, SchemaError, TraceFileError, Truncated, nearest
from ..file.limits import Limits
from ..file.storage import Array
from .folder import find, shard_name, shard_numbers
from .manifest import read_manifest
from .schema import LayerRecord, Manifest, StimulusId
from .shards import Shard


class Extraction(Mapping[str, Any]):
    """Activations of a dataset, by layer: ``extraction['relu_1_2']`` has one row for each stimulus, in their order.

    In memory the values are arrays of the framework (lists of them where ``ragged='list'``). On disk they are
    :class:`StoredLayer` objects, which read what is asked of them.

    Attributes:
        stimulus_ids: of each row.
        places: name of a layer -> label of the Op, or of the module call, in the first run.
        folder: where it is on disk; None in memory.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        stimulus_ids: Sequence[StimulusId],
        places: Mapping[str, str],
        files: ShardFiles | None = None,
    ) -> None:
        self._values = dict(values)
        self._files = files
        self._ids = stimulus_ids
        self.places = dict(places)
        self.folder = None if files is None else files.folder

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise LabelError(f"No layer is called {key!r}.{nearest(str(key), self._values)} There are {list(self)}.")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def num_stimuli(self) -> int:
        """How many stimuli there are."""
        value = next(iter(self._values.values()))
        return len(value) if isinstance(value, Sequence) else int(value.shape[0])

    @property
    def is_complete(self) -> bool:
        """Whether all stimuli are there; False for a folder whose extraction was interrupted."""
        return self._files is None or self._files.manifest.num_stimuli is not None

    @property
    def stimulus_ids(self) -> Sequence[StimulusId]:
        """Of each row; numbers from 0 where none were given."""
        return self._ids if self._files is None else self._files.stimulus_ids

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Consecutive rows of all layers, ``size`` stimuli at a time, the last time what is left."""
        for begin in range(0, self.num_stimuli, size):
            yield {key: value[begin : begin + size] for key, value in self.items()}

    def verify(self) -> list[TraceFileError]:
        """All that is wrong with the files; empty where nothing is, and in memory. Reads every byte."""
        return [] if self._files is None else list(self._files.problems())

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        state = "" if self.is_complete else ", not complete"
        lines = [f"<Extraction of {self.num_stimuli} stimuli {where}{state}>"]
        for key, value in self.items():
            is_list = isinstance(value, Sequence)
            shape = f"{len(value)} arrays" if is_list else list(value.shape)
            lines.append(f"  {key}: {shape} {value[0].dtype if is_list and len(value) else value.dtype}")
        return "\n".join(lines)


_MAX_OPEN: Final = 256  # files: a system maps so many at a time, and not more
LIMITS: Final = Limits(max_shards=500_000)


class ShardFiles:
    """The files of one extraction, opened when they are first needed."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._open: dict[int, Shard] = {}
        self.count = len(manifest.shards) if manifest.shards is not None else _consecutive(folder)
        self._ids: Sequence[StimulusId] | None = None
        self._position_of: dict[StimulusId, int] | None = None

    @property
    def num_stimuli(self) -> int:
        """How many stimuli the files hold."""
        if self.manifest.num_stimuli is not None:
            return self.manifest.num_stimuli
        if not self.count:
            return 0
        return (self.count - 1) * self.manifest.shard_size + self[self.count - 1].stimuli

    def __getitem__(self, number: int) -> Shard:
        shard = self._open.get(number)
        if shard is None:
            name = shard_name(number)
            if not os.path.lexists(self.folder / name):
                raise Truncated(f"{name} is missing.", str(self.folder))
            shard = Shard(self.folder, number, self.manifest)
            if self.manifest.shards is not None and shard.stimuli != self.manifest.shards[number].stimuli:
                raise SchemaError(
                    f"it holds {shard.stimuli} stimuli, and by the manifest {self.manifest.shards[number].stimuli}.",
                    shard.where,
                )
            if len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[number] = shard
        return shard

    def of_stimulus(self, number: int) -> tuple[Shard, int]:
        """The file that a stimulus is in, and its position there."""
        return self[number // self.manifest.shard_size], number % self.manifest.shard_size

    @property
    def stimulus_ids(self) -> Sequence[StimulusId]:
        """Of all stimuli."""
        if self._ids is None:
            if self.manifest.has_ids:
                self._ids = [each for number in range(self.count) for each in self[number].stimulus_ids or ()]
            else:
                self._ids = range(self.num_stimuli)
        return self._ids

    def position(self, stimulus_id: StimulusId) -> int:
        """The row of a stimulus."""
        if self._position_of is None:
            self._position_of = {each: position for position, each in enumerate(self.stimulus_ids)}
        found = self._position_of.get(stimulus_id)
        if found is None:
            close = nearest(str(stimulus_id), map(str, self.stimulus_ids[:1000]))
            raise LabelError(f"No stimulus is called {stimulus_id!r}.{close}")
        return found

    def problems(self) -> Iterator[TraceFileError]:
        """All that is wrong with the files."""
        for number in range(self.count):
            try:
                shard = self[number]
            except TraceFileError as error:
                yield error
                continue
            if self.manifest.shards is not None:
                record = self.manifest.shards[number]
                if (record.bytes, record.header_sha256) != (shard.file_bytes, shard.header_sha256()):
                    yield SchemaError("its header is not the one that was written.", shard.where)
            yield from shard.problems()
        extra = [number for number in shard_numbers(self.folder) if number >= self.count]
        if extra:
            yield SchemaError(f"{shard_name(extra[0])} follows a gap, or the end.", str(self.folder))


def _consecutive(folder: Path) -> int:
    """How many files there are from the first one on."""
    numbers = shard_numbers(folder)
    return next((position for position, number in enumerate(numbers) if number != position), len(numbers))


class StoredLayer:
    """The activations of one layer on disk. Like an array, stimuli along axis 0: what is indexed is read, as numpy.

    ``layer[3]`` and ``layer['cat.jpg']`` are one stimulus, ``layer[10:20]``, ``layer[[3, 5]]``, ``layer[mask]`` and
    ``layer[['cat.jpg', 'dog.jpg']]`` several, ``layer[10:20, :, 0]`` a part of each, ``layer.numpy()`` all of them.
    """

    def __init__(self, files: ShardFiles, layer: LayerRecord) -> None:
        self._files = files
        self._layer = layer

    def __len__(self) -> int:
        return self._files.num_stimuli

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of stimuli, and the shape of each."""
        return (len(self), *(self._layer.shape or ()))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, of numpy or ml_dtypes."""
        dtype = numpy_dtype(self._layer.dtype)
        assert dtype is not None
        return dtype

    @property
    def nbytes(self) -> int:
        """Size of all of it, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def numpy(self) -> Array:
        """All of it."""
        made: Array = self[:]
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __iter__(self) -> Iterator[Array]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        key, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if key is Ellipsis:
            return self.numpy()[(key, *rest)]
        if isinstance(key, slice):
            rows = self._slice(*key.indices(len(self)))
        else:
            numbers = np.asarray(_numbers(self._files, key))
            rows = self._row(int(numbers)) if not numbers.ndim else self._rows(numbers)
            if not numbers.ndim:
                return rows[rest] if rest else rows
        return rows[(slice(None), *rest)] if rest else rows

    def _row(self, number: int) -> Array:
        shard, position = self._files.of_stimulus(number)
        return np.array(shard.row(self._layer.key, position))

    def _slice(self, start: int, stop: int, step: int) -> Array:
        if step != 1:
            return self._rows(np.arange(start, stop, step))
        size = self._files.manifest.shard_size
        made = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        at = start
        while at < stop:
            end = min(stop, (at // size + 1) * size)
            rows = self._files[at // size].rows(self._layer.key)
            made[at - start : end - start] = rows[at % size : at % size + end - at]
            at = end
        return made

    def _rows(self, numbers: Array) -> Array:
        size = self._files.manifest.shard_size
        made = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for number in np.unique(numbers // size):
            here = numbers // size == number
            made[here] = self._files[int(number)].rows(self._layer.key)[numbers[here] % size]
        return made

    def __repr__(self) -> str:
        return f"<{self._layer.key}: {list(self.shape)} {self._layer.dtype}, on disk>"


class StoredList(Sequence[Any]):
    """The activations of one layer on disk, each stimulus with a shape of its own (``ragged='list'``)."""

    def __init__(self, files: ShardFiles, layer: LayerRecord) -> None:
        self._files = files
        self._layer = layer

    def __len__(self) -> int:
        return self._files.num_stimuli

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, of numpy or ml_dtypes."""
        dtype = numpy_dtype(self._layer.dtype)
        assert dtype is not None
        return dtype

    def shape_of(self, number: int) -> tuple[int, ...]:
        """The shape of what one stimulus gave; nothing else is read."""
        shard, position = self._files.of_stimulus(int(_numbers(self._files, number)))
        return shard.shape(self._layer.key, position)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[number] for number in range(*key.indices(len(self)))]
        numbers = _numbers(self._files, key)
        if isinstance(numbers, np.ndarray):
            return [self[int(number)] for number in numbers]
        shard, position = self._files.of_stimulus(numbers)
        return np.array(shard.row(self._layer.key, position))

    def __repr__(self) -> str:
        return f"<{self._layer.key}: {len(self)} arrays {self._layer.dtype}, on disk>"


def _numbers(files: ShardFiles, key: Any) -> Any:
    """Rows by number from 0: one, or an array of them. Texts are ids, negative numbers count from the end."""
    count = files.num_stimuli
    if isinstance(key, str):
        return files.position(key)
    if isinstance(key, list) and key and all(isinstance(each, str) for each in key):
        return np.array([files.position(each) for each in key])
    numbers = np.asarray(key)
    if numbers.dtype == bool:
        if numbers.shape != (count,):
            raise IndexError(f"a mask has the shape ({count},) here; got {numbers.shape}")
        return np.flatnonzero(numbers)
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise IndexError(f"stimuli are chosen by number, id, slice, list or mask; got {key!r}")
    numbers = numbers.astype(np.int64)
    wrong = numbers[(numbers < -count) | (numbers >= count)]
    if wrong.size:
        raise IndexError(f"there are {count} stimuli; got {int(wrong.reshape(-1)[0])}")
    numbers = np.where(numbers < 0, numbers + count, numbers)
    if numbers.ndim > 1:
        raise IndexError("stimuli are chosen by a number or a list of numbers")
    return int(numbers) if not numbers.ndim else numbers


def load_extraction(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Extraction:
    """Open the folder of an extraction. Nothing but its manifest is read; activations are when they are indexed.

    Args:
        path: the ``output_dir=`` of :func:`extract_dataset`.
        limits: how large what is read may be.

    Returns:
        The extraction, also where it was interrupted (``is_complete`` is False then). Values are numpy arrays; no
        framework is needed. ``verify()`` holds all bytes against their hashes.

    Raises:
        TraceFileError: there is no extraction, or it is damaged; what is inside a file is found out when it is read.
    """
    folder = find(path)
    return open_extraction(ShardFiles(folder, read_manifest(folder, limits or LIMITS)))


def open_extraction(files: ShardFiles) -> Extraction:
    """The extraction in these files."""
    values = {
        layer.key: StoredLayer(files, layer) if layer.shape is not None else StoredList(files, layer)
        for layer in files.manifest.layers
    }
    return Extraction(values, (), {layer.key: layer.place for layer in files.manifest.layers}, files)
